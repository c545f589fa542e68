from __future__ import annotations

import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.models import ModelPrice
from agents.pricing import (
    PRICE_FIELDS,
    REQUEST_OVERHEAD_TOKENS,
    PriceBook,
    UnknownPrice,
    Usage,
    cost_usd,
    load_price_book,
    reserve_bound,
    reserved_usd,
    shipped_batch_price,
    shipped_prices,
    sync_prices,
)
from agents.simulator.catalogue import MODELS

TODAY = date(2026, 11, 20)
HAIKU, SONNET = "claude-haiku-5-5", "claude-sonnet-5-5"
BOOK = PriceBook(shipped_prices())
TOKENS = st.integers(0, 2_000_000)
USAGES = st.builds(
    Usage,
    input_tokens=TOKENS,
    cache_write_5m_tokens=TOKENS,
    cache_read_tokens=TOKENS,
    output_tokens=TOKENS,
)


def row(model: str, day: date, *, over: int = 0, usd: int = 1) -> ModelPrice:
    """A price at which every kind of token costs the same; not saved."""
    prices = dict.fromkeys(PRICE_FIELDS, Decimal(usd))
    return ModelPrice(model=model, effective_from=day, prompt_tokens_over=over, **prices)


class TestCost:
    def test_every_kind_of_token_has_its_own_price(self) -> None:
        price = BOOK.price_for("claude-opus-5-5", TODAY)
        million = 1_000_000
        usage = Usage(million, million, million, million, million)
        assert cost_usd(usage, price) == Decimal("4") + 5 + 8 + Decimal("0.20") + 20

    def test_thinking_is_inside_the_output_and_costs_nothing_more(self) -> None:
        price = BOOK.price_for(SONNET, TODAY)
        assert cost_usd(Usage(output_tokens=900, thinking_tokens=700), price) == Decimal("0.00900000")

    def test_half_of_the_last_place_is_rounded_up(self) -> None:
        price = row("m", TODAY)
        price.cache_read_usd = Decimal("0.005")
        assert cost_usd(Usage(cache_read_tokens=1), price) == Decimal("0.00000001")
        assert cost_usd(Usage(cache_read_tokens=5), price) == Decimal("0.00000003")

    def test_the_whole_prompt_counts_for_the_band(self) -> None:
        assert Usage(10, 20, 30, 40, 50, 5).prompt_tokens == 100
        assert Usage(10, 20, 30, 40, 50, 5).total_tokens == 150

    def test_a_thousand_a_second_take_a_fraction_of_it(self) -> None:
        price, usage = BOOK.price_for(SONNET, TODAY), Usage(1_000, 100, 0, 50, 500)
        started = time.process_time()
        for _ in range(1_000):
            cost_usd(usage, price)
            BOOK.reservation(HAIKU, TODAY, 9_000, 4_000)
        assert time.process_time() - started < 0.2


class TestPriceBook:
    @pytest.mark.parametrize(
        ("on", "cache_read"),
        [(date(2026, 10, 6), "0.20"), (date(2026, 10, 7), "0.10"), (TODAY, "0.10")],
    )
    def test_the_price_of_the_day_counts(self, on: date, cache_read: str) -> None:
        assert BOOK.price_for(SONNET, on).cache_read_usd == Decimal(cache_read)

    @pytest.mark.parametrize(("prompt_tokens", "input_usd"), [(0, "0.10"), (100_000, "0.10"), (100_001, "0.50")])
    def test_a_long_prompt_is_in_the_dearer_band(self, prompt_tokens: int, input_usd: str) -> None:
        assert BOOK.price_for(HAIKU, TODAY, prompt_tokens).input_usd == Decimal(input_usd)

    def test_a_model_without_a_price_is_never_free(self) -> None:
        with pytest.raises(UnknownPrice, match="claude-nobody has no price. Enter one"):
            BOOK.price_for("claude-nobody", TODAY)
        with pytest.raises(UnknownPrice, match="in force from 2026-10-07"):
            BOOK.price_for(HAIKU, date(2026, 10, 6))
        with pytest.raises(UnknownPrice):
            BOOK.reservation("claude-nobody", TODAY, 1, 1)

    def test_a_model_with_a_price_for_long_prompts_only_says_so(self) -> None:
        book = PriceBook([row("m", date(2026, 1, 1), over=1_000)])
        with pytest.raises(UnknownPrice, match=r"only for prompts of more than 1,000 tokens\. Enter one"):
            book.price_for("m", TODAY, 10)
        with pytest.raises(UnknownPrice, match="in force from 2026-01-01"):
            book.price_for("m", date(2025, 12, 31), 10)

    @pytest.mark.parametrize(
        ("bands", "over", "ended"),
        [
            ([(1, 0), (1, 100)], 0, 100),
            ([(1, 0), (1, 100), (9, 100)], 0, None),
            ([(1, 0), (1, 100), (9, 200)], 0, None),
            ([(1, 0), (1, 100)], 100, None),
            ([(1, 0), (1, 100), (5, 0)], 0, None),
            ([(1, 0), (5, 100)], 0, 100),
            ([(1, 0), (20, 100)], 0, None),
            ([(1, 0), (1, 100), (1, 200)], 100, 200),
            ([], 0, None),
        ],
    )
    def test_a_new_row_ends_the_bands_above_it_unless_its_day_has_one(
        self, bands: list[tuple[int, int]], over: int, ended: int | None
    ) -> None:
        rows = [row("m", date(2026, 1, day), over=limit) for day, limit in bands]
        new = row("m", date(2026, 1, 9), over=over)
        assert PriceBook(rows).ended_band(new) == ended
        if ended is not None:
            assert PriceBook(rows).price_for("m", TODAY, ended + 1).prompt_tokens_over == ended
            assert PriceBook([*rows, new]).price_for("m", TODAY, ended + 1).prompt_tokens_over == over

    def test_the_worst_row_is_the_dearest_that_the_bound_can_reach(self) -> None:
        assert BOOK.worst(HAIKU, TODAY, 100_000).prompt_tokens_over == 0
        assert BOOK.worst(HAIKU, TODAY, 100_001).prompt_tokens_over == 100_000

    def test_the_worst_row_is_dear_even_where_long_prompts_are_cheap(self) -> None:
        rows = [row("m", date(2026, 1, 1), over=over, usd=usd) for over, usd in ((0, 9), (1_000, 1))]
        assert PriceBook(rows).worst("m", TODAY, 5_000, 10).input_usd == 9

    @given(usage=USAGES)
    def test_no_call_costs_more_than_its_reservation(self, usage: Usage) -> None:
        bound = max(usage.prompt_tokens - REQUEST_OVERHEAD_TOKENS, 0)
        for model in BOOK.models:
            reserved, tokens = BOOK.reservation(model, TODAY, bound, usage.output_tokens)
            assert cost_usd(usage, BOOK.price_for(model, TODAY, usage.prompt_tokens)) <= reserved
            assert usage.total_tokens <= tokens

    def test_the_one_hour_cache_is_reserved_where_it_is_asked_for(self) -> None:
        price = BOOK.price_for(SONNET, TODAY)
        assert reserved_usd(price, 1_000_000, 0) == Decimal("2.5")
        assert reserved_usd(price, 1_000_000, 0, long_cache=True) == 4

    def test_the_bound_of_a_request_is_its_bytes_and_all_of_its_output(self) -> None:
        assert reserve_bound(5_000, 3_000) == (5_000 + REQUEST_OVERHEAD_TOKENS, 3_000)


class TestShippedPrices:
    def test_every_row_says_where_it_comes_from(self) -> None:
        rows = shipped_prices()
        assert all("2026-11-14" in row.source and len(row.source) <= 200 for row in rows)
        assert len({(r.model, r.effective_from, r.prompt_tokens_over) for r in rows}) == len(rows)

    def test_every_model_that_the_simulator_serves_has_a_price_today(self) -> None:
        for model in MODELS:
            assert BOOK.price_for(model, TODAY).output_usd > 0

    def test_a_row_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "prices.toml"
        file.write_text('[[price]]\nmodel = "claude-x"\neffective_from = 2026-01-01\nsource = "s"\n')
        with pytest.raises(ValueError, match="claude-x"):
            shipped_prices(file)


@pytest.mark.django_db
class TestSync:
    def test_missing_prices_are_entered_once(self) -> None:
        created = sync_prices().created
        assert len(created) == ModelPrice.objects.count() == len(shipped_prices())
        assert sync_prices().created == ()
        assert load_price_book().price_for(HAIKU, TODAY, 200_000).output_usd == Decimal("2.5")

    def test_a_price_that_was_entered_otherwise_stays_and_is_reported(self) -> None:
        sync_prices()
        ModelPrice.objects.filter(model="claude-opus-5-5").update(input_usd=Decimal("3.5"))
        found = sync_prices()
        assert [(d.field, d.in_code, d.in_database) for d in found.differences] == [("input_usd", "4", "3.5")]
        assert ModelPrice.objects.get(model="claude-opus-5-5").input_usd == Decimal("3.5")


def test_batches_have_a_price_with_its_source_that_no_call_is_priced_by() -> None:
    batch = shipped_batch_price()
    assert (batch.share, batch.source[-10:]) == (Decimal("0.5"), "2026-11-14")
    assert batch.of(Decimal("0.00000003")) == Decimal("0.00000002"), "half up"
    price, usage = BOOK.price_for("claude-opus-5-5", date(2026, 11, 14)), Usage(1_000_000, output_tokens=1_000_000)
    assert (cost_usd(usage, price), batch.of(cost_usd(usage, price))) == (Decimal(24), Decimal(12))
