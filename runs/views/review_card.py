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
from runs.models import AgentRun, Item, Message, Output, Review
from runs.payloads import Classification, classifications_of, texts_of
from runs.snoozing import CHOICES, local_time
from runs.staleness import find_stale
from runs.views.cards import build_card
from runs.views.review_budget import budget_of
from runs.views.review_buttons import buttons_of
from runs.views.review_changes import changes_of, since_sent_back
from runs.views.review_rows import away_of
from runs.views.shown import show_automation

Kind = Review.Kind
LAST_MESSAGES = 10


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
class Sorted:
    """An output that sorts the item, with the fields a person may correct."""

    output: Output
    fields: Sequence[Classification]
    url: str


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
        "automation": show_automation(item) if item is not None else None,
        "buttons": buttons_of(asked, access) if review.status == Review.Status.OPEN else [],
        "texts": _texts(review, shown, given or {}),
        "given": given or {},
        "address": asked.address if review.kind == Kind.DRAFT else "",
        "claims": claims,
        "unsupported": [claim for claim in claims if claim.is_supported is False and not claim.is_removed],
        "unchecked": any(claim.is_supported is None for claim in claims),
        "changes": changes_of(shown.replaces, shown) if shown is not None else [],
        "since": since_sent_back(review, rounds, shown),
        "sorted": _sorted(review, outputs),
        "rounds": rounds,
        "max_rounds": MAX_ROUNDS,
        "thread": _thread(item),
        "budget": budget_of(review, access),
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
