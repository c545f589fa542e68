"""Two who meet at one budget, or at one call: in every order, nobody waits in a circle and every sum agrees."""

from __future__ import annotations

import threading
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents import budgets
from agents.budgets import Ask, Granted, Settlement, reserve, settle
from agents.models import Agent, Budget, BudgetPeriod, Department
from runs.access import require
from runs.budget_changes import allow_once, change_budget, delete_budget, set_extras
from runs.calls import abandon_calls, settle_calls
from runs.cost_rollups import roll_up
from runs.cost_sums import Period, total
from runs.costs import break_down
from runs.models import Action, ModelCall
from runs.staff import load_staff
from runs.views import budgets as budget_views
from tests.engine import answered, assert_accounts_agree, claim_one, in_threads, make_office
from tests.factories import make_user
from tests.runs.test_races import ORDERS, Job, meet, times

pytestmark = pytest.mark.django_db(transaction=True)
only_with_row_locks = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
MEET_SECONDS = 1.0


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def ada() -> User:
    return make_user("ada", is_superuser=True)


def fresh_budget(office: Department, **fields: Any) -> Budget:
    """A budget of a model of its own, with a period that holds something and so is locked by who settles."""
    budget = Budget.objects.create(department=office, period="month", limit_usd=Decimal(10), model="m", **fields)
    with transaction.atomic():
        period = budgets.lock_period(budget, now=timezone.now())
    BudgetPeriod.objects.filter(pk=period.pk).update(reserved_usd=1, reserved_tokens=10)
    return budget


def release(budget: Budget) -> None:
    """A call that had reserved in the budget's period ends."""
    period_ids = tuple(BudgetPeriod.objects.filter(budget=budget).values_list("pk", flat=True))
    settle([Settlement(period_ids, Decimal(1), 10, Decimal("0.1"), 5)])


def tried(job: Job) -> Any:
    """What it returns, or that the budget was gone."""
    try:
        return job()
    except Budget.DoesNotExist:
        return "gone"


def jobs_on(budget: Budget, period: BudgetPeriod, user: User) -> dict[str, Job]:
    """What may happen to a budget, and to its only period."""
    return {
        "change": lambda: change_budget(budget=budget, changes={"limit_usd": Decimal(20)}, user=user),
        "allow": lambda: allow_once(budget=budget, usd=Decimal(1), user=user, reason=""),
        "extra": lambda: set_extras(period=period, extras={"extra_usd": Decimal(2)}, user=user),
        "settle": lambda: release(budget),
        "delete": lambda: delete_budget(budget=budget, user=user),
    }


@pytest.mark.parametrize("verb", ["change", "allow", "extra", "settle", "delete"])
@ORDERS
def test_who_deletes_a_budget_and_who_works_on_it(verb: str, order: str, office: Department, ada: User) -> None:
    for _ in times(order):
        Action.objects.all().delete()
        budget = fresh_budget(office)
        period = BudgetPeriod.objects.get(budget=budget)
        jobs = jobs_on(budget, period, ada)
        mine, deleted = meet(partial(tried, jobs[verb]), jobs["delete"], order)
        assert not Budget.objects.filter(pk=budget.pk).exists()
        assert not BudgetPeriod.objects.filter(pk=period.pk).exists()
        verbs = list(Action.objects.order_by("pk").values_list("verb", flat=True))
        assert verbs.count("delete_budget") == 1, "whoever came second was told so"
        if verb == "delete":
            assert sorted([mine, deleted]) == [False, True]
        elif verb != "settle":
            assert (mine == "gone") == (len(verbs) == 1)
            assert deleted
        if order != "together" and verb not in ("settle", "delete"):
            assert (mine == "gone") == (order == "second")


@only_with_row_locks
@pytest.mark.parametrize("verb", ["change", "allow"])
def test_both_take_the_budget_before_its_periods(verb: str, office: Department, ada: User) -> None:
    """Each waits, once it holds its first lock, until the other holds one too: in two orders that were a circle."""
    budget = fresh_budget(office)
    together = threading.Barrier(2)

    def hold_the_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found, here = execute(sql, params, many, context), threading.current_thread()
        if " FOR " in sql and "budget" in sql and not getattr(here, "has_met", False):
            here.has_met = True  # type: ignore[attr-defined]
            with suppress(threading.BrokenBarrierError):
                together.wait(MEET_SECONDS)
        return found

    def work(number: int) -> Any:
        with connection.execute_wrapper(hold_the_first):
            if number:
                return delete_budget(budget=budget, user=ada)
            if verb == "allow":
                return tried(lambda: allow_once(budget=budget, usd=Decimal(1), user=ada, reason=""))
            return tried(lambda: change_budget(budget=budget, changes={"limit_tokens": 7}, user=ada))

    changed, deleted = in_threads(work, 2)
    assert deleted
    assert changed in (True, "gone")


@only_with_row_locks
def test_a_claim_does_not_fail_because_a_budget_was_deleted_before_its_period_was_made(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent.objects.get(department=office, slug="writer")
    Budget.objects.all().delete()
    kept, gone = (
        Budget.objects.create(department=office, agent=agent, period=period, limit_usd=Decimal(10))
        for period in ("day", "month")
    )
    make, deleted = budgets._make_periods, []

    def late(windows: Any) -> None:
        # As by who deletes its agent: no change of a budget, which would wait for us.
        deleted.extend(in_threads(lambda number: gone.delete()[1]["agents.Budget"], 1))
        make(windows)

    monkeypatch.setattr(budgets, "_make_periods", late)
    with transaction.atomic():
        answer = reserve([Ask("a", office.pk, agent.pk, agent.model, Decimal(1), 10)], now=timezone.now())["a"]
    assert deleted == [1]
    assert isinstance(answer, Granted)
    assert [p.reserved_usd for p in BudgetPeriod.objects.filter(budget=kept)] == [1]
    assert len(answer.period_ids) == 1


@pytest.mark.parametrize("name", ["budget_allow", "budget_change"])
def test_a_page_says_that_the_budget_was_deleted_meanwhile(
    name: str, office: Department, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = fresh_budget(office)

    def too_late(*args: Any) -> User:
        delete_budget(budget=budget, user=ada)
        return require(*args)

    monkeypatch.setattr(budget_views, "require", too_late)
    client = Client()
    client.force_login(ada)
    response = client.post(
        reverse(f"runs:{name}", args=[budget.pk]), {"usd": "5", "reason": "A fair."}, headers={"HX-Request": "true"}
    )
    assert response.status_code == 200
    assert "deleted meanwhile" in response.content.decode()
    assert list(Action.objects.values_list("verb", flat=True)) == ["delete_budget"]


@ORDERS
def test_an_answer_that_comes_late_and_the_rollup_count_the_call_once(order: str, office: Department) -> None:
    for _ in times(order):
        work = claim_one()
        seen = answered(work).unsettled[0]
        with transaction.atomic():
            abandon_calls([work.run_id], now=timezone.now())

        def settle_late() -> None:
            with transaction.atomic():
                settle_calls([seen], load_staff(), now=timezone.now())  # noqa: B023 - called in this round

        meet(settle_late, roll_up, order)
        for _ in range(2):
            day = timezone.now().date()
            calls = list(ModelCall.objects.all())
            for by in ("agent", "item", "status"):
                found = total(break_down([office], Period(day, day), by))
                assert (found.calls, found.usd) == (len(calls), sum(c.cost_usd for c in calls)), by
                assert not found.estimated_usd
            roll_up()
        assert_accounts_agree()
