"""What a call costs: the price in force, the cost of what was used, the bound of what may be used.

Prices are US dollars per million tokens; costs are raw US dollars with 8 places. A model without a price is
never priced at zero: ``UnknownPrice`` says what to enter.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

from agents.causes import Cause
from agents.models import ModelPrice
from agents.statements import Statement

PRICES_FILE = Path(__file__).parent / "prices.toml"
PRICE_FIELDS = ("input_usd", "output_usd", "cache_write_5m_usd", "cache_write_1h_usd", "cache_read_usd")
REQUEST_OVERHEAD_TOKENS = 2_000
"""Tokens of a prompt that are not in the request: what the API adds around tools (some hundred tokens are
published for it), around a schema and around each message. Deliberately more than ever seen."""

_PER_TOKEN = Decimal("0.000001")
_PLACES = Decimal("0.00000001")


class UnknownPrice(LookupError):
    """No price of the model is in force on the day. The text is a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call as reported; ``thinking_tokens`` are already inside ``output_tokens``."""

    input_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt, cache reads and writes included: what chooses the band of a price."""
        return self.input_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens + self.cache_read_tokens

    @property
    def total_tokens(self) -> int:
        """Prompt and output: what counts against a budget in tokens."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class BatchPrice:
    """What a batch, answered within 24 hours, costs of the usual prices: the same ``share`` of each, of every model."""

    share: Decimal
    source: str

    def of(self, usd: Decimal) -> Decimal:
        """What calls of this cost had been as batches; US dollars, 8 places, half up."""
        return (usd * self.share).quantize(_PLACES, ROUND_HALF_UP)


def cost_usd(usage: Usage, price: ModelPrice) -> Decimal:
    """US dollars, 8 places, half up."""
    millionths = (
        usage.input_tokens * price.input_usd
        + usage.cache_write_5m_tokens * price.cache_write_5m_usd
        + usage.cache_write_1h_tokens * price.cache_write_1h_usd
        + usage.cache_read_tokens * price.cache_read_usd
        + usage.output_tokens * price.output_usd
    )
    return (millionths * _PER_TOKEN).quantize(_PLACES, ROUND_HALF_UP)


def billed_usd(usage: Usage, price: ModelPrice, cause: str) -> Decimal:
    """What a call that ended so (a ``Cause``) costs: the API bills no request that it refused before any output."""
    return Decimal(0) if cause == Cause.REFUSAL and not usage.output_tokens else cost_usd(usage, price)


def reserve_bound(request_bytes: int, max_tokens: int) -> tuple[int, int]:
    """The most tokens a call can use, ``(input, output)``, from the size of its JSON body in UTF-8.

    The models' tokenizers work on bytes: a token stands for at least one byte of the text, and the JSON of
    a text is never shorter than the text. Real prompts have three to four bytes a token.
    """
    return request_bytes + REQUEST_OVERHEAD_TOKENS, max_tokens


def reserved_usd(price: ModelPrice, input_tokens: int, output_tokens: int, *, long_cache: bool = False) -> Decimal:
    """The most that so many tokens can cost: every input token at the dearer of input and cache write.

    ``long_cache`` says that the request asks for the one-hour cache, whose writes are dearer still.
    """
    dearest = max(price.input_usd, price.cache_write_5m_usd, price.cache_write_1h_usd if long_cache else 0)
    return ((input_tokens * dearest + output_tokens * price.output_usd) * _PER_TOKEN).quantize(_PLACES, ROUND_HALF_UP)


class PriceBook:
    """Every price, in memory. Load it once a shift or a page; it does not follow later changes."""

    def __init__(self, prices: Iterable[ModelPrice]) -> None:
        self._by_model: dict[str, list[ModelPrice]] = {}
        for price in sorted(prices, key=lambda p: (p.effective_from, p.prompt_tokens_over), reverse=True):
            self._by_model.setdefault(price.model, []).append(price)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that has a price on some day, by name."""
        return tuple(sorted(self._by_model))

    def changes_in(self, first: date, last: date) -> tuple[date, ...]:
        """The days in their order, after the first and up to the last, from which some model has another price."""
        days = {price.effective_from for prices in self._by_model.values() for price in prices}
        return tuple(sorted(day for day in days if first < day <= last))

    def price_for(self, model: str, on: date, prompt_tokens: int = 0) -> ModelPrice:
        """The row in force on the day (UTC) on which the call starts; UnknownPrice if there is none."""
        for price in self._by_model.get(model, ()):
            # Newest date first and widest band first, so the first that fits is the one in force.
            if price.effective_from <= on and price.prompt_tokens_over < max(prompt_tokens, 1):
                return price
        raise UnknownPrice(self._sentence(model, on))

    def ended_band(self, row: ModelPrice) -> int | None:
        """The widest limit above the row's own that ends once the row is entered, as its day has no band above it.

        A day's row for shorter prompts replaces every older row that it fits, those for longer prompts included.
        """
        before = [p for p in self._by_model.get(row.model, ()) if p.effective_from <= row.effective_from]
        over = row.prompt_tokens_over
        since = max((p.effective_from for p in before if p.prompt_tokens_over <= over), default=date.min)
        above = [p for p in before if p.prompt_tokens_over > over and p.effective_from >= since]
        if any(p.effective_from == row.effective_from for p in above):
            return None
        return max((p.prompt_tokens_over for p in above), default=None)

    def worst(
        self,
        model: str,
        on: date,
        prompt_tokens_bound: int,
        output_tokens: int = 0,
        *,
        long_cache: bool = False,
    ) -> ModelPrice:
        """The dearest row that a prompt of up to so many tokens can come to; UnknownPrice if none."""
        sizes = {1, prompt_tokens_bound}
        # A band begins one token above its limit; the prompt may turn out to be any size up to the bound.
        sizes |= {
            p.prompt_tokens_over + 1
            for p in self._by_model.get(model, ())
            if p.prompt_tokens_over < prompt_tokens_bound
        }
        reachable = [self.price_for(model, on, size) for size in sorted(sizes)]
        return max(
            reachable,
            key=lambda p: reserved_usd(p, prompt_tokens_bound, output_tokens, long_cache=long_cache),
        )

    def reservation(
        self, model: str, on: date, request_bytes: int, max_tokens: int, *, long_cache: bool = False
    ) -> tuple[Decimal, int]:
        """What to set aside before a call, ``(US dollars, tokens)``: never less than it can cost."""
        input_tokens, output_tokens = reserve_bound(request_bytes, max_tokens)
        price = self.worst(model, on, input_tokens, output_tokens, long_cache=long_cache)
        return (
            reserved_usd(price, input_tokens, output_tokens, long_cache=long_cache),
            input_tokens + output_tokens,
        )

    def _sentence(self, model: str, on: date) -> str:
        rows = self._by_model.get(model)
        if over := [row.prompt_tokens_over for row in rows or () if row.effective_from <= on]:
            return (
                f"The model {model} has a price for {on} only for prompts of more than {min(over):,} tokens. "
                "Enter one for prompts of more than 0 tokens, with the same date."
            )
        if rows:
            return (
                f"The model {model} has no price for {on}: its first one is in force from "
                f"{rows[-1].effective_from}. Enter a price with an earlier date."
            )
        return f"The model {model} has no price. Enter one under Prices before an agent uses it."


def why_kept(prices: Iterable[ModelPrice], deleted: ModelPrice, also: Iterable[int], on: date) -> str:
    """Why a price cannot go, together with ``also`` (their ids), as calls of the day need it; empty if it can.

    ``prices`` are all there are of its model.
    """
    rows, model, over = list(prices), deleted.model, deleted.prompt_tokens_over
    gone, left = {deleted.pk, *also}, PriceBook(row for row in rows if row.pk not in {deleted.pk, *also})
    try:
        if PriceBook(rows).price_for(model, on, over + 1).pk not in gone:
            return ""
        if left.price_for(model, on, over + 1).prompt_tokens_over >= over:
            return ""
    except UnknownPrice:
        return f"Without {deleted} the model {model} has no price, and agents work on it. Enter another one first."
    return f"Without {deleted} longer prompts would be priced as short ones, and agents work on {model}."


def load_price_book() -> PriceBook:
    """All prices of the installation, in one query."""
    return PriceBook(_ALL.objects())


_ALL = Statement(lambda: ModelPrice.objects.order_by())


# --- The prices that Kontor ships ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PriceDifference:
    """A price that an administrator has entered otherwise than ``prices.toml``."""

    price: str
    field: str
    in_code: str
    in_database: str


@dataclass(frozen=True, slots=True)
class PriceSync:
    """``created`` names the rows that were missing; ``differences`` stay as they are in the database."""

    created: tuple[str, ...]
    differences: tuple[PriceDifference, ...]


def shipped_prices(path: Path = PRICES_FILE) -> list[ModelPrice]:
    """The rows of ``prices.toml``, unsaved. ValueError names the row that cannot be read."""
    entries: list[dict[str, Any]] = _load(path)["price"]
    return [_read(entry) for entry in entries]


@cache
def shipped_batch_price(path: Path = PRICES_FILE) -> BatchPrice:
    """The discount of ``prices.toml`` for batches. Only to be shown: Kontor makes none."""
    entry = _load(path)["batch"]
    return BatchPrice(Decimal(entry["share"]), entry["source"])


def sync_prices() -> PriceSync:
    """Create the shipped prices that are missing. Existing ones never change: calls refer to them."""
    existing = {(p.model, p.effective_from, p.prompt_tokens_over): p for p in ModelPrice.objects.all()}
    missing, differences = [], []
    for shipped in shipped_prices():
        found = existing.get((shipped.model, shipped.effective_from, shipped.prompt_tokens_over))
        if found is None:
            missing.append(shipped)
            continue
        for name in PRICE_FIELDS:
            ours, theirs = getattr(shipped, name), getattr(found, name)
            if ours != theirs:
                differences.append(PriceDifference(str(found), name, f"{ours:f}", f"{theirs.normalize():f}"))
    # Two machines may start at once: whoever is second finds the row there.
    ModelPrice.objects.bulk_create(missing, ignore_conflicts=True)
    return PriceSync(tuple(str(price) for price in missing), tuple(differences))


def _load(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file, parse_float=Decimal)


def _read(entry: dict[str, Any]) -> ModelPrice:
    try:
        return ModelPrice(
            model=entry["model"],
            effective_from=entry["effective_from"],
            prompt_tokens_over=entry.get("prompt_tokens_over", 0),
            source=entry["source"],
            **{name: Decimal(entry[name]) for name in PRICE_FIELDS},
        )
    except (KeyError, ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(
            f"prices.toml, entry {entry.get('model', entry)}: {error!r} is missing or no number."
        ) from error
