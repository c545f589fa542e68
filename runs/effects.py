"""Applies what an output implies, as the kind's pure ``effects`` says, in the transaction that stores the output."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from agents.spec import Effect, OpenReview, OutputEvent, ScheduleTrigger, SetItem, Suppress, WithdrawTriggers
from runs import log
from runs.facts import SUPPRESSED_TAG
from runs.models import Item, LogEntry, Output, Review, Suppression, Trigger
from runs.staff import Desk

REVIEW_DEADLINE = timedelta(days=1)

Happening = tuple[Item, Output, OutputEvent]


def apply_effects(happenings: Sequence[tuple[Happening, Desk]], *, now: datetime) -> tuple[list[LogEntry], set[int]]:
    """Apply the effects of what happened to outputs. Changed items are not saved here.

    Returns the log lines and the ids of items about which the router's facts have changed beyond the output.
    """
    entries: list[LogEntry] = []
    changed: set[int] = set()
    for (item, output, event), desk in happenings:
        for effect in desk.spec.effects(event):
            entries += _apply(effect, item, output, desk, now)
            if not isinstance(effect, OpenReview):
                changed.add(item.pk)
    return entries, changed


def _apply(effect: Effect, item: Item, output: Output, desk: Desk, now: datetime) -> list[LogEntry]:
    match effect:
        case OpenReview():
            # A review pins the output it asks about; asking twice about the same output is one question.
            Review.objects.get_or_create(
                output=output,
                kind=effect.kind,
                status=Review.Status.OPEN,
                defaults={
                    "department_id": item.department_id,
                    "item": item,
                    "agent_run_id": output.agent_run_id,
                    "ask": effect.ask[:500],
                    "risk": effect.risk,
                    "deadline": now + REVIEW_DEADLINE,
                },
            )
            return [log.item_entry(item, "review", f"A person is asked: {effect.ask}", at=now)]
        case Suppress():
            return _suppress(effect, item, desk, now)
        case ScheduleTrigger():
            due = now + effect.after
            Trigger.objects.create(item=item, kind=effect.kind, payload=effect.payload, due_at=due, source="effect")
            return [log.item_entry(item, "trigger", f"A {effect.kind} is due on {due:%Y-%m-%d %H:%M} UTC.", at=now)]
        case WithdrawTriggers():
            count = Trigger.objects.filter(item=item, kind=effect.kind, status=Trigger.Status.OPEN).update(
                status=Trigger.Status.NOTED, settled_at=now, settled_note=effect.reason[:300]
            )
            text = f"{count} open {effect.kind} withdrawn: {effect.reason}"
            return [log.item_entry(item, "trigger", text, at=now)] if count else []
        case SetItem():
            for name, value in effect.changes.items():
                setattr(item, name, value)
            return []


def withdraw_drafts(item: Item, reason: str, *, now: datetime) -> list[LogEntry]:
    """Take back every question whether a mail to this item's person may leave: what it asks is no longer so."""
    count = Review.objects.filter(item=item, kind=Review.Kind.DRAFT, status=Review.Status.OPEN).update(
        status=Review.Status.WITHDRAWN, answer_note=reason, answered_at=now
    )
    text = f"{count} drafts are no longer to be approved: {reason}"
    return [log.item_entry(item, "review", text, at=now)] if count else []


def _suppress(effect: Suppress, item: Item, desk: Desk, now: datetime) -> list[LogEntry]:
    if SUPPRESSED_TAG not in item.tags:
        item.tags = [*item.tags, SUPPRESSED_TAG]
    address = desk.spec.load_fields([item.pk]).get(item.pk, {}).get("email", "")
    if address:
        Suppression.objects.get_or_create(
            address=address.lower(),
            defaults={"reason": Suppression.Reason.OPT_OUT, "note": effect.reason[:300], "item": item},
        )
    text = f"Nobody writes to this person any more: {effect.reason}"
    withdrawn = withdraw_drafts(item, "The person asked not to be written to again.", now=now)
    return [log.item_entry(item, "suppressed", text, at=now, level=LogEntry.Level.WARNING), *withdrawn]
