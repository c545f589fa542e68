"""Loads what the router has to know: the facts of items, and the rules and agents of departments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from django.db.models import Max

from agents.models import Agent, Department
from agents.spec import Facts, OutputFact, RunFact, TriggerFact
from agents.statements import Among, Statement
from runs.models import AgentRun, Item, Message, Output, Review, Rule, Trigger
from runs.router import AgentView, Router, RuleView

SUPPRESSED_TAG = "suppressed"
"""The tag of an item whose person must not be written to again."""

_COUNTING = (*AgentRun.ACTIVE, AgentRun.Status.FAILED)
_DIRECTION_MARKS = {Message.Direction.OUT.value: "contacted", Message.Direction.IN.value: "replied"}

_OUTPUTS = Statement(
    lambda: (
        Output.objects.filter(Among("item_id", "items"), is_current=True)
        .order_by("pk")
        .values_list("item_id", "key", "trigger_id", "facets", "verdict", "is_stale")
    )
)
AGENTS = Statement(lambda: Agent.objects.filter(Among("department_id", "departments")).order_by("pk"))
_RULES = Statement(
    lambda: Rule.objects.filter(Among("department_id", "departments"), is_enabled=True).order_by("position", "pk")
)
_RUNS = Statement(
    lambda: (
        AgentRun.objects.filter(Among("item_id", "items"), status__in=_COUNTING)
        .order_by("pk")
        .values_list("item_id", "agent__slug", "trigger_id", "status")
    )
)
_TRIGGERS = Statement(
    lambda: (
        Trigger.objects.filter(Among("item_id", "items"), status=Trigger.Status.OPEN)
        .order_by("pk")
        .values_list("item_id", "pk", "kind", "due_at")
    )
)
_DIRECTIONS = Statement(
    lambda: (
        Message.objects.filter(Among("item_id", "items"), direction__in=tuple(_DIRECTION_MARKS))
        .order_by()
        .values("item_id", "direction")
        .annotate(last=Max("pk"))
        .values_list("item_id", "direction", "last")
    )
)
_ASKED = Statement(
    lambda: (
        Review.objects.filter(Among("item_id", "items"), status=Review.Status.OPEN, kind=Review.Kind.DRAFT)
        .order_by()
        .values_list("item_id")
        .distinct()
    )
)


def load_facts(items: Sequence[Item], *, now: datetime) -> dict[int, Facts]:
    """The facts of each item by its id, in five queries whatever the number of items; no payload is read.

    The status is the one the item has. Triggers are due at ``now`` or not yet.
    """
    return load_facts_and_next(items, now=now)[0]


def load_facts_and_next(items: Sequence[Item], *, now: datetime) -> tuple[dict[int, Facts], dict[int, datetime]]:
    """The facts, and when each item's next future trigger is due, for items that have one."""
    ids = [item.pk for item in items]
    outputs = _outputs(ids)
    runs = _runs(ids)
    triggers, coming = _triggers(ids, now)
    marks = _marks(ids)
    facts = {
        item.pk: Facts(
            status=item.status,
            outputs=tuple(outputs.get(item.pk, ())),
            runs=tuple(runs.get(item.pk, ())),
            triggers=tuple(triggers.get(item.pk, ())),
            tags=frozenset(item.tags),
            marks=frozenset(marks.get(item.pk, ())) | ({"suppressed"} if SUPPRESSED_TAG in item.tags else set()),
        )
        for item in items
    }
    return facts, coming


def load_router(department: Department, agents: Iterable[Agent] | None = None) -> Router:
    """The department's enabled rules and its agents, compiled; two queries, one where all ``agents`` are given."""
    return load_routers([department], agents)[department.pk]


def load_routers(departments: Iterable[Department], given: Iterable[Agent] | None = None) -> dict[int, Router]:
    """The routers of departments by id, in two queries whatever their number. ``given``: all their agents, by id."""
    ids = [department.pk for department in departments]
    agents: dict[int, list[AgentView]] = {pk: [] for pk in ids}
    rules: dict[int, list[RuleView]] = {pk: [] for pk in ids}
    for agent in AGENTS.objects(departments=ids) if given is None else given:
        agents[agent.department_id].append(agent_view(agent))
    for rule in _RULES.objects(departments=ids):
        rules[rule.department_id].append(rule_view(rule))
    return {pk: Router(rules[pk], agents[pk]) for pk in ids}


def agent_view(agent: Agent) -> AgentView:
    """An agent as the router sees it."""
    return AgentView(
        slug=agent.slug,
        writes=agent.writes,
        needs=tuple(agent.needs),
        uses=tuple(agent.uses),
        scope="item" if agent.scope == Agent.Scope.ITEM else "occasion",
        serves=tuple(agent.serves),
        is_enabled=agent.is_enabled,
    )


def rule_view(rule: Rule) -> RuleView:
    """A rule as the router sees it."""
    return RuleView(name=rule.name, when=rule.when, want=tuple(rule.want))


def _outputs(ids: list[int]) -> dict[int, list[OutputFact]]:
    found: dict[int, list[OutputFact]] = {}
    for item_id, key, trigger_id, facets, verdict, is_stale in _OUTPUTS.rows(items=ids):
        found.setdefault(item_id, []).append(OutputFact(key, trigger_id, facets, verdict, is_stale))
    return found


def _runs(ids: list[int]) -> dict[int, list[RunFact]]:
    found: dict[int, list[RunFact]] = {}
    for item_id, slug, trigger_id, status in _RUNS.rows(items=ids):
        state: Literal["active", "failed"] = "failed" if status == AgentRun.Status.FAILED else "active"
        is_running = status == AgentRun.Status.RUNNING
        found.setdefault(item_id, []).append(RunFact(slug, trigger_id, state, is_running))
    return found


def _triggers(ids: list[int], now: datetime) -> tuple[dict[int, list[TriggerFact]], dict[int, datetime]]:
    found: dict[int, list[TriggerFact]] = {}
    coming: dict[int, datetime] = {}
    for item_id, pk, kind, due_at in _TRIGGERS.rows(items=ids):
        found.setdefault(item_id, []).append(TriggerFact(pk, kind, due_at <= now))
        if due_at > now:
            coming[item_id] = min(due_at, coming.get(item_id, due_at))
    return found, coming


def _marks(ids: list[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    received: dict[int, int] = {}
    sent: dict[int, int] = {}
    for item_id, direction, last in _DIRECTIONS.rows(items=ids):
        found.setdefault(item_id, set()).add(_DIRECTION_MARKS[direction])
        (sent if direction == Message.Direction.OUT else received)[item_id] = last
    for item_id in received.keys() & sent.keys():
        if sent[item_id] > received[item_id]:
            found[item_id].add("answered")
    for (item_id,) in _ASKED.rows(items=ids):
        found.setdefault(item_id, set()).add("awaiting_review")
    return found
