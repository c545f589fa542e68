"""What is asked about an item and what was made for it: questions, and outputs as cards, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import BigIntegerField, Q, QuerySet, prefetch_related_objects
from django.http import HttpRequest

from agents.statements import Given, Statement
from runs.access import access_of
from runs.incidents import ACCEPTABLE
from runs.models import AgentRun, Item, Message, Output, Review
from runs.sendable import address_of
from runs.staleness import find_stale
from runs.views.cards import Card
from runs.views.output_cards import OutputCard, build_output_card
from runs.views.review_buttons import waits_as_it_stands, waits_in_outbox
from runs.views.steps import Occasion


@dataclass(frozen=True, slots=True)
class Question:
    """An open review with the card of what it asks about, and what this person may answer."""

    review: Review
    card: Card | None
    checks: Card | None
    can_answer: bool
    waits: str = ""
    """What an approved mail waits for, in sentences; empty if it leaves after its undo time."""
    missing: str = ""
    """What the run lacked in which the asked-about output was made, or failed to be."""

    @property
    def is_about_failure(self) -> bool:
        """Whether it asks to retry or to go on without, and not about an output."""
        return self.review.kind in ACCEPTABLE


def summary_context(
    request: HttpRequest,
    item: Item,
    outputs: Sequence[Output],
    occasions: Sequence[Occasion],
    runs: Sequence[AgentRun],
) -> dict[str, Any]:
    """Questions, approved outputs that have not left, and the cards of everything else, by occasion."""
    spec = item.department.spec
    stale = find_stale(item, outputs)
    cards = {output.pk: build_output_card(output, spec, stale.get(output.pk, "")) for output in outputs}
    sent = {pk for (pk,) in _SENT.rows(item=item.pk) if pk is not None}
    questions = _questions(request, item, cards, outputs, runs)
    unsent = [cards[output.pk].card for output in outputs if _is_unsent(output, spec.final_key, sent)]
    # What a person is asked about stands at the top, and once is enough.
    above = {question.review.output_id for question in questions} | {card.output.pk for card in unsent}
    left = {pk: card for pk, card in cards.items() if pk not in above}
    address = address_of(item) if questions else ""
    return {
        "address": address,
        "questions": questions,
        "unsent": unsent,
        "waits": waits_as_it_stands(item, item.department, access_of(request).installation) if unsent else "",
        "groups": _groups(occasions, left, is_calm=not above),
    }


def count_questions(item: Item) -> int:
    """How many questions about the item are open, those about many items included; one query."""
    return _OPEN.count(item=item.pk, department=item.department_id)


def _open_reviews() -> QuerySet[Review]:
    # An incident asks about many items; here it stands for this one's failed runs.
    failed = AgentRun.objects.filter(item_id=_ITEM, status=AgentRun.Status.FAILED, incident__isnull=False)
    mine = Q(item_id=_ITEM) | Q(kind=Review.Kind.INCIDENT, pk__in=failed.values("incident"))
    department = Given("department", BigIntegerField())
    rows = Review.objects.filter(mine, department_id=department, status=Review.Status.OPEN)
    return rows.order_by("-risk", "pk")


_ITEM = Given("item", BigIntegerField())
_OPEN = Statement(_open_reviews)
_SENT = Statement(
    lambda: Message.objects.filter(item_id=_ITEM, direction=Message.Direction.OUT).order_by().values_list("output_id")
)


def _groups(
    occasions: Sequence[Occasion], cards: dict[int, OutputCard], *, is_calm: bool
) -> list[tuple[Occasion, list[OutputCard]]]:
    """The cards of every occasion; the first of all is open where nothing is asked."""
    groups = []
    for occasion in occasions:
        number = occasion.trigger.pk if occasion.trigger else None
        own = {pk: card for pk, card in cards.items() if card.output.trigger_id == number}
        ordered = [step.output.pk for step in occasion.steps if step.output]
        # The last step first: what came out, then what it was made from.
        keys = list(dict.fromkeys([*reversed(ordered), *own]))
        if own:
            groups.append((occasion, [own[pk] for pk in keys if pk in own]))
    # The newest occasion is what somebody comes to see.
    ordered_groups = groups[1:] + groups[:1] if groups and groups[0][0].trigger is None else groups
    if ordered_groups and is_calm:
        ordered_groups[0][1][0] = replace(ordered_groups[0][1][0], is_open=True)
    return ordered_groups


def _questions(
    request: HttpRequest,
    item: Item,
    cards: dict[int, OutputCard],
    outputs: Sequence[Output],
    runs: Sequence[AgentRun],
) -> list[Question]:
    rows = _OPEN.objects(item=item.pk, department=item.department_id)
    known, known_runs = {output.pk: output for output in outputs}, {run.pk: run for run in runs}
    for row in rows:
        row.department = item.department
        if row.item_id == item.pk:
            row.item = item
        if row.output_id in known:
            row.output = known[row.output_id]
        if row.agent_run_id in known_runs:
            row.agent_run = known_runs[row.agent_run_id]
    # Step by step: a prefetch goes on only from what it has read, and those that are known it has not.
    prefetch_related_objects(rows, "output", "agent_run__agent")
    prefetch_related_objects([row.output for row in rows if row.output], "agent_run")
    runs_told = [*(row.agent_run for row in rows), *(row.output.agent_run for row in rows if row.output)]
    prefetch_related_objects([run for run in runs_told if run], "pipeline_run")
    access = access_of(request)
    can_answer = access.can(item.department_id, "reviewer")
    found = []
    for review in rows:
        card, output = None, review.output
        if output is not None:
            card = (cards.get(output.pk) or build_output_card(output, item.department.spec)).card
        waits = "" if review.item_id is None else waits_in_outbox(review, access.installation)
        found.append(Question(review, card, _checks(output, outputs, cards), can_answer, waits, _missing(review)))
    return found


def _missing(review: Review) -> str:
    run = review.agent_run or (review.output.agent_run if review.output else None)
    return run.pipeline_run.missing if run is not None else ""


def _checks(output: Output | None, outputs: Sequence[Output], cards: dict[int, OutputCard]) -> Card | None:
    """Among what the asked-about output was made from, the one that lists ``checks``: claims beside sources."""
    made_from = output.made_from if output else []
    for other in outputs:
        if other.pk in made_from and isinstance(other.payload, dict) and other.payload.get("checks"):
            return cards[other.pk].card
    return None


def _is_unsent(output: Output, final_key: str, sent: set[int]) -> bool:
    is_final = output.key == final_key and output.verdict == Output.Verdict.APPROVED
    return is_final and output.pk not in sent
