"""What the same tokens had cost otherwise: on other models, and without the prompt cache."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from agents.models import Agent, Department
from agents.pricing import PriceBook, UnknownPrice, Usage, cost_usd
from runs.cost_sums import Cost, Period
from runs.costs import Ledger
from runs.database import snapshot


class Usages(NamedTuple):
    """What one agent's calls on one model used from ``day`` on, as long as no price changed: for "what if".

    ``usage`` and ``calls`` leave out estimates: of those only a bound in dollars is known. ``prompt_tokens`` is that
    of a usual call, which chooses the band: calls that were refused have none. ``cost`` is of all calls.
    """

    agent_id: int
    model: str
    day: date
    usage: Usage
    calls: int
    prompt_tokens: int
    cost: Cost


def load_usages(departments: Collection[Department], period: Period, prices: PriceBook) -> list[Usages]:
    """As ``read_usages``, for who asks nothing else."""
    with snapshot():
        return read_usages(Ledger(departments), period, prices)


def read_usages(ledger: Ledger, period: Period, prices: PriceBook, agents: Collection[int] = ()) -> list[Usages]:
    """Tokens by agent, model and days of the same prices, of these agents (ids) or of all; one query beside the
    ledger's own."""
    starts = (period.first, *prices.changes_in(*period))
    return usages_of(ledger.sum_calls(period, ("agent_id", "model"), agents, starts), starts)


def usages_of(sums_by: Mapping[tuple[Any, ...], Sequence[int]], starts: Sequence[date]) -> list[Usages]:
    """The same from sums by agent, model and span of the days that ``starts`` begins, as ``Ledger.sum_calls`` has
    them."""
    found: dict[tuple[Any, ...], Cost] = {}
    seen: dict[tuple[Any, ...], Cost] = {}
    good: dict[tuple[Any, ...], Cost] = {}
    for (values, waste, estimate), sums in sums_by.items():
        for costs in (found,) if estimate else (found, seen) if waste else (found, seen, good):
            costs.setdefault(values, Cost()).add(sums, is_waste=waste, is_estimate=estimate)
    return [
        Usages(
            agent_id=values[0],
            model=values[1],
            day=starts[values[2]],
            usage=_usage(known.tokens),
            calls=known.calls,
            prompt_tokens=_usual_prompt(good.get(values), known, cost),
            cost=cost,
        )
        for values, cost in found.items()
        for known in [seen.get(values, Cost())]
    ]


def what_if(usages: Iterable[Usages], choices: Mapping[int, str], prices: PriceBook) -> Decimal:
    """What the same tokens had cost if each agent (id) in ``choices`` had used that model; others as they were.

    Prices are those of the days, or the model's latest ones before it had any. The band is that of the usual prompt.
    Estimates stay at their bound, or each other model would seem cheaper by them.
    UnknownPrice if a chosen model has none.
    """
    sum_usd = Decimal(0)
    for row in usages:
        model = choices.get(row.agent_id)
        if model is None or model == row.model:
            sum_usd += row.cost.usd
            continue
        price = _price(prices, model, row.day, row.prompt_tokens)
        sum_usd += row.cost.estimated_usd + cost_usd(row.usage, price)
    return sum_usd


def cache_saving(usages: Iterable[Usages], prices: PriceBook) -> Decimal:
    """What the prompt cache has saved: its reads against plain input, less what its writes cost more. May be < 0.

    What a server calls by a name without a price, as some do, is left out.
    """
    saved = Decimal(0)
    for row in usages:
        used = _usage(row.cost.tokens)
        if not used.cache_read_tokens + used.cache_write_5m_tokens + used.cache_write_1h_tokens:
            continue
        try:
            price = _price(prices, row.model, row.day, row.prompt_tokens)
        except UnknownPrice:
            continue
        saved += cost_usd(Usage(input_tokens=used.prompt_tokens, output_tokens=used.output_tokens), price)
        saved -= cost_usd(used, price)
    return saved


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What the prompt cache did for one agent. ``saved_usd`` may be below 0: what was written was not read again."""

    prompt_tokens: int = 0
    read_tokens: int = 0
    saved_usd: Decimal = Decimal(0)

    @property
    def hit_percent(self) -> int:
        """How much of the prompts was read from the cache, in whole percent."""
        return round(self.read_tokens * 100 / self.prompt_tokens) if self.prompt_tokens else 0


def agent_cache_saving(agents: Collection[Agent], period: Period, prices: PriceBook) -> dict[int, CacheUse]:
    """What the prompt cache did for each of the agents (with ``department`` selected) in the period; two queries."""
    with snapshot():
        ledger = Ledger({agent.department_id: agent.department for agent in agents}.values())
        usages = read_usages(ledger, period, prices, [agent.pk for agent in agents]) if agents else []
    found = cache_by_agent(usages, prices)
    return {agent.pk: found.get(agent.pk, CacheUse()) for agent in agents}


def cache_by_agent(usages: Iterable[Usages], prices: PriceBook) -> dict[int, CacheUse]:
    """The same from usages that were read already; agents without calls are left out."""
    by_agent: dict[int, list[Usages]] = {}
    for row in usages:
        by_agent.setdefault(row.agent_id, []).append(row)
    return {
        agent_id: CacheUse(
            prompt_tokens=sum(row.cost.prompt_tokens for row in rows),
            read_tokens=sum(row.cost.tokens["cache_read_tokens"] for row in rows),
            saved_usd=cache_saving(rows, prices),
        )
        for agent_id, rows in by_agent.items()
    }


def _usage(tokens: Mapping[str, int]) -> Usage:
    return Usage(
        input_tokens=tokens["input_tokens"],
        cache_write_5m_tokens=tokens["cache_write_5m_tokens"],
        cache_write_1h_tokens=tokens["cache_write_1h_tokens"],
        cache_read_tokens=tokens["cache_read_tokens"],
        output_tokens=tokens["output_tokens"],
    )


def _usual_prompt(*costs: Cost | None) -> int:
    """Tokens of the average prompt of the first of these that has calls."""
    return next((cost.prompt_tokens // cost.calls for cost in costs if cost is not None and cost.calls), 0)


def _price(prices: PriceBook, model: str, day: date, prompt_tokens: int) -> Any:
    try:
        return prices.price_for(model, day, prompt_tokens)
    except UnknownPrice:
        return prices.price_for(model, date.max, prompt_tokens)
