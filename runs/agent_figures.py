"""Agents as people look after them: who reports to whom, who reads what from whom, how each does now and lately.

Figures come from sums by hour and day and from counters, never from counting steps one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from django.db.models import Count, DateTimeField

from agents.model_state import Key, is_broken, is_closed, load_states
from agents.models import Agent, Department, ModelState, Soul
from agents.statements import Among, Given, Statement
from runs.agent_health import AgentHealth, health_of
from runs.cost_sums import Period
from runs.costs import Ledger
from runs.models import AgentRun
from runs.money import dollars
from runs.spending import WARN_AT, Fill, Pause, paused_by_budget

ENOUGH = 4
"""Fewer steps than this say nothing of how an agent does."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How an agent is now. ``colour`` and ``icon`` as in ``runs.views.shown``; ``note`` says what it means."""

    label: str
    colour: str
    icon: str
    note: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One agent at a glance. Health is of the last day; cost is of today (UTC)."""

    agent: Agent
    condition: Condition
    health: AgentHealth | None
    running: int
    today_usd: Decimal


@dataclass(frozen=True, slots=True)
class Node:
    """One agent in the chain of command with those who report to it."""

    standing: Standing
    reports: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Whom the agents below tell of trouble: a person, a channel, or nobody in particular."""

    person: str
    channel: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A key that an agent reads, who writes it, and whether the agent cannot do without it."""

    key: str
    writers: tuple[Agent, ...]
    is_needed: bool


@dataclass(frozen=True, slots=True)
class Flow:
    """What one agent reads and writes, and who reads that."""

    agent: Agent
    sources: tuple[Source, ...]
    readers: tuple[Agent, ...]


@dataclass(frozen=True, slots=True)
class Team:
    """One department's agents."""

    department: Department
    heads: tuple[Head, ...]
    flows: tuple[Flow, ...]


def load_teams(departments: Sequence[Department], *, now: datetime) -> list[Team]:
    """The teams of these departments in a fixed number of queries."""
    known = {department.pk: department for department in departments}
    agents = list(Agent.objects.filter(department__in=departments).select_related("escalate_to").order_by("pk"))
    for agent in agents:
        agent.department = known[agent.department_id]
    standings = {one.agent.pk: one for one in load_standings(agents, now=now)}
    teams = []
    for department in departments:
        own = [agent for agent in agents if agent.department_id == department.pk]
        if own:
            heads = chain_of_command([standings[agent.pk] for agent in own])
            teams.append(Team(department, heads, data_flow(own)))
    return teams


def load_standings(
    agents: Sequence[Agent],
    *,
    now: datetime,
    fills: Collection[Fill] | None = None,
    costs: Mapping[int, Decimal] | None = None,
) -> list[Standing]:
    """How these agents are now. They need ``department`` selected.

    ``fills`` and ``costs`` (US dollars of today by agent id) are what was read of them already.
    """
    ids = [agent.pk for agent in agents]
    health = {one.agent.pk: one for one in health_of(agents, now=now)}
    pauses, states = paused_by_budget(agents, now=now, fills=fills), load_states()
    with_soul = {agent_id for (agent_id,) in _WITH_SOUL.rows(agents=ids)}
    running = Counter(dict(_RUNNING.rows(agents=ids, now=now)))
    costs = _costs_of_today(agents, now) if costs is None else costs
    return [
        Standing(
            agent=agent,
            condition=judge(
                agent,
                has_soul=agent.pk in with_soul,
                pause=pauses.get(agent.pk),
                states=states,
                health=health.get(agent.pk),
                running=running[agent.pk],
                now=now,
            ),
            health=health.get(agent.pk),
            running=running[agent.pk],
            today_usd=costs.get(agent.pk, Decimal(0)),
        )
        for agent in agents
    ]


_WITH_SOUL = Statement(
    lambda: (
        Soul.objects.filter(Among("agent_id", "agents"), status=Soul.Status.PUBLISHED)
        .order_by()
        .values_list("agent_id")
    )
)
_RUNNING = Statement(
    lambda: (
        AgentRun.objects.filter(
            Among("agent_id", "agents"),
            status=AgentRun.Status.RUNNING,
            lease_expires_at__gt=Given("now", DateTimeField()),
        )
        .order_by()
        .values_list("agent_id")
        .annotate(count=Count("pk"))
    )
)


def _costs_of_today(agents: Sequence[Agent], now: datetime) -> dict[int, Decimal]:
    today = now.astimezone(UTC).date()
    ledger = Ledger({agent.department_id: agent.department for agent in agents}.values())
    found: dict[int, Decimal] = {}
    for ((agent_id,), _, _), sums in ledger.sum_calls(Period(today, today), ["agent_id"]).items():
        found[agent_id] = found.get(agent_id, Decimal(0)) + dollars(sums[-1])
    return found


def judge(
    agent: Agent,
    *,
    has_soul: bool,
    pause: Pause | None,
    states: Mapping[Key, ModelState],
    health: AgentHealth | None,
    running: int,
    now: datetime,
) -> Condition:
    """What is so about an agent now, the gravest first. Pure."""
    if not agent.is_enabled:
        return Condition("switched off", "neutral", "ban", "Its steps wait; nothing starts.")
    if not has_soul:
        return Condition("no SOUL", "bad", "alert-triangle", "Nothing starts before one is published.")
    if pause is not None:
        waits = f"{pause.waiting:,} {'step waits' if pause.waiting == 1 else 'steps wait'}." if pause.waiting else ""
        state = "is used up" if pause.percent >= WARN_AT[-1] else "has no room for its steps now"
        note = f"The budget of the {_whose(pause)} {state}. {waits}".strip()
        return Condition("paused by budget", "warning", "clock-pause", note, pause.until)
    if broken := _without_its_model(agent, states, now):
        return broken
    if health is not None and health.ended >= ENOUGH and 2 * health.failed >= health.ended:
        note = f"{health.failed:,} of the last day's {health.ended:,} steps have failed."
        return Condition("failing", "bad", "circle-x", note)
    if running:
        return Condition("at work", "progress", "loader-2")
    return Condition("ready", "good", "circle-check")


def _without_its_model(agent: Agent, states: Mapping[Key, ModelState], now: datetime) -> Condition | None:
    env = agent.department.api_key_env
    own = states.get((agent.model, env))
    if own is None:
        return None
    if is_broken(own):
        for model in agent.fallback_models:
            other = states.get((model, env))
            if not is_broken(other) and not is_closed(other, now):
                note = f"{agent.model} does not work; {model} stands in for it."
                return Condition("on its fallback", "warning", "alert-triangle", note, own.closed_until)
        note = f"{agent.model} does not work, and nothing stands in for it: {own.reason}"
        return Condition("model not working", "bad", "alert-triangle", note, own.closed_until)
    if is_closed(own, now):
        note = f"{agent.model} takes no calls for now: {own.reason}"
        return Condition("model busy", "warning", "hourglass", note, own.closed_until)
    return None


def _whose(pause: Pause) -> str:
    budget = pause.budget
    who = f"agent {budget.agent.title}" if budget.agent else "department"
    return f"{who} on {budget.model}" if budget.model else who


def chain_of_command(standings: Sequence[Standing]) -> tuple[Head, ...]:
    """The agents below those whom their highest tells of trouble. Whoever is in a circle stands at the top. Pure."""
    by_pk = {one.agent.pk: one for one in standings}
    below: dict[int | None, list[Standing]] = {}
    for one in standings:
        superior = one.agent.reports_to_id
        below.setdefault(superior if superior in by_pk else None, []).append(one)
    placed: set[int] = set()

    def node(one: Standing) -> Node:
        placed.add(one.agent.pk)
        reports = [each for each in below.get(one.agent.pk, []) if each.agent.pk not in placed]
        return Node(one, tuple(node(each) for each in reports))

    roots = [node(one) for one in below.get(None, [])]
    roots += [node(one) for one in standings if one.agent.pk not in placed]
    heads: dict[tuple[str, str], list[Node]] = {}
    for root in roots:
        agent = root.standing.agent
        person = agent.escalate_to.get_username() if agent.escalate_to else ""
        heads.setdefault((person, agent.escalate_channel), []).append(root)
    return tuple(Head(person, channel, tuple(nodes)) for (person, channel), nodes in heads.items())


def data_flow(agents: Sequence[Agent]) -> tuple[Flow, ...]:
    """Who reads what from whom, of one department. Pure."""
    return tuple(
        Flow(
            agent,
            sources=tuple(
                Source(key, tuple(each for each in agents if each.writes == key), key in agent.needs)
                for key in (*agent.needs, *agent.uses)
            ),
            readers=tuple(each for each in agents if agent.writes in (*each.needs, *each.uses)),
        )
        for agent in agents
    )
