"""The engine's part of an item's page: every kind of department shows it beside what only the kind knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, Sum
from django.http import HttpRequest
from django.utils import timezone

from runs.access import access_of
from runs.facts import load_facts, load_router
from runs.incidents import ACCEPTABLE
from runs.models import AgentRun, Item, Message, ModelCall, Output, Review, Trigger
from runs.staleness import find_stale
from runs.views.cards import Card, build_card
from runs.views.shown import Shown, show_automation, show_item, show_pipeline_run
from runs.views.steps import Desk, Occasion, build_occasions
from runs.views.timeline import read_timeline

RUN_ROWS = 20


@dataclass(frozen=True, slots=True)
class Question:
    """An open review with the card of what it asks about, and what this person may answer."""

    review: Review
    card: Card | None
    checks: Card | None
    can_answer: bool
    missing: str = ""
    """What the run lacked in which the asked-about output was made, or failed to be."""

    @property
    def is_about_failure(self) -> bool:
        """Whether it asks to retry or to go on without, and not about an output."""
        return self.review.kind in ACCEPTABLE


def item_context(request: HttpRequest, item: Item) -> dict[str, Any]:
    """What the engine knows of an item (with ``department`` selected), in a fixed number of queries."""
    access, now, spec = access_of(request), timezone.now(), item.department.spec
    outputs = _outputs(item)
    triggers = list(item.triggers.order_by("-pk")[:100])
    runs = list(item.agent_runs.select_related("agent", "department").order_by("pk"))
    messages = list(item.messages.select_related("output").order_by("at", "pk"))
    decision = load_router(item.department).decide(load_facts([item], now=now)[item.pk])
    agents = list(item.department.agents.order_by("pk"))
    occasions = build_occasions(Desk(agents, outputs, runs, triggers, decision.trace, now))
    stale = find_stale(item, outputs)
    cards = {output.pk: build_card(output, spec, stale.get(output.pk, "")) for output in outputs}
    sent = {message.output_id for message in messages if message.direction == Message.Direction.OUT}
    questions = _questions(request, item, cards, outputs)
    unsent = [cards[output.pk] for output in outputs if _is_unsent(output, spec.final_key, sent)]
    # What a person is asked about stands at the top, and once is enough.
    above = {question.review.output_id for question in questions} | {card.output.pk for card in unsent}
    pipelines = item.pipeline_runs.order_by("-pk")[:RUN_ROWS]
    return {
        "access": access,
        "now": now,
        "item": item,
        "spec": spec,
        "shown": show_item(item, spec),
        "automation": show_automation(item),
        "occasions": occasions,
        "questions": questions,
        "groups": _groups(occasions, {pk: card for pk, card in cards.items() if pk not in above}),
        "unsent": unsent,
        "messages_list": messages,
        "moments": read_timeline(item, triggers, messages),
        "pipelines": [(run, show_pipeline_run(run)) for run in pipelines],
        "costs": _costs(item),
        "next": _next(item, runs, triggers),
        "can_operate": access.can(item.department_id, "operator"),
    }


def why_context(request: HttpRequest, item: Item) -> dict[str, Any]:
    """What the router would decide about the item now, and why: every rule and every agent."""
    now = timezone.now()
    facts = load_facts([item], now=now)[item.pk]
    decision = load_router(item.department).decide(facts)
    titles = {agent.slug: agent.title for agent in item.department.agents.all()}
    numbers = [trigger.id for trigger in facts.triggers]
    kinds = {trigger.pk: trigger for trigger in Trigger.objects.filter(pk__in=numbers)}
    return {
        "access": access_of(request),
        "item": item,
        "spec": item.department.spec,
        "shown": show_item(item, item.department.spec),
        "facts": facts,
        "decision": decision,
        "rules": [{**rule, "trigger": kinds.get(rule["occasion"])} for rule in decision.trace["rules"]],
        "agents": [
            {**agent, "title": titles.get(agent["agent"], agent["agent"]), "trigger": kinds.get(agent["occasion"])}
            for agent in decision.trace["agents"]
        ],
        "wanted": decision.trace["wanted"],
    }


def _outputs(item: Item) -> list[Output]:
    rows = item.outputs.filter(is_current=True).select_related("agent_run__agent", "author", "trigger")
    return list(rows.order_by("pk"))


def _groups(occasions: Sequence[Occasion], cards: dict[int, Card]) -> list[tuple[Occasion, list[Card]]]:
    """The cards of every occasion."""
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
    return groups[1:] + groups[:1] if groups and groups[0][0].trigger is None else groups


def _questions(request: HttpRequest, item: Item, cards: dict[int, Card], outputs: Sequence[Output]) -> list[Question]:
    # An incident asks about many items; here it stands for this one's failed runs.
    failed = AgentRun.objects.filter(item=item, status=AgentRun.Status.FAILED, incident__isnull=False)
    mine = Q(item=item) | Q(kind=Review.Kind.INCIDENT, pk__in=failed.values("incident"))
    rows = Review.objects.filter(mine, department=item.department_id, status=Review.Status.OPEN).select_related(
        "output__agent_run__pipeline_run", "agent_run__agent", "agent_run__pipeline_run"
    )
    can_answer = access_of(request).can(item.department_id, "reviewer")
    found = []
    for review in rows.order_by("-risk", "pk"):
        card, output = None, review.output
        if output is not None:
            card = cards.get(output.pk) or build_card(output, item.department.spec)
        found.append(Question(review, card, _checks(output, outputs, cards), can_answer, _missing(review)))
    return found


def _missing(review: Review) -> str:
    run = review.agent_run or (review.output.agent_run if review.output else None)
    return run.pipeline_run.missing if run is not None else ""


def _checks(output: Output | None, outputs: Sequence[Output], cards: dict[int, Card]) -> Card | None:
    """Among what the asked-about output was made from, the one that lists ``checks``: claims beside sources."""
    made_from = output.made_from if output else []
    for other in outputs:
        if other.pk in made_from and isinstance(other.payload, dict) and other.payload.get("checks"):
            return cards[other.pk]
    return None


def _is_unsent(output: Output, final_key: str, sent: set[int | None]) -> bool:
    is_final = output.key == final_key and output.verdict == Output.Verdict.APPROVED
    return is_final and output.pk not in sent


def _costs(item: Item) -> dict[str, Any]:
    calls = ModelCall.objects.filter(item=item).values("agent__job")
    rows = list(calls.annotate(usd=Sum("cost_usd"), calls=Count("pk")).order_by("-usd"))
    return {
        "rows": [{**row, "title": row["agent__job"].split(":")[0]} for row in rows],
        "usd": sum((row["usd"] for row in rows), Decimal(0)),
        "calls": sum(row["calls"] for row in rows),
    }


def _next(item: Item, runs: Sequence[AgentRun], triggers: Sequence[Trigger]) -> Shown:
    """One sentence: what happens next to this item, or why nothing does."""
    if any(run.status in AgentRun.ACTIVE for run in runs):
        names = ", ".join(dict.fromkeys(run.agent.title for run in runs if run.status in AgentRun.ACTIVE))
        return Shown(f"Being worked on by {names}.", "progress", "loader-2", is_live=True)
    department = item.department
    if department.state not in department.WORKING or department.stopped_by_error:
        state = "its line stands still" if department.stopped_by_error else f"it is {department.get_state_display()}"
        return Shown(f"Nothing new starts in {department}: {state}.", "warning", "ban")
    if item.automation != Item.Automation.ACTIVE:
        return Shown("Nothing starts until a person switches the automation on again.", "warning", "ban")
    if item.route_due_at is not None and item.route_due_at <= timezone.now():
        return Shown("A worker decides next what is wanted.", "neutral", "clock", since=item.route_due_at, is_live=True)
    if item.route_due_at is not None:
        coming = [t for t in triggers if t.status == Trigger.Status.OPEN and t.due_at == item.route_due_at]
        what = coming[0].get_kind_display() if coming else "look"
        return Shown(f"The next {what} is due", "neutral", "clock", then_at=item.route_due_at)
    return Shown("Nothing is wanted now.", "neutral", "circle-check")
