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
from django.db.models import BigIntegerField, DateTimeField, Exists, OuterRef, Q

from agents.models import Budget, BudgetPeriod
from agents.statements import Among, Given, Statement

logger = logging.getLogger(__name__)

Window = tuple[datetime, datetime]
_HAS_BUDGET = Statement(
    lambda: Budget.objects.filter(Among("department_id", "departments"), is_enabled=True).values_list("pk")
)
_WITHOUT_PERIOD = Statement(
    lambda: Budget.objects.filter(
        ~Exists(
            BudgetPeriod.objects.filter(
                budget=OuterRef("pk"),
                starts_at__lte=Given("now", DateTimeField()),
                ends_at__gt=Given("now", DateTimeField()),
            )
        ),
        department=Given("department", BigIntegerField()),
        is_enabled=True,
    ).values_list("pk", "period", "department__time_zone")
)

_CHANGES = 0x6B6F6E746F72
"""The number of the lock that keeps changes of budgets and reservations apart, on PostgreSQL."""
LOOK_AGAIN = timedelta(minutes=1)
"""So soon a call that only others' reservations keep from starting is tried again."""
BUDGET_WAIT = "budget of the"
"""How the reason of every ``Refused`` begins: raising a budget finds the runs that wait for it by this."""
PERIOD_TURNS = "A new "
"""How the last sentence of a reason begins that a new period will be the end of."""
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

    One query where no budget is enabled; otherwise five (seven when a period has turned); one more on PostgreSQL.
    RuntimeError outside of a transaction: the rows must stay locked until the claims that they pay for are written.
    """
    hold_budgets()
    departments = {ask.department_id for ask in asks}
    if not _HAS_BUDGET.rows(limit=1, departments=departments):
        return {ask.key: Granted(()) for ask in asks}
    budgets = list(
        Budget.objects.filter(department_id__in=departments, is_enabled=True)
        .select_related("department", "agent")
        .order_by("pk")
    )
    applying = [[budget for budget in budgets if _covers(budget, ask)] for ask in asks]
    needed = {budget.pk for found in applying for budget in found}
    if not needed:
        return {ask.key: Granted(()) for ask in asks}
    periods = _locked_periods(
        {b.pk: period_window(b.period, b.department.time_zone, now) for b in budgets if b.pk in needed}, now
    )
    answers = {
        # One without a period was deleted meanwhile, with its agent.
        ask.key: _answer(ask, [(budget, periods[budget.pk]) for budget in found if budget.pk in periods], now)
        for ask, found in zip(asks, applying, strict=True)
    }
    granted = {pk for answer in answers.values() if isinstance(answer, Granted) for pk in answer.period_ids}
    changed = [row for row in periods.values() if row.pk in granted]
    BudgetPeriod.objects.bulk_update(changed, ["reserved_usd", "reserved_tokens"])
    return answers


def hold_budgets() -> None:
    """Until the transaction ends nobody changes what a budget allows; waits for whoever just does.

    So a reservation goes by what budgets allow when it is written down, and a budget that is made counts every call
    that began without it. Before calls are locked, for who makes a budget locks them; harmless when repeated.
    """
    _keep_apart("pg_advisory_xact_lock_shared")


def begin_periods(department_id: int, *, now: datetime) -> None:
    """Make the current periods that a department's budgets lack: where calls are settled before others reserve.

    Who reserves has budgets locked while a period is made, and then waits for the others of their periods: whoever
    holds those by then must not want the same budgets. Holds budgets; one query more where no period is lacking.
    """
    hold_budgets()
    lacking = _WITHOUT_PERIOD.rows(department=department_id, now=now)
    windows = {pk: period_window(period, time_zone, now) for pk, period, time_zone in lacking}
    if windows:
        going_on = _going_on(windows, now)
        _make_periods({pk: window for pk, window in windows.items() if pk not in going_on})


def begin_change() -> None:
    """Until the transaction ends nobody reserves, and nobody else changes a budget: before anything else is locked."""
    _keep_apart("pg_advisory_xact_lock")


def _keep_apart(lock: str) -> None:
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        raise RuntimeError("Budgets are held in a transaction: reserve() belongs into the transaction of the claim.")
    # On SQLite a transaction has the only write lock from its beginning.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {lock}(%s)", [_CHANGES])


def lock_period(budget: Budget, *, now: datetime) -> BudgetPeriod:
    """The current period of a budget, locked; made if nothing was reserved in it yet. Inside a transaction."""
    window = period_window(budget.period, budget.department.time_zone, now)
    return _locked_periods({budget.pk: window}, now)[budget.pk]


def period_begin(budget: Budget, *, now: datetime) -> datetime:
    """When the current period of a budget, saved or not, has begun: the one that ``lock_period`` would find or make."""
    window = period_window(budget.period, budget.department.time_zone, now)
    going_on = _going_on({budget.pk: window}, now) if budget.pk else {}
    return going_on[budget.pk][1] if going_on else window[0]


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


def _covers(budget: Budget, ask: Ask) -> bool:
    return budget.covers(department_id=ask.department_id, agent_id=ask.agent_id, model=ask.model)


def _locked_periods(windows: dict[int, Window], now: datetime) -> dict[int, BudgetPeriod]:
    """The current period of each budget, locked in id order; made first where it is missing.

    A period that has begun goes on, whatever the department's time zone says by now: what it spent must count.
    """
    going_on = _going_on(windows, now)
    _make_periods({budget_id: window for budget_id, window in windows.items() if budget_id not in going_on})
    current = Q(starts_at__lte=now, ends_at__gt=now) | Q(pk__in=[pk for pk, _ in going_on.values()])
    found: dict[int, BudgetPeriod] = {}
    for row in BudgetPeriod.objects.filter(current, budget_id__in=windows).select_for_update().order_by("pk"):
        found.setdefault(row.budget_id, row)
    for row in found.values():
        if row.ends_at <= now:
            row.ends_at = windows[row.budget_id][1]
            row.save(update_fields=["ends_at"])
    return found


def _going_on(windows: dict[int, Window], now: datetime) -> dict[int, tuple[int, datetime]]:
    """The periods that have begun: ``{budget id: (id, beginning)}``; one query that locks nothing."""
    first = min(starts_at for starts_at, _ in windows.values())
    rows = BudgetPeriod.objects.filter(budget_id__in=windows, ends_at__gt=first)
    found: dict[int, tuple[int, datetime]] = {}
    for pk, budget_id, starts_at, ends_at in rows.values_list("pk", "budget_id", "starts_at", "ends_at"):
        if starts_at <= now < ends_at or _is_same(starts_at, ends_at, windows[budget_id]):
            found.setdefault(budget_id, (pk, starts_at))
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
    would_fit = _fits_usd(budget, row, row.spent_usd + ask.usd) and _fits_tokens(
        budget, row, row.spent_tokens + ask.tokens
    )
    return min(now + LOOK_AGAIN, row.ends_at) if would_fit else row.ends_at


def _fits(ask: Ask, budget: Budget, row: BudgetPeriod) -> bool:
    return _fits_usd(budget, row, row.reserved_usd + row.spent_usd + ask.usd) and _fits_tokens(
        budget, row, row.reserved_tokens + row.spent_tokens + ask.tokens
    )


def _fits_usd(budget: Budget, row: BudgetPeriod, usd: Decimal) -> bool:
    allowed = budget.allowed_usd(row)
    return allowed is None or usd <= allowed


def _fits_tokens(budget: Budget, row: BudgetPeriod, tokens: int) -> bool:
    allowed = budget.allowed_tokens(row)
    return allowed is None or tokens <= allowed


def _is_about_usd(ask: Ask, budget: Budget, row: BudgetPeriod) -> bool:
    """Of dollars and tokens, which stands in the way: what is spent lasts longer than what is reserved."""
    usd, tokens = row.spent_usd + ask.usd, row.spent_tokens + ask.tokens
    if _fits_usd(budget, row, usd) and _fits_tokens(budget, row, tokens):
        usd += row.reserved_usd
    return not _fits_usd(budget, row, usd)


def _sentence(ask: Ask, budget: Budget, row: BudgetPeriod, until: datetime) -> str:
    """Why the budget refuses and when there is a new one, within the 300 characters of ``AgentRun.waiting_for``."""
    if _is_about_usd(ask, budget, row):
        allowed = f"${budget.allowed_usd(row):.2f}"
        held = f"${row.spent_usd:.4f} spent and ${row.reserved_usd:.4f} reserved"
        step, is_too_much = f"${ask.usd:.4f}", ask.usd > (budget.limit_usd or 0)
    else:
        allowed = f"{budget.allowed_tokens(row):,} tokens"
        held = f"{row.spent_tokens:,} used and {row.reserved_tokens:,} reserved"
        step, is_too_much = f"{ask.tokens:,}", ask.tokens > (budget.limit_tokens or 0)
    text = f"{wait_head(budget)}{HEAD_END}{allowed}, {held}; this step may need {step}."
    if until < row.ends_at:
        return f"{text} It is tried again each minute, as calls under way end."
    if is_too_much:
        return f"{text} That is more than the whole budget: it waits until it is raised."
    return f"{text} {PERIOD_TURNS}{budget.period} begins {row.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
