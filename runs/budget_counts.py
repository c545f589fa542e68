"""What a budget that is made or switched on amid its period counts: every call of the period, as if it had been there.

A budget knows of a call by what the call has reserved in it. Calls that began without it are added up here, and those
whose end may still come (under way, or given up as unseen) are told to settle in it, too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product

from django.db.models import Q, QuerySet, Sum

from agents.budgets import lock_period, period_begin
from agents.causes import Cause
from agents.models import Budget, BudgetPeriod
from agents.statements import AnyOf
from runs.cost_moves import TOKENS
from runs.database import newest, update_rows
from runs.models import CostCorrection, ModelCall
from runs.money import dollars, in_units

AGO = timedelta(minutes=10)
"""What began so long ago is written down by now: no claim's transaction takes as long."""
UNBILLED = Q(cause=Cause.REFUSAL, output_tokens=0)
"""Refused before any output: not billed, so in no budget. The same in Python is ``cost_moves.is_billed``."""


@dataclass(frozen=True, slots=True)
class Past:
    """What ended calls came to that count against a budget and began from ``since`` on, before ``until``; without
    those of ``open_ids``, whose end may still have come since. ``correction``: the last one of costs before it."""

    since: datetime
    until: datetime
    open_ids: frozenset[int]
    usd: Decimal
    tokens: int
    correction: int


def count_past(budget: Budget, *, now: datetime) -> Past:
    """The first step, outside of the lock that keeps reservations off: there may be millions of calls."""
    since, until, correction = period_begin(budget, now=now), now - AGO, newest(CostCorrection)
    calls = _calls_of(budget, since).filter(started_at__lt=until)
    # First: what ends between the two queries is in neither sum, but looked at again.
    open_ids = frozenset(calls.exclude(status=ModelCall.Status.FINISHED).values_list("pk", flat=True))
    usd, tokens = _sum_finished(calls.filter(~Q(AnyOf("pk", open_ids))))
    return Past(since, until, open_ids, usd, tokens, correction)


def count_anew(budget: Budget, past: Past, *, now: datetime) -> BudgetPeriod:
    """The budget's current period, locked, with all that its calls have spent and hold.

    Belongs after ``begin_change``: calls that begin later reserve in the budget themselves. Locks calls before the
    period, as who settles them does. An estimate counts in tokens as all that it had reserved.
    """
    if past.correction != newest(CostCorrection):  # calls were priced anew meanwhile, and did not know of this budget
        past = count_past(budget, now=now)
    calls = _calls_of(budget, past.since).filter(Q(started_at__gte=past.until) | Q(AnyOf("pk", past.open_ids)))
    may_settle = list(calls.exclude(status=ModelCall.Status.FINISHED).select_for_update(of=("self",)).order_by("pk"))
    period = lock_period(budget, now=now)
    if period.starts_at != past.since:  # it has turned meanwhile, and nothing was before
        past = Past(period.starts_at, period.starts_at, frozenset(), Decimal(0), 0, past.correction)
        calls = _calls_of(budget, past.since)
    counted = [call for call in may_settle if call.started_at >= period.starts_at]
    _settle_in(period, counted)
    under_way = [call for call in counted if call.status == ModelCall.Status.STARTED]
    unseen = [call for call in counted if call.status == ModelCall.Status.UNSEEN]
    usd, tokens = _sum_finished(calls)
    period.reserved_usd = sum((call.reserved_usd for call in under_way), Decimal(0))
    period.reserved_tokens = sum(call.reserved_tokens for call in under_way)
    period.spent_usd = past.usd + usd + sum((call.cost_usd for call in unseen), Decimal(0))
    period.spent_tokens = past.tokens + tokens + sum(call.reserved_tokens for call in unseen)
    period.save(update_fields=["reserved_usd", "reserved_tokens", "spent_usd", "spent_tokens"])
    return period


def counting_periods(calls: Collection[ModelCall], *, now: datetime) -> dict[int, set[int]]:
    """In which periods ended calls count: ``{call id: period ids}``. Those that they settled in, and the current ones
    of budgets that were made or switched on after they had begun. Belongs after ``hold_budgets``; one query."""
    departments = {call.department_id for call in calls}
    current = BudgetPeriod.objects.filter(
        budget__department__in=departments, budget__is_enabled=True, starts_at__lte=now, ends_at__gt=now
    ).select_related("budget")
    found = {call.pk: set(call.reserved_in) for call in calls}
    for period, call in product(current, calls):
        counts = period.budget.covers(department_id=call.department_id, agent_id=call.agent_id, model=call.model_asked)
        if counts and call.started_at >= period.starts_at:
            found[call.pk].add(period.pk)
    return found


def _calls_of(budget: Budget, since: datetime) -> QuerySet[ModelCall]:
    return ModelCall.objects.filter(**budget.scope, started_at__gte=since)


def _settle_in(period: BudgetPeriod, calls: list[ModelCall]) -> None:
    rows = [(call.pk, [*call.reserved_in, period.pk]) for call in calls if period.pk not in call.reserved_in]
    update_rows(ModelCall, ["reserved_in"], rows)


def _sum_finished(calls: QuerySet[ModelCall]) -> tuple[Decimal, int]:
    """What ended calls came to, in US dollars and tokens."""
    finished = calls.filter(status=ModelCall.Status.FINISHED)
    known = Q(is_estimate=False) & ~UNBILLED
    sums = finished.aggregate(
        usd=Sum(in_units("cost_usd"), default=0),
        bounds=Sum("reserved_tokens", filter=Q(is_estimate=True), default=0),
        **{name: Sum(name, filter=known, default=0) for name in TOKENS},
    )
    return dollars(int(sums["usd"])), int(sums["bounds"]) + sum(int(sums[name]) for name in TOKENS)
