"""Whatever asks twice: nothing runs twice, no output is made twice."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from agents.causes import Cause
from agents.models import Department
from runs import dispatch, schedules, slots, tasks
from runs.commits import commit
from runs.models import AgentRun, Item, ModelCall, Output, ShiftSlot
from runs.shift import worker_name
from runs.staff import load_staff
from runs.triggers import record_reply, request_run
from tests.engine import answered, broken_off, claim, drain, in_threads, make_due, make_office, run_of
from tests.factories import make_lead, make_user
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    return make_office()


def route() -> None:
    dispatch.route_due(20, staff=load_staff())


def assert_nothing_twice() -> None:
    runs = Counter(AgentRun.objects.values_list("item", "agent", "trigger"))
    outputs = Counter(Output.objects.values_list("item", "key", "trigger"))
    assert [key for key, count in (runs + outputs).items() if count > 1] == []
    assert not AgentRun.objects.filter(attempt__gt=1).exists()


def test_a_double_click_on_run_pipeline_starts_one_run(office: Department, client: Any) -> None:
    user, lead = make_user(department=office), make_lead(office)
    client.force_login(user)
    url = reverse("leads:run")
    for _ in range(2):
        assert client.post(url, {"item": lead.pk}).status_code in (200, 302)
    route()
    request_run(items=[lead.pk], user=user)
    route()
    assert AgentRun.objects.filter(item=lead.pk, agent__slug="intake").count() == 1
    assert lead.item.pipeline_runs.count() == 1
    assert lead.item.triggers.filter(kind="operator").count() == 3


def test_a_second_trigger_during_a_run_joins_it(office: Department) -> None:
    item = make_lead(office).item
    make_due(item)
    route()
    work = claim()[0]
    request_run(items=[item.pk])
    route()
    assert claim() == []
    commit([answered(work)], load_staff())
    assert AgentRun.objects.filter(item=item, agent__slug="intake").count() == 1
    assert item.pipeline_runs.count() == 1


def test_the_schedule_during_a_retry_starts_nothing(office: Department) -> None:
    item = make_lead(office).item
    make_due(item)
    route()
    work = claim()[0]
    commit([broken_off(work, Cause.TRANSIENT)], load_staff())
    waiting = run_of(work)
    assert (waiting.status, waiting.failures) == ("queued", 1)
    assert waiting.waiting_for.startswith("Try 2 of 4 at ")
    schedules.mark_due(office, timezone.now())
    route()
    assert claim() == [], "it is not due before its pause is over"
    assert AgentRun.objects.get() == waiting
    assert AgentRun.objects.get().due_at == waiting.due_at


def test_a_failure_stands_through_schedules_and_requests(office: Department) -> None:
    item = make_lead(office).item
    make_due(item)
    route()
    commit([broken_off(claim()[0], Cause.REQUEST)], load_staff())
    before = set(AgentRun.objects.filter(agent__slug="intake").values_list("pk", "status"))
    for _ in range(3):
        schedules.mark_due(office, timezone.now())
        request_run(items=[item.pk])
        route()
    assert set(AgentRun.objects.filter(agent__slug="intake").values_list("pk", "status")) == before


def test_a_reply_delivered_twice_is_answered_once(office: Department) -> None:
    item = make_lead(office, status="contacted").item
    first = record_reply(item=item, body="Yes.", source="webhook:mail", delivery_id="m-1")
    assert record_reply(item=item, body="Yes.", source="webhook:mail", delivery_id="m-1") == first
    assert item.messages.count() == 1
    assert item.triggers.count() == 1


def test_a_queue_row_that_is_delivered_twice_holds_one_shift(office: Department, settings: Any) -> None:
    settings.SHIFTS = 1
    slots.ensure_shifts()
    token = ShiftSlot.objects.get().token
    assert token is not None
    assert slots.take(1, token, worker=worker_name())
    before = ShiftSlot.objects.values().get()
    tasks.hold_shift(1, str(token))
    tasks.hold_shift(1, str(uuid4()))
    assert ShiftSlot.objects.values().get() == before


@pytest.mark.django_db(transaction=True)
def test_shifts_that_race_for_the_same_items_make_everything_once(office: Department) -> None:
    items = [make_lead(office).item for _ in range(6)]
    make_due(*items)
    in_threads(lambda _: route(), 3)
    claimed = in_threads(lambda number: claim(worker=f"host:{number}"), 3)
    tokens = [work.run_id for works in claimed for work in works]
    assert sorted(tokens) == sorted(set(tokens))
    assert AgentRun.objects.count() == 6
    assert ModelCall.objects.count() == len(tokens)


@pytest.mark.django_db(transaction=True)
def test_leads_asked_for_again_and_again_while_they_are_worked_on(
    office: Department, simulator: SimulatorServer
) -> None:
    items = [make_lead(office).item for _ in range(3)]
    make_due(*items)
    asked = 0

    def is_through() -> bool:
        nonlocal asked
        if asked < 15:
            asked += 1
            request_run(items=[item.pk for item in items])
            schedules.mark_due(office, timezone.now())
            return False
        due = Item.objects.filter(route_due_at__lte=timezone.now() + timedelta(seconds=1)).exists()
        return not due and not AgentRun.objects.filter(status__in=AgentRun.ACTIVE).exists()

    drain(until=is_through, limit_seconds=60)
    assert_nothing_twice()
    assert AgentRun.objects.filter(status="done").count() == 7 * len(items)
    assert len(simulator.calls()) == ModelCall.objects.count()
