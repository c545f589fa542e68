"""What a question can be answered with now, and if not, why not: asked by buttons, keys, URLs and services alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import BigIntegerField, CharField, QuerySet
from django.utils.timezone import localtime

from agents.models import Agent, Member
from agents.spec import ITEM
from agents.statements import Given, Statement
from runs.absences import Roster
from runs.access import Access
from runs.allowed import YES, Allowed, can_retry, can_take_over, has_left, no
from runs.backends import includes
from runs.models import Item, OutboxMessage, Output, Review, SendBack
from runs.payloads import classifications_of, texts_of
from runs.sendable import address_of, why_not_send

Answer, Kind, Role = Review.Answer, Review.Kind, Member.Role
HIGH_RISK = 3
MAX_ROUNDS = 3
"""After so many rounds a person must choose."""
JUDGED = (Kind.DRAFT, Kind.LOW_CONFIDENCE)
"""Kinds of question whether an output is right."""
LAST_CALL = timedelta(hours=1)
"""A snoozed question is back so long before its deadline."""
UNDOABLE = (Answer.APPROVE, Answer.APPROVE_EDITED, Answer.REJECT)
_DRAFT = (Answer.APPROVE, Answer.APPROVE_EDITED, Answer.SEND_BACK, Answer.REJECT, Answer.TAKE_OVER)
OFFERS: Mapping[str, tuple[Review.Answer, ...]] = {
    Kind.DRAFT: _DRAFT,
    Kind.LOW_CONFIDENCE: (Answer.APPROVE, Answer.CORRECT, Answer.SEND_BACK, Answer.TAKE_OVER),
    Kind.FAILURE: (Answer.RETRY, Answer.ACCEPT, Answer.TAKE_OVER),
    Kind.REFUSAL: (Answer.RETRY, Answer.ACCEPT, Answer.TAKE_OVER),
    Kind.DEGRADED: (Answer.ACCEPT, Answer.RETRY, Answer.TAKE_OVER),
    Kind.INCIDENT: (Answer.RETRY, Answer.ACCEPT),
    Kind.UNSURE_SEND: (Answer.WAS_SENT, Answer.NOT_SENT),
    Kind.BUDGET: (Answer.DISMISS, Answer.TAKE_OVER),
    Kind.STOP_THE_LINE: (Answer.DISMISS,),
    Kind.FELL_THROUGH: (Answer.DISMISS, Answer.TAKE_OVER),
}
"""What each kind of question can be answered with, the usual answer first. Only one item can be taken over."""
ROLES: Mapping[str, str] = {Answer.RETRY: Role.OPERATOR, Answer.TAKE_OVER: Role.OPERATOR}
"""Who may give an answer; a reviewer where nothing is said."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One answer as a page offers it."""

    answer: str
    allowed: Allowed


def offers_of(review: Review, access: Access | None = None) -> list[Offer]:
    """Every answer to this kind of question, each with whether it can be given now."""
    return Asked(review).offers(access)


def can_answer(review: Review, answer: str, access: Access | None = None) -> Allowed:
    """Give this answer to the question. ``item`` and ``output`` are read."""
    return _can_answer(Asked(review), answer, access)


class Asked:
    """A question while its answers are looked at: what several of them rest on is read once.

    ``address``: the item's, where it was read already.
    """

    def __init__(self, review: Review, address: str | None = None) -> None:
        self.review = review
        if address is not None:
            self.address = address

    def offers(self, access: Access | None = None) -> list[Offer]:
        """Every answer to this kind of question, each with whether it can be given now."""
        return [Offer(answer, _can_answer(self, answer, access)) for answer in _answers_to(self.review)]

    @cached_property
    def rounds(self) -> list[SendBack]:
        """How often what it asks about was sent back, oldest first."""
        return rounds_of(self.review.output) if self.review.output is not None else []

    @cached_property
    def address(self) -> str:
        """Whom a mail about its item goes to; empty if nobody knows."""
        return address_of(self.review.item) if self.review.item is not None else ""

    @cached_property
    def may_leave(self) -> Allowed:
        """Whether what is asked about may still go to the item's person."""
        review = self.review
        if review.kind != Kind.DRAFT or review.item is None or review.output is None:
            return YES
        reason = why_not_send(review.item, review.output, address=self.address)
        return no(reason) if reason else _goes_on(review.item)


def _answers_to(review: Review) -> list[Review.Answer]:
    return [one for one in OFFERS.get(review.kind, ()) if one != Answer.TAKE_OVER or review.item_id is not None]


def _can_answer(asked: Asked, answer: str, access: Access | None) -> Allowed:
    review = asked.review
    if review.status != Review.Status.OPEN:
        return no(who_decided(review))
    if answer not in _answers_to(review):
        return no(f"A question about {review.get_kind_display()} is not answered like that.")
    if access is not None and not access.can(review.department_id, ROLES.get(answer, Role.REVIEWER)):
        return no(f"This takes the role of a person who is {ROLES.get(answer, Role.REVIEWER)}.")
    if review.output is not None and not review.output.is_current:
        return no(f"It has been replaced since. {review.output.retired_why}".strip())
    check = _CHECKS.get(Answer(answer))
    return check(asked) if check is not None else YES


def can_judge(review: Review, answer: str, output_id: int | None) -> Allowed:
    """Give this answer to the output that was shown (``output_id``, None: to whichever is asked about)."""
    if review.status == Review.Status.OPEN and output_id not in (None, review.output_id):
        return no("It is about another text than the one that you were shown. Look again.")
    return can_answer(review, answer)


def can_undo(review: Review, access: Access | None = None, *, now: datetime) -> Allowed:
    """Take an answer back. ``output`` and ``edited`` are read."""
    output = review.edited or review.output
    is_answered = review.status == Review.Status.ANSWERED and review.answer in UNDOABLE
    if not is_answered or output is None or review.answered_at is None:
        return no("There is no answer that can be taken back.")
    if access is not None and not access.can(review.department_id, Role.REVIEWER):
        return no(f"This takes the role of a person who is {Role.REVIEWER}.")
    if not output.is_current:
        return no("It has been replaced since.")
    if has_left(output):
        return no("It has left the house, or is just leaving.")
    # What waits, was withdrawn or could not be sent is decided anew whenever somebody wants to.
    waits = OutboxMessage.objects.filter(output=output)
    if not waits.exists() and now > review.answered_at + timedelta(seconds=settings.REVIEW_UNDO_SECONDS):
        return no("The time to take it back is over.")
    if Review.objects.filter(output=output, kind=review.kind, status=Review.Status.OPEN).exists():
        return no("It is asked about already.")
    return _goes_on(review.item)


def can_snooze(review: Review, access: Access | None = None, *, now: datetime) -> Allowed:
    """Take a question off the list for a while."""
    if review.status != Review.Status.OPEN:
        return no(who_decided(review))
    if review.snoozed_until is not None and review.snoozed_until > now:
        return no("It is snoozed already: wake it first.")
    if review.deadline is not None and review.deadline <= now:
        return no("Its deadline is over: it does not wait any longer.")
    return _reviewer(review, access)


def can_wake(review: Review, access: Access | None = None, *, now: datetime) -> Allowed:
    """Put a snoozed question back onto the list; anybody who may answer may do so."""
    if review.status != Review.Status.OPEN:
        return no(who_decided(review))
    if review.snoozed_until is None or review.snoozed_until <= now:
        return no("It is not snoozed.")
    return _reviewer(review, access)


def can_claim(review: Review, user: User, roster: Roster, access: Access | None = None) -> Allowed:
    """Say that one looks at it oneself; also at what belongs to somebody who is away and whom one covers for."""
    if review.status != Review.Status.OPEN:
        return no(who_decided(review))
    if review.assignee_id is not None and review.assignee_id not in roster.covered_by(user.pk):
        return no(f"{review.assignee} looks at it already.")
    return _reviewer(review, access)


def can_release(review: Review, user: User, access: Access | None = None) -> Allowed:
    """Say that one does not look at it any more."""
    if review.status != Review.Status.OPEN:
        return no(who_decided(review))
    if review.assignee_id != user.pk:
        return no(f"{review.assignee} looks at it, not you." if review.assignee else "Nobody looks at it.")
    return _reviewer(review, access)


def can_assign(review: Review, to: User | None = None, access: Access | None = None) -> Allowed:
    """Ask somebody to look at it: a person who may answer it."""
    if review.status != Review.Status.OPEN:
        return no(who_decided(review))
    if to is not None:
        member = Member.objects.filter(department=review.department_id, user=to, user__is_active=True).first()
        if not includes(member.role if member is not None else None, Role.REVIEWER):
            return no(f"{to} cannot answer questions of {review.department}.")
        if review.assignee_id == to.pk:
            return no(f"{to} looks at it already.")
    return _reviewer(review, access)


def can_approve_together(review: Review, access: Access | None = None, *, address: str | None = None) -> Allowed:
    """Approve it together with drafts that are like it. What is risky is looked at by itself. ``address``: as read."""
    if review.risk >= HIGH_RISK:
        return no("High risk: look at it by itself.")
    return _can_answer(Asked(review, address), Answer.APPROVE, access)


def can_correct(output: Output, access: Access | None = None) -> Allowed:
    """Correct how an agent has sorted something."""
    if not output.is_current:
        return no(f"It has been replaced since. {output.retired_why}".strip())
    if not classifications_of(output.item.department.spec, output):
        return no("It sorts nothing: edit it instead.")
    if has_left(output):
        return no("It has left the house, or is just leaving.")
    if access is not None and not access.can(output.item.department_id, Role.REVIEWER):
        return no(f"This takes the role of a person who is {Role.REVIEWER}.")
    return YES


def who_decided(review: Review) -> str:
    """Who has answered a question, how and when in the zone of whoever came second."""
    at = f" at {localtime(review.answered_at):%Y-%m-%d %H:%M %Z}" if review.answered_at else ""
    if review.status == Review.Status.WITHDRAWN:
        return f"This question is withdrawn already{at}. {review.answer_note}".strip()
    rule = f"the rule “{review.by_rule}”" if review.by_rule else "the deadline"
    return f"This question is answered already by {review.answered_by or rule}: {review.get_answer_display()}{at}."


def key_to_write(review_output: Output) -> str:
    """Which key is written again when this output is sent back."""
    key = review_output.key
    return review_output.item.department.spec.send_back_to.get(key, key)


def rounds_of(output: Output) -> list[SendBack]:
    """How often what this output was made from was sent back, oldest first."""
    statement = _ROUNDS if output.trigger_id is None else _ROUNDS_OF_TRIGGER
    return statement.objects(item=output.item_id, key=key_to_write(output), trigger=output.trigger_id)


def _sent_back(**occasion: Any) -> QuerySet[SendBack]:
    rows = SendBack.objects.filter(item_id=Given("item", BigIntegerField()), key=Given("key", CharField()), **occasion)
    return rows.select_related("author", "review__output").order_by("pk")


_ROUNDS = Statement(lambda: _sent_back(trigger=None))
_ROUNDS_OF_TRIGGER = Statement(lambda: _sent_back(trigger_id=Given("trigger", BigIntegerField())))
_WRITERS = Statement(
    lambda: Agent.objects.filter(
        department_id=Given("department", BigIntegerField()), writes=Given("key", CharField())
    ).order_by("pk")
)


def _reviewer(review: Review, access: Access | None) -> Allowed:
    if access is None or access.can(review.department_id, Role.REVIEWER):
        return YES
    return no(f"This takes the role of a person who is {Role.REVIEWER}.")


def _may_leave(asked: Asked) -> Allowed:
    return asked.may_leave


def _may_edit(asked: Asked) -> Allowed:
    output = asked.review.output
    if output is None or not texts_of(output.item.department.spec, output):
        return no("There is no text in it that could be edited.")
    return asked.may_leave


def _may_send_back(asked: Asked) -> Allowed:
    review, output = asked.review, asked.review.output
    if output is None:
        return no("There is nothing that could be sent back.")
    if output.is_by_person:
        return no(f"{output.author or 'A person'} wrote it: edit it, or reject it.")
    if has_left(output):
        return no("It has left the house, or is just leaving.")
    if len(asked.rounds) >= MAX_ROUNDS:
        return no(f"It was sent back {MAX_ROUNDS} times: approve it, edit it, reject it, or take over.")
    occasion = output.trigger.kind if output.trigger else ITEM
    writers = _WRITERS.objects(department=review.department_id, key=key_to_write(output))
    writer = next((agent for agent in writers if agent.works_for(occasion)), None)
    if writer is None or not writer.is_enabled:
        return no(f"{writer.title if writer else 'Who wrote it'} is switched off.")
    return _goes_on(review.item)


def _may_correct(asked: Asked) -> Allowed:
    output = asked.review.output
    return can_correct(output) if output is not None else no("There is nothing to correct.")


def _may_take_over(asked: Asked) -> Allowed:
    item = asked.review.item
    return can_take_over(item) if item is not None else no("It is not about one item.")


def _may_retry(asked: Asked) -> Allowed:
    if asked.review.kind == Kind.INCIDENT:
        return YES
    run = asked.review.agent_run
    return can_retry(run) if run is not None else no("There is no step that could be tried again.")


def _goes_on(item: Item | None) -> Allowed:
    if item is not None and item.automation == Item.Automation.CLOSED:
        return no("It is closed. Reopen it first.")
    return YES


_CHECKS: Mapping[Review.Answer, Callable[[Asked], Allowed]] = {
    Answer.APPROVE: _may_leave,
    Answer.APPROVE_EDITED: _may_edit,
    Answer.SEND_BACK: _may_send_back,
    Answer.CORRECT: _may_correct,
    Answer.TAKE_OVER: _may_take_over,
    Answer.RETRY: _may_retry,
}
