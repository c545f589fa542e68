"""Everything that is told about costs at once: the costs page shows it, ``manage.py costs`` prints it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import DateTimeField, QuerySet

from agents.models import Department
from agents.pricing import PriceBook, UnknownPrice, load_price_book, shipped_batch_price
from agents.statements import Among, Given, Statement
from runs.cost_sums import Before, Cost, Period, total
from runs.costs import CALL_DIMENSIONS, Ledger
from runs.database import snapshot
from runs.models import ModelCall
from runs.outcomes import count_outcomes
from runs.what_if import CacheUse, Usages, cache_by_agent, cache_saving, read_usages, what_if


@dataclass(frozen=True, slots=True)
class Line:
    """One value of the dimension. ``before_usd`` None: two periods do not compare by it. ``cache`` of agents only.

    Costs by item are kept without tokens and estimates (``is_of_items``): these are unknown then.
    """

    cost: Cost
    before_usd: Decimal | None
    cache: CacheUse | None = None
    is_of_items: bool = False

    @property
    def tokens(self) -> dict[str, int | None]:
        """By kind; None where they are unknown."""
        return {name: None if self.is_of_items else count for name, count in self.cost.tokens.items()}

    @property
    def estimated_usd(self) -> Decimal | None:
        """Of calls whose end was not seen; None where it is unknown."""
        return None if self.is_of_items else self.cost.estimated_usd

    @property
    def change_percent(self) -> int | None:
        """Against the period before; None where there was nothing."""
        return round((self.cost.usd - self.before_usd) * 100 / self.before_usd) if self.before_usd else None


@dataclass(frozen=True, slots=True)
class OutcomeCost:
    """How many items came to something in the period, and all its costs over their number; None for none."""

    name: str
    count: int
    usd: Decimal | None


class Apart(NamedTuple):
    """Calls that no step made, included in all sums."""

    calls: int
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Report:
    """The costs of some departments in a period. ``by_model`` is what one model alone had cost, the cheapest first."""

    period: Period
    by: str
    lines: Sequence[Line]
    whole: Line
    outcomes: Sequence[OutcomeCost]
    saving_usd: Decimal
    by_model: Sequence[tuple[str, Decimal]]
    usages: Sequence[Usages]
    prices: PriceBook
    try_outs: Apart
    checks: Apart

    @property
    def waste_percent(self) -> int:
        """The share that brought nothing that was used, in whole percent."""
        return round(self.whole.cost.waste_usd * 100 / self.whole.cost.usd) if self.whole.cost.usd else 0

    def chosen_usd(self, choices: Mapping[int, str]) -> Decimal | None:
        """What the same tokens had cost with these models (agent id to model); None where nothing is chosen."""
        known = {agent_id: model for agent_id, model in choices.items() if model in self.prices.models}
        return what_if(self.usages, known, self.prices) if known else None

    def as_batches(self, usd: Decimal) -> Decimal:
        """What the same tokens at this cost had cost as batches. Of calls whose end was not seen the bound stays."""
        bound = self.whole.cost.estimated_usd
        return bound + shipped_batch_price().of(usd - bound)


def make_reports(departments: Collection[Department], period: Period, dimensions: Iterable[str]) -> list[Report]:
    """One report for each dimension, all of one moment. LookupError for a dimension nobody has."""
    with snapshot():
        ledger, prices = Ledger(departments), load_price_book()
        usages = read_usages(ledger, period, prices)
        counts = count_outcomes(departments, *period.moments)
        checks, _ = ledger.checks(period)
        apart = {"try_outs": _sum_try_outs(departments, period), "checks": Apart(checks.calls, checks.usd)}
        return [_report(ledger, period, by, usages, counts, prices, apart) for by in dimensions]


def _sum_try_outs(departments: Collection[Department], period: Period) -> Apart:
    begin, end = period.moments
    # Added up here: SQLite has no decimals.
    amounts = [usd for (usd,) in _TRY_OUTS.rows(departments=[d.pk for d in departments], begin=begin, end=end)]
    return Apart(len(amounts), sum(amounts, Decimal(0)))


def _try_outs() -> QuerySet[ModelCall, Any]:
    """Costs of calls that have ended, as in the sums. Few, and found by an index."""
    moment = DateTimeField()
    calls = ModelCall.objects.filter(
        Among("department_id", "departments"),
        started_at__gte=Given("begin", moment),
        started_at__lt=Given("end", moment),
        try_out__isnull=False,
    )
    return calls.exclude(status=ModelCall.Status.STARTED).order_by().values_list("cost_usd")


_TRY_OUTS = Statement(_try_outs)


def _report(
    ledger: Ledger,
    period: Period,
    by: str,
    usages: Sequence[Usages],
    counts: Mapping[str, int],
    prices: PriceBook,
    apart: Mapping[str, Apart],
) -> Report:
    found, before = ledger.compare(period, by)
    caches = cache_by_agent(usages, prices) if by == "agent" else {}
    # Of the calls themselves: lines by what items are have no tokens and no estimates.
    sums = replace(total(row.cost for row in usages), items=sum(cost.items for cost in found))
    whole = Line(sums, before.usd)
    return Report(
        period=period,
        by=by,
        lines=_lines(found, before, by, caches),
        whole=whole,
        outcomes=[OutcomeCost(name, n, whole.cost.usd / n if n else None) for name, n in counts.items()],
        saving_usd=cache_saving(usages, prices),
        by_model=_by_model(usages, prices),
        usages=usages,
        prices=prices,
        **apart,
    )


def _lines(found: Sequence[Cost], before: Before, by: str, caches: Mapping[int, CacheUse]) -> list[Line]:
    if by == "day" and found:
        found = _every_day(found)
    is_of_items = by not in CALL_DIMENSIONS
    # Days of two periods do not compare.
    return [
        Line(cost, before.by_key.get(cost.key, Decimal(0)) if by != "day" else None, caches.get(cost.key), is_of_items)
        for cost in found
    ]


def _every_day(found: Sequence[Cost]) -> list[Cost]:
    """The days between the first and the last one too, at nothing, or a chart would push the others together."""
    known = {cost.key: cost for cost in found}
    first, last = found[0].key, found[-1].key
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [known.get(day) or Cost(day, str(day)) for day in days]


def _by_model(usages: Sequence[Usages], prices: PriceBook) -> list[tuple[str, Decimal]]:
    """All tokens on one model, for every model that has a price."""
    ids, found = {row.agent_id for row in usages}, []
    for model in prices.models:
        try:
            found.append((model, what_if(usages, dict.fromkeys(ids, model), prices)))
        except UnknownPrice:
            continue
    return sorted(found, key=lambda pair: pair[1])
