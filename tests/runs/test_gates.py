"""Which model a run uses when its own takes no calls, and what it says while it waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.causes import Cause
from agents.model_state import OPEN_AFTER
from agents.models import Agent, Budget, Department, ModelState
from runs.commits import commit
from runs.models import AgentRun, Item, LogEntry, ModelCall
from runs.staff import load_staff
from tests.engine import answered, assert_accounts_agree, broken_off, claim, claim_one, make_office, make_queued, run_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def open_breaker(model: str, seconds: int = 60) -> ModelState:
    """A breaker that stays open for so long; negative: whose pause is over."""
    until = timezone.now() + timedelta(seconds=seconds)
    return ModelState.objects.create(model=model, breaker="open", failures=5, closed_until=until, reason="no answer")


def test_while_the_breaker_is_open_the_next_model_stands_in_and_is_told() -> None:
    run = make_queued("intake")
    open_breaker(run.agent.model)
    (work,) = claim()
    assert work.model == run.agent.fallback_models[0]
    system = " ".join(block["text"] for block in work.first_call.request.params["system"])
    assert f"You stand in for {run.agent.model}" in system
    call = ModelCall.objects.get()
    assert call.model_asked == work.model
    assert "stands in for" in LogEntry.objects.get(kind="started").text


def test_an_agent_on_its_own_model_is_told_nothing_of_the_kind() -> None:
    work = claim_one("intake")
    assert work.model == work.agent.model
    assert "stand in" not in str(work.first_call.request.params["system"])


def test_without_a_model_that_works_it_waits_says_so_and_loses_nothing() -> None:
    run = make_queued("intake")
    first = open_breaker(run.agent.model, 40)
    open_breaker(run.agent.fallback_models[0], 90)
    assert claim() == []
    run.refresh_from_db()
    assert run.status == "queued"
    assert run.waiting_for.startswith(f"{run.agent.model} takes no calls until")
    assert run.due_at == first.closed_until
    assert run.failures == 0


def test_when_the_pause_is_over_one_run_probes_and_the_others_use_the_fallback() -> None:
    runs = [make_queued("intake") for _ in range(3)]
    open_breaker(runs[0].agent.model, -1)
    models = [work.model for work in claim()]
    assert models.count(runs[0].agent.model) == 1
    assert models.count(runs[0].agent.fallback_models[0]) == 2
    assert ModelState.objects.get(model=runs[0].agent.model).breaker == "probing"


def test_a_probe_that_does_not_fit_its_budget_is_somebody_elses(office: Department) -> None:
    first, second = make_queued("intake", priority=Item.Priority.PERSON), make_queued("qualifier")
    Agent.objects.update(model=first.agent.model, fallback_models=[])
    Budget.objects.create(department=office, agent=first.agent, period="month", limit_usd=0)
    open_breaker(first.agent.model, -1)
    assert claim() == []
    AgentRun.objects.filter(pk=second.pk).update(due_at=timezone.now() - timedelta(seconds=1))
    assert [work.run_id for work in claim()] == [second.pk]


def test_a_probe_that_succeeds_closes_the_breaker_and_frees_who_waited() -> None:
    run = make_queued("intake")
    open_breaker(run.agent.model, -1)
    (probe,) = claim()
    waiting = make_queued("qualifier", waiting_for=f"{run.agent.model} takes no calls until 12:00:00 UTC: no answer")
    AgentRun.objects.filter(pk=waiting.pk).update(due_at=timezone.now() + timedelta(minutes=4))
    commit([answered(probe)], load_staff())
    assert ModelState.objects.get(model=run.agent.model).breaker == "closed"
    waiting.refresh_from_db()
    assert waiting.waiting_for == ""
    assert waiting.due_at <= timezone.now()
    assert LogEntry.objects.get(kind="breaker").text == f"{run.agent.model} works again."


def test_transient_failures_of_different_runs_open_the_breaker_together(settings: Any) -> None:
    for _ in range(OPEN_AFTER):
        make_queued("intake")
    works = claim()
    commit([broken_off(work, Cause.TRANSIENT) for work in works], load_staff())
    assert ModelState.objects.get(model=works[0].model).breaker == "open"
    assert LogEntry.objects.get(kind="breaker").level == "warning"
    assert all(run_of(work).status == "queued" for work in works)
    assert_accounts_agree()


@pytest.mark.parametrize("cause", [Cause.REFUSAL, Cause.INVALID, Cause.REQUEST, Cause.INTERNAL, Cause.TRUNCATED])
def test_what_is_not_the_models_trouble_does_not_open_it(cause: Cause) -> None:
    for _ in range(OPEN_AFTER):
        make_queued("intake")
    commit([broken_off(work, cause) for work in claim()], load_staff())
    assert not ModelState.objects.exclude(breaker="closed").exists()


def test_a_rate_limit_waits_for_the_agents_own_model_and_lowers_how_many_are_in_flight() -> None:
    works = [claim_one("intake"), claim_one("intake")]
    commit([broken_off(works[0], Cause.RATE_LIMITED, retry_after_seconds=30.0)], load_staff())
    assert claim() == [], "no stand-in for a model that is only busy"
    ModelState.objects.update(closed_until=None, in_flight_cap=2)
    make_queued("intake")
    AgentRun.objects.filter(status="queued").update(due_at=timezone.now())
    assert len(claim()) == 1, "one call is in flight already, and two is the limit"
    (crowded,) = AgentRun.objects.filter(status="queued")
    assert "takes 2 calls at once" in crowded.waiting_for


def test_a_late_answer_of_a_lost_worker_says_nothing_about_the_model() -> None:
    open_breaker("claude-sonnet-5-5")
    work = claim_one("intake")
    AgentRun.objects.filter(pk=work.run_id).update(lease_token=None, lease_expires_at=None, status="queued")
    commit([broken_off(work, Cause.TRANSIENT)] * 1, load_staff())
    assert not ModelState.objects.filter(model=work.model).exists()
