"""Answers after which agents work again: a draft sent back with a note, and a classification that was corrected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from runs import auto_approval, dispatch, log, outputs
from runs.allowed import YES, Allowed, no
from runs.answerable import can_answer, can_correct, can_judge, key_to_write, who_decided
from runs.commits import lock_items
from runs.database import now as database_now
from runs.models import Action, Output, Review, SendBack
from runs.payloads import fit_payload
from runs.questions import read_review
from runs.reviews import act, close, tell
from runs.staff import load_staff

Answer = Review.Answer


def send_back(*, review: Review, user: User, note: str, reason_code: str = "", output_id: int | None = None) -> Allowed:
    """Have it written again: the note and what was sent back are given to whoever writes it.

    What was made from what is written again goes with it. After three rounds a person must choose.
    """
    if review.item_id is None or review.output_id is None:
        return no("There is nothing that could be sent back.")
    if not note.strip():
        return no("Say what is to be different: the note goes to whoever writes it again.")
    with transaction.atomic():
        now = database_now()
        item = lock_items({review.item_id})[review.item_id]
        review = read_review(review.pk)
        output = review.output
        assert output is not None  # the question was about one
        if not (allowed := can_judge(review, Answer.SEND_BACK, output_id)):
            return allowed
        if not close(review, Answer.SEND_BACK, user, note, now=now, reason_code=reason_code, output__is_current=True):
            return no(who_decided(read_review(review.pk)))
        staff = load_staff()
        desk, key = staff.desks[item.department_id], key_to_write(output)
        is_of_item = output.trigger is None or desk.router.is_of_item(key, output.trigger.kind)
        trigger_id = None if is_of_item else output.trigger_id
        SendBack.objects.create(
            item=item, key=key, trigger_id=trigger_id, review=review, output=output, note=note, author=user
        )
        plan = outputs.plan_replacement(item, desk, key, trigger_id)
        why = f"{user} sent it back: {note}"
        _, entries = outputs.replace(plan, item, desk, why=why, now=now, author=user)
        retired = [made.pk for made in plan.outputs]
        act(item, user, Answer.SEND_BACK, review, note, after={"written_again": key, "retired": retired})
        text = f"{user} answered {Answer.SEND_BACK} to: {review.ask} {note}"
        log.write([*entries, log.item_entry(item, "answer", text, at=now)])
        auto_approval.revoke(item, output, f"{user} sent a draft back: {note}", now=now)
        log.write(dispatch.route([item], staff, now=now))
    return YES


def correct(
    *, output: Output, user: User, changes: Mapping[str, Any], reason: str = "", review: Review | None = None
) -> Allowed:
    """Correct how an agent has sorted something: what followed from it is made again, and it counts against the agent.

    ``changes`` are the fields of the output that are otherwise; what they imply for the others the kind says. With
    a ``review`` the question is answered by it, once. ``Unfit`` if the result does not fit the schema.
    """
    with transaction.atomic():
        now = database_now()
        item = lock_items({output.item_id})[output.item_id]
        output = Output.objects.select_related("trigger", "item__department").get(pk=output.pk)
        if review is not None and not (allowed := can_answer(read_review(review.pk), Answer.CORRECT)):
            return allowed
        if not (allowed := can_correct(output)):
            return allowed
        spec = item.department.spec
        wanted = spec.correct(output.key, output.payload, changes) if spec.correct else changes
        payload = fit_payload(spec, output, wanted)
        before = {name: value for name, value in output.payload.items() if payload.get(name) != value}
        if not changes or not before:
            return no("Nothing was changed: it says so already.")
        asked = Review.objects.filter(output=output, kind=Review.Kind.LOW_CONFIDENCE, status=Review.Status.OPEN)
        answered = list(asked.select_for_update(of=("self",)).order_by("pk"))
        for question in answered:
            close(question, Answer.CORRECT, user, reason, now=now)
        desk = load_staff().desks[item.department_id]
        plan = outputs.plan_replacement(item, desk, output.key, output.trigger_id)
        why = f"{user} corrected it{f': {reason}' if reason else '.'}"
        origin = Output.Origin.CORRECTED
        written, entries = outputs.replace(
            plan, item, desk, why=why, now=now, payload=payload, author=user, origin=origin
        )
        assert written is not None  # a payload was given
        Review.objects.filter(pk__in=[question.pk for question in answered]).update(edited=written)
        Action.objects.create(
            department_id=item.department_id,
            item=item,
            user=user,
            verb="correct",
            target=f"review:{review.pk}" if review is not None else f"output:{output.pk}",
            before=before,
            after={name: payload[name] for name in before if name in payload},
            reason=reason[:300],
        )
        log.write(entries)
        tell(item, written, "written", now)
    return YES
