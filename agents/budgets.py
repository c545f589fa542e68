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

LOOK_AGAIN = timedelta(minutes=1)
"""So soon a call that only others' reservations keep from starting is tried again."""
BUDGET_WAIT = "budget of the"
"""How the reason of every ``Refused`` begins: raising a budget finds the runs that wait for it by this."""
HEAD_END = ": "
"""Ends the part of a reason that names the budget, see ``wait_head``. Names of models have colons, but no space."""


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
    """The call must wait: ``reason`` says for what. At ``until`` every period that refused has turned, or calls under
    way that hold what is left of it have ended."""

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

    One query where no budget is enabled; otherwise five (seven when a period has turned, one more when one is full).
    RuntimeError outside of a transaction: the rows must stay locked until the claims that they pay for are written.
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
    if periods.keys() != needed or not _do_fit(asks, applying, periods):
        _read_again([budget for budget in budgets if budget.pk in needed])
    answers = {
        ask.key: _answer(ask, [(budget, periods[budget.pk]) for budget in found if budget.is_enabled], now)
        for ask, found in zip(asks, applying, strict=True)
    }
    granted = {pk for answer in answers.values() if isinstance(answer, Granted) for pk in answer.period_ids}
    changed = [row for row in periods.values() if row.pk in granted]
    BudgetPeriod.objects.bulk_update(changed, ["reserved_usd", "reserved_tokens"])
    return answers


def lock_period(budget: Budget, *, now: datetime) -> BudgetPeriod:
    """The current period of a budget, locked; made if nothing was reserved in it yet. Inside a transaction."""
    window = period_window(budget.period, budget.department.time_zone, now)
    return _locked_periods({budget.pk: window}, now)[budget.pk]


def whose(budget: Budget) -> str:
    """How a budget is named in the reason of every ``Refused`` and in alerts: ``agent writer, claude-opus-5-5``."""
    name = f"agent {budget.agent.slug}" if budget.agent else "department"
    return f"{name}, {budget.model}" if budget.model else name


def wait_head(budget: Budget) -> str:
    """What of a department's budgets this one alone has: how the reasons of its refusals begin, before ``HEAD_END``."""
    return f"{BUDGET_WAIT} {whose(budget)} a {budget.period}"


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


def _do_fit(asks: Sequence[Ask], applying: Sequence[Sequence[Budget]], periods: dict[int, BudgetPeriod]) -> bool:
    """Whether every budget has room for all that is asked of it together."""
    sums = defaultdict[int, tuple[Decimal, int]](lambda: (Decimal(0), 0))
    budgets = {budget.pk: budget for found in applying for budget in found}
    for ask, found in zip(asks, applying, strict=True):
        for budget in found:
            usd, tokens = sums[budget.pk]
            sums[budget.pk] = usd + ask.usd, tokens + ask.tokens
    return all(_has_room(budgets[pk], periods[pk], *amounts) for pk, amounts in sums.items())


def _read_again(budgets: Iterable[Budget]) -> None:
    """What these budgets allow, now that their periods are locked; one that is deleted is off.

    Whoever raised one while we waited for its lock made due what waits for it, but not the runs that we hold: refused
    by what it allowed before, they would wait until the period turns.
    """
    by_pk = {budget.pk: budget for budget in budgets}
    known = Budget.objects.in_bulk(by_pk)
    for pk, budget in by_pk.items():
        if now := known.get(pk):
            budget.limit_usd, budget.limit_tokens, budget.is_enabled = now.limit_usd, now.limit_tokens, now.is_enabled
        else:
            budget.is_enabled = False


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
    _make_periods({budget_id: window for budget_id, window in windows.items() if budget_id not in going_on})
    current = Q(starts_at__lte=now, ends_at__gt=now) | Q(pk__in=going_on.values())
    found: dict[int, BudgetPeriod] = {}
    for row in rows.filter(current).select_for_update().order_by("pk"):
        found.setdefault(row.budget_id, row)
    for row in found.values():
        if row.ends_at <= now:
            row.ends_at = windows[row.budget_id][1]
            row.save(update_fields=["ends_at"])
    return found


def _make_periods(windows: dict[int, Window]) -> None:
    """Periods that begin. Budgets are locked before periods, everywhere and in id order, so nobody waits in a circle;
    one that is deleted meanwhile gets none, which would let the whole claim fail when it is committed."""
    if not windows:
        return
    locked = Budget.objects.filter(pk__in=windows).select_for_update(of=("self",), no_key=True).order_by("pk")
    BudgetPeriod.objects.bulk_create(
        [
            BudgetPeriod(budget_id=pk, starts_at=windows[pk][0], ends_at=windows[pk][1])
            for pk in locked.values_list("pk", flat=True)
        ],
        ignore_conflicts=True,
    )


def _is_same(starts_at: datetime, ends_at: datetime, window: Window) -> bool:
    """Whether a period is the window of another time zone: it is if its middle lies in it."""
    return window[0] <= starts_at + (ends_at - starts_at) / 2 < window[1]


def _answer(ask: Ask, rows: Sequence[tuple[Budget, BudgetPeriod]], now: datetime) -> Granted | Refused:
    """Set the amount aside in every period, or in none."""
    refusals = [(budget, row) for budget, row in rows if not _fits(ask, budget, row)]
    if refusals:
        # The one that lasts longest: before it has turned, nothing goes on.
        budget, row = max(refusals, key=lambda refusal: _until(ask, refusal[0], refusal[1], now))
        until = _until(ask, budget, row, now)
        return Refused(_sentence(ask, budget, row, until), until)
    for _, row in rows:
        row.reserved_usd += ask.usd
        row.reserved_tokens += ask.tokens
    return Granted(tuple(row.pk for _, row in rows))


def _until(ask: Ask, budget: Budget, row: BudgetPeriod, now: datetime) -> datetime:
    """When to look again: soon where only what is reserved stands in the way, for that comes back as calls end."""
    spent_only = BudgetPeriod(spent_usd=row.spent_usd, spent_tokens=row.spent_tokens, extra_usd=row.extra_usd)
    return min(now + LOOK_AGAIN, row.ends_at) if _fits(ask, budget, spent_only) else row.ends_at


def _fits(ask: Ask, budget: Budget, row: BudgetPeriod) -> bool:
    return _has_room(budget, row, ask.usd, ask.tokens)


def _has_room(budget: Budget, row: BudgetPeriod, usd: Decimal, tokens: int) -> bool:
    return _has_room_usd(budget, row, usd) and (
        budget.limit_tokens is None or row.reserved_tokens + row.spent_tokens + tokens <= budget.limit_tokens
    )


def _has_room_usd(budget: Budget, row: BudgetPeriod, usd: Decimal) -> bool:
    return budget.limit_usd is None or row.reserved_usd + row.spent_usd + usd <= budget.limit_usd + row.extra_usd


def _sentence(ask: Ask, budget: Budget, row: BudgetPeriod, until: datetime) -> str:
    """Why the budget refuses and when there is a new one, within the 300 characters of ``AgentRun.waiting_for``."""
    if budget.limit_usd is not None and not _has_room_usd(budget, row, ask.usd):
        allowed = f"{budget.limit_usd + row.extra_usd:.2f} USD"
        held = f"{row.spent_usd:.4f} spent and {row.reserved_usd:.4f} reserved"
        step, is_too_much = f"{ask.usd:.4f}", ask.usd > budget.limit_usd
    else:
        allowed = f"{budget.limit_tokens:,} tokens"
        held = f"{row.spent_tokens:,} used and {row.reserved_tokens:,} reserved"
        step, is_too_much = f"{ask.tokens:,}", ask.tokens > (budget.limit_tokens or 0)
    text = f"{wait_head(budget)}{HEAD_END}{allowed}, {held}; this step may need {step}."
    if until < row.ends_at:
        return f"{text} It is tried again each minute, as calls under way end."
    if is_too_much:
        return f"{text} That is more than the whole budget: it waits until it is raised."
    return f"{text} A new {budget.period} begins {row.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
