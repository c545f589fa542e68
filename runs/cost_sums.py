"""What sums of costs are: the days they are about, one line of them, and how lines are added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from typing import Any, NamedTuple

from runs.cost_moves import TOKENS
from runs.money import dollars


class Period(NamedTuple):
    """Days (UTC), both included."""

    first: date
    last: date

    @property
    def before(self) -> Period:
        """As many days, just before."""
        length = self.last - self.first + timedelta(days=1)
        return Period(self.first - length, self.last - length)

    @property
    def moments(self) -> tuple[datetime, datetime]:
        """The first moment, and the first one after it."""
        begin = datetime.combine(self.first, day_time.min, UTC)
        return begin, datetime.combine(self.last + timedelta(days=1), day_time.min, UTC)


@dataclass(slots=True)
class Cost:
    """Sums over calls, or over those of one value of a dimension. Costs in US dollars, 8 places."""

    key: Any = None
    label: str = ""
    calls: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    usd: Decimal = Decimal(0)
    waste_usd: Decimal = Decimal(0)
    """Of calls that brought nothing that was used, as ``cost_moves.is_of_use`` says."""
    estimated_usd: Decimal = Decimal(0)
    """Of calls whose end was not seen: by what was reported and shown of them, or a bound."""
    items: int = 0
    """How many items, where the dimension is one of items."""

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt, cache reads and writes included."""
        return sum(count for name, count in self.tokens.items() if name != "output_tokens")

    @property
    def cached_percent(self) -> int:
        """How much of the prompts was read from the cache, in whole percent."""
        return round(self.tokens["cache_read_tokens"] * 100 / self.prompt_tokens) if self.prompt_tokens else 0

    def add(self, sums: Sequence[int], *, is_waste: bool, is_estimate: bool) -> None:
        """Add sums in the order of ``cost_moves.SUMS``."""
        calls, *tokens, cost_units = sums
        self.calls += calls
        for name, count in zip(TOKENS, tokens, strict=True):
            self.tokens[name] += count
        usd = dollars(cost_units)
        self.usd += usd
        self.waste_usd += usd if is_waste else 0
        self.estimated_usd += usd if is_estimate else 0

    def minus(self, other: Cost) -> Cost:
        """Without a part of these calls; ``items`` stay."""
        return replace(
            self,
            calls=self.calls - other.calls,
            tokens={name: count - other.tokens[name] for name, count in self.tokens.items()},
            usd=self.usd - other.usd,
            waste_usd=self.waste_usd - other.waste_usd,
            estimated_usd=self.estimated_usd - other.estimated_usd,
        )


class Before(NamedTuple):
    """What the days before came to, in US dollars: by the keys of the lines, and all together."""

    by_key: dict[Any, Decimal]
    usd: Decimal


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of all."""
    whole = Cost(label="Total")
    for cost in costs:
        whole.calls += cost.calls
        whole.items += cost.items
        whole.usd += cost.usd
        whole.waste_usd += cost.waste_usd
        whole.estimated_usd += cost.estimated_usd
        for name in TOKENS:
            whole.tokens[name] += cost.tokens[name]
    return whole


def dearest_first(cost: Cost) -> tuple[bool, Decimal, str]:
    """The order of lines; the sum of the rest stands last."""
    return cost.key is None, -cost.usd, cost.label
