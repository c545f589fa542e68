"""One agent over the last 30 days: its costs equal the costs page, and what people decided is theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Agent, Department, ModelPrice
from agents.pricing import PriceBook, load_price_book, sync_prices
from runs.agent_month import (
    count_trespasses,
    last_days,
    latest_runs,
    load_costs,
    load_soul_use,
    load_verdicts,
    verdicts_by_soul,
)
from runs.cost_rollups import roll_up
from runs.cost_sums import Period
from runs.costs import Ledger, break_down
from runs.models import Review
from runs.what_if import agent_cache_saving
from tests import factories
from tests.factories import agent_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def department() -> Department:
    return factories.make_department()


@pytest.fixture
def agent(department: Department) -> Agent:
    agent = agent_of(department, "writer")
    agent.department = department
    return agent


def decide(agent: Agent, answer: str, at: datetime, slug: str = "writer") -> None:
    item = factories.make_item(agent.department)
    run = factories.make_agent_run(item, slug, status="done", soul=agent.souls.get())
    user = User.objects.first() or factories.make_user()
    values = {"status": "answered", "answer": answer, "answered_by": user, "answered_at": at}
    factories.make_review(item, agent_run=run, **values)


def test_days_and_souls_add_up_to_the_costs_page(department: Department, agent: Agent) -> None:
    soul = agent.souls.get()
    for usd in ("0.1", "0.2"):
        run = factories.make_agent_run(factories.make_item(department), "writer", status="done")
        factories.make_model_call(run, cost_usd=Decimal(usd), soul=soul)
    today = timezone.now().astimezone(UTC).date()
    period = Period(today - timedelta(days=2), today)
    costs = load_costs(Ledger([department]), agent, period, PriceBook([]))
    assert list(costs.days) == [today - timedelta(days=2), today - timedelta(days=1), today]
    assert costs.days[today].usd == Decimal("0.3")
    assert (costs.calls, costs.usd) == (2, Decimal("0.3"))
    assert load_soul_use(Ledger([department]), agent, today)[soul.pk].usd == Decimal("0.3")
    (cost,) = break_down([department], period, "agent")
    assert cost.usd == costs.usd


def test_what_the_cache_saved_is_what_the_costs_page_says(department: Department, agent: Agent) -> None:
    sync_prices()
    now = timezone.now()
    period = last_days(now)
    assert (period.last - period.first).days == 29
    dear = ModelPrice.objects.filter(model=agent.model).order_by("-effective_from")[0]
    dear.pk, dear.effective_from, dear.input_usd = None, period.first + timedelta(days=9), dear.input_usd * 2
    dear.save()
    for days in (25, 12, 3, 0):
        run = factories.make_agent_run(factories.make_item(department), "writer", status="done")
        tokens = {"input_tokens": 100, "cache_read_tokens": 90_000 + days, "cache_write_5m_tokens": 3_000}
        factories.make_model_call(run, model_asked=agent.model, started_at=now - timedelta(days=days), **tokens)
        if days == 12:
            roll_up()
    prices = load_price_book()
    costs = load_costs(Ledger([department]), agent, period, prices)
    assert costs.cache == agent_cache_saving([agent], period, prices)[agent.pk]
    assert costs.cache.saved_usd > 0


def test_verdicts_are_of_this_agent_and_by_soul(agent: Agent) -> None:
    now = timezone.now()
    for answer in ("approve", "approve_edited", "send_back", "reject", "approve", "retry"):
        decide(agent, answer, now)
    decide(agent, "approve", now, "formatter")
    whole = load_verdicts(agent, last_days(now))
    assert (whole.approved, whole.edited, whole.sent_back, whole.rejected) == (2, 1, 1, 1)
    assert whole.decided == 5
    assert whole.approval_rate == pytest.approx(0.6)
    assert whole.edited_share == pytest.approx(1 / 3)
    assert verdicts_by_soul(agent)[agent.souls.get().pk] == whole
    Review.objects.update(answered_at=now - timedelta(days=40))
    assert load_verdicts(agent, last_days(now)).decided == 0
    assert verdicts_by_soul(agent)[agent.souls.get().pk] == whole


def test_verdicts_of_the_period_are_counted_anew_each_time(agent: Agent, django_assert_num_queries: Any) -> None:
    now = timezone.now()
    for days in (40, 29, 1, 0):
        decide(agent, "approve", now - timedelta(days=days))
    with django_assert_num_queries(1):
        assert load_verdicts(agent, last_days(now)).decided == 3
    # An answer whose mail has not left can be taken back days later.
    Review.objects.filter(answered_at__lt=now - timedelta(days=20)).update(status="open", answer="", answered_at=None)
    assert load_verdicts(agent, last_days(now)).decided == 2
    assert load_verdicts(agent_of(agent.department, "formatter"), last_days(now)).decided == 0


def test_trespasses_are_summed(department: Department, agent: Agent) -> None:
    for count in (2, 0, 1):
        factories.make_agent_run(factories.make_item(department), "writer", status="done", trespasses=count)
    assert count_trespasses(agent, since=timezone.now() - timedelta(days=1)) == 3
    assert count_trespasses(agent, since=timezone.now() + timedelta(days=1)) == 0


def test_the_latest_steps_know_item_and_soul(
    department: Department, agent: Agent, django_assert_num_queries: Any
) -> None:
    soul = agent.souls.get()
    runs = [
        factories.make_agent_run(factories.make_item(department), "writer", status="done", soul=one)
        for one in (soul, None, soul)
    ]
    with django_assert_num_queries(3):
        found = latest_runs(agent, 2)
        assert [(run.pk, run.item.pk, number) for run, number in found] == [
            (runs[2].pk, runs[2].item_id, soul.number),
            (runs[1].pk, runs[1].item_id, None),
        ]
        assert {run.department.pk for run, _ in found} == {department.pk}
