"""What the prompt cache did for each agent; what other models had cost is in tests/runs/test_cost_rollups.py."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from agents.models import Agent
from agents.pricing import load_price_book, sync_prices
from runs.cost_rollups import roll_up
from runs.cost_sums import Period
from runs.models import AgentRun
from runs.what_if import CacheUse, agent_cache_saving
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


def test_it_takes_a_fixed_number_of_queries(django_assert_num_queries: Any) -> None:
    sync_prices()
    department, prices = make_department(), load_price_book()
    call(make_agent_run(make_lead(department).item, "intake"), cache_read_tokens=5)
    agents = list(Agent.objects.filter(department=department).select_related("department"))
    with django_assert_num_queries(2):
        agent_cache_saving(agents, DAY, prices)
    assert agent_cache_saving([], DAY, prices) == {}
