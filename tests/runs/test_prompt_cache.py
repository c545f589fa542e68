"""The prompt cache over the wire: the beginning that requests share is written once and read by those that follow."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.utils import timezone

from agents import caching
from agents.models import Budget
from agents.pricing import load_price_book
from leads.schemas import SalesSettings
from runs import leases
from runs.cost_sums import Period
from runs.models import AgentRun, ModelCall, Rule
from runs.staff import load_staff
from runs.what_if import cache_saving, load_usages
from tests.engine import drain, make_office
from tests.factories import make_agent_run, make_lead
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)


def work_on(count: int, tone: str) -> list[ModelCall]:
    """The calls of a Qualifier who works on so many leads, one after the other."""
    settings = SalesSettings().model_dump(mode="json") | {"icp": tone}
    office = make_office(settings=settings)
    Rule.objects.update(is_enabled=False)
    for _ in range(count):
        make_agent_run(make_lead(office).item, "qualifier", status="queued")
    drain(concurrency=1)
    return list(ModelCall.objects.select_related("body").order_by("pk"))


def test_it_is_written_by_the_second_request_and_read_from_the_third_on(
    simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The simulator has answered before the next request goes out.
    monkeypatch.setattr(caching, "READABLE_AFTER_SECONDS", 0.0)
    first, second, *others = work_on(5, "Makers of machines with many carriers. " * 40)
    assert "cache_control" not in first.body.request["system"][-1]
    assert (first.cache_write_5m_tokens, first.cache_read_tokens) == (0, 0)
    assert second.body.request["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert second.cache_write_5m_tokens > 512
    assert len(others) == 3
    for call in others:
        assert call.cache_read_tokens == second.cache_write_5m_tokens
        assert call.input_tokens < first.input_tokens
        assert call.cost_usd < first.cost_usd
    day = first.started_at.date()
    saved = cache_saving(load_usages([first.department], Period(day, day), load_price_book()), load_price_book())
    plain = 5 * Decimal(first.input_tokens) / 1_000_000 * Decimal("0.10")
    assert 0 < saved < plain


def test_what_is_too_short_for_the_model_is_never_asked_for(simulator: SimulatorServer) -> None:
    for call in work_on(3, ""):
        assert "cache_control" not in str(call.body.request)


def test_of_those_that_have_waited_for_a_budget_one_writes_it() -> None:
    settings = SalesSettings().model_dump(mode="json") | {"icp": "Makers of machines with many carriers. " * 40}
    office = make_office(settings=settings)
    Budget.objects.update(limit_usd=0)
    for _ in range(5):
        make_agent_run(make_lead(office).item, "qualifier", status="queued")
    clock = [0.0]
    staff = load_staff(caching.CacheWatch(lambda: clock[0]))
    for _ in range(3):
        assert leases.claim(10, staff=staff, worker="host:1", is_alone=True) == []
        AgentRun.objects.update(due_at=timezone.now())
        clock[0] += 60
    Budget.objects.update(limit_usd=100)
    works = leases.claim(10, staff=staff, worker="host:1", is_alone=True)
    marked = ["cache_control" in work.first_call.request.params["system"][-1] for work in works]
    assert marked == [False, True, False, False, False]
