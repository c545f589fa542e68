"""What the prompt cache did for each agent; what other models had cost is in tests/runs/test_cost_rollups.py."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from agents.models import Agent, ModelPrice
from agents.pricing import PRICE_FIELDS, Usage, cost_usd, load_price_book, sync_prices
from runs.cost_moves import TOKENS
from runs.cost_report import make_reports
from runs.cost_rollups import roll_up
from runs.cost_sums import Period
from runs.models import AgentRun
from runs.what_if import CacheUse, agent_cache_saving, load_usages, what_if
from tests.factories import make_agent_run, make_department, make_lead, make_model_call

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
DAY = Period(date(2026, 11, 10), date(2026, 11, 10))


def call(run: AgentRun, **tokens: int) -> None:
    values: dict[str, Any] = {"input_tokens": 0, "output_tokens": 10, "started_at": NOON, **tokens}
    make_model_call(run, model_asked="claude-haiku-5-5", model_used="claude-haiku-5-5", **values)


def test_each_agent_has_its_own_and_one_without_calls_has_nothing() -> None:
    sync_prices()
    department = make_department()
    item, price = make_lead(department).item, load_price_book().price_for("claude-haiku-5-5", DAY.first)
    intake, qualifier = make_agent_run(item, "intake"), make_agent_run(item, "qualifier")
    call(intake, input_tokens=2_500, cache_read_tokens=7_500)
    call(qualifier, cache_write_5m_tokens=10_000)
    call(intake, input_tokens=9, cache_read_tokens=9, started_at=datetime(2026, 11, 11, tzinfo=UTC))  # type: ignore[arg-type]
    agents = list(Agent.objects.filter(department=department).select_related("department"))
    for _ in range(2):
        found = agent_cache_saving(agents, DAY, load_price_book())
        assert {*found} == {agent.pk for agent in agents}
        used = found[intake.agent_id]
        assert (used.prompt_tokens, used.read_tokens, used.hit_percent) == (10_000, 7_500, 75)
        assert used.saved_usd == Decimal("0.0075") * (price.input_usd - price.cache_read_usd)
        # Written and never read again: it has cost more than plain input.
        assert found[qualifier.agent_id].saved_usd == (price.input_usd - price.cache_write_5m_usd) / 100 < 0
        writer = next(agent for agent in agents if agent.slug == "writer")
        assert found[writer.pk] == CacheUse()
        roll_up()


def test_other_models_are_priced_as_on_the_days_of_the_calls() -> None:
    sync_prices()
    department = make_department()
    run = make_agent_run(make_lead(department).item, "intake")
    changed, days = date(2026, 11, 12), Period(date(2026, 11, 9), date(2026, 11, 14))
    ModelPrice.objects.create(
        **dict.fromkeys(PRICE_FIELDS, 7), model="claude-sonnet-5-5", effective_from=changed, source="a test"
    )
    for day in (9, 11, 12, 14):
        call(run, input_tokens=1_000 * day, started_at=NOON.replace(day=day))  # type: ignore[arg-type]
    prices = load_price_book()
    assert prices.changes_in(*days)[-1] == changed
    for _ in range(2):
        usages = load_usages([department], days, prices)
        assert [row.calls for row in sorted(usages, key=lambda row: row.day)] == [2, 2], "one line for the same prices"
        found = what_if(usages, {run.agent_id: "claude-sonnet-5-5"}, prices)
        before, after = (prices.price_for("claude-sonnet-5-5", day) for day in days)
        wanted = cost_usd(Usage(20_000, output_tokens=20), before) + cost_usd(Usage(26_000, output_tokens=20), after)
        assert found == wanted
        assert before.input_usd != after.input_usd == 7
        roll_up()


def test_calls_whose_end_was_not_seen_stay_at_their_bound_whatever_the_model() -> None:
    sync_prices()
    department, prices = make_department(), load_price_book()
    run = make_agent_run(make_lead(department).item, "intake")
    mine = prices.price_for("claude-haiku-5-5", DAY.first)
    seen = Usage(1_000_000, output_tokens=100_000)
    tokens = {"input_tokens": seen.input_tokens, "output_tokens": seen.output_tokens}
    make_model_call(
        run, model_asked=mine.model, model_used=mine.model, cost_usd=cost_usd(seen, mine), started_at=NOON, **tokens
    )
    bound = {"model_asked": mine.model, "is_estimate": True, "started_at": NOON, "output_tokens": 0}
    make_model_call(run, **bound, model_used="", status="unseen", input_tokens=0, reserved_usd="0.3", cost_usd="0.3")
    make_model_call(run, **bound, model_used=mine.model, input_tokens=70_000, cause="timeout", cost_usd="0.04")
    for _ in range(2):
        usages = load_usages([department], DAY, prices)
        for model in prices.models:
            wanted = cost_usd(seen, prices.price_for(model, DAY.first)) + Decimal("0.34")
            assert what_if(usages, {run.agent_id: model}, prices) == wanted, model
        roll_up()


def test_it_takes_a_fixed_number_of_queries(django_assert_num_queries: Any) -> None:
    sync_prices()
    department, prices = make_department(), load_price_book()
    call(make_agent_run(make_lead(department).item, "intake"), cache_read_tokens=5)
    agents = list(Agent.objects.filter(department=department).select_related("department"))
    with django_assert_num_queries(2):
        agent_cache_saving(agents, DAY, prices)
    assert agent_cache_saving([], DAY, prices) == {}


def test_calls_that_were_refused_do_not_choose_the_band() -> None:
    """Neither those that an error of HTTP answered, nor a refusal whose prompt nobody paid for."""
    sync_prices()
    run = make_agent_run(make_lead(make_department()).item, "intake")
    call(run, input_tokens=150_000)
    for number in range(2, 5):
        make_model_call(
            run, number=number, model_asked="claude-haiku-5-5", cause="rate_limited", input_tokens=0, output_tokens=0,
            started_at=NOON,
        )  # fmt: skip
    refused: dict[str, Any] = {"cause": "refusal", "input_tokens": 90_000, "output_tokens": 0, "started_at": NOON}
    make_model_call(run, number=5, model_asked="claude-haiku-5-5", model_used="claude-haiku-5-5", **refused)
    dear = {**dict.fromkeys(PRICE_FIELDS, 9), "prompt_tokens_over": 100_000, "source": "a test"}
    ModelPrice.objects.create(model="claude-haiku-4-5", effective_from=date(2026, 11, 1), **dear)
    prices = load_price_book()
    for _ in range(2):
        (row,) = load_usages([run.department], DAY, prices)
        assert (row.prompt_tokens, row.usage.prompt_tokens) == (150_000, 150_000)
        wanted = cost_usd(Usage(150_000, output_tokens=10), prices.price_for("claude-haiku-4-5", DAY.first, 150_000))
        assert what_if([row], {run.agent_id: "claude-haiku-4-5"}, prices) == wanted
        roll_up()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_batches_are_priced_at_half_of_every_price_but_for_what_is_only_known_as_a_bound(seed: int) -> None:
    """Against an oracle of fractions that halves the rates of each call's own row; tokens are whole thousands."""
    sync_prices()
    department, chance, prices = make_department(), random.Random(seed), load_price_book()
    run = make_agent_run(make_lead(department).item, "intake")
    halves = {model: Fraction(0) for model in ("as it was", *prices.models)}
    for number in range(6):
        tokens = {name: 1_000 * chance.randrange(90) for name in TOKENS}
        mine = prices.price_for(chance.choice(prices.models), DAY.first, sum(tokens.values()) - tokens["output_tokens"])
        make_model_call(
            run, number=number, model_asked=mine.model, model_used=mine.model, cost_usd=cost_usd(Usage(**tokens), mine),
            started_at=NOON, **tokens,
        )  # fmt: skip
        halves["as it was"] += _half(tokens, mine)
    for row in load_usages([department], DAY, prices):
        for model in prices.models:
            price = prices.price_for(model, DAY.first, row.prompt_tokens)
            tokens = {name: getattr(row.usage, name) for name in TOKENS}
            halves[model] += Fraction(row.cost.usd) / 2 if model == row.model else _half(tokens, price)
    bound = Decimal("0.34")
    make_model_call(run, number=9, status="unseen", is_estimate=True, reserved_usd=bound, cost_usd=bound,
                    started_at=NOON, input_tokens=0, output_tokens=0)  # fmt: skip
    for _ in range(2):
        (report,) = make_reports([department], DAY, ["agent"])
        found = {"as it was": report.as_batches(report.whole.cost.usd)}
        found |= {model: report.as_batches(usd) for model, usd in report.by_model}
        assert {name: Fraction(usd - bound) for name, usd in found.items()} == halves
        roll_up()


def _half(tokens: dict[str, int], price: ModelPrice) -> Fraction:
    rates = (
        price.input_usd,
        price.cache_write_5m_usd,
        price.cache_write_1h_usd,
        price.cache_read_usd,
        price.output_usd,
    )
    millionths = sum(tokens[name] * Fraction(rate) for name, rate in zip(TOKENS, rates, strict=True))
    return Fraction(millionths) / 2_000_000
