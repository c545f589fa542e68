"""Cancelling a step: its stream is closed, what it cost is booked, and it does not start again by itself."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User

from agents.models import Department
from runs import control
from runs.commits import commit
from runs.dispatch import route_due
from runs.models import Action, AgentRun, Item, LogEntry, ModelCall, Output, PipelineRun
from runs.staff import load_staff
from tests.engine import (
    answered,
    assert_accounts_agree,
    at_work,
    claim,
    claim_one,
    in_threads,
    make_due,
    make_office,
    run_of,
    wait_for,
)
from tests.factories import make_agent_run, make_lead, make_user
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db
SLOW = [{"what": {"kind": "pings", "seconds": 60, "interval_ms": 50, "after_deltas": 3}}]
CLOSED_WITHIN = 2.0


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def olga() -> User:
    return make_user("olga")


def test_a_queued_step_is_cancelled_and_its_item_paused(olga: User) -> None:
    run = make_agent_run(make_lead().item, "intake")
    assert control.cancel_agent_run(run=run, user=olga, reason="Wrong list.")
    run.refresh_from_db()
    assert (run.status, run.error, run.cost_usd) == ("cancelled", "Cancelled by olga: Wrong list.", Decimal(0))
    item = Item.objects.get(pk=run.item_id)
    assert (item.automation, item.automation_by) == ("paused", olga)
    assert item.automation_reason == "Intake Classifier cancelled. Wrong list."
    action = Action.objects.get()
    assert (action.verb, action.user, action.target) == ("cancel", olga, f"agent_run:{run.pk}")
    assert action.before == {"status": "queued", "attempt": 0}
    assert claim() == []


def test_it_starts_again_when_the_item_goes_on_if_it_is_still_wanted(olga: User) -> None:
    item = make_lead().item
    make_due(item)
    route_due(10, staff=load_staff())
    control.cancel_agent_run(run=AgentRun.objects.get(), user=olga)
    control.resume_item(item=item, user=olga)
    route_due(10, staff=load_staff())
    assert list(AgentRun.objects.order_by("pk").values_list("status", flat=True)) == ["cancelled", "queued"]


def test_what_comes_back_from_a_cancelled_step_leaves_only_its_cost(olga: User) -> None:
    work = claim_one("intake")
    run = run_of(work)
    assert control.cancel_agent_run(run=run, user=olga)
    call = ModelCall.objects.get()
    assert (call.status, call.cost_usd, call.is_estimate) == ("unseen", call.reserved_usd, True)
    commit([answered(work)], load_staff())
    assert not Output.objects.exists()
    assert run_of(work).status == "cancelled"
    call.refresh_from_db()
    assert 0 < call.cost_usd < call.reserved_usd
    assert_accounts_agree()


@pytest.mark.parametrize("status", ["done", "failed", "cancelled", "superseded"])
def test_what_has_ended_is_not_cancelled(status: str, olga: User) -> None:
    run = make_agent_run(make_lead().item, status=status)
    answer = control.cancel_agent_run(run=run, user=olga)
    assert "Only a step that waits or runs" in answer.reason
    run.refresh_from_db()
    assert run.status == status
    assert not Action.objects.exists()
    assert Item.objects.get().automation == "active"


def test_an_item_that_a_person_has_taken_over_stays_theirs(olga: User) -> None:
    run = make_agent_run(make_lead(automation="taken_over").item)
    assert control.cancel_agent_run(run=run, user=olga)
    assert Item.objects.get().automation == "taken_over"


def test_with_the_last_step_of_a_closed_item_its_pipeline_run_ends(olga: User) -> None:
    work = claim_one("intake")
    control.close_item(item=Item.objects.get(pk=work.item_id), user=olga)
    assert PipelineRun.objects.get().status == "active", "the step in flight may finish"
    assert control.cancel_agent_run(run=run_of(work), user=olga)
    assert PipelineRun.objects.get().status == "cancelled"


def test_all_steps_of_an_item_are_cancelled_together(olga: User) -> None:
    item = make_lead().item
    for agent in ("intake", "qualifier"):
        make_agent_run(item, agent)
    other = make_agent_run(make_lead().item)
    assert control.cancel_item(item=item, user=olga)
    assert set(item.agent_runs.values_list("status", flat=True)) == {"cancelled"}
    other.refresh_from_db()
    assert other.status == "queued"
    assert Action.objects.filter(verb="cancel").count() == 2
    assert control.cancel_item(item=item, user=olga).reason == "No step waits or is under way."


@pytest.mark.django_db(transaction=True)
def test_of_two_who_cancel_at_once_one_does() -> None:
    run, users = make_agent_run(make_lead().item), [make_user("olga"), make_user("otto")]
    done = in_threads(lambda number: bool(control.cancel_agent_run(run=run, user=users[number])), 2)
    assert sorted(done) == [False, True]
    assert Action.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_cancel_and_a_commit_that_race_leave_one_of_both(olga: User) -> None:
    work = claim_one("intake")
    run, staff = run_of(work), load_staff()

    def do(number: int) -> bool:
        if number:
            commit([answered(work)], staff)
            return False
        return bool(control.cancel_agent_run(run=run, user=olga))

    was_cancelled = any(in_threads(do, 2))
    assert run_of(work).status == ("cancelled" if was_cancelled else "done")
    assert Output.objects.exists() is not was_cancelled
    assert_accounts_agree()


def has_been_renewed(run: AgentRun) -> bool:
    """Whether its lease was renewed since it was claimed, which takes a sign of life of its call."""
    run.refresh_from_db()
    if run.started_at is None or run.lease_expires_at is None:
        return False
    return (run.lease_expires_at - run.started_at).total_seconds() > 3.5


@pytest.mark.django_db(transaction=True)
def test_the_stream_is_closed_within_two_seconds_and_what_it_had_cost_is_booked(
    simulator: SimulatorServer, olga: User, settings: Any
) -> None:
    settings.LEASE_SECONDS = 3
    simulator.faults(SLOW)
    item = make_lead().item
    run = make_agent_run(item, "intake")
    with at_work():
        wait_for(lambda: simulator.stats()["in_flight"] == 1, "the call is in the air")
        wait_for(lambda: has_been_renewed(run), "its stream is heard")
        began = time.monotonic()
        assert control.cancel_agent_run(run=run, user=olga)
        wait_for(lambda: simulator.stats()["in_flight"] == 0, "the stream is closed", CLOSED_WITHIN)
        assert time.monotonic() - began < CLOSED_WITHIN
        wait_for(lambda: ModelCall.objects.get().status == "finished", "its cost is booked")
    call = ModelCall.objects.get()
    assert (call.cause, call.is_estimate) == ("cut_off", True)
    assert call.input_tokens > 0, "as reported when the stream began"
    assert 0 < call.cost_usd < call.reserved_usd
    run.refresh_from_db()
    assert (run.status, run.cost_usd) == ("cancelled", call.cost_usd)
    assert not Output.objects.exists()
    assert LogEntry.objects.filter(kind="cancelled").count() == 1
    assert_accounts_agree()
