"""What a person changes in a lead: its fields and who looks after it. Each is an Action with before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from agents.models import Department, Member
from leads.cleaning import LIMITS, clean_line, clean_text
from leads.filters import find_owners
from leads.models import Lead
from runs import log
from runs.access import Access
from runs.addresses import normalise_email
from runs.allowed import ERASED, YES, Allowed, no
from runs.commits import lock_items
from runs.control import act
from runs.database import now as database_now
from runs.models import BulkAction, OutboxMessage
from runs.send_channels import CHANNELS

FIELDS = ("name", "email", "company", "title", "phone", "website", "country", "message")
"""What may be edited; where a lead came from stays as it was."""
_LONG = ("message",)
_WAITING = (OutboxMessage.Status.PENDING, OutboxMessage.Status.SENDING)


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit came to: the fields it changed, and the outputs that were made from what they held before."""

    answer: Allowed
    fields: tuple[str, ...] = ()
    made_from: tuple[str, ...] = ()
    refused: str = ""
    """The field whose new value was refused."""
    theirs: Mapping[str, str] = field(default_factory=dict)
    """What somebody else has written since the form was opened, by field: then nothing was changed."""
    seen: str = ""
    """Of a lead that somebody else has changed: the state of its fields with ``theirs``."""


def can_edit_lead(lead: Lead, access: Access | None = None) -> Allowed:
    """Change the lead's fields or its owner. ``item`` of the lead is read."""
    if lead.item.is_erased:
        return no(ERASED)
    if access is None or access.can(lead.department_id, Member.Role.OPERATOR):
        return YES
    return no("This takes the role of an operator.")


def state_of_fields(lead: Lead) -> str:
    """A short mark of what each field holds, so that a form can say what it was made from."""
    return ".".join(_mark(getattr(lead, name)) for name in FIELDS)


def keep_typed(values: Mapping[str, str], theirs: Mapping[str, str], seen: str) -> dict[str, str]:
    """What a form shows after somebody else was faster: what was typed, and theirs where nothing was (``seen``)."""
    marks = _marks(seen)
    return {
        name: theirs[name] if name in theirs and _mark(value) == marks.get(name) else value
        for name, value in values.items()
    }


def read_fields(values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What a form says, tidied as imports are, and what is wrong: ``{field: sentence}``."""
    found = {name: (clean_text if name in _LONG else clean_line)(str(values.get(name, ""))) for name in FIELDS}
    wrong = {
        name: f"At most {LIMITS[name]:,} characters; these are {len(value):,}."
        for name, value in found.items()
        if len(value) > LIMITS[name]
    }
    if found["email"]:
        try:
            found["email"] = normalise_email(found["email"])
        except ValueError:
            wrong["email"] = "This is no e-mail address. Write one like name@example.com."
    if not any(found[name] for name in ("name", "email", "company")):
        wrong["name"] = "A lead needs a name, an e-mail address or a company."
    return found, wrong


def edit_lead(*, lead: Lead, user: User, values: Mapping[str, str], seen: str, reason: str = "") -> Edited:
    """Write tidied fields. Refused where somebody else has changed the lead since the form was opened (``seen``).

    Nothing runs by itself: outputs that were made from the old values are named, and shown as made from older inputs.
    """
    with transaction.atomic():
        item = lock_items({lead.pk})[lead.pk]
        lead = Lead.objects.select_for_update(of=("self",)).get(pk=lead.pk)
        lead.item = item
        if not (may := can_edit_lead(lead)):
            return Edited(may)
        before = {name: getattr(lead, name) for name in FIELDS if getattr(lead, name) != values[name]}
        if not before:
            return Edited(no("Nothing was changed."))
        if theirs := _changed_since(lead, seen):
            names = ", ".join(theirs)
            why = no(f"Somebody has changed this lead since you opened the form: {names}.")
            return Edited(why, theirs=theirs, seen=state_of_fields(lead))
        if "email" in before and not (may := _may_have_address(lead, values["email"])):
            return Edited(may, refused="email")
        for name in before:
            setattr(lead, name, values[name])
        try:
            with transaction.atomic():
                lead.save(update_fields=list(before))
        except IntegrityError:  # it came in between the look and now
            return Edited(no("Another lead has this e-mail address already."), refused="email")
        item.title = (lead.name or lead.email or lead.company)[:300]
        item.save(update_fields=["title", "changed_at"])
        after = {name: values[name] for name in before}
        act(item, user, "edit_lead", reason=reason, before=before, after=after)
        words = ", ".join(before)
        log.write([log.item_entry(item, "edited", f"{user} changed {words}.", at=database_now())])
        return Edited(YES, tuple(before), _made_from(lead, set(before)))


def assign_owner(
    *, lead: Lead, user: User, owner: User | None, reason: str = "", bulk: BulkAction | None = None
) -> Allowed:
    """Give the lead to a member of the department, or to nobody."""
    if owner is not None and owner not in find_owners([lead.department_id]):
        return no(f"{owner} is no member of {lead.department}.")
    with transaction.atomic():
        item = lock_items({lead.pk})[lead.pk]
        lead = Lead.objects.select_for_update(of=("self",)).select_related("owner").get(pk=lead.pk)
        if lead.owner_id == (owner.pk if owner else None):
            return no(f"It is {owner}'s already." if owner else "It is nobody's already.")
        before, lead.owner = lead.owner, owner
        lead.save(update_fields=["owner"])
        item.save(update_fields=["changed_at"])
        was, now = {"owner": str(before or "")}, {"owner": str(owner or "")}
        act(item, user, "assign_owner", reason=reason, before=was, after=now, bulk=bulk)
        text = f"{user} gave it to {owner}." if owner else f"{user} took it from {before}."
        log.write([log.item_entry(item, "owner", text, at=database_now())])
    return YES


def readers_of_fields(department: Department) -> dict[str, list[str]]:
    """Which agents read each field: ``{field: titles}``."""
    agents = list(department.agents.order_by("pk"))
    return {name: [agent.title for agent in agents if name in agent.fields] for name in FIELDS}


def _mark(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:12]


def _marks(seen: str) -> dict[str, str]:
    """``{field: mark}``; empty for what is no state of fields, so that everything counts as changed."""
    marks = seen.split(".")
    return dict(zip(FIELDS, marks, strict=True)) if len(marks) == len(FIELDS) else {}


def _changed_since(lead: Lead, seen: str) -> dict[str, str]:
    marks = _marks(seen)
    held = {name: getattr(lead, name) for name in FIELDS}
    return {name: value for name, value in held.items() if _mark(value) != marks.get(name)}


def _may_have_address(lead: Lead, address: str) -> Allowed:
    mails = [name for name, channel in CHANNELS.items() if channel.reaches_person]
    if lead.item.outbox.filter(status__in=_WAITING, channel__in=mails).exists():
        return no("A message to the old address waits in the outbox. Take it back there first.")
    others = Lead.objects.filter(department=lead.department_id, email=address).exclude(pk=lead.pk)
    if address and (other := others.first()) is not None:
        return no(f"{other} has this e-mail address already (lead {other.pk}).")
    return YES


def _made_from(lead: Lead, changed: set[str]) -> tuple[str, ...]:
    rows = lead.item.outputs.filter(is_current=True, agent_run__isnull=False).select_related("agent_run__agent")
    read = [(output.key, output.agent_run) for output in rows.order_by("pk")]
    return tuple(dict.fromkeys(key for key, run in read if run is not None and changed & set(run.agent.fields)))
