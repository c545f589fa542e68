"""What people do to budgets, where tests/runs/test_spending.py and the admin's tests do not show it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from agents.models import Agent, Budget, BudgetPeriod
from runs.budget_changes import allow_once, change_budget, create_budget, delete_budget, set_extras
from runs.models import Action
from tests.engine import in_threads
from tests.factories import make_department, make_user
from tests.runs.test_spending import make_budget, make_waiting

pytestmark = pytest.mark.django_db


def test_a_new_budget_says_what_it_counts() -> None:
    department, ada = make_department(), make_user("ada")
    agent = Agent.objects.get(department=department, slug="writer")
    budget = create_budget(
        budget=Budget(department=department, agent=agent, period="day", limit_tokens=9_000), user=ada, reason="A trial."
    )
    action = Action.objects.get()
    assert (action.verb, action.target, action.reason) == ("create_budget", f"budget:{budget.pk}", "A trial.")
    assert (action.after["agent"], action.after["limit_tokens"], action.before) == ("writer", "9000", {})


@pytest.mark.parametrize("changes", [{"is_enabled": False}, {"limit_usd": Decimal(20)}, {"limit_tokens": 5}])
def test_a_change_wakes_who_waits_and_a_second_one_changes_nothing(changes: dict[str, object]) -> None:
    budget, ada = make_budget("10"), make_user("ada")
    BudgetPeriod.objects.update(warned_percent=100)
    run = make_waiting(budget)
    assert change_budget(budget=budget, changes=changes, user=ada)
    assert not change_budget(budget=budget, changes=changes, user=ada)
    run.refresh_from_db()
    assert run.due_at <= timezone.now()
    assert BudgetPeriod.objects.get().warned_percent == 0
    action = Action.objects.get()
    assert (action.verb, set(action.after), action.before != action.after) == ("change_budget", {*changes}, True)


def test_what_a_budget_counts_does_not_change() -> None:
    budget = make_budget()
    with pytest.raises(KeyError, match="period does not change"):
        change_budget(budget=budget, changes={"period": "month"}, user=make_user("ada"))
    with pytest.raises(ValueError, match="less than nothing"):
        change_budget(budget=budget, changes={"limit_tokens": -1}, user=make_user("bea"))
    assert not Action.objects.exists()


def test_an_extra_is_set_to_what_is_said_and_never_below_nothing() -> None:
    budget, ada = make_budget("10"), make_user("ada")
    run, period = make_waiting(budget), BudgetPeriod.objects.get()
    assert set_extras(period=period, extras={"extra_usd": Decimal(3)}, user=ada)
    assert not set_extras(period=period, extras={"extra_usd": Decimal(3)}, user=ada)
    assert BudgetPeriod.objects.get().extra_usd == 3
    run.refresh_from_db()
    assert run.due_at <= timezone.now()
    with pytest.raises(KeyError, match="spent_usd is not what a period allows"):
        set_extras(period=period, extras={"spent_usd": Decimal(0)}, user=ada)
    with pytest.raises(ValueError, match="Less than nothing"):
        set_extras(period=period, extras={"extra_usd": Decimal(-1)}, user=ada)
    assert Action.objects.get().before == {"extra_usd": "0.00000000"}


def test_without_the_budget_nothing_waits_for_it() -> None:
    budget, ada = make_budget("10"), make_user("ada")
    run = make_waiting(budget)
    assert delete_budget(budget=budget, user=ada, reason="Too many.")
    assert not delete_budget(budget=budget, user=ada)
    run.refresh_from_db()
    assert run.due_at <= timezone.now() + timedelta(seconds=1)
    action = Action.objects.get()
    assert (action.before["limit_usd"], action.after) == ("10.00000000", {})


@pytest.mark.django_db(transaction=True)
def test_tokens_are_allowed_once_like_dollars() -> None:
    budget, ada = make_budget(limit_usd=None, limit_tokens=1_000), make_user("ada")
    BudgetPeriod.objects.update(spent_tokens=1_000, warned_percent=100)
    run = make_waiting(budget)
    assert not allow_once(budget=budget, usd=Decimal(5), user=ada, reason=""), "it does not limit dollars"
    assert not Action.objects.exists()
    assert in_threads(lambda number: allow_once(budget=budget, tokens=500, user=ada, reason="A fair."), 2) == [True] * 2
    period = BudgetPeriod.objects.get()
    assert [period.extra_usd, period.extra_tokens, period.warned_percent] == [0, 1_000, 0]
    run.refresh_from_db()
    assert run.due_at <= timezone.now()
    first, second = Action.objects.order_by("pk")
    assert (first.verb, first.before, first.after) == ("allow_once", {"extra_tokens": "0"}, {"extra_tokens": "500"})
    assert (second.before, second.reason) == ({"extra_tokens": "500"}, "A fair.")
    with pytest.raises(ValueError, match="more than nothing"):
        allow_once(budget=budget, tokens=0, user=ada, reason="")


def test_of_a_budget_of_both_either_is_allowed_once() -> None:
    budget, ada = make_budget("10", limit_tokens=1_000), make_user("ada")
    assert allow_once(budget=budget, usd=Decimal(2), tokens=300, user=ada, reason="")
    assert allow_once(budget=budget, tokens=1, user=ada, reason="")
    period = BudgetPeriod.objects.get()
    assert [period.extra_usd, period.extra_tokens] == [2, 301]
    assert Action.objects.order_by("pk").first().after == {"extra_usd": "2.00000000", "extra_tokens": "300"}  # type: ignore[union-attr]
