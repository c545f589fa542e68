"""What "Run pipeline" would do to a selection of items, and what it can cost at most, before anybody presses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from agents.models import Agent, Department
from agents.pricing import UnknownPrice, Usage, cost_usd, load_price_book
from agents.spec import ITEM, Facts
from runs.agent_health import load_agent_health
from runs.facts import load_facts, load_routers
from runs.models import AgentRun, AutoApproval, Item

SAMPLE = 200
HISTORY = 2_000
TYPICAL = Usage(input_tokens=1_400, output_tokens=700)
"""Tokens of a call of an agent that has not worked yet."""
_CENT = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class AgentEstimate:
    """One agent: how many of its runs start at once, how many there can be at most, at what average price."""

    agent: Agent
    starts: int
    at_most: int
    usd_each: Decimal | None
    is_measured: bool

    @property
    def usd(self) -> Decimal | None:
        """What all of them would cost; None where the model has no price."""
        return None if self.usd_each is None else self.usd_each * self.at_most


@dataclass(frozen=True, slots=True)
class Estimate:
    """For ``total`` items that the department may work on. Looked at were ``sampled``; the rest is inferred."""

    chosen: int
    total: int
    sampled: int
    with_work: int
    agents: tuple[AgentEstimate, ...]
    departments: int

    @property
    def usd_at_most(self) -> Decimal:
        """The sum over all agents that have a price."""
        return sum((entry.usd or Decimal(0) for entry in self.agents), Decimal(0))

    @property
    def has_unpriced(self) -> bool:
        """Whether the sum leaves out an agent because its model has no price."""
        return any(entry.usd is None for entry in self.agents)

    @property
    def is_inferred(self) -> bool:
        """Whether the numbers come from a sample."""
        return self.sampled < self.total


def estimate_run(items: QuerySet[Item]) -> Estimate:
    """Route a sample of the items without writing anything; a fixed number of queries."""
    now = timezone.now()
    active = items.filter(automation=Item.Automation.ACTIVE)
    sample = list(active.order_by("-pk")[:SAMPLE])
    # Once each, and not with all their settings beside every item.
    departments = Department.objects.in_bulk({item.department_id for item in sample})
    for item in sample:
        item.department = departments[item.department_id]
    agents = list(Agent.objects.filter(department__in=departments).order_by("pk"))
    for agent in agents:
        agent.department = departments[agent.department_id]
    starts, at_most, with_work = _count(sample, agents, now)
    chosen, total = _count_items(items) if len(sample) == SAMPLE else (items.count(), len(sample))
    scale = Decimal(total) / len(sample) if sample else Decimal(0)
    prices = _prices(agents, now)
    return Estimate(
        chosen=chosen,
        total=total,
        sampled=len(sample),
        with_work=int(with_work * scale),
        agents=tuple(
            AgentEstimate(agent, int(starts[agent.pk] * scale), int(at_most[agent.pk] * scale), *prices[agent.pk])
            for agent in agents
            if at_most[agent.pk]
        ),
        departments=len(departments),
    )


@dataclass(frozen=True, slots=True)
class NewEstimate:
    """What working on new items costs at most, and how long that takes with the shifts there are."""

    items: int
    usd: Decimal
    seconds: float
    is_priced: bool
    """Whether every agent's model has a price."""
    is_measured: bool
    """Whether every agent has worked, so that its own price and time are known."""
    may_send: bool
    """Whether something may leave without a person's word."""


def estimate_new(department: Department, items: int) -> NewEstimate:
    """So many new items of a department, each worked on once by every agent that serves new items."""
    now = timezone.now()
    agents = [
        agent
        for agent in Agent.objects.filter(department=department, is_enabled=True).select_related("department")
        if not agent.serves or ITEM in agent.serves
    ]
    usd, is_priced = price_steps({agent.pk: items for agent in agents}, agents, now)
    measured = {health.agent.pk: health.p50_seconds for health in load_agent_health([department.pk], now=now)}
    # What took longer than the histogram knows took as long as a call may.
    took = [min(measured.get(a.pk) or a.latency_target_seconds, float(a.timeout_seconds)) for a in agents]
    at_once = max(settings.SHIFTS * settings.SHIFT_CONCURRENCY, 1)
    final = department.spec.final_key
    by_policy = any(agent.writes == final and agent.output_policy == Agent.Policy.AUTO for agent in agents)
    return NewEstimate(
        items=items,
        usd=usd,
        # One item takes all steps in a row at the most; many share the places for calls.
        seconds=max(sum(took), sum(took) * items / at_once) if items else 0,
        is_priced=is_priced,
        is_measured=all(measured.get(agent.pk) for agent in agents),
        may_send=by_policy or AutoApproval.objects.filter(department=department, is_enabled=True).exists(),
    )


def _count_items(items: QuerySet[Item]) -> tuple[int, int]:
    """All of them, and those whose automation is active, in one pass: they may be all that there are."""
    is_active = Q(automation=Item.Automation.ACTIVE)
    counts = items.order_by().aggregate(all=Count("pk"), active=Count("pk", filter=is_active))
    return counts["all"], counts["active"]


def price_steps(steps: Mapping[int, int], agents: Sequence[Agent], now: datetime) -> tuple[Decimal, bool]:
    """What so many steps by agent id would cost at what each agent's latest have cost, and whether all have a price."""
    prices = _prices([agent for agent in agents if steps.get(agent.pk)], now)
    known = [each * steps[pk] for pk, (each, _) in prices.items() if each is not None]
    return sum(known, Decimal(0)), len(known) == len(prices)


def _count(sample: Sequence[Item], agents: Sequence[Agent], now: datetime) -> tuple[Counter[int], Counter[int], int]:
    facts = load_facts(sample, now=now)
    routers = load_routers({item.department_id: item.department for item in sample}.values())
    starts: Counter[int] = Counter()
    at_most: Counter[int] = Counter()
    with_work = 0
    for item in sample:
        team = {agent.slug: agent for agent in agents if agent.department_id == item.department_id}
        decision = routers[item.department_id].decide(facts[item.pk])
        if not decision.start and not decision.waiting:
            continue
        with_work += 1
        starts.update(team[start.agent].pk for start in decision.start)
        at_most.update(agent.pk for agent in _missing(facts[item.pk], team.values()))
    return starts, at_most, with_work


def _missing(facts: Facts, team: Iterable[Agent]) -> list[Agent]:
    """Everybody who could still be wanted, once for the item and once for each trigger that is due."""
    current = {(output.key, output.occasion) for output in facts.outputs}
    failed = {(run.agent, run.occasion) for run in facts.runs if run.state == "failed"}
    occasions: Mapping[int | None, str] = {None: ITEM, **{t.id: t.kind for t in facts.triggers if t.is_due}}
    return [
        agent
        for occasion, kind in occasions.items()
        for agent in team
        if agent.is_enabled
        and (kind in agent.serves or (not agent.serves and occasion is None))
        and (agent.writes, occasion) not in current
        and (agent.slug, occasion) not in failed
    ]


def _prices(agents: Sequence[Agent], now: datetime) -> dict[int, tuple[Decimal | None, bool]]:
    """The average cost of each agent's latest runs; of one that has none, that of a typical call at list price."""
    ids = {agent.department_id for agent in agents}
    runs = AgentRun.objects.filter(department__in=ids, status=AgentRun.Status.DONE, cost_usd__gt=0).order_by("-pk")
    seen: dict[int, list[Decimal]] = {}
    for agent_id, cost in runs.values_list("agent_id", "cost_usd")[:HISTORY]:
        seen.setdefault(agent_id, []).append(cost)
    book = load_price_book()
    found: dict[int, tuple[Decimal | None, bool]] = {}
    for agent in agents:
        costs = seen.get(agent.pk)
        if costs:
            found[agent.pk] = ((sum(costs, Decimal(0)) / len(costs)).quantize(_CENT), True)
            continue
        try:
            price = book.price_for(agent.model, now.date(), TYPICAL.prompt_tokens)
        except UnknownPrice:
            found[agent.pk] = (None, False)
        else:
            found[agent.pk] = (cost_usd(TYPICAL, price), False)
    return found
