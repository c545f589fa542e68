"""Records what happened and marks the item due. No reasoning: the router decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from runs import log, outbox
from runs.database import now as database_now
from runs.database import update_rows
from runs.effects import withdraw_drafts
from runs.models import Action, BulkAction, Item, Message, Trigger
from runs.wording import trigger_words

BATCH = 500


def request_run(
    *, items: Iterable[int], user: User | None = None, reason: str = "", bulk: BulkAction | None = None
) -> int:
    """Somebody asks for the pipeline on these items (ids). Returns how many were marked due.

    Items whose automation is not active are left alone. Only what is missing will be made.
    """
    ids = sorted(set(items))
    total = 0
    for start in range(0, len(ids), BATCH):
        with transaction.atomic():
            now = database_now()
            chosen = list(
                Item.objects.filter(pk__in=ids[start : start + BATCH], automation=Item.Automation.ACTIVE)
                .select_for_update(no_key=True)
                .order_by("pk")
            )
            # One lead is asked for by somebody who waits for it; a whole list is not.
            priority = Item.Priority.PERSON if len(ids) == 1 and bulk is None else None
            _add(chosen, Trigger.Kind.OPERATOR, now, payload={"reason": reason}, priority=priority)
            if user is not None:
                Action.objects.bulk_create(
                    Action(department_id=i.department_id, item=i, user=user, verb="run", reason=reason[:300], bulk=bulk)
                    for i in chosen
                )
            total += len(chosen)
    return total


def record_reply(
    *,
    item: Item,
    body: str,
    subject: str = "",
    address: str = "",
    source: str = "",
    delivery_id: str = "",
    at: datetime | None = None,
) -> Trigger:
    """The item's person has written. The message, the trigger and the due mark are one transaction.

    A delivery that was recorded before is returned as it was, and changes nothing.
    """
    with transaction.atomic():
        locked = Item.objects.select_for_update(no_key=True).get(pk=item.pk)
        # Looked up under the item's lock, so that two deliveries of one reply cannot both miss it.
        if delivery_id:
            known = Trigger.objects.filter(source=source, delivery_id=delivery_id).first()
            if known is not None:
                return known
        now = database_now()
        trigger = _add(
            [locked],
            Trigger.Kind.REPLY,
            now,
            payload={"subject": subject, "body": body},
            priority=Item.Priority.PROSPECT,
            source=source,
            delivery_id=delivery_id,
        )[0]
        Message.objects.create(
            item=locked,
            direction=Message.Direction.IN,
            subject=subject[:500],
            body=body,
            address=address,
            trigger=trigger,
            at=at or now,
        )
        log.write(withdraw_drafts(locked, "A reply came in after it was written.", now=now))
        outbox.look_again(locked, now=now)
        return trigger


def record_decision(
    *,
    item: Item,
    payload: dict[str, Any],
    user: User | None = None,
    due_at: datetime | None = None,
    source: str = "",
) -> Trigger:
    """A person has decided something about the item, which must be locked by the caller.

    ``due_at`` lies in the future where the decision can still be taken back; ``source`` says what it answers.
    """
    now = database_now()
    return _add([item], Trigger.Kind.DECISION, now, payload=payload, source=source, by=user, due_at=due_at)[0]


def record_resume(*, item: Item, payload: dict[str, Any], user: User | None = None) -> Trigger:
    """The automation of an item goes on, which must be locked by the caller."""
    priority = Item.Priority.PERSON if user is not None else None
    return _add([item], Trigger.Kind.RESUME, database_now(), payload=payload, priority=priority, by=user)[0]


def _add(
    items: Sequence[Item],
    kind: Trigger.Kind,
    now: datetime,
    *,
    payload: dict[str, Any],
    priority: int | None = None,
    source: str = "",
    delivery_id: str = "",
    by: User | None = None,
    due_at: datetime | None = None,
) -> list[Trigger]:
    """Triggers for locked items, and the items due: now, or at ``due_at``."""
    due_at = due_at or now
    triggers = Trigger.objects.bulk_create(
        Trigger(item=item, kind=kind, payload=payload, source=source, delivery_id=delivery_id, due_at=due_at)
        for item in items
    )
    rows = []
    for item in items:
        item.route_due_at = now if due_at <= now else min(due_at, item.route_due_at or due_at)
        item.priority = item.priority if priority is None else min(item.priority, priority)
        rows.append((item.pk, item.route_due_at, item.priority))
    update_rows(Item, ["route_due_at", "priority"], rows)
    text = f"{trigger_words(kind)}{f' ({by})' if by else ''}."
    if due_at > now:
        text += f" It does not take effect before {due_at:%H:%M:%S} UTC."
    log.write(log.item_entry(item, "trigger", text, at=now) for item in items)
    return triggers
