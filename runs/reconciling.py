"""Compares our figures with a usage export of the provider: by day and model, tokens and costs.

An export is a CSV file with a header. Known names of columns are those of the provider's console and of the usage
API; a line without a model or a day is refused with its number, so that nothing is compared by halves.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from django.db.models import Sum

from runs.cost_rollups import TOKENS
from runs.models import ModelCall

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
    "cache_read_tokens": ("cache_read_tokens", "usage_input_tokens_cache_read", "cache_read_input_tokens"),
    "output_tokens": ("output_tokens", "usage_output_tokens"),
    # Not "amount": the provider's cost report counts cents there.
    "cost_usd": ("cost_usd", "cost", "amount_usd"),
}
_NEEDED = ("day", "model", "input_tokens", "output_tokens")


class Unreadable(ValueError):
    """The export cannot be read. The text says what is wrong and what to do."""


class Key(NamedTuple):
    """What is compared."""

    day: date
    model: str


@dataclass(slots=True)
class Figures:
    """Tokens by kind; ``cost_usd`` is None where the export says nothing of costs."""

    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    cost_usd: Decimal | None = None

    def add(self, tokens: Mapping[str, int], cost: Decimal | None) -> None:
        """Add another line of the same day and model."""
        for name in TOKENS:
            self.tokens[name] += tokens[name]
        if cost is not None:
            self.cost_usd = (self.cost_usd or Decimal(0)) + cost


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
            return ["only in the export" if self.ours is None else "only in Kontor"]
        found = [
            f"{name.replace('_', ' ')}: ours {self.ours.tokens[name]:,}, theirs {self.theirs.tokens[name]:,}"
            for name in TOKENS
            if self.ours.tokens[name] != self.theirs.tokens[name]
        ]
        if _costs_differ(self.ours, self.theirs):
            found.append(f"cost: ours {self.ours.cost_usd:.8f} USD, theirs {self.theirs.cost_usd:.8f} USD")
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
            tokens = {name: _whole(row[column]) if (column := columns[name]) else 0 for name in TOKENS}
            cost = Decimal(row[column].strip().lstrip("$")) if (column := columns["cost_usd"]) and row[column] else None
        except (ValueError, AttributeError, InvalidOperation) as error:
            raise Unreadable(f"Line {number} cannot be read: {error}") from error
        if not key.model:
            raise Unreadable(f"Line {number} names no model.")
        found[key].add(tokens, cost)
    return dict(found)


def our_figures(first: date, last: date, api_key_env: str = "") -> dict[Key, Figures]:
    """What our calls say for these days (UTC, both included), from the calls themselves.

    Unseen calls count with their estimate, and so show up as a difference until they are settled.
    """
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    calls = ModelCall.objects.filter(started_at__gte=begin).exclude(status=ModelCall.Status.STARTED)
    if api_key_env:
        calls = calls.filter(department__api_key_env=api_key_env)
    found: defaultdict[Key, Figures] = defaultdict(Figures)
    days = calls.values_list("started_at__date", "model_used", "model_asked")
    for day, used, asked, *sums in days.annotate(*(Sum(name) for name in (*TOKENS, "cost_usd"))).order_by():
        if first <= day <= last:
            cost = Decimal(sums[-1]).quantize(Decimal("0.00000001"))
            found[Key(day, used or asked)].add(dict(zip(TOKENS, sums, strict=False)), cost)
    return dict(found)


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
    # An export that is rounded to cents can say no more than that.
    exponent = theirs.cost_usd.as_tuple().exponent
    places = Decimal(1).scaleb(exponent) if isinstance(exponent, int) else Decimal(1)
    return abs(ours.cost_usd - theirs.cost_usd) > places / 2


def _column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    known = {column.strip().lower().replace(" ", "_"): column for column in columns}
    return next((known[name] for name in names if name in known), None)


def _day(text: str) -> date:
    return date.fromisoformat(text.strip()[:10])


def _whole(text: str) -> int:
    return int(text.strip().replace(",", "") or 0)
