"""Compares our figures with a usage export of the provider: by day and model, tokens and costs.

An export is a CSV file with a header. Known names of columns are those of the provider's console and of the usage
API; a line without a model or a day is refused with its number, so that nothing is compared by halves.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from django.db.models import F, Q, Sum, Value

from runs.budget_counts import UNBILLED
from runs.cost_moves import TOKENS
from runs.models import ModelCall
from runs.money import dollars, in_units

_NAMES: dict[str, tuple[str, ...]] = {
    "day": ("day", "date", "usage_date_utc", "starting_at", "start_time"),
    "model": ("model", "model_version", "model_id"),
    "input_tokens": ("input_tokens", "uncached_input_tokens", "usage_input_tokens_no_cache"),
    "cache_write_5m_tokens": (
        "cache_write_5m_tokens",
        "usage_input_tokens_cache_write_5m",
        "cache_creation_5m_input_tokens",
        "ephemeral_5m_input_tokens",
    ),
    "cache_write_1h_tokens": (
        "cache_write_1h_tokens",
        "usage_input_tokens_cache_write_1h",
        "cache_creation_1h_input_tokens",
        "ephemeral_1h_input_tokens",
    ),
    # Both kinds of writes together, as the API reports them.
    "cache_write_tokens": ("cache_write_tokens", "cache_creation_input_tokens", "usage_input_tokens_cache_write"),
    "cache_read_tokens": ("cache_read_tokens", "usage_input_tokens_cache_read", "cache_read_input_tokens"),
    "output_tokens": ("output_tokens", "usage_output_tokens"),
    # Not "amount": the provider's cost report counts cents there.
    "cost_usd": ("cost_usd", "cost", "amount_usd"),
}
_NEEDED = ("day", "model", "input_tokens", "output_tokens")
_WRITES = ("cache_write_5m_tokens", "cache_write_1h_tokens")
_KINDS = (*TOKENS, "cache_write_tokens")
_HALF_CENT = Decimal("0.005")
_ZERO = Decimal(0)


class Unreadable(ValueError):
    """The export cannot be read. The text says what is wrong and what to do."""


class Key(NamedTuple):
    """What is compared."""

    day: date
    model: str


@dataclass(slots=True)
class Figures:
    """Tokens by kind, those that are known; ``cost_usd`` is None where the export says nothing of costs.

    ``estimated_usd`` is inside our costs, ``refused_tokens`` of prompts that were not billed are not inside our tokens;
    ``rounding_usd`` is how far an export's may be off by its rounding.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    cost_usd: Decimal | None = None
    estimated_usd: Decimal = _ZERO
    refused_tokens: int = 0
    rounding_usd: Decimal = _ZERO

    def add(self, tokens: Mapping[str, int], cost: Decimal | None) -> None:
        """Add another line of the same day and model. Each was rounded by itself, to cents at the most."""
        self.tokens.update(tokens)
        if cost is not None:
            self.cost_usd = (self.cost_usd or _ZERO) + cost
            exponent = cost.as_tuple().exponent
            places = Decimal(1).scaleb(exponent) if isinstance(exponent, int) else _ZERO
            self.rounding_usd += min(places / 2, _HALF_CENT)

    @property
    def in_words(self) -> str:
        """What the calls cost, and how much of that was not seen but estimated."""
        usd = _ZERO if self.cost_usd is None else self.cost_usd
        return f"{usd:.8f} USD" + (f" ({self.estimated_usd:.8f} of it estimated)" if self.estimated_usd else "")


@dataclass(frozen=True, slots=True)
class Difference:
    """One day and model at which the two disagree; what one side does not have is None."""

    key: Key
    ours: Figures | None
    theirs: Figures | None

    @property
    def lines(self) -> list[str]:
        """What differs, in words."""
        if self.ours is None or self.theirs is None:
            return ["only in the export" if self.ours is None else f"only in Kontor: {self.ours.in_words}"]
        found = [
            f"{name.replace('_', ' ')}: ours {self.ours.tokens[name]:,}, theirs {self.theirs.tokens[name]:,}"
            for name in _KINDS
            if name in self.theirs.tokens and self.ours.tokens[name] != self.theirs.tokens[name]
        ]
        if _costs_differ(self.ours, self.theirs):
            found.append(f"cost: ours {self.ours.in_words}, theirs {self.theirs.in_words}")
        if found and self.ours.refused_tokens:
            left = f"{self.ours.refused_tokens:,} tokens of prompts that were refused before any output"
            found.append(f"not in ours, since they are not billed: {left}")
        return found


def read_export(lines: Iterable[str]) -> dict[Key, Figures]:
    """The figures of an export. Unreadable says which column or line is the trouble."""
    reader = csv.DictReader(lines)
    columns = {name: _column(reader.fieldnames or [], names) for name, names in _NAMES.items()}
    if missing := [name for name in _NEEDED if columns[name] is None]:
        known = "; ".join(f"{name}: {' or '.join(_NAMES[name])}" for name in missing)
        raise Unreadable(f"The export has no column for {', '.join(missing)}. Name them so ({known}).")
    found: defaultdict[Key, Figures] = defaultdict(Figures)
    for number, row in enumerate(reader, start=2):
        try:
            key = Key(_day(row[columns["day"] or ""]), row[columns["model"] or ""].strip())
            tokens = {name: _whole(row[column]) for name in _KINDS if (column := columns[name])}
            cost = _usd(row[column]) if (column := columns["cost_usd"]) and row[column] else None
        except (ValueError, AttributeError) as error:
            raise Unreadable(f"Line {number} cannot be read: {error}") from error
        if not key.model:
            raise Unreadable(f"Line {number} names no model.")
        found[key].add(tokens, cost)
    return dict(found)


def our_figures(first: date, last: date, api_key_env: str = "") -> dict[Key, Figures]:
    """What our calls say for these days (UTC, both included), from the calls themselves.

    Prompts that were refused before any output count with no tokens, as on the costs page.
    Calls whose end was not seen have no tokens or some, and cost what they had reserved or may have used: that is
    ``estimated_usd``. Calls under way are left out.
    """
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    calls = ModelCall.objects.filter(started_at__gte=begin).exclude(status=ModelCall.Status.STARTED)
    if api_key_env:
        calls = calls.filter(department__api_key_env=api_key_env)
    found: defaultdict[Key, Figures] = defaultdict(Figures)
    days = calls.values_list("started_at__date", "model_used", "model_asked")
    sums = days.annotate(
        **{f"sum_{name}": Sum(name, filter=~UNBILLED, default=0) for name in TOKENS},
        refused=Sum(sum((F(name) for name in TOKENS), Value(0)), filter=UNBILLED, default=0),
        cost=Sum(in_units("cost_usd")),
        estimated=Sum(in_units("cost_usd"), filter=Q(is_estimate=True), default=0),
    )
    for day, used, asked, *counts, refused, cost, estimated in sums.order_by():
        if first <= day <= last:
            tokens = dict(zip(TOKENS, counts, strict=True))
            tokens["cache_write_tokens"] = sum(tokens[name] for name in _WRITES)
            figures = found[Key(day, used or asked)]
            figures.add(tokens, dollars(int(cost)))
            figures.refused_tokens += refused
            figures.estimated_usd += dollars(int(estimated))
    return dict(found)


def left_out(theirs: Mapping[Key, Figures]) -> list[str]:
    """What an export has no column for, in words, so that it cannot be compared."""
    known = {name for figures in theirs.values() for name in figures.tokens}
    if any(figures.cost_usd is not None for figures in theirs.values()):
        known.add("cost_usd")
    if "cache_write_tokens" in known:
        known.update(_WRITES)
    return [name.removesuffix("_usd").replace("_", " ") for name in (*TOKENS, "cost_usd") if name not in known]


def compare(ours: Mapping[Key, Figures], theirs: Mapping[Key, Figures]) -> list[Difference]:
    """Where the two disagree, by day and model. Calls that used nothing need no line in the export."""
    differences = []
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if (mine is None or other is None) and not _amounts_to_something(mine or other):
            continue
        difference = Difference(key, mine, other)
        if difference.lines:
            differences.append(difference)
    return differences


def _amounts_to_something(figures: Figures | None) -> bool:
    return figures is not None and (any(figures.tokens.values()) or bool(figures.cost_usd))


def _costs_differ(ours: Figures, theirs: Figures) -> bool:
    if ours.cost_usd is None or theirs.cost_usd is None:
        return False
    return abs(ours.cost_usd - theirs.cost_usd) > theirs.rounding_usd


def _column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    known = {column.strip().lower().replace(" ", "_"): column for column in columns}
    return next((known[name] for name in names if name in known), None)


def _day(text: str) -> date:
    return date.fromisoformat(text.strip()[:10])


def _usd(text: str) -> Decimal:
    try:
        usd = Decimal(text.strip().lstrip("$"))
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite():
        raise ValueError(f"{text!r} is no amount of dollars")
    return usd


def _whole(text: str) -> int:
    return int(text.strip().replace(",", "") or 0)
