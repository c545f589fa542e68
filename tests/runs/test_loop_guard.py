from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from agents.budgets import Refused
from agents.models import Department
from agents.pricing import Usage
from runs import commits, leases
from runs.models import AgentRun, LogEntry, ModelCall, Review
from runs.shift import Shift
from runs.staff import load_staff
from runs.work import Finished, OpenCall, SeenCall, Work
from tests.engine import answered, in_threads, make_office
from tests.factories import make_agent_run, make_lead, make_model_call, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few_steps(settings: Any) -> None:
    settings.LOOP_STEPS_PER_DAY = 5
    settings.LOOP_TIMES_MEDIAN = 10


def claim() -> list[Work]:
    return leases.claim(10, staff=load_staff(), worker="host:1", is_alone=True)


def make_steps(count: int, *, hours_ago: float = 1, **fields: Any) -> AgentRun:
    """A lead on which so many steps were done, and one more that is queued."""
    department = Department.objects.first() or make_office()
    item = make_lead(department).item
    at = timezone.now() - timedelta(hours=hours_ago)
    for _ in range(count):
        make_agent_run(item, "intake", status="done", queued_at=at)
    return make_agent_run(item, "qualifier", status="queued", due_at=at, **fields)


def make_usual(run: AgentRun, count: int = 20, usd: str = "0.01") -> None:
    """The agent has done this work before, for so much."""
    other = make_lead(run.department).item
    long_ago = timezone.now() - timedelta(days=9)
    for _ in range(count):
        make_agent_run(other, run.agent.slug, status="done", cost_usd=usd, queued_at=long_ago)


def test_as_many_as_are_allowed_start() -> None:
    make_steps(4)
    assert len(claim()) == 1
    assert not Review.objects.exists()


def test_one_more_waits_and_a_person_is_asked_once() -> None:
    run = make_steps(5)
    for _ in range(2):
        assert claim() == []
        AgentRun.objects.filter(pk=run.pk).update(due_at=timezone.now())
    run.refresh_from_db()
    assert run.status == AgentRun.Status.QUEUED
    assert "Round in circles: 6 steps in a day, more than 5" in run.waiting_for
    review = Review.objects.get()
    assert (review.kind, review.item_id, review.status) == ("budget", run.item_id, "open")
    assert review.ask.startswith("Shall the work on ")
    assert LogEntry.objects.filter(kind="review", item=run.item).count() == 1


def test_steps_of_yesterday_do_not_count() -> None:
    make_steps(9, hours_ago=25)
    assert len(claim()) == 1


def test_others_go_on() -> None:
    held, free = make_steps(5), make_steps(1)
    assert [work.run_id for work in claim()] == [free.pk]
    held.refresh_from_db()
    assert held.status == AgentRun.Status.QUEUED


def test_it_goes_on_once_a_person_has_answered_and_the_counting_begins_anew() -> None:
    run = make_steps(5)
    claim()
    Review.objects.update(status="answered", answered_by=make_user("ada"), answered_at=timezone.now())
    AgentRun.objects.filter(pk=run.pk).update(due_at=timezone.now())
    assert [work.run_id for work in claim()] == [run.pk]


def test_a_step_that_costs_many_times_the_usual_waits() -> None:
    run = make_steps(0, attempt=1, cost_usd=Decimal("0.11"))
    make_usual(run)
    assert claim() == []
    run.refresh_from_db()
    assert "this step has cost 0.1100 USD, 11 times the usual 0.0100" in run.waiting_for
    assert Review.objects.filter(kind="budget").count() == 1


def test_a_cheap_agent_is_stopped_at_many_times_its_usual_as_well() -> None:
    run = make_steps(0, attempt=1, cost_usd=Decimal("0.011"))
    make_usual(run, usd="0.0005")
    assert claim() == []
    assert "this step has cost 0.0110 USD, 22 times the usual 0.0005" in AgentRun.objects.get(pk=run.pk).waiting_for


@pytest.mark.parametrize(
    ("cost", "known", "usual"),
    [("0.09", 20, "0.01"), ("0.11", 19, "0.01"), ("0.004", 20, "0.0001"), ("0.2", 20, "0.1")],
)
def test_what_is_usual_small_or_unknown_starts(cost: str, known: int, usual: str) -> None:
    run = make_steps(0, attempt=1, cost_usd=Decimal(cost))
    make_usual(run, known, usual)
    assert [work.run_id for work in claim()] == [run.pk]


def test_a_call_whose_end_nobody_saw_is_no_circle() -> None:
    run = make_steps(0, attempt=1, lost_leases=1)
    make_usual(run)
    make_model_call(run, cost_usd=Decimal("0.11"), is_estimate=True, status="unseen")
    assert [work.run_id for work in claim()] == [run.pk]


def test_a_step_at_just_so_many_times_the_usual_starts_however_many_estimates_it_has() -> None:
    """A sum of SQLite's floats would be too small by a billionth of a cent, and the step too dear."""
    run = make_steps(0, attempt=1, cost_usd=Decimal("0.1"))
    make_usual(run)
    for _ in range(100):
        make_model_call(run, cost_usd=Decimal("0.1"), is_estimate=True, status="unseen")
    assert [work.run_id for work in claim()] == [run.pk]


def test_what_a_person_has_looked_at_is_not_asked_about_again_and_what_comes_after_it_is() -> None:
    run = make_steps(0, attempt=1)
    make_usual(run)
    hour = timedelta(hours=1)
    make_model_call(run, attempt=1, cost_usd=Decimal("0.11"), started_at=timezone.now() - 50 * hour)
    assert claim() == []
    answered_at = timezone.now() - 30 * hour  # it holds longer than a day, as the question was about this step
    Review.objects.update(status="answered", answered_by=make_user("ada"), answered_at=answered_at)
    AgentRun.objects.filter(pk=run.pk).update(due_at=timezone.now())
    assert [work.run_id for work in claim()] == [run.pk]
    ModelCall.objects.filter(attempt=2).update(status="finished", cost_usd=Decimal("0.12"))
    AgentRun.objects.filter(pk=run.pk).update(status="queued", cost_usd=Decimal("0.23"))
    assert claim() == []
    run.refresh_from_db()
    assert "this step has cost 0.1200 USD, 12 times the usual 0.0100" in run.waiting_for
    assert Review.objects.filter(kind="budget", status="open").count() == 1


def test_an_attempt_that_goes_round_in_circles_opens_no_other_call() -> None:
    """What the calls of one attempt add up to is looked at between them, and a person is asked at the next claim."""
    run = make_steps(0)
    make_usual(run, usd="0.0006")
    (work,) = claim()
    shift, params, seen = Shift(1, uuid4()), work.first_call.request.params, call_that_cost(work, work.first_call)
    second = shift._next_call(work, seen, 2, params)
    assert isinstance(second, OpenCall), "0.0055 USD are less than ten times the usual"
    refused = shift._next_call(work, call_that_cost(work, second), 3, params)
    assert isinstance(refused, Refused)
    assert "this step has cost 0.0110 USD, 18 times the usual 0.0006" in refused.reason
    assert ModelCall.objects.filter(agent_run=run).count() == 2
    assert not Review.objects.exists()
    commits.commit([Finished(work, error=refused.reason, waiting_until=refused.until)], load_staff())
    assert run.pk not in [each.run_id for each in claim()]
    run.refresh_from_db()
    assert (run.status, run.waiting_for) == ("queued", refused.reason)
    assert run.failures == 0
    assert Review.objects.get().ask.startswith("Shall the work on ")
    Review.objects.update(status="answered", answered_by=make_user("ada"), answered_at=timezone.now())
    AgentRun.objects.filter(pk=run.pk).update(due_at=timezone.now())
    (again,) = claim()
    third = shift._next_call(again, call_that_cost(again, again.first_call), 2, params)
    assert isinstance(third, OpenCall), "the counting has begun anew"


def call_that_cost(work: Work, call: OpenCall) -> SeenCall:
    """A call seen to its end, for 0.0055 USD on the agent's model."""
    reply = answered(work).unsettled[0].reply
    reply.usage = Usage(output_tokens=11_000)
    return SeenCall(call, reply)


@pytest.mark.django_db(transaction=True)
def test_two_shifts_ask_once() -> None:
    run = make_steps(5)
    make_agent_run(run.item, "researcher", status="queued", due_at=timezone.now())
    in_threads(lambda number: claim(), 2)
    assert Review.objects.count() == 1
    assert not AgentRun.objects.filter(status="running").exists()
