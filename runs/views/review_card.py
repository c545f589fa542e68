"""One question as a page shows it: what is asked, the material, what each answer does, and why one cannot be given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models import BigIntegerField
from django.http import HttpRequest
from django.urls import reverse

from agents.statements import Given, Statement
from runs import review_queue
from runs.absences import read_roster
from runs.access import Access, access_of
from runs.alike import count_alike
from runs.allowed import Allowed
from runs.answerable import (
    MAX_ROUNDS,
    Asked,
    can_claim,
    can_release,
    can_snooze,
    can_undo,
    can_wake,
)
from runs.database import now as database_now
from runs.models import AgentRun, Item, Message, Output, Review, SendBack
from runs.payloads import FOR_PEOPLE, Classification, classifications_of, texts_of
from runs.send_situation import held_by
from runs.sendable import address_of
from runs.snoozing import CHOICES, local_time
from runs.staleness import find_stale
from runs.views.cards import build_card
from runs.views.diffs import Piece, diff_texts, unchecked_sentences
from runs.views.review_rows import away_of

Answer, Kind = Review.Answer, Review.Kind
LAST_MESSAGES = 10


@dataclass(frozen=True, slots=True)
class Button:
    """One answer: its name, its key, what it does in one line, where it is posted, and whether it may be given."""

    answer: str
    label: str
    key: str
    effect: str
    url: str
    allowed: Allowed


@dataclass(frozen=True, slots=True)
class Text:
    """One editable text of the output; ``given`` is what somebody typed and was refused."""

    name: str
    value: str
    given: str
    is_long: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of fact beside its source. ``is_supported`` None: nobody has checked it.

    ``is_removed``: it was found in the draft, and is not in what is asked about any more.
    """

    text: str
    is_supported: bool | None
    source: str
    note: str
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a person changed in one text, and which sentences no check has seen."""

    name: str
    pieces: Sequence[Piece]
    unchecked: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sorted:
    """An output that sorts the item, with the fields a person may correct."""

    output: Output
    fields: Sequence[Classification]
    url: str


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


def card_context(
    request: HttpRequest, review: Review, user: User, *, given: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Everything the card of a question needs, as ``read_review`` reads it.

    ``given``: texts that were refused and must not be lost.
    """
    access, asked = access_of(request), Asked(review)
    item, output = review.item, review.output
    shown = review.edited or output
    outputs = _CURRENT.objects(item=item.pk) if item else []
    stale = find_stale(item, [output]) if item is not None and output is not None and output.is_current else {}
    now, claims, rounds = database_now(), claims_of(shown, outputs), asked.rounds
    return {
        "access": access,
        "review": review,
        "item": item,
        "output": shown,
        "card": build_card(shown, review.department.spec, stale.get(shown.pk, "")) if shown else None,
        "buttons": _buttons(asked, access) if review.status == Review.Status.OPEN else [],
        "texts": _texts(review, shown, given or {}),
        "given": given or {},
        "address": address_of(item) if item is not None and review.kind == Kind.DRAFT else "",
        "claims": claims,
        "unsupported": [claim for claim in claims if claim.is_supported is False and not claim.is_removed],
        "unchecked": any(claim.is_supported is None for claim in claims),
        "changes": _changes(shown.replaces, shown) if shown is not None else [],
        "rewritten": _rewritten(rounds, shown),
        "sorted": _sorted(review, outputs),
        "rounds": rounds,
        "max_rounds": MAX_ROUNDS,
        "thread": _thread(item),
        "runs": _runs(review),
        "undo": can_undo(review, access, now=now) if review.status == Review.Status.ANSWERED else None,
        "reason_codes": Review.ReasonCode.choices,
        "can_answer": access.can(review.department_id, "reviewer"),
        **_waiting(review, access, user, now),
    }


def _waiting(review: Review, access: Access, user: User, now: datetime) -> dict[str, Any]:
    """What an open question waits for: whose it is, who stands in, until when it is snoozed, what is like it."""
    if review.status != Review.Status.OPEN:
        return {}
    roster = read_roster(now)
    until = review.snoozed_until if review.snoozed_until is not None and review.snoozed_until > now else None
    alike = count_alike([review.group_id]).get(review.group_id, 0) if review.group_id is not None else 0
    return {
        "away": away_of(review, roster),
        "alike": alike if alike > 1 else 0,
        "can_claim": can_claim(review, user, roster, access),
        "can_release": can_release(review, user, access),
        "can_snooze": can_snooze(review, access, now=now),
        "can_wake": can_wake(review, access, now=now),
        "snoozed_until": until,
        "snoozed_local": local_time(until, review.department) if until is not None else "",
        "snoozes": CHOICES.items(),
        "people": [(person, roster.absence_of(person.pk)) for person in review_queue.assignable(review)],
    }


def _buttons(asked: Asked, access: Access) -> list[Button]:
    review, found = asked.review, []
    held = held_by(review.department, access.installation)
    for offer in asked.offers(access):
        label, key = _LABELS[offer.answer]
        effect = _EFFECTS[offer.answer]
        if offer.answer == Answer.APPROVE and review.kind == Kind.LOW_CONFIDENCE:
            label, effect = "It is right", _RIGHT
        elif offer.answer == Answer.APPROVE and review.kind == Kind.DRAFT and held:
            effect = f"It waits in the outbox: {held}"
        found.append(Button(offer.answer, label, key, effect, _url(review, offer.answer), offer.allowed))
    return found


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


def _texts(review: Review, output: Output | None, given: Mapping[str, str]) -> list[Text]:
    if output is None or review.status != Review.Status.OPEN:
        return []
    texts = texts_of(review.department.spec, output)
    return [
        Text(name, value, given.get(f"text_{name}", value), "\n" in value or len(value) > 120 or name == "body")
        for name, value in texts.items()
    ]


def claims_of(output: Output | None, outputs: Sequence[Output]) -> list[Claim]:
    """The claims of what the output was made from, with what a check found; the unsupported ones first."""
    made_from = [other for other in outputs if output is not None and other.pk in output.made_from]
    removed = output.payload.get("removed_claims") or () if output is not None else ()
    for other in made_from:
        checks = other.payload.get("checks") if isinstance(other.payload, dict) else None
        if checks:
            found = [_checked(check, removed) for check in checks]
            return sorted(found, key=lambda claim: (claim.is_supported is True, claim.is_removed))
    for other in made_from:
        claims = other.payload.get("claims") if isinstance(other.payload, dict) else None
        if claims:
            return [Claim(str(c.get("text", "")), None, str(c.get("source", "")), "") for c in claims]
    return []


def _checked(check: Mapping[str, Any], removed: Collection[str]) -> Claim:
    text, source, note = (str(check.get(name, "")) for name in ("claim", "source", "note"))
    return Claim(text, check.get("supported") is True, source, note, is_removed=text in removed)


def _changes(before: Output | None, output: Output) -> list[Change]:
    """In which texts an output differs from the one before it."""
    if before is None:
        return []
    found = []
    for name, value in output.payload.items():
        was = before.payload.get(name)
        if name != FOR_PEOPLE and isinstance(value, str) and isinstance(was, str) and value != was:
            found.append(Change(name, diff_texts(was, value), unchecked_sentences(was, value)))
    return found


def _rewritten(rounds: Sequence[SendBack], output: Output | None) -> list[Change]:
    """What is different from the version that was sent back last, while nobody has edited this one."""
    review = rounds[-1].review if rounds else None
    before = review.output if review is not None else None
    if output is None or before is None or output.replaces_id is not None or before.key != output.key:
        return []
    return _changes(before, output)


def _sorted(review: Review, outputs: Sequence[Output]) -> list[Sorted]:
    """How agents have sorted the item; the asked-about output alone, where the question is whether it is right."""
    spec = review.department.spec
    if review.kind == Kind.LOW_CONFIDENCE and review.output is not None:
        fields = classifications_of(spec, review.output)
        return [Sorted(review.output, fields, reverse("runs:review_correct", args=[review.pk]))] if fields else []
    if review.kind != Kind.DRAFT or review.output is None or review.status != Review.Status.OPEN:
        return []
    near = [o for o in outputs if o.trigger_id in (None, review.output.trigger_id) and o.pk != review.output.pk]
    found = [(output, classifications_of(spec, output)) for output in near]
    return [Sorted(o, fields, reverse("runs:output_correct", args=[o.pk])) for o, fields in found if fields]


def _thread(item: Item | None) -> list[Message]:
    return _LATEST.objects(item=item.pk, limit=LAST_MESSAGES)[::-1] if item is not None else []


def _runs(review: Review) -> list[AgentRun]:
    """What is under way on the item at this moment."""
    return _ACTIVE.objects(item=review.item_id) if review.item_id is not None else []


_CURRENT = Statement(
    lambda: Output.objects.filter(item_id=Given("item", BigIntegerField()), is_current=True).select_related(
        "trigger", "agent_run__agent"
    )
)
_LATEST = Statement(lambda: Message.objects.filter(item_id=Given("item", BigIntegerField())).order_by("-at", "-pk"))
_ACTIVE = Statement(
    lambda: (
        AgentRun.objects.filter(item_id=Given("item", BigIntegerField()), status__in=AgentRun.ACTIVE)
        .select_related("agent")
        .order_by("pk")
    )
)
