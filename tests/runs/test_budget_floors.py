"""A budget under which some step could never start is refused, where it is entered."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents.models import Agent, Budget, Department
from agents.pricing import sync_prices
from runs.admin_forms import BudgetForm
from runs.budget_floors import why_too_small
from runs.models import Action, ModelCall
from tests.engine import claim_one, make_office
from tests.factories import make_department, make_user
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db
HAIKU = "claude-haiku-5-5"
SONNET = "claude-sonnet-5-5"


@pytest.fixture
def office() -> Department:
    department = make_office()
    Budget.objects.all().delete()
    Agent.objects.update(model=HAIKU, fallback_models=[], max_tokens=1_000)
    Agent.objects.filter(slug="writer").update(model=SONNET, max_tokens=5_000)
    return department


def problems(office: Department, **fields: Any) -> dict[str, str]:
    return why_too_small(Budget(department=office, period="day", **fields))


def least_of(office: Department, **fields: Any) -> Decimal:
    """The smallest limit in dollars that is let through, found by halving."""
    low, high = Decimal(0), Decimal(10)
    while high - low > Decimal("0.00001"):
        middle = (low + high) / 2
        low, high = (middle, high) if problems(office, limit_usd=middle, **fields) else (low, middle)
    return high


def test_what_is_let_through_is_what_a_step_with_nothing_to_read_reserves(office: Department) -> None:
    intake, writer = (Agent.objects.get(slug=slug) for slug in ("intake", "writer"))
    own, dearest = least_of(office, agent=intake), least_of(office, agent=writer)
    assert own < dearest
    assert least_of(office) == dearest, "a department's budget must do for its most expensive agent"
    claim_one("intake")
    reserved = ModelCall.objects.get().reserved_usd
    assert own < reserved < 2 * own, "a real step reads something"


def test_the_sentence_names_the_step_and_what_its_steps_needed_of_late(office: Department) -> None:
    claim_one("intake")
    call = ModelCall.objects.get()
    agent = call.agent
    found = problems(office, agent=agent, limit_usd=Decimal("0.0001"), limit_tokens=10)
    assert set(found) == {"limit_usd", "limit_tokens"}
    assert f"A step of {agent.title} on {HAIKU} that reads nothing yet sets $0.0" in found["limit_usd"]
    assert re.search(r"Enter at least \$0\.\d{4}, the most that a step has set aside of late", found["limit_usd"])
    assert f"Enter at least {call.reserved_tokens:,} tokens" in found["limit_tokens"]
    assert not problems(office, agent=agent, limit_usd=Decimal(1), limit_tokens=call.reserved_tokens)


def test_a_budget_of_a_model_asks_those_who_use_it_or_fall_back_on_it(office: Department) -> None:
    tiny = Decimal("0.0001")
    assert "Writer" in problems(office, model=SONNET, limit_usd=tiny)["limit_usd"]
    assert not problems(office, model="claude-opus-5-5", limit_usd=tiny)
    Agent.objects.filter(slug="intake").update(fallback_models=["claude-opus-5-5"])
    assert "on claude-opus-5-5" in problems(office, model="claude-opus-5-5", limit_usd=tiny)["limit_usd"]
    Agent.objects.filter(slug="writer").update(is_enabled=False)
    assert not problems(office, model=SONNET, limit_usd=tiny)


def test_one_that_is_switched_off_or_has_nothing_to_go_by_is_let_through(office: Department) -> None:
    assert not problems(office, limit_usd=Decimal(0), is_enabled=False)
    assert problems(office, limit_usd=Decimal(0))
    Agent.objects.update(model="of a price that nobody knows")
    assert not problems(office, limit_usd=Decimal(0))


def test_the_admin_refuses_it_but_saves_one_that_has_become_too_small(office: Department) -> None:
    data = {"department": office.pk, "period": "day", "limit_usd": "0.0001", "is_enabled": "on"}
    form = BudgetForm(data)
    assert not form.is_valid()
    assert "would wait for ever" in str(form.errors["limit_usd"])
    assert BudgetForm({**data, "limit_usd": "5"}).is_valid()
    budget = Budget.objects.create(department=office, period="day", limit_usd=Decimal("0.0001"))
    assert BudgetForm(data, instance=budget).is_valid(), "nothing of it is changed"
    assert not BudgetForm({**data, "limit_usd": "0.0002"}, instance=budget).is_valid()


def test_the_page_refuses_it_and_changes_nothing(client: Client) -> None:
    sync_prices()
    department = make_department()
    budget = Budget.objects.create(department=department, period="day", limit_usd=5)
    client.force_login(make_user("ada", department=department, role="administrator"))
    url = reverse("runs:budget_change", args=[budget.pk])
    assert "would wait for ever" in client.post(url, {"usd": "0.0001"}, headers=HTMX).content.decode()
    budget.refresh_from_db()
    assert budget.limit_usd == 5
    assert not Action.objects.exists()
    assert "$6.00 a day now" in client.post(url, {"usd": "6"}, headers=HTMX).content.decode()


def test_a_second_budget_of_the_same_is_refused_in_words() -> None:
    department = make_department()
    data = {"department": department.pk, "period": "month", "limit_usd": "50", "is_enabled": "on"}
    form = BudgetForm(data)
    assert form.is_valid(), form.errors
    form.save()
    again = BudgetForm(data)
    assert again.non_field_errors() == ["There is a budget for this in the same kind of period: change that one."]
    assert BudgetForm({**data, "period": "day"}).is_valid()


def test_a_budget_without_a_limit_is_told_once() -> None:
    form = BudgetForm({"department": make_department().pk, "period": "month", "is_enabled": "on"})
    assert form.non_field_errors() == ["Set a limit in US dollars, in tokens, or both."]
