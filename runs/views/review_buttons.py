"""The answers to a question as buttons: what each does at this moment, and why one cannot be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.urls import reverse

from agents.models import Department, Installation
from runs.access import Access
from runs.allowed import Allowed, state_of
from runs.answerable import Asked
from runs.loop_guard import CAUSE
from runs.models import Item, Review
from runs.send_situation import held_by

Answer, Kind = Review.Answer, Review.Kind


@dataclass(frozen=True, slots=True)
class Button:
    """One answer: its name, its key, what it does in one line, where it is posted, and whether it may be given."""

    answer: str
    label: str
    key: str
    effect: str
    url: str
    allowed: Allowed


_LABELS: Mapping[str, tuple[str, str]] = {
    Answer.APPROVE: ("Approve", "a"),
    Answer.APPROVE_EDITED: ("Approve with changes", "e"),
    Answer.SEND_BACK: ("Send back", "n"),
    Answer.REJECT: ("Reject", "r"),
    Answer.CORRECT: ("Correct it", "e"),
    Answer.TAKE_OVER: ("Take over", "t"),
    Answer.RETRY: ("Retry", "a"),
    Answer.ACCEPT: ("Go on without it", "r"),
    Answer.WAS_SENT: ("It was sent", "a"),
    Answer.NOT_SENT: ("It was not sent", "r"),
    Answer.DISMISS: ("Put aside", "r"),
}
_EFFECTS: Mapping[str, str] = {
    Answer.APPROVE: "It leaves the house after the undo time, unless you take it back.",
    Answer.APPROVE_EDITED: "Your text leaves instead. The draft is kept beside it.",
    Answer.SEND_BACK: "It is written again with your note, and you are asked again.",
    Answer.REJECT: "It stays on record and is never sent. Nothing is written again by itself.",
    Answer.CORRECT: "What follows from it is made again. It counts against the agent.",
    Answer.TAKE_OVER: "Agents stop here. You do the rest by hand until you hand it back.",
    Answer.RETRY: "The step gets all its tries again.",
    Answer.ACCEPT: "The work goes on without it, for good.",
    Answer.WAS_SENT: "It is noted as sent, and never sent again.",
    Answer.NOT_SENT: "It waits to be sent again.",
    Answer.DISMISS: "Nothing is done about it now.",
}
_RIGHT = "It is noted as right. Nothing is sent."
LOOP = "Its steps go on within a minute. You are asked again if they go round in circles once more."
_AGENTS_WORK = (Answer.SEND_BACK, Answer.CORRECT, Answer.RETRY, Answer.ACCEPT)
"""Answers after which agents work, which they do not on an item that is paused or taken over."""


def buttons_of(asked: Asked, access: Access) -> list[Button]:
    """Every answer to an open question."""
    review, found = asked.review, []
    waits = waits_in_outbox(review, access.installation)
    for offer in asked.offers(access):
        label, key = _LABELS[offer.answer]
        effect = _effect(review, offer.answer, waits)
        if offer.answer == Answer.APPROVE and review.kind == Kind.LOW_CONFIDENCE:
            label, effect = "It is right", _RIGHT
        if _is_loop_allowed(review, offer.answer):
            label, key = "Let it go on", "a"
        found.append(Button(offer.answer, label, key, effect, _url(review, offer.answer), offer.allowed))
    return found


def waits_in_outbox(review: Review, installation: Installation | None = None) -> str:
    """What an approved mail waits for, in sentences; empty if it leaves after its undo time."""
    return waits_as_it_stands(review.item, review.department, installation)


def waits_as_it_stands(
    item: Item | None, department: Department, installation: Installation | None = None, *, is_manual: bool = False
) -> str:
    """The same of any message, from what holds sends now; one written by hand leaves while its item rests."""
    if item is not None and item.automation == Item.Automation.CLOSED:
        return f"It does not leave. {state_of(item)}"
    if not is_manual and (rests := resting(item)):
        return f"It waits in the outbox until the automation goes on. {rests}"
    held = held_by(department, installation)
    return f"It waits in the outbox: {held}" if held else ""


def resting(item: Item | None) -> str:
    """Why nothing starts or leaves of an item by itself, as a sentence; empty while its automation is active."""
    return state_of(item) if item is not None and item.automation != Item.Automation.ACTIVE else ""


def after_work(review: Review, answer: str) -> str:
    """What agents do after an answer, as a sentence; empty if they do nothing."""
    if _is_loop_allowed(review, answer):
        return LOOP
    return _EFFECTS[answer] if answer in _AGENTS_WORK else ""


def _is_loop_allowed(review: Review, answer: str) -> bool:
    """Whether the loop guard's question is put aside: work that was looked at goes on (``runs.loop_guard``)."""
    return answer == Answer.DISMISS and review.kind == Kind.BUDGET and review.cause == CAUSE


def _effect(review: Review, answer: str, waits: str) -> str:
    work = after_work(review, answer)
    effect = work or _EFFECTS[answer]
    if review.kind == Kind.DRAFT and waits and answer == Answer.APPROVE:
        return waits
    if review.kind == Kind.DRAFT and waits and answer == Answer.APPROVE_EDITED:
        return f"Your text takes its place, and the draft is kept beside it. {waits}"
    if work and (rests := resting(review.item)):
        return f"{rests} Once the automation goes on: {effect[0].lower()}{effect[1:]}"
    return effect


def _url(review: Review, answer: str) -> str:
    if answer == Answer.RETRY and review.kind == Kind.INCIDENT:
        return reverse("runs:incident_retry", args=[review.pk])
    if answer == Answer.ACCEPT and review.kind == Kind.INCIDENT:
        return reverse("runs:incident_accept", args=[review.pk])
    if answer == Answer.RETRY:
        return reverse("runs:step_retry", args=[review.agent_run_id]) if review.agent_run_id else ""
    if answer in (Answer.WAS_SENT, Answer.NOT_SENT):
        return reverse("runs:review_settle", args=[review.pk])
    return reverse(f"runs:review_{answer}", args=[review.pk])
