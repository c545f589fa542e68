"""Costs against an oracle that knows nothing of ours: the file read anew, exact fractions, rounded at the end."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.pricing import PRICES_FILE, PriceBook, UnknownPrice, Usage, cost_usd, shipped_prices

BOOK = PriceBook(shipped_prices())
ROWS: list[dict[str, Any]] = tomllib.loads(PRICES_FILE.read_text(encoding="utf-8"))["price"]
KINDS = {
    "input_tokens": "input_usd",
    "cache_write_5m_tokens": "cache_write_5m_usd",
    "cache_write_1h_tokens": "cache_write_1h_usd",
    "cache_read_tokens": "cache_read_usd",
    "output_tokens": "output_usd",
}
EDGES = [0, 1, 99_999, 100_000, 100_001]
TOKENS = st.one_of(st.sampled_from(EDGES), st.integers(0, 1_000_000))
# The days on which prices change, those beside them, and any other.
CHANGES = sorted({row["effective_from"] + timedelta(days=shift) for row in ROWS for shift in (-1, 0, 1)})
DAYS = st.one_of(st.sampled_from(CHANGES), st.dates(date(2025, 1, 1), date(2027, 12, 31)))
USAGES = st.fixed_dictionaries(dict.fromkeys(KINDS, TOKENS))


def oracle(model: str, day: date, tokens: dict[str, int]) -> Decimal | None:
    """What the list says, in hundred-millionths rounded half up; None where there is no price."""
    prompt = sum(tokens.values()) - tokens["output_tokens"]
    dates = [row["effective_from"] for row in ROWS if row["model"] == model and row["effective_from"] <= day]
    if not dates:
        return None
    bands = [row for row in ROWS if row["model"] == model and row["effective_from"] == max(dates)]
    row = max(
        (b for b in bands if prompt > b.get("prompt_tokens_over", -1)), key=lambda b: b.get("prompt_tokens_over", -1)
    )
    usd = sum(Fraction(row[column]) * tokens[name] for name, column in KINDS.items()) / 1_000_000
    return Decimal((usd * 10**8 + Fraction(1, 2)).__floor__()).scaleb(-8)


@given(st.sampled_from(BOOK.models), DAYS, USAGES)
def test_every_cost_is_what_the_list_says(model: str, day: date, tokens: dict[str, int]) -> None:
    usage = Usage(**tokens)
    expected = oracle(model, day, tokens)
    if expected is None:
        with pytest.raises(UnknownPrice):
            BOOK.price_for(model, day, usage.prompt_tokens)
        return
    assert cost_usd(usage, BOOK.price_for(model, day, usage.prompt_tokens)) == expected


def test_every_row_of_the_list_says_where_it_comes_from() -> None:
    for row in ROWS:
        assert "2026-11" in row["source"], row["model"]


def test_every_model_that_agents_are_given_has_a_price_today() -> None:
    assert {row["model"] for row in ROWS} == set(BOOK.models)
    for model in BOOK.models:
        assert BOOK.price_for(model, date(2026, 11, 20)).input_usd > 0
