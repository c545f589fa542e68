"""Agents as people look after them: who reports to whom, who reads what from whom, how each does now and lately.

Figures come from sums by hour and day and from counters, never from counting steps one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.db.models import Count, Q, Sum

from agents.model_state import Key, is_broken, is_closed, load_states
from agents.models import Agent, Department, ModelState, Soul
from runs.agent_health import AgentHealth, load_agent_health
from runs.cost_sums import Period
from runs.costs import Ledger
from runs.models import AgentRun, Review
from runs.money import dollars
from runs.review_figures import Verdicts
from runs.spending import WARN_AT, Pause, paused_by_budget

DAYS = 30
WINDOW = timedelta(days=DAYS)
MOST_READ = 2_000
"""So many of the latest decisions are looked at."""
_BEGINNING = date(2020, 1, 1)
ENOUGH = 4
"""Fewer steps than this say nothing of how an agent does."""
_APPROVED = (Review.Answer.APPROVE, Review.Answer.APPROVE_EDITED)


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
    agents = list(
        Agent.objects.filter(department__in=departments)
        .select_related("department", "reports_to", "escalate_to")
        .order_by("pk")
    )
    standings = {one.agent.pk: one for one in load_standings(agents, now=now)}
    teams = []
    for department in departments:
        own = [agent for agent in agents if agent.department_id == department.pk]
        if own:
            heads = chain_of_command([standings[agent.pk] for agent in own])
            teams.append(Team(department, heads, data_flow(own)))
    return teams


def load_standings(agents: Sequence[Agent], *, now: datetime, ledger: Ledger | None = None) -> list[Standing]:
    """How these agents are now. They need ``department`` selected; ``ledger`` is of their departments."""
    departments = {agent.department_id: agent.department for agent in agents}
    health = {one.agent.pk: one for one in load_agent_health(departments, now=now)}
    pauses, states = paused_by_budget(agents, now=now), load_states()
    with_soul = set(
        Soul.objects.filter(agent__in=agents, status=Soul.Status.PUBLISHED).values_list("agent_id", flat=True)
    )
    under_way = AgentRun.objects.filter(agent__in=agents, status=AgentRun.Status.RUNNING, lease_expires_at__gt=now)
    running = Counter(dict(under_way.order_by().values_list("agent").annotate(count=Count("pk"))))
    today = now.astimezone(UTC).date()
    ledger = ledger or Ledger(list(departments.values()))
    costs = {cost.key: cost.usd for cost in ledger.break_down(Period(today, today), "agent")}
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


# --- One agent over the last 30 days --------------------------------------------------------------------------


def load_verdicts(agent: Agent, *, since: datetime | None = None) -> tuple[Verdicts, dict[int, Verdicts]]:
    """What people decided about the agent's outputs, in all and by SOUL id; the latest 2,000 decisions, one query."""
    rows = Review.objects.filter(
        department=agent.department_id,
        agent_run__agent=agent,
        status=Review.Status.ANSWERED,
        answered_by__isnull=False,
        answer__in=[*_APPROVED, Review.Answer.SEND_BACK, Review.Answer.REJECT],
    ).order_by("-answered_at")
    if since is not None:
        rows = rows.filter(answered_at__gte=since)
    whole, by_soul = Verdicts(), dict[int, Verdicts]()
    for answer, soul in rows.values_list("answer", "agent_run__soul")[:MOST_READ]:
        whole.add(answer)
        if soul is not None:
            by_soul.setdefault(soul, Verdicts()).add(answer)
    return whole, by_soul


@dataclass(slots=True)
class Use:
    """What calls came to."""

    calls: int = 0
    usd: Decimal = Decimal(0)

    def add(self, sums: Sequence[int]) -> None:
        """Add sums in the order of the rollups' columns."""
        self.calls += sums[0]
        self.usd += dollars(sums[-1])


def load_days(ledger: Ledger, agent: Agent, period: Period) -> dict[date, Use]:
    """Calls and cost of every day of the period, those without any included. Equal to the costs page."""
    found = {period.first + timedelta(days=n): Use() for n in range((period.last - period.first).days + 1)}
    for ((day,), _, _), sums in ledger.sum_calls(period, ["day"], [agent.pk]).items():
        found[day].add(sums)
    return found


def load_soul_use(ledger: Ledger, agent: Agent, today: date) -> dict[int | None, Use]:
    """Calls and cost under each SOUL id since the beginning; None: of drafts that were tried."""
    found: dict[int | None, Use] = {}
    for ((soul,), _, _), sums in ledger.sum_calls(Period(_BEGINNING, today), ["soul_id"], [agent.pk]).items():
        found.setdefault(soul, Use()).add(sums)
    return found


def count_trespasses(agent: Agent, *, since: datetime) -> int:
    """Answers of the agent that were refused for keys outside its role."""
    runs = AgentRun.objects.filter(Q(trespasses__gt=0), agent=agent, queued_at__gte=since)
    return runs.aggregate(sum=Sum("trespasses"))["sum"] or 0


def latest_runs(agent: Agent, limit: int) -> Collection[AgentRun]:
    """The newest steps of the agent."""
    rows = AgentRun.objects.filter(agent=agent).select_related("item", "agent", "department", "soul", "pipeline_run")
    return list(rows.order_by("-pk")[:limit])
