"""Answers to reviews. The first answer wins; a second person is told who was first.

``output_id`` is the output that the person was shown: no answer is about one that has come in its place.

Each returns ``Allowed``: true if it was done, else why not. An approval writes what is to leave the house in its own
transaction, through what the kind's ``effects`` say. Until that has left it can be taken back, and what other agents
are told of the decision waits as long. ``runs.rewrites`` has the answers after which agents work again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from runs import auto_approval, control, departures, dispatch, edit_patterns, log, outbox, outputs
from runs.allowed import YES, Allowed, no
from runs.allowed_sending import NOT_LEFT, can_note_sent
from runs.answerable import can_answer, can_judge, can_undo, who_decided
from runs.commits import lock_items
from runs.database import now as database_now
from runs.effects import withdraw_drafts
from runs.models import Action, Item, LogEntry, Message, OutboxMessage, Output, Review, Trigger
from runs.payloads import fit_payload
from runs.questions import read_review
from runs.sendable import address_of, why_not_send
from runs.staff import load_staff
from runs.triggers import record_decision

Answer, Kind, Status = Review.Answer, Review.Kind, Review.Status


def approve(
    *, review: Review, user: User, note: str = "", to: str | None = None, output_id: int | None = None
) -> Allowed:
    """The output is right as it is. ``to`` is the address that the person was shown: no mail goes to another one."""
    return _judge(review, user, Answer.APPROVE, note, to=to, output_id=output_id)


def approve_edited(
    *,
    review: Review,
    user: User,
    changes: Mapping[str, Any],
    note: str = "",
    to: str | None = None,
    output_id: int | None = None,
) -> Allowed:
    """The output is right with these fields changed: a new output, made by a person, is approved in its place.

    Only the asked-about output is replaced. ``Unfit`` if the changes do not fit its schema. ``to``: see ``approve``.
    What differs in nothing is approved as it is.
    """
    return _judge(review, user, Answer.APPROVE_EDITED, note, changes=changes, to=to, output_id=output_id)


def reject(
    *, review: Review, user: User | None, reason: str, reason_code: str = "", output_id: int | None = None
) -> Allowed:
    """The output must not be used. It stays, marked, and nothing is written again by itself.

    ``user`` None: the deadline has passed, and this is what was to happen then.
    """
    return _judge(review, user, Answer.REJECT, reason, reason_code=reason_code, output_id=output_id)


def undo(*, review: Review, user: User) -> Allowed:
    """Take an answer back: the question is open again, unless what it set off has left."""
    if review.item_id is None:
        return no("There is no answer that can be taken back.")
    with transaction.atomic():
        now = database_now()
        item = lock_items({review.item_id})[review.item_id]
        review = read_review(review.pk)
        if not (allowed := can_undo(review, now=now)):
            return allowed
        output = review.edited or review.output
        assert output is not None  # or it could not be undone
        before = {"answer": review.answer, "output": output.pk}
        if review.edited is not None and review.output is not None and review.answered_at is not None:
            written, by = review.edited.payload, review.answered_by
            edit_patterns.count_edits(item, review.output, written, by, at=review.answered_at, sign=-1)
        outbox.take_back(OutboxMessage.objects.filter(output=output), f"{user} took the approval back.")
        Output.objects.filter(pk=output.pk).update(verdict=Output.Verdict.NONE)
        told = Trigger.objects.filter(item=item, source=source_of(review))
        outputs.take_back_news(told, f"{user} took the answer back.", now)
        opened = {"status": Status.OPEN, "output": output, "answered_by": None, "answered_at": None}
        Review.objects.filter(pk=review.pk).update(answer="", answer_note="", reason_code="", **opened)
        act(item, user, "undo", review, "", before=before)
        log.write([log.item_entry(item, "answer", f"{user} took the answer back to: {review.ask}", at=now)])
        log.write(dispatch.route([item], load_staff(), now=now))
    return YES


def take_over(*, review: Review, user: User, reason: str = "") -> Allowed:
    """A person does the work on the item by hand; what was asked is answered by that."""
    if review.item is None:
        return no("It is not about one item.")
    with transaction.atomic():
        now = database_now()
        lock_items({review.item.pk})
        fresh = read_review(review.pk)
        if not (allowed := can_answer(fresh, Answer.TAKE_OVER)):
            return allowed
        if not close(fresh, Answer.TAKE_OVER, user, reason, now=now):
            return no(who_decided(read_review(review.pk)))
        act(review.item, user, "take_over_review", fresh, reason)
        taken = control.take_over_item(item=review.item, user=user, reason=reason or fresh.ask[:200])
        transaction.set_rollback(not taken)
    return taken


def dismiss(*, review: Review, user: User, reason: str = "") -> Allowed:
    """Nothing is to be done about it."""
    with transaction.atomic():
        now = database_now()
        item = lock_items({review.item_id})[review.item_id] if review.item_id is not None else None
        fresh = read_review(review.pk)
        if not (allowed := can_answer(fresh, Answer.DISMISS)):
            return allowed
        if not close(fresh, Answer.DISMISS, user, reason, now=now):
            return no(who_decided(read_review(review.pk)))
        act(item, user, "dismiss", fresh, reason)
        if item is not None:
            # From here it is counted again how long nothing has moved.
            item.save(update_fields=["changed_at"])
            log.write([log.item_entry(item, "answer", f"{user} put aside: {fresh.ask}", at=now)])
    return YES


def mark_sent(*, output: Output, user: User, subject: str = "", body: str = "", address: str = "") -> bool:
    """A person has sent the approved output by hand, so it does not leave the outbox any more.

    False if it is not approved, was recorded as sent before, or is leaving or may have left by itself.
    """
    waiting = OutboxMessage.objects.filter(output=output, status__in=NOT_LEFT).first()
    if waiting is not None and departures.mark_sent(message=waiting, user=user):
        return True
    with transaction.atomic():
        now = database_now()
        item = lock_items({output.item_id})[output.item_id]
        output = Output.objects.select_related("trigger", "item").get(pk=output.pk)
        # What waits in the outbox, or failed there, was taken above; what it is now may leave by itself.
        is_waiting = OutboxMessage.objects.filter(output=output, status__in=NOT_LEFT).exists()
        if is_waiting or not can_note_sent(output):
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
        Action.objects.create(
            department_id=item.department_id, item=item, user=user, verb="mark_sent", target=f"output:{output.pk}"
        )
        log.write([log.item_entry(item, "sent", f"{user} sent {output.key} {output.number} by hand.", at=now)])
        tell(item, output, "sent", now)
    return True


def close(
    review: Review, answer: str, user: User | None, note: str, *, now: datetime, reason_code: str = "", **lookup: Any
) -> bool:
    """Answer an open question; False if somebody was first. The item, if there is one, must be locked."""
    rows = Review.objects.filter(pk=review.pk, status=Status.OPEN, **lookup)
    told = {"answer": answer, "answer_note": note, "reason_code": reason_code}
    return bool(rows.update(status=Status.ANSWERED, answered_by=user, answered_at=now, **told))


def act(
    item: Item | None, user: User | None, verb: str, review: Review, reason: str, **states: Mapping[str, Any]
) -> None:
    """The Action row of an answer. ``states``: ``before`` and ``after``."""
    Action.objects.create(
        department_id=review.department_id,
        item=item,
        user=user,
        verb=verb,
        target=f"review:{review.pk}",
        reason=reason[:300],
        **states,
    )


def tell(item: Item, output: Output, what: Literal["written", "approved", "rejected", "sent"], now: datetime) -> None:
    """Let the kind say what this implies, and route the locked item."""
    staff = load_staff()
    department = staff.desks[item.department_id].department
    event = dispatch.output_event(what, output, output.trigger, department.settings)
    log.write(dispatch.route([item], staff, now=now, events=[(item, output, event)]))


def source_of(review: Review) -> str:
    """The source of the trigger that tells other agents of an answer."""
    return f"review:{review.pk}"


def _judge(
    review: Review,
    user: User | None,
    answer: Review.Answer,
    note: str,
    *,
    reason_code: str = "",
    changes: Mapping[str, Any] | None = None,
    to: str | None = None,
    output_id: int | None = None,
) -> Allowed:
    if review.item_id is None or review.output_id is None:
        return no("There is no output that it asks about.")
    with transaction.atomic():
        now = database_now()
        item = lock_items({review.item_id})[review.item_id]
        review = read_review(review.pk)
        output = review.output
        assert output is not None  # the question was about one
        if not (allowed := can_judge(review, answer, output_id)):
            if review.status == Status.OPEN and (why_not := why_not_send(item, output)):
                log.write(withdraw_drafts(item, why_not, now=now))
            return allowed
        if to is not None and review.kind == Kind.DRAFT and to != (address := address_of(item)):
            return no(
                f"The address has changed since you looked: it goes to {address or 'nobody yet'} now. Look again."
            )
        payload = fit_payload(item.department.spec, output, changes) if changes else output.payload
        if answer == Answer.APPROVE_EDITED and payload == output.payload:
            answer = Answer.APPROVE
        if not close(review, answer, user, note, now=now, reason_code=reason_code, output__is_current=True):
            return no(who_decided(read_review(review.pk)))
        entries: list[LogEntry] = []
        if payload != output.payload:
            edit_patterns.count_edits(item, output, payload, user, at=now)
            output, entries = _replace(item, output, payload, review, user, now)
        output.verdict = Output.Verdict.REJECTED if answer == Answer.REJECT else Output.Verdict.APPROVED
        output.save(update_fields=["verdict"])
        act(item, user, answer, review, note, after={"output": output.pk, "verdict": output.verdict})
        text = f"{user or 'The deadline'} answered {answer} to: {review.ask}"
        log.write([*entries, log.item_entry(item, "answer", text, at=now)])
        if answer == Answer.REJECT:
            auto_approval.revoke(item, output, f"{user or 'The deadline'} rejected a draft: {note}", now=now)
        tell(item, output, "rejected" if answer == Answer.REJECT else "approved", now)
        _announce(item, review, output, answer, note, user, now)
    return YES


def _replace(
    item: Item, output: Output, payload: dict[str, Any], review: Review, user: User | None, now: datetime
) -> tuple[Output, list[LogEntry]]:
    """The edited output in place of the asked-about one."""
    desk = load_staff().desks[item.department_id]
    plan = outputs.plan_replacement(item, desk, output.key, output.trigger_id)
    why = f"{user} changed it before it was approved."
    origin = Output.Origin.EDITED
    edited, entries = outputs.replace(plan, item, desk, why=why, now=now, payload=payload, author=user, origin=origin)
    assert edited is not None  # a payload was given
    Review.objects.filter(pk=review.pk).update(edited=edited)
    return edited, entries


def _announce(
    item: Item, review: Review, output: Output, answer: Review.Answer, note: str, user: User | None, now: datetime
) -> None:
    """Tell other agents of the decision once it cannot be taken back any more.

    Only what the work was for is news to them; a step that was found right sets nothing off.
    """
    if output.key != item.department.spec.final_key:
        return
    waiting = OutboxMessage.objects.filter(output=output, status=OutboxMessage.Status.PENDING)
    release_at = waiting.order_by("-release_at").values_list("release_at", flat=True).first()
    record_decision(
        item=item,
        payload={"answer": "reject" if answer == Answer.REJECT else "approve", "key": output.key, "note": note},
        user=user,
        due_at=release_at or now + timedelta(seconds=settings.REVIEW_UNDO_SECONDS),
        source=source_of(review),
    )
