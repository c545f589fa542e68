"""Budgets: what is set aside before a call, and what it cost afterwards. A budget cannot be overrun.

Both functions work on many calls at once, inside the caller's transaction, on budget periods locked in id
order. Sums are made in Python on the locked rows, because SQLite has no decimals.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Q

from agents.models import Budget, BudgetPeriod
from agents.statements import Among, Statement

logger = logging.getLogger(__name__)

Window = tuple[datetime, datetime]
_HAS_BUDGET = Statement(
    lambda: Budget.objects.filter(Among("department_id", "departments"), is_enabled=True).values_list("pk")
)

BUDGET_WAIT = "budget of the"
"""How the reason of every ``Refused`` begins: raising a budget finds the runs that wait for it by this."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that wants to start: the most it can cost, in US dollars and tokens. ``key`` names it."""

    key: Hashable
    department_id: int
    agent_id: int
    model: str
    usd: Decimal
    tokens: int


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may start. ``period_ids`` hold its reservation; empty where no budget applies."""

    period_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The call must wait: ``reason`` says for what. At ``until`` every period that refused has turned."""

    reason: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Settlement:
    """A call has ended: what it had reserved in which periods, and what it came to."""

    period_ids: tuple[int, ...]
    reserved_usd: Decimal
    reserved_tokens: int
    cost_usd: Decimal
    tokens: int


def period_window(period: str, time_zone: str, now: datetime) -> Window:
    """First moment of the local day or month that ``now`` lies in, and of the next one; both in UTC."""
    zone = ZoneInfo(time_zone)
    first = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if period == Budget.Period.MONTH:
        first = first.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    else:
        following = first + timedelta(days=1)
    # Naive arithmetic first: a local day may have 23 or 25 hours.
    return first.replace(tzinfo=zone).astimezone(UTC), following.replace(tzinfo=zone).astimezone(UTC)


def reserve(asks: Sequence[Ask], *, now: datetime) -> dict[Hashable, Granted | Refused]:
    """Grant each ask, in order, if it fits every budget that applies to it, and set the amount aside.

    One query where no budget is enabled; otherwise five (six when a period has turned). RuntimeError outside
    of a transaction: the rows must stay locked until the claims that they pay for are written.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("reserve() belongs into the transaction of the claim.")
    departments = {ask.department_id for ask in asks}
    if not _HAS_BUDGET.rows(limit=1, departments=departments):
        return {ask.key: Granted(()) for ask in asks}
    budgets = list(
        Budget.objects.filter(department_id__in=departments, is_enabled=True)
        .select_related("department", "agent")
        .order_by("pk")
    )
    applying = [[budget for budget in budgets if _applies(budget, ask)] for ask in asks]
    needed = {budget.pk for found in applying for budget in found}
    if not needed:
        return {ask.key: Granted(()) for ask in asks}
    periods = _locked_periods(
        {b.pk: period_window(b.period, b.department.time_zone, now) for b in budgets if b.pk in needed}, now
    )
    answers = {
        ask.key: _answer(ask, [(budget, periods[budget.pk]) for budget in found])
        for ask, found in zip(asks, applying, strict=True)
    }
    granted = {pk for answer in answers.values() if isinstance(answer, Granted) for pk in answer.period_ids}
    changed = [row for row in periods.values() if row.pk in granted]
    BudgetPeriod.objects.bulk_update(changed, ["reserved_usd", "reserved_tokens"])
    return answers


def settle(settlements: Iterable[Settlement]) -> None:
    """Move what calls had reserved to what they spent, in exactly the periods that reserved it.

    Two queries, none where nothing was reserved. A period whose budget was deleted meanwhile is left out.
    """
    moved: defaultdict[int, list[Settlement]] = defaultdict(list)
    for settlement in settlements:
        for period_id in settlement.period_ids:
            moved[period_id].append(settlement)
    if not moved:
        return
    with transaction.atomic():
        rows = list(BudgetPeriod.objects.select_for_update().filter(pk__in=moved).order_by("pk"))
        for row in rows:
            _settle_row(row, moved[row.pk])
        BudgetPeriod.objects.bulk_update(rows, ["reserved_usd", "spent_usd", "reserved_tokens", "spent_tokens"])


def _settle_row(row: BudgetPeriod, settlements: Collection[Settlement]) -> None:
    row.reserved_usd -= sum((s.reserved_usd for s in settlements), Decimal(0))
    row.reserved_tokens -= sum(s.reserved_tokens for s in settlements)
    row.spent_usd += sum((s.cost_usd for s in settlements), Decimal(0))
    row.spent_tokens += sum(s.tokens for s in settlements)
    if row.reserved_usd < 0 or row.reserved_tokens < 0:
        # Somebody settled twice. What is below zero would be room that the budget does not have.
        logger.error("Budget period %s was settled for more than it had reserved.", row.pk)
        row.reserved_usd = max(row.reserved_usd, Decimal(0))
        row.reserved_tokens = max(row.reserved_tokens, 0)


def _applies(budget: Budget, ask: Ask) -> bool:
    return (
        budget.department_id == ask.department_id
        and budget.agent_id in (None, ask.agent_id)
        and budget.model in ("", ask.model)
    )


def _locked_periods(windows: dict[int, Window], now: datetime) -> dict[int, BudgetPeriod]:
    """The current period of each budget, locked in id order; made first where it is missing.

    A period that has begun goes on, whatever the department's time zone says by now: what it spent must count.
    """
    rows = BudgetPeriod.objects.filter(budget_id__in=windows)
    present = rows.filter(ends_at__gt=min(starts_at for starts_at, _ in windows.values()))
    going_on: dict[int, int] = {}
    for pk, budget_id, starts_at, ends_at in present.values_list("pk", "budget_id", "starts_at", "ends_at"):
        if starts_at <= now < ends_at or _is_same(starts_at, ends_at, windows[budget_id]):
            going_on.setdefault(budget_id, pk)
    # Created before anything is locked, in the order of the budgets: nobody who waits here holds a lock
    # that the other one waits for.
    BudgetPeriod.objects.bulk_create(
        [
            BudgetPeriod(budget_id=budget_id, starts_at=starts_at, ends_at=ends_at)
            for budget_id, (starts_at, ends_at) in windows.items()
            if budget_id not in going_on
        ],
        ignore_conflicts=True,
    )
    current = Q(starts_at__lte=now, ends_at__gt=now) | Q(pk__in=going_on.values())
    found: dict[int, BudgetPeriod] = {}
    for row in rows.filter(current).select_for_update().order_by("pk"):
        found.setdefault(row.budget_id, row)
    for row in found.values():
        if row.ends_at <= now:
            row.ends_at = windows[row.budget_id][1]
            row.save(update_fields=["ends_at"])
    return found


def _is_same(starts_at: datetime, ends_at: datetime, window: Window) -> bool:
    """Whether a period is the window of another time zone: it is if its middle lies in it."""
    return window[0] <= starts_at + (ends_at - starts_at) / 2 < window[1]


def _answer(ask: Ask, rows: Sequence[tuple[Budget, BudgetPeriod]]) -> Granted | Refused:
    """Set the amount aside in every period, or in none."""
    refusals = [(budget, row) for budget, row in rows if not _fits(ask, budget, row)]
    if refusals:
        return Refused(_sentence(ask, *refusals[0]), max(row.ends_at for _, row in refusals))
    for _, row in rows:
        row.reserved_usd += ask.usd
        row.reserved_tokens += ask.tokens
    return Granted(tuple(row.pk for _, row in rows))


def _fits(ask: Ask, budget: Budget, row: BudgetPeriod) -> bool:
    return _fits_usd(ask, budget, row) and (
        budget.limit_tokens is None or row.reserved_tokens + row.spent_tokens + ask.tokens <= budget.limit_tokens
    )


def _fits_usd(ask: Ask, budget: Budget, row: BudgetPeriod) -> bool:
    return budget.limit_usd is None or row.reserved_usd + row.spent_usd + ask.usd <= budget.limit_usd + row.extra_usd


def _sentence(ask: Ask, budget: Budget, row: BudgetPeriod) -> str:
    """Why the budget refuses, within the 300 characters of ``AgentRun.waiting_for``."""
    whose = f"agent {budget.agent.slug}" if budget.agent else "department"
    if budget.model:
        whose += f", {budget.model}"
    if budget.limit_usd is not None and not _fits_usd(ask, budget, row):
        allowed = f"{budget.limit_usd + row.extra_usd:.2f} USD"
        held = f"{row.spent_usd:.4f} spent and {row.reserved_usd:.4f} reserved"
        step = f"{ask.usd:.4f}"
    else:
        allowed = f"{budget.limit_tokens:,} tokens"
        held = f"{row.spent_tokens:,} used and {row.reserved_tokens:,} reserved"
        step = f"{ask.tokens:,}"
    return f"{BUDGET_WAIT} {whose}: {allowed} a {budget.period}, {held}; this step may need {step}."
