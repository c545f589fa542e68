"""What a person does in the department's stead: a note, a call, a reply that came elsewhere, a mail, an output.

It may be done whether the item's automation is on or off. Agents are given all of it the next time they work on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from agents.spec import ITEM
from runs import dispatch, log, outbox, outputs
from runs.allowed import YES, Allowed, can_inject, can_note, can_record_reply, can_write_mail, no
from runs.commits import lock_items
from runs.control import act
from runs.database import now as database_now
from runs.models import Item, Message, OutboxMessage, Output, Trigger
from runs.outputs import writer_of
from runs.sendable import address_of
from runs.staff import load_staff
from runs.triggers import record_reply

NOTE, CALL = "note", "call"


def add_note(*, item: Item, user: User, text: str, channel: str = NOTE) -> Allowed:
    """Write a note, or what was said in a call, into the conversation. Agents are given the latest ones."""
    if not text.strip():
        return no("Write something.")
    if channel not in (NOTE, CALL):
        return no("It is a note or a call.")
    with transaction.atomic():
        now = database_now()
        item = lock_items({item.pk})[item.pk]
        if not (answer := can_note(item)):
            return answer
        message = Message.objects.create(
            item=item, direction=Message.Direction.NOTE, channel=channel, body=text, author=user, at=now
        )
        act(item, user, f"add_{channel}", f"message:{message.pk}", after={"text": text})
        log.write([log.item_entry(item, "note", f"{user} wrote down a {channel}: {text[:200]}", at=now)])
    return YES


def enter_reply(
    *, item: Item, user: User, body: str, subject: str = "", address: str = "", at: datetime | None = None, form: str
) -> Allowed:
    """Enter what the item's person has answered elsewhere. ``form`` is the form's own number: one form, one reply."""
    if not body.strip():
        return no("Paste what they have written.")
    with transaction.atomic():
        now = database_now()
        item = lock_items({item.pk})[item.pk]
        if not (answer := can_record_reply(item)):
            return answer
        if at is not None and at > now:
            return no("A reply cannot come from the future.")
        source, delivery = "pasted", f"{item.pk}:{form}"
        if Trigger.objects.filter(source=source, delivery_id=delivery).exists():
            return no("This reply is recorded already.")
        values = {"subject": subject, "address": address, "at": at}
        trigger = record_reply(item=item, body=body, source=source, delivery_id=delivery, **values)  # type: ignore[arg-type]
        trigger.messages.update(author=user)
        act(item, user, "enter_reply", f"trigger:{trigger.pk}", after={"subject": subject, "body": body})
    return YES


def write_mail(*, item: Item, user: User, subject: str, body: str, to: str | None = None) -> Allowed:
    """Write to the item's person. It goes through the outbox like everything that leaves the house.

    ``to`` is the address that the person was shown: nothing is written to another one.
    """
    subject = " ".join(subject.split())
    if not subject or not body.strip():
        return no("A mail has a subject and a text.")
    with transaction.atomic():
        item = lock_items({item.pk})[item.pk]
        if not (answer := can_write_mail(item)):
            return answer
        if to is not None and to != (address := address_of(item)):
            return no(f"The address has changed since you began: it goes to {address or 'nobody yet'} now.")
        row = outbox.write_manual(item=item, user=user, subject=subject, body=body)
        if row.status in OutboxMessage.LEFT:
            standing = outbox.STANDING[OutboxMessage.Status(row.status)]
            return no(f"Nothing was written: the same mail {standing}. Change a word to write another.")
    return YES


def write_output(
    *,
    item: Item,
    user: User,
    key: str,
    trigger: Trigger | None,
    payload: Mapping[str, Any],
    seen: int | None,
    reason: str = "",
) -> tuple[Allowed, Output | None]:
    """Enter an output by hand, or write the current one anew: agents use it and never overwrite it.

    ``seen`` is the id of the output that was current when the form was made, None if there was none. Raises
    pydantic's ValidationError where the payload does not fit the schema of the agent that writes the key.
    """
    with transaction.atomic():
        now = database_now()
        item = lock_items({item.pk})[item.pk]
        if not (answer := can_inject(item, key, trigger)):
            return answer, None
        current = item.outputs.filter(key=key, trigger=trigger, is_current=True).first()
        if (current.pk if current else None) != seen:
            return no(f"The {key.replace('_', ' ')} was replaced while you wrote. Look at what is there now."), None
        staff = load_staff()
        desk = staff.desks[item.department_id]
        schema = writer_of(desk.spec, key, trigger.kind if trigger else ITEM).schema
        fitted = schema.model_validate(payload).model_dump(mode="json")
        if current is not None and fitted == current.payload and not current.is_stale:
            return no("Nothing was changed."), None
        verb, origin = ("edit", Output.Origin.EDITED) if current else ("inject", Output.Origin.INJECTED)
        plan = outputs.plan_replacement(item, desk, key, trigger.pk if trigger else None)
        why = f"{user} wrote it by hand{f': {reason}' if reason else '.'}"
        output, entries = outputs.replace(
            plan, item, desk, why=why, now=now, payload=fitted, author=user, origin=origin
        )
        assert output is not None  # a payload was given
        before = {"output": current.pk, "payload": current.payload} if current else {}
        after = {"output": output.pk, "payload": fitted}
        act(item, user, verb, f"output:{output.pk}", reason=reason, before=before, after=after)
        event = dispatch.output_event("written", output, trigger, desk.department.settings)
        log.write([*entries, *dispatch.route([item], staff, now=now, events=[(item, output, event)])])
    return YES, output
