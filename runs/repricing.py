"""Prices calls anew after a price was corrected or entered late: shown first, done on request, the old figure kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from decimal import Decimal

from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum

from agents.budgets import Settlement, hold_budgets, settle
from agents.models import Department, ModelPrice
from agents.pricing import PriceBook, UnknownPrice, Usage, billed_usd
from runs.budget_counts import counting_periods
from runs.commits import lock_items
from runs.cost_rollups import add_correction
from runs.cost_sums import Period
from runs.database import increase_rows, insert_rows, take_turns, update_rows
from runs.database import now as database_now
from runs.models import AgentRun, CostCorrection, ModelCall
from runs.money import dollars, in_units

BATCH = 500
_CORRECTIONS = 0x6B6F6E746F73
"""The number of the lock that keeps two who correct costs apart, on PostgreSQL."""
_ZERO = Decimal(0)
_IS_KNOWN = Q(is_estimate=False) | Q(price=None) & ~Q(stop_reason="")
"""What a call used was reported, whether or not there was a price then."""


@dataclass(frozen=True, slots=True)
class Change:
    """One call whose cost is not what its price says."""

    call: ModelCall
    price: ModelPrice
    usd: Decimal

    @property
    def difference(self) -> Decimal:
        """What it costs more."""
        return self.usd - self.call.cost_usd


def find_changes(prices: PriceBook, first: date, last: date, models: Sequence[str] = ()) -> Iterator[Change]:
    """Calls that began on these days (UTC) and whose cost differs from tokens times the price in force.

    Estimates stand, but where nothing was missing except a price: the answer has come to its end. A call on a model
    that still has none is left. Read page by page, so that any number of calls takes little memory and changes may be
    written down meanwhile.
    """
    for department_id in Department.objects.order_by("pk").values_list("pk", flat=True):
        for call in _settled_calls(department_id, Period(first, last), models):
            change = _change(call, prices)
            if change is not None:
                yield change


def sum_left(first: date, last: date, models: Sequence[str] = ()) -> tuple[int, Decimal]:
    """Estimates that began on these days (UTC) and stand, because their tokens are not known: how many, US dollars."""
    begin, end = Period(first, last).moments
    calls = ModelCall.objects.filter(is_estimate=True, started_at__gte=begin, started_at__lt=end)
    sums = _on_models(calls.exclude(_IS_KNOWN, status=ModelCall.Status.FINISHED), models).aggregate(
        count=Count("pk"), units=Sum(in_units("cost_usd"), default=0)
    )
    return sums["count"], dollars(int(sums["units"]))


def _on_models(calls: QuerySet[ModelCall], models: Sequence[str]) -> QuerySet[ModelCall]:
    return calls.filter(Q(model_asked__in=models) | Q(model_used__in=models)) if models else calls


def _settled_calls(department_id: int, period: Period, models: Sequence[str]) -> Iterator[ModelCall]:
    """In the order of the index model_call_by_day, whose page begins after the last call of the one before."""
    begin, end = period.moments
    calls = ModelCall.objects.filter(_IS_KNOWN, department=department_id, status=ModelCall.Status.FINISHED)
    rows = _on_models(calls, models).filter(started_at__lt=end).order_by("started_at", "pk")
    page = list(rows.filter(started_at__gte=begin)[:BATCH])
    while page:
        yield from page
        last = page[-1]
        after = Q(started_at__gt=last.started_at) | Q(pk__gt=last.pk)
        page = list(rows.filter(after, started_at__gte=last.started_at)[:BATCH])


def apply_changes(changes: Iterable[Change], *, reason: str) -> int:
    """Write the new costs everywhere the old ones stand; returns the number of calls. ValueError without a reason.

    A call that was settled again meanwhile is left as it is. Each ``BATCH`` is a transaction: after an interruption
    every sum agrees, and doing it again does the rest.
    """
    if not reason.strip():
        raise ValueError("Say why: the reason stays with every corrected call.")
    done, batch = 0, []
    for change in changes:
        batch.append(change)
        if len(batch) == BATCH:
            done += _apply(batch, reason)
            batch = []
    return done + _apply(batch, reason)


def _change(call: ModelCall, prices: PriceBook) -> Change | None:
    usage = Usage(
        input_tokens=call.input_tokens,
        cache_write_5m_tokens=call.cache_write_5m_tokens,
        cache_write_1h_tokens=call.cache_write_1h_tokens,
        cache_read_tokens=call.cache_read_tokens,
        output_tokens=call.output_tokens,
    )
    if not usage.total_tokens:
        return None  # it was refused before anything was used
    day = call.started_at.astimezone(UTC).date()
    # As when it was settled: a server may name the model differently.
    for model in (call.model_used, call.model_asked):
        try:
            price = prices.price_for(model, day, usage.prompt_tokens)
        except UnknownPrice:
            continue
        usd = billed_usd(usage, price, call.cause)
        return Change(call, price, usd) if usd != call.cost_usd or call.price_id is None else None
    return None


def _apply(changes: Sequence[Change], reason: str) -> int:
    """In the order of all locks: items, agent runs, calls, budgets."""
    if not changes:
        return 0
    with transaction.atomic():
        # One after the other, so that corrections become visible in the order of their ids: whoever has read the newest
        # one (budget_counts, metrics) knows all before it.
        take_turns(_CORRECTIONS)
        lock_items({change.call.item_id for change in changes if change.call.item_id is not None})
        runs = sorted({change.call.agent_run_id for change in changes if change.call.agent_run_id is not None})
        list(AgentRun.objects.filter(pk__in=runs).order_by("pk").select_for_update().values_list("pk"))
        # From here on a budget that is made counts what the calls cost then.
        hold_budgets()
        by_pk = {change.call.pk: change for change in changes}
        locked = ModelCall.objects.filter(pk__in=by_pk).select_for_update(of=("self",)).order_by("pk")
        held = [(call, by_pk[call.pk]) for call in locked if call.cost_usd == by_pk[call.pk].call.cost_usd]
        insert_rows(
            CostCorrection(
                call_id=call.pk,
                price_before_id=call.price_id,
                price_after_id=change.price.pk,
                before_usd=call.cost_usd,
                after_usd=change.usd,
                reason=reason[:300],
            )
            for call, change in held
        )
        add_correction([(call, change.usd) for call, change in held])
        update_rows(
            ModelCall,
            ("cost_usd", "price", "is_estimate"),
            [(call.pk, change.usd, change.price.pk, False) for call, change in held],
        )
        of_runs = [(call.agent_run_id, change.difference) for call, change in held if call.agent_run_id is not None]
        increase_rows(AgentRun, "cost_usd", of_runs)
        periods = counting_periods([call for call, _ in held], now=database_now())
        settle(Settlement(tuple(periods[call.pk]), _ZERO, 0, change.difference, 0) for call, change in held)
    return len(held)
