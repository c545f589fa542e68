"""Erases the person of an item: what was said, written and sent goes; what was done, when, and what it cost stays.

Rows of the item are blanked one table after the other, so that counts and sums stay what they were. Rows of others
that name the person are ``runs.mentions``. Mail addresses stay on the list of those nobody writes to, as hashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet

from agents.models import Member
from runs import log
from runs.access import Access
from runs.addresses import erased_entries, erased_entry
from runs.allowed import YES, Allowed, no
from runs.closing import wind_up
from runs.commits import lock_items
from runs.control import act
from runs.database import now as database_now
from runs.facts import SUPPRESSED_TAG
from runs.mentions import Mentions, Person, find_mentions, forget, without
from runs.models import (
    Action,
    AgentRun,
    Item,
    LogEntry,
    Message,
    ModelCall,
    ModelCallBody,
    OutboxMessage,
    Output,
    Review,
    SendBack,
    Suppression,
    ToolCall,
    Trigger,
    TryOut,
)

ERASED = "Erased."
LATE_ANSWER = timedelta(minutes=15)
"""A call whose end nobody saw may still answer: three times as long as the longest call takes."""


class _UnderWayError(Exception):
    """Something began while the person was being erased."""


def can_erase(item: Item, access: Access | None = None) -> Allowed:
    """Erase the item's person. Seven queries."""
    if access is not None and not access.can(item.department_id, Member.Role.ADMINISTRATOR):
        return no("This takes the role of an administrator.")
    if item.is_erased:
        return no("The person was erased before.")
    return no(reason) if (reason := _under_way(item)) else YES


def find_of(item: Item, person: Person) -> Mentions:
    """Look where others name the item's person, before anything is locked: for ``erase_item``."""
    return find_mentions(_with_addresses(item, person), item.department_id)


def erase_item(*, item: Item, user: User | None, person: Person, mentions: Mentions, reason: str = "") -> Allowed:
    """Close the item and erase its person, or say what is under way that has to end first.

    The kind blanks its own row in the same transaction. ``mentions`` is what ``find_of`` said of the same person.
    ``user`` None: by command on the server. What a person types as the reason must not name who was erased, and is
    cleaned like any other text.
    """
    try:
        with transaction.atomic():
            now = database_now()
            item = lock_items({item.pk})[item.pk]
            if not (answer := can_erase(item)):
                return answer
            who = str(user or "A command on the server")
            log.write(wind_up(item, user, f"{who} erases the person.", now))
            if _with_addresses(item, person) != mentions.person:
                raise _UnderWayError("What is known of the person has changed just now. Try again.")
            _keep_suppressed(mentions.person.addresses, item, user)
            blank_item(item, now, user)
            forget(mentions)
            act(item, user, "erase_person", reason=without(reason, mentions.person))
            log.write([log.item_entry(item, "erased", f"{who} erased the person.", at=now)])
            if problem := _under_way(item):
                raise _UnderWayError(problem)
    except _UnderWayError as problem:
        return no(str(problem))
    return YES


def forget_address(address: str, *, user: User | None = None) -> None:
    """Of an address that no item has: keep it as a hash on the list of those nobody writes to, and nowhere else."""
    mentions = find_mentions(Person(frozenset({address})))
    with transaction.atomic():
        _keep_suppressed({address}, None, user)
        forget(mentions)


def blank_item(item: Item, now: datetime, user: User | None) -> None:
    """Take out every text about the person from the rows of a locked item."""
    for rows, values in _blanks(item):
        rows.update(**values)
    ModelCallBody.objects.filter(call__item=item).delete()
    item.title = f"Erased {item.department.spec.item_label} {item.pk}"
    item.tags = [*(tag for tag in item.tags if tag == SUPPRESSED_TAG), Item.ERASED]
    item.automation, item.automation_until, item.automation_by = Item.Automation.CLOSED, None, user
    item.automation_reason, item.flag, item.route_due_at = "The person was erased", "", None
    item.save()


# --- What is under way ----------------------------------------------------------------------------------------


def _under_way(item: Item) -> str:
    """What must come to its end first, as a sentence; empty if nothing must."""
    if item.agent_runs.filter(status=AgentRun.Status.RUNNING).exists():
        return "A step is under way. Cancel it, or wait for its end."
    if TryOut.objects.filter(item=item, status__in=TryOut.ACTIVE).exists():
        return "A try-out is under way. Stop it, or wait for its end."
    sending = set(item.outbox.values_list("status", flat=True))
    if OutboxMessage.Status.SENDING in sending:
        return "A message is being sent. Wait a moment."
    if OutboxMessage.Status.UNKNOWN in sending:
        return "It is unsure whether a message was sent. Answer that in the outbox first."
    unready = item.department.spec.unready
    if unready is not None and unready([item.pk]):
        return "The import that brought it is not over. Wait for its end."
    calls = ModelCall.objects.filter(item=item)
    since = database_now() - LATE_ANSWER
    late = Q(status=ModelCall.Status.UNSEEN, started_at__gt=since)
    if calls.filter(Q(status=ModelCall.Status.STARTED) | late).exists():
        minutes = int(LATE_ANSWER.total_seconds() // 60)
        return f"A call to the model may still answer. Try again in {minutes} minutes."
    return ""


# --- Rows of the item -----------------------------------------------------------------------------------------


def _blanks(item: Item) -> list[tuple[QuerySet[Any], dict[str, Any]]]:
    """The rows of an item with what their texts become. ``tests/leads/test_erasing.py`` knows which columns stay."""
    return [
        (Output.objects.filter(item=item), {"payload": {}, "fingerprint": "", "retired_why": ""}),
        (_delivered_with(item), {"raw_body": ""}),
        (item.triggers.all(), {"payload": {}, "raw_body": "", "settled_note": ""}),
        (
            item.messages.all(),
            {"subject": "", "body": "", "address": "", "message_id": "", "in_reply_to": ""},
        ),
        (SendBack.objects.filter(item=item), {"note": ERASED}),
        (
            Review.objects.filter(item=item),
            {"ask": ERASED, "answer_note": "", "risk_why": "", "cause": ""},
        ),
        (Action.objects.filter(item=item), {"before": {}, "after": {}, "reason": ""}),
        (item.pipeline_runs.all(), {"cause": "", "missing": ""}),
        (item.agent_runs.all(), {"why": ERASED, "waiting_for": "", "error": ""}),
        # That there was an error stays: such a call brought nothing, and its costs were added up as that.
        (ModelCall.objects.filter(item=item).exclude(error=""), {"error": ERASED}),
        (ToolCall.objects.filter(model_call__item=item), {"arguments": {}, "result": "", "detail": {}}),
        (TryOut.objects.filter(item=item), {"error": ""}),
        (TryOut.objects.filter(item=item, payload__isnull=False), {"payload": {}}),
        (
            item.outbox.all(),
            {"rendered": {}, "address": "", "waiting_for": "", "error": "", "reason": "", "provider_id": ""},
        ),
        (LogEntry.objects.filter(item=item), {"text": ERASED, "data": {}}),
        (Suppression.objects.filter(item=item), {"note": ""}),
    ]


def _delivered_with(item: Item) -> QuerySet[Trigger]:
    """Triggers of others that keep the body of a delivery in which this item's person came: one body for all."""
    deliveries = item.triggers.filter(delivery_id__contains="#").values_list("source", "delivery_id")
    wanted = Q(pk__in=())
    for source, delivery_id in deliveries:
        wanted |= Q(source=source, delivery_id__startswith=f"{delivery_id.rpartition('#')[0]}#")
    return Trigger.objects.filter(wanted).exclude(raw_body="")


def _with_addresses(item: Item, person: Person) -> Person:
    written = set(item.outbox.exclude(address="").values_list("address", flat=True))
    mails = Message.objects.filter(item=item).exclude(address="")
    written |= set(mails.filter(direction=Message.Direction.OUT).values_list("address", flat=True))
    # Who wrote may be somebody else of the same company: named nowhere any more, and not suppressed.
    wrote = set(mails.values_list("address", flat=True))
    return Person(person.addresses | written, person.texts | wrote)


# --- Those nobody writes to -------------------------------------------------------------------------------------


def _keep_suppressed(addresses: Iterable[str], item: Item | None, user: User | None) -> None:
    for address in sorted(set(addresses)):
        entry = erased_entry(address)
        listed = Suppression.objects.filter(address__iexact=address)
        if Suppression.objects.filter(address__in=erased_entries(address)).exists():
            listed.delete()
        # Whose entry it is and why it is there stays: another department's opt-out is not this one's to lift.
        elif not listed.update(address=entry, note=""):
            Suppression.objects.create(
                address=entry, reason=Suppression.Reason.OPT_OUT, note="By erasing the person.", item=item, author=user
            )
