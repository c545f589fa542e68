"""Answers to reviews. The first answer wins; a second person is told so by a False.

Approving here does not send: until the outbox has its channels, a person sends the approved text from their own
mail client and says so with ``mark_sent``, which is what follow-ups count from.
"""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction

from agents.spec import kind
from runs import dispatch, log
from runs.commits import lock_items
from runs.database import now as database_now
from runs.effects import withdraw_drafts
from runs.facts import SUPPRESSED_TAG
from runs.models import Action, Item, Message, Output, Review, Suppression
from runs.staff import load_staff
from runs.triggers import record_decision


def approve(*, review: Review, user: User, note: str = "") -> bool:
    """The output is right as it is. False if the question was answered before, or its output was replaced."""
    return _answer(review, user, "approve", note, Output.Verdict.APPROVED)


def reject(*, review: Review, user: User, reason: str) -> bool:
    """The output must not be used. It stays, marked, and nothing is written again by itself."""
    return _answer(review, user, "reject", reason, Output.Verdict.REJECTED)


def mark_sent(*, output: Output, user: User, subject: str = "", body: str = "", address: str = "") -> bool:
    """A person has sent the approved output by hand. False if it is not approved, or was recorded as sent before."""
    with transaction.atomic():
        now = database_now()
        item = lock_items({output.item_id})[output.item_id]
        output = Output.objects.select_related("trigger").get(pk=output.pk)
        is_sent = Message.objects.filter(item=item, output=output, direction=Message.Direction.OUT).exists()
        if output.verdict != Output.Verdict.APPROVED or is_sent:
            return False
        Message.objects.create(
            item=item,
            direction=Message.Direction.OUT,
            subject=(subject or str(output.payload.get("subject", "")))[:500],
            body=body or str(output.payload.get("body", "")),
            address=address,
            output=output,
            trigger=output.trigger,
            at=now,
        )
        _act(item, user, "mark_sent", f"output:{output.pk}", "")
        log.write([log.item_entry(item, "sent", f"{user} sent {output.key} {output.number} by hand.", at=now)])
        _tell(item, output, "sent", now)
    return True


def _answer(review: Review, user: User, answer: str, note: str, verdict: Output.Verdict) -> bool:
    with transaction.atomic():
        now = database_now()
        if review.item_id is None or review.output_id is None:
            return False
        item = lock_items({review.item_id})[review.item_id]
        why_not = _why_not_send(item, review.output_id) if verdict == Output.Verdict.APPROVED else ""
        if why_not and review.kind == Review.Kind.DRAFT:
            log.write(withdraw_drafts(item, why_not, now=now))
            return False
        won = Review.objects.filter(pk=review.pk, status=Review.Status.OPEN, output__is_current=True).update(
            status=Review.Status.ANSWERED, answer=answer, answer_note=note, answered_by=user, answered_at=now
        )
        if not won:
            return False
        output = Output.objects.select_related("trigger").get(pk=review.output_id)
        output.verdict = verdict
        output.save(update_fields=["verdict"])
        _act(item, user, answer, f"review:{review.pk}", note)
        text = f"{user} answered {answer} to: {review.ask}"
        log.write([log.item_entry(item, "answer", text, at=now)])
        # Only what the work was for is news to other agents; a step that was found right sets nothing off.
        if output.key == kind(item.department.kind).final_key:
            payload = {"answer": answer, "key": output.key, "note": note}
            # At the time of the decision, or it would count as one to come.
            now = record_decision(item=item, payload=payload, user=user).due_at
        _tell(item, output, "approved" if verdict == Output.Verdict.APPROVED else "rejected", now)
    return True


def _why_not_send(item: Item, output_id: int) -> str:
    """Why this output must not go to the item's person any more; empty if it may.

    The suppression list counts by address in every department, whoever entered it and when.
    """
    spec = kind(item.department.kind)
    address = str(spec.load_fields([item.pk]).get(item.pk, {}).get("email", "")).lower()
    listed = [address, f"@{address.rpartition('@')[2]}"]
    if SUPPRESSED_TAG in item.tags or (address and Suppression.objects.filter(address__in=listed).exists()):
        return "The person's address is on the list of those nobody writes to."
    written_at = Output.objects.values_list("created_at", flat=True).get(pk=output_id)
    if Message.objects.filter(item=item, direction=Message.Direction.IN, at__gt=written_at).exists():
        return "A reply came in after it was written."
    return ""


def _act(item: Item, user: User, verb: str, target: str, reason: str) -> None:
    Action.objects.create(
        department_id=item.department_id, item=item, user=user, verb=verb, target=target, reason=reason[:300]
    )


def _tell(item: Item, output: Output, what: str, now: datetime) -> None:
    """Let the kind say what this implies, and route the locked item."""
    staff = load_staff()
    settings = staff.desks[item.department_id].department.settings
    event = dispatch.output_event(what, output, output.trigger, settings)  # type: ignore[arg-type]
    log.write(dispatch.route([item], staff, now=now, events=[(item, output, event)]))
