"""Budgets as people meet them: how full they are, whom they hold up, and warned of before they are used up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from django.db import transaction
from django.db.models import Count, DateTimeField, Q, Value
from django.db.models.functions import StrIndex, Substr
from django.urls import reverse

from agents.budgets import BUDGET_WAIT, HEAD_END, PERIOD_TURNS, wait_head, whose
from agents.models import Agent, Budget, BudgetPeriod, Department
from agents.statements import Among, Given, Statement
from runs.alerts import close_alert, raise_alert
from runs.database import now as database_now
from runs.models import AgentRun, Alert

WARN_AT = (50, 80, 100)
"""Percent of a budget at which people are told, each once a period."""
_KEY = "budget-share:"


class Waits(NamedTuple):
    """How many steps of one agent wait for a budget, and how many of them until its period turns: the others go on as
    calls under way end, or not before it is raised."""

    steps: int
    until_turn: int


_Waits = dict[tuple[int, str], dict[int, Waits]]


@dataclass(frozen=True, slots=True)
class Fill:
    """One budget now: how full it is, and which agents' (ids) steps wait for it. ``period`` None: nothing was asked of
    it yet."""

    budget: Budget
    period: BudgetPeriod | None
    waits: Mapping[int, Waits]

    @property
    def waiting(self) -> int:
        """How many steps wait for it."""
        return sum(waits.steps for waits in self.waits.values())

    @property
    def allowed_usd(self) -> Decimal | None:
        """What may be spent in this period, with what was allowed once; None for a budget in tokens only."""
        return self.budget.allowed_usd(self.period)

    @property
    def allowed_tokens(self) -> int | None:
        """The same in tokens; None for a budget in dollars only."""
        return self.budget.allowed_tokens(self.period)

    @property
    def percent(self) -> int:
        """How much of it is spent, of the fuller of dollars and tokens, in whole percent."""
        return _percent(self.budget, self.period) if self.period else 0

    @property
    def reserved_percent(self) -> int:
        """What is held for calls under way, in whole percent of what is allowed; the larger of dollars and tokens."""
        if self.period is None:
            return 0
        period, usd, tokens = self.period, self.allowed_usd, self.allowed_tokens
        return max(
            round(period.reserved_usd * 100 / usd) if usd else 0,
            round(period.reserved_tokens * 100 / tokens) if tokens else 0,
        )


def load_fills(departments: Iterable[Department], *, now: datetime) -> list[Fill]:
    """The enabled budgets of these departments, the fullest first; three queries."""
    known = {department.pk: department for department in departments}
    fills = _load_fills(known, now)
    for fill in fills:
        fill.budget.department = known[fill.budget.department_id]
    return fills


def _load_fills(ids: Collection[int], now: datetime) -> list[Fill]:
    waits = _count_waits(ids)
    budgets = _ENABLED.objects(departments=ids)
    current = _CURRENT.objects(budgets=[budget.pk for budget in budgets], now=now) if budgets else []
    periods = {period.budget_id: period for period in current}
    heads = {budget.pk: (budget.department_id, wait_head(budget)) for budget in budgets}
    fills = [Fill(budget, periods.get(budget.pk), waits.get(heads[budget.pk], {})) for budget in budgets]
    return sorted(fills, key=lambda fill: (-fill.waiting, -fill.percent, fill.budget.pk))


class Pause(NamedTuple):
    """A budget that holds up an agent, when the agent goes on by itself (None: as calls under way end, or when it is
    raised), how many of the agent's steps wait for it, and how much of it is spent in whole percent."""

    budget: Budget
    until: datetime | None
    waiting: int
    percent: int


def paused_by_budget(
    agents: Collection[Agent], *, now: datetime | None = None, fills: Collection[Fill] | None = None
) -> dict[int, Pause]:
    """Those of the agents that a budget holds up now: ``{agent id: Pause}``; three queries, none with ``fills``.

    It does if steps of the agent wait for it, be it for a fallback model's, or if all that it allows on the agent's
    own model is spent. Of several the one that turns last.
    """
    now = now or database_now()
    if fills is None:
        fills = _load_fills({agent.department_id for agent in agents}, now)
    found: dict[int, Pause] = {}
    for agent in agents:
        if pauses := [pause for fill in fills if (pause := _pause(fill, agent))]:
            found[agent.pk] = max(pauses, key=lambda pause: pause.until or now)
    return found


def _pause(fill: Fill, agent: Agent) -> Pause | None:
    waits, is_used_up = fill.waits.get(agent.pk, Waits(0, 0)), fill.percent >= WARN_AT[-1]
    if not waits.steps and not (is_used_up and _concerns(fill.budget, agent)):
        return None
    until = fill.period.ends_at if fill.period and (waits.until_turn or not waits.steps) else None
    return Pause(fill.budget, until, waits.steps, fill.percent)


def _concerns(budget: Budget, agent: Agent) -> bool:
    """Whether the calls of an agent count against a budget, on its own model."""
    return budget.covers(department_id=agent.department_id, agent_id=agent.pk, model=agent.model)


def _count_waits(department_ids: Collection[int]) -> _Waits:
    """Whose steps wait for which budget: ``{(department, how the reason begins): {agent: Waits}}``; one query."""
    found: _Waits = {}
    for department, head, agent, count, turning in _WAITING.rows(departments=department_ids):
        found.setdefault((department, head), {})[agent] = Waits(count, turning)
    return found


_ENABLED = Statement(
    lambda: (
        Budget.objects.filter(Among("department_id", "departments"), is_enabled=True)
        .select_related("agent")
        .order_by("pk")
    )
)
_CURRENT = Statement(
    lambda: BudgetPeriod.objects.filter(
        Among("budget_id", "budgets"),
        starts_at__lte=Given("now", DateTimeField()),
        ends_at__gt=Given("now", DateTimeField()),
    )
)
_WAITING = Statement(
    lambda: (
        AgentRun.objects.filter(
            Among("department_id", "departments"),
            status=AgentRun.Status.QUEUED,
            waiting_for__startswith=BUDGET_WAIT,
        )
        .annotate(head=Substr("waiting_for", 1, StrIndex("waiting_for", Value(HEAD_END)) - 1))
        .order_by()
        .values_list("department", "head", "agent")
        .annotate(Count("pk"), until_turn=Count("pk", filter=Q(waiting_for__contains=f". {PERIOD_TURNS}")))
    )
)


def warn_of_budgets() -> int:
    """Tell people of budgets that have passed half, 80 % and all of what is allowed. Returns how many; each minute."""
    now, told = database_now(), 0
    rows = BudgetPeriod.objects.filter(
        budget__is_enabled=True, starts_at__lte=now, ends_at__gt=now, warned_percent__lt=WARN_AT[-1]
    )
    for period in rows.select_related("budget__department", "budget__agent").order_by("pk"):
        reached = max((share for share in WARN_AT if _percent(period.budget, period) >= share), default=0)
        if reached > period.warned_percent and _warn(period, reached):
            told += 1
    _close_past(now)
    return told


def _percent(budget: Budget, period: BudgetPeriod) -> int:
    return _fuller(budget, period)[0]


def _fuller(budget: Budget, period: BudgetPeriod) -> tuple[int, str]:
    """Of dollars and tokens the one of which more is used: in whole percent, and how much in words."""
    shares = []
    if (allowed := budget.allowed_usd(period)) is not None:
        shares.append((int(period.spent_usd * 100 / allowed) if allowed else 100, f"${period.spent_usd:.2f}"))
    if (most := budget.allowed_tokens(period)) is not None:
        shares.append((period.spent_tokens * 100 // most if most else 100, f"{period.spent_tokens:,} tokens"))
    return max(shares, key=lambda share: share[0])


def _warn(period: BudgetPeriod, reached: int) -> bool:
    """One worker tells: whoever moves the mark. False if somebody else did."""
    budget = period.budget
    with transaction.atomic():
        rows = BudgetPeriod.objects.filter(pk=period.pk, warned_percent=period.warned_percent)
        if not rows.update(warned_percent=reached):
            return False
        _, spent = _fuller(budget, period)
        raise_alert(
            kind=Alert.Kind.BUDGET,
            department=budget.department,
            # Each share is news of its own, or the next would be held back as a repetition of the last.
            key=f"{_KEY}{budget.pk}:{reached}",
            text=f"{budget.department}: {reached} % of the budget of the {whose(budget)} is used, {spent} this "
            f"{budget.period}.",
            link=reverse("runs:costs"),
            next_step="Nothing starts that does not fit any more; runs wait and lose nothing. It can be raised."
            if reached >= WARN_AT[-1]
            else f"Work goes on. The {budget.period} ends {period.ends_at:%Y-%m-%d %H:%M} UTC.",
        )
    return True


def _close_past(now: datetime) -> None:
    """Close the warnings that hold no more: the period has turned, another share is reached, there is room again."""
    for alert in Alert.objects.filter(kind=Alert.Kind.BUDGET, state=Alert.State.OPEN, key__startswith=_KEY):
        number, _, share = alert.key.removeprefix(_KEY).partition(":")
        current = BudgetPeriod.objects.filter(
            budget=int(number), budget__is_enabled=True, starts_at__lte=now, ends_at__gt=now
        )
        if not share or not current.filter(warned_percent=share).exists():
            close_alert(department=alert.department, key=alert.key)
