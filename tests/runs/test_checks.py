"""Checks of the agents by ``doctor --live``: paid calls of no item, in the budgets and in every sum."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.llm import ModelClient
from agents.models import Agent, Budget, BudgetPeriod, Department
from runs import checks
from runs.calls import settle_calls
from runs.checks import LOST_AFTER, abandon_checks, check_agents
from runs.cost_rollups import roll_up
from runs.cost_sums import Period, total
from runs.costs import CHECKS, Ledger
from runs.models import ItemCost, ModelCall
from runs.staff import load_staff
from runs.work import OpenCall, SeenCall
from tests.engine import answered, assert_accounts_agree, claim_one, make_office
from tests.factories import make_lead, make_user
from tests.runs.test_cost_rollups import ALL_DIMENSIONS
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


class Killed(BaseException):
    """What ends a process: nothing catches it."""


def kill_before(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[tuple[Any, ...]]:
    """The command dies where it would call this; with what it would have called it."""
    seen: list[tuple[Any, ...]] = []

    def die(*args: Any, **kwargs: Any) -> None:
        seen.append(args)
        raise Killed

    monkeypatch.setattr(where, name, die)
    return seen


def make_older(by: timedelta) -> None:
    for call in ModelCall.objects.all():
        ModelCall.objects.filter(pk=call.pk).update(started_at=call.started_at - by)


def test_checks_are_in_the_sums_of_every_dimension_once(office: Department, simulator: SimulatorServer) -> None:
    with transaction.atomic():
        settle_calls(answered(claim_one()).unsettled, load_staff(), now=timezone.now())
    assert all(finding.is_well for finding in check_agents(load_staff()))
    check_usd = sum(call.cost_usd for call in ModelCall.objects.filter(item=None))
    whole = sum(call.cost_usd for call in ModelCall.objects.all())
    assert Decimal(0) < check_usd < whole
    today = timezone.now().date()
    period, later = Period(today, today), Period(today + timedelta(days=1), today + timedelta(days=1))
    for _ in range(2):
        for by in ALL_DIMENSIONS:
            found = Ledger([office]).break_down(period, by)
            assert (total(found).calls, total(found).usd) == (11, whole), by
            _, before = Ledger([office]).compare(later, by)
            assert before.usd == whole, by
            if by in ("item", "status", "source"):
                assert [(cost.calls, cost.usd) for cost in found if cost.key == CHECKS] == [(10, check_usd)], by
                assert before.by_key[CHECKS] == check_usd, by
        roll_up()
    assert roll_up() == 0
    assert sum(row.calls for row in ItemCost.objects.all()) == 1, "a check belongs to no item"
    assert_accounts_agree()


def test_the_page_shows_them_apart_and_opens_them(
    office: Department, simulator: SimulatorServer, client: Client
) -> None:
    client.force_login(make_user("vera", department=office, role="viewer"))
    assert "Checks of the agents" not in client.get(reverse("runs:costs")).content.decode()
    check_agents(load_staff())
    usd = sum(call.cost_usd for call in ModelCall.objects.all())
    for by in ("agent", "item"):
        response = client.get(reverse("runs:costs"), {"by": by})
        assert response.context["report"].checks == (10, usd)
        assert response.context["report"].whole.cost.usd == usd
        assert "checks=1" in response.content.decode()
    out = StringIO()
    call_command("costs", stdout=out)
    assert json.loads(out.getvalue())["checks"] == {"calls": 10, "cost_usd": f"{usd:.8f}"}
    (row,) = response.context["rows"]
    claim_one()
    listed = client.get(row.url)
    assert "Calls of checks" in listed.content.decode()
    assert [call.item_id for call, _ in listed.context["rows"]] == [None] * 10
    page = client.get(reverse("runs:call", args=[ModelCall.objects.filter(item=None)[0].pk]))
    assert "doctor --live" in page.content.decode()


def test_other_departments_do_not_see_them(office: Department, simulator: SimulatorServer) -> None:
    check_agents(load_staff())
    today = timezone.now().date()
    other = make_office("north")
    assert Ledger([other]).break_down(Period(today, today), "item") == []


def test_what_does_not_fit_the_budget_is_not_called(office: Department, simulator: SimulatorServer) -> None:
    agent = Agent.objects.get(department=office, slug="writer")
    Budget.objects.create(department=office, agent=agent, period="day", limit_usd=Decimal("0.00000001"))
    found = {finding.check: finding for finding in check_agents(load_staff())}
    assert not found["sales/writer"].is_well
    assert "was not called: budget of the agent writer" in found["sales/writer"].text
    assert sum(finding.is_well for finding in found.values()) == 9
    assert not ModelCall.objects.filter(agent=agent).exists()
    assert len(simulator.calls()) == 9


@pytest.mark.parametrize(("where", "name"), [(ModelClient, "call"), (checks, "settle_calls")])
def test_a_command_that_is_killed_leaves_its_call_at_what_it_had_reserved(
    where: Any, name: str, simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = kill_before(monkeypatch, where, name)
    with pytest.raises(Killed):
        check_agents(load_staff())
    assert len(seen) == 1
    call = ModelCall.objects.get()
    assert call.status == "started"
    assert BudgetPeriod.objects.get().reserved_usd == call.reserved_usd
    assert abandon_checks() == 0, "somebody may wait for it still"
    make_older(LOST_AFTER + timedelta(seconds=1))
    assert [abandon_checks(), abandon_checks()] == [1, 0]
    call.refresh_from_db()
    assert (call.status, call.is_estimate, call.cost_usd) == ("unseen", True, call.reserved_usd)
    assert_accounts_agree()
    roll_up()
    day = call.started_at.date()
    assert total(Ledger([call.department]).break_down(Period(day, day), "status")).usd == call.reserved_usd


def test_one_that_was_given_up_and_answers_late_counts_as_what_it_cost(
    simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(seen: list[SeenCall], *args: Any, **kwargs: Any) -> None:
        make_older(LOST_AFTER + timedelta(seconds=1))
        abandon_checks()
        roll_up()
        settle_calls(seen, *args, **kwargs)

    monkeypatch.setattr(checks, "settle_calls", late)
    check_agents(load_staff())
    assert {call.status for call in ModelCall.objects.all()} == {"finished"}
    assert not ModelCall.objects.filter(is_estimate=True).exists()
    roll_up()
    assert_accounts_agree()


def test_calls_of_steps_are_never_taken_for_checks() -> None:
    work = claim_one()
    make_older(LOST_AFTER * 2)
    assert abandon_checks() == 0
    with transaction.atomic(), pytest.raises(IntegrityError):
        ModelCall.objects.filter(agent_run=work.run_id).update(item=None)
    opened: OpenCall = work.first_call
    with transaction.atomic(), pytest.raises(IntegrityError):
        ModelCall.objects.filter(pk=opened.pk).update(agent_run=None)
    assert make_lead().item.model_calls.count() == 0
