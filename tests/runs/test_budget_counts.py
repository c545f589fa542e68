"""A budget that is made or switched on amid its period: it counts every call of the period, whoever comes between."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, Budget, BudgetPeriod, Department
from runs.budget_changes import change_budget, create_budget
from runs.budget_counts import AGO, Past, count_past
from runs.calls import abandon_calls, settle_calls
from runs.commits import commit
from runs.models import AgentRun, ModelCall
from runs.shift import Shift
from runs.staff import load_staff
from runs.work import Work
from tests.engine import USED, answered, claim, claim_one, make_office, make_queued
from tests.factories import make_agent_run, make_department, make_lead, make_model_call, make_user
from tests.runs.test_races import ORDERS, Job, meet, times

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    department = make_office()
    Budget.objects.all().delete()
    return department


@pytest.fixture
def ada() -> User:
    return make_user("ada", is_superuser=True)


def make(department: Department, user: User, **fields: Any) -> BudgetPeriod:
    """A budget for a month that a person makes now; its period."""
    values = {"department": department, "period": "month", "limit_usd": Decimal(50), **fields}
    return create_budget(budget=Budget(**values), user=user).periods.get()


def held(period: BudgetPeriod) -> tuple[Any, ...]:
    period.refresh_from_db()
    return period.reserved_usd, period.spent_usd, period.reserved_tokens, period.spent_tokens


def finish(work: Work) -> None:
    commit([answered(work)], load_staff())


def assert_counts_everything(period: BudgetPeriod) -> None:
    """The period holds what its calls, all those of the department, reserve and have spent."""
    calls = list(ModelCall.objects.all())
    under_way = [call for call in calls if call.status == "started"]
    assert held(period)[:2] == (
        sum(call.reserved_usd for call in under_way),
        sum(call.cost_usd for call in calls if call.status != "started"),
    )
    assert held(period)[2] == sum(call.reserved_tokens for call in under_way)


def test_it_counts_what_was_spent_before_it_was_made(ada: User) -> None:
    department = make_department()
    run = make_agent_run(make_lead(department).item, "intake", status="done", attempt=1)
    now = timezone.now()
    this = {"started_at": now, "input_tokens": 100, "output_tokens": 10}
    make_model_call(run, cost_usd="0.12345678", cache_read_tokens=5, cache_write_5m_tokens=6, **this)
    make_model_call(run, cost_usd="0.00000001", cause="invalid", cache_write_1h_tokens=7, **this)
    make_model_call(run, cost_usd="0", cause="refusal", started_at=now, input_tokens=1_000, output_tokens=0)
    make_model_call(run, cost_usd="0.5", is_estimate=True, reserved_tokens=9_000, **this)
    make_model_call(run, cost_usd="0.7", status="unseen", reserved_usd="0.7", reserved_tokens=400, started_at=now)
    make_model_call(run, cost_usd="30", started_at=now - timedelta(days=32))
    period = make(department, ada)
    assert held(period) == (0, Decimal("1.32345679"), 0, 121 + 117 + 9_000 + 400)


def test_old_calls_are_summed_before_the_lock_and_what_ended_meanwhile_after_it(
    office: Department, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with time_machine.travel("2026-11-20T12:00:00+00:00", tick=False) as clock:
        monkeypatch.setattr("runs.budget_changes.database_now", timezone.now)
        run = make_agent_run(make_lead(office).item, "intake", status="done", attempt=1)
        this = {"started_at": timezone.now(), "reserved_usd": "0.5", "reserved_tokens": 10}
        make_model_call(run, cost_usd="3", **this)
        under_way = make_model_call(run, cost_usd="0", status="started", **this)
        unseen = make_model_call(run, cost_usd="0.5", status="unseen", **this)
        clock.shift(timedelta(minutes=30))

        def one_ends(*args: Any, **kwargs: Any) -> Past:
            past = count_past(*args, **kwargs)
            assert past.usd == 3
            assert past.open_ids == frozenset({under_way.pk, unseen.pk})
            ModelCall.objects.filter(pk=under_way.pk).update(status="finished", cost_usd="0.25")
            make_model_call(run, cost_usd="1", started_at=timezone.now())
            return past

        monkeypatch.setattr("runs.budget_changes.count_past", one_ends)
        assert held(make(office, ada))[:2] == (0, Decimal("4.75"))
        assert not ModelCall.objects.get(pk=under_way.pk).reserved_in
        assert ModelCall.objects.get(pk=unseen.pk).reserved_in


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL takes lists of any length")
def test_it_counts_more_unseen_calls_than_sqlite_takes_values(office: Department, ada: User) -> None:
    run = make_agent_run(make_lead(office).item, "intake", status="done", attempt=1)
    at = timezone.now() - AGO - timedelta(seconds=1)
    with time_machine.travel(at.replace(day=20), tick=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr("runs.budget_changes.database_now", timezone.now)
        for _ in range(120):
            make_model_call(run, cost_usd="0.5", status="unseen", started_at=timezone.now() - 2 * AGO)
        limit = sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER
        before = connection.connection.setlimit(limit, 100)
        try:
            assert held(make(office, ada))[:2] == (0, 60)
        finally:
            connection.connection.setlimit(limit, before)


def test_a_period_that_turns_while_it_is_counted_is_counted_from_its_beginning(
    office: Department, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with time_machine.travel("2026-11-20T23:59:59+00:00", tick=False) as clock:
        monkeypatch.setattr("runs.budget_changes.database_now", timezone.now)
        Department.objects.update(time_zone="UTC")
        office.refresh_from_db()
        run = make_agent_run(make_lead(office).item, "intake", status="done", attempt=1)
        make_model_call(run, cost_usd="3", started_at=timezone.now() - timedelta(hours=1))

        def late(*args: Any, **kwargs: Any) -> Past:
            past = count_past(*args, **kwargs)
            clock.shift(timedelta(seconds=2))
            make_model_call(run, cost_usd="1", started_at=timezone.now())
            return past

        monkeypatch.setattr("runs.budget_changes.count_past", late)
        period = make(office, ada, period="day")
    assert [period.starts_at.day, period.spent_usd] == [21, 1]


def test_it_counts_only_what_it_is_for(ada: User) -> None:
    department, other = make_department(), make_department(slug="other")
    for where, slug, model, usd in (
        (department, "intake", "m-1", "1"),
        (department, "intake", "m-2", "2"),
        (department, "writer", "m-1", "4"),
        (other, "intake", "m-1", "8"),
    ):
        run = make_agent_run(make_lead(where).item, slug, status="done", attempt=1)
        make_model_call(run, cost_usd=usd, started_at=timezone.now(), model_asked=model, model_used="as it says")
    agent = Agent.objects.get(department=department, slug="intake")
    expected: list[tuple[dict[str, Any], int]] = [
        ({}, 7),
        ({"agent": agent}, 3),
        ({"model": "m-1"}, 5),
        ({"agent": agent, "model": "m-1"}, 1),
        ({"department": other}, 8),
        ({"model": "m-9"}, 0),
    ]
    for fields, spent in expected:
        assert make(**{"department": department, "user": ada, **fields}).spent_usd == spent


def test_a_call_under_way_settles_in_it(office: Department, ada: User) -> None:
    work = claim_one()
    period = make(office, ada)
    call = ModelCall.objects.get()
    assert held(period) == (call.reserved_usd, 0, call.reserved_tokens, 0)
    finish(work)
    call.refresh_from_db()
    assert held(period) == (0, call.cost_usd, 0, USED.total_tokens)


def test_a_call_that_was_given_up_and_answers_late_is_put_right(office: Department, ada: User) -> None:
    work = claim_one()
    with transaction.atomic():
        abandon_calls([work.run_id], now=timezone.now())
    period = make(office, ada)
    call = ModelCall.objects.get()
    assert held(period) == (0, call.reserved_usd, 0, call.reserved_tokens)
    with transaction.atomic():
        settle_calls(answered(work).unsettled, load_staff(), now=timezone.now())
    call.refresh_from_db()
    assert held(period) == (0, call.cost_usd, 0, USED.total_tokens)
    assert call.cost_usd < call.reserved_usd


def test_what_began_while_it_was_off_counts_when_it_is_on_again(office: Department, ada: User) -> None:
    period = make(office, ada)
    finish(claim_one())
    budget = period.budget
    work = claim_one()  # counts, and ends while it is off
    change_budget(budget=budget, changes={"is_enabled": False}, user=ada)
    finish(work)
    finish(claim_one())
    under_way = claim_one()
    for _ in range(2):  # as often as it is done
        change_budget(budget=budget, changes={"is_enabled": False}, user=ada)
        change_budget(budget=budget, changes={"is_enabled": True}, user=ada)
        assert_counts_everything(period)
    assert period.reserved_usd
    finish(under_way)
    assert_counts_everything(period)
    assert period.spent_tokens == 4 * USED.total_tokens


def test_one_that_is_made_switched_off_counts_when_it_is_switched_on(office: Department, ada: User) -> None:
    finish(claim_one())
    budget = create_budget(budget=Budget(department=office, period="day", limit_usd=5, is_enabled=False), user=ada)
    assert not budget.periods.exists()
    change_budget(budget=budget, changes={"is_enabled": True}, user=ada)
    assert_counts_everything(budget.periods.get())


def test_a_budget_below_what_is_spent_holds_the_work_up_and_says_so(
    office: Department, ada: User, client: Client
) -> None:
    for _ in range(3):
        finish(claim_one())
    spent = sum(call.cost_usd for call in ModelCall.objects.all())
    make(office, ada, limit_usd=spent * 2 / 3)
    run = make_queued()
    assert claim() == []
    run.refresh_from_db()
    assert "A new month begins" in run.waiting_for or "more than the whole budget" in run.waiting_for
    client.force_login(ada)
    assert "(150 %)" in client.get(reverse("runs:costs")).content.decode()


def test_a_period_that_goes_on_in_another_time_zone_is_counted_whole(office: Department, ada: User) -> None:
    with time_machine.travel("2026-11-20T12:00:00+00:00", tick=False):
        Department.objects.update(time_zone="UTC")
        office.refresh_from_db()
        period = make(office, ada, period="day")
        run = make_agent_run(make_lead(office).item, "intake", status="done", attempt=1)
        begin = period.starts_at
        make_model_call(run, cost_usd="3", started_at=begin)
        make_model_call(run, cost_usd="4", started_at=begin - timedelta(seconds=1))
        Department.objects.update(time_zone="America/New_York")
        budget = Budget.objects.select_related("department").get(pk=period.budget_id)
        for is_enabled in (False, True):
            change_budget(budget=budget, changes={"is_enabled": is_enabled}, user=ada)
        current = BudgetPeriod.objects.get()
    assert [current.starts_at, current.spent_usd] == [begin, 3]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("verb", ["claim", "commit", "next call", "give up", "answer late"])
@ORDERS
def test_who_makes_a_budget_and_who_works_meanwhile(verb: str, order: str, office: Department, ada: User) -> None:
    for _ in times(order):
        Budget.objects.all().delete()
        AgentRun.objects.filter(status="queued").update(status="cancelled")
        work = claim_one()
        if verb == "answer late":
            with transaction.atomic():
                abandon_calls([work.run_id], now=timezone.now())
        if verb == "claim":
            make_queued()
        period, _ = meet(partial(make, office, ada), _jobs(work)[verb], order)
        assert_counts_everything(period)
        for call in ModelCall.objects.filter(status="started"):
            with transaction.atomic():
                abandon_calls([call.agent_run_id or 0], now=timezone.now())
        assert_counts_everything(period)
        assert not period.reserved_usd


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_between_two_calls_budgets_are_held_before_the_first_is_locked(office: Department) -> None:
    """Who makes a budget keeps reservations off and then locks calls: in the other order that were a circle."""
    work = claim_one()
    with CaptureQueriesContext(connection) as queries:
        _jobs(work)["next call"]()
    locks = [
        q["sql"] for q in queries if "advisory" in q["sql"] or "modelcall" in q["sql"] and "FOR UPDATE" in q["sql"]
    ]
    assert "advisory" in locks[0]
    assert any("modelcall" in sql for sql in locks[1:])


def _jobs(work: Work) -> dict[str, Job]:
    """What a worker may be doing meanwhile."""

    def settle_late() -> None:
        with transaction.atomic():
            settle_calls(answered(work).unsettled, load_staff(), now=timezone.now())

    def give_up() -> None:
        with transaction.atomic():
            abandon_calls([work.run_id], now=timezone.now())

    seen = answered(work).unsettled[0]
    shift, params = Shift(1, uuid4()), work.first_call.request.params
    return {
        "claim": claim,
        "commit": partial(finish, work),
        "next call": lambda: shift._next_call(work, seen, 2, params),
        "give up": give_up,
        "answer late": settle_late,
    }
