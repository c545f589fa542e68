from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Event
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.budgets import lock_period, wait_head
from agents.models import Agent, Budget, BudgetPeriod
from agents.pricing import sync_prices
from runs.budget_changes import allow_once, change_budget
from runs.models import Action, AgentRun, Alert, AlertDelivery
from runs.spending import load_fills, paused_by_budget, warn_of_budgets
from tests.engine import claim, in_threads, make_queued
from tests.factories import make_agent_run, make_department, make_lead, make_model_call, make_user
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db


def make_budget(spent: str = "0", **fields: Any) -> Budget:
    """A budget of 10 dollars a day with a period that is under way."""
    department = fields.pop("department", None) or make_department()
    budget = Budget.objects.create(**{"department": department, "period": "day", "limit_usd": 10, **fields})
    now = timezone.now()
    BudgetPeriod.objects.create(
        budget=budget, starts_at=now - timedelta(hours=1), ends_at=now + timedelta(hours=1), spent_usd=spent
    )
    return budget


def spend(budget: Budget, usd: str) -> None:
    BudgetPeriod.objects.filter(budget=budget).update(spent_usd=usd)


def texts() -> list[str]:
    return list(Alert.objects.filter(state="open", key__startswith="budget-share:").values_list("text", flat=True))


class TestWarnings:
    def test_each_share_is_told_once_and_the_alert_says_the_latest(self) -> None:
        budget = make_budget("4.99")
        assert warn_of_budgets() == 0
        for usd, share in (("5", 50), ("8.50", 80), ("10", 100)):
            spend(budget, usd)
            assert warn_of_budgets() == 1
            assert warn_of_budgets() == 0
            (text,) = texts()
            assert f"{share} % of the budget of the department is used, ${float(usd):.2f} this day" in text
        assert Alert.objects.filter(key__startswith="budget-share:").count() == 3, "each of them is news"

    def test_each_share_is_delivered_at_once(self) -> None:
        budget = make_budget()
        for usd, share in (("5", 50), ("8", 80), ("10", 100)):
            spend(budget, usd)
            warn_of_budgets()
            due = AlertDelivery.objects.filter(status="queued", due_at__lte=timezone.now())
            (told,) = {*due.values_list("alert__text", flat=True)}
            assert f"{share} %" in told
            due.update(status="sent", ended_at=timezone.now())

    def test_what_was_told_before_the_budget_was_raised_is_over(self) -> None:
        budget = make_budget("10")
        warn_of_budgets()
        change_budget(budget=budget, changes={"limit_usd": Decimal(20)}, user=make_user("ada"))
        warn_of_budgets()
        (text,) = texts()
        assert "50 %" in text

    def test_a_share_that_was_jumped_over_is_not_told_later(self) -> None:
        budget = make_budget("9")
        assert warn_of_budgets() == 1
        assert "80 %" in texts()[0]
        spend(budget, "9.5")
        assert warn_of_budgets() == 0

    def test_it_is_over_when_the_period_has_turned(self) -> None:
        make_budget("6")
        warn_of_budgets()
        with time_machine.travel(timezone.now() + timedelta(hours=2)):
            BudgetPeriod.objects.update(ends_at=datetime(2026, 1, 1, tzinfo=UTC))
            assert warn_of_budgets() == 0
        assert texts() == []

    def test_tokens_are_told_of_too(self) -> None:
        budget = make_budget(limit_usd=None, limit_tokens=1_000)
        BudgetPeriod.objects.filter(budget=budget).update(spent_tokens=900)
        warn_of_budgets()
        assert "80 %" in texts()[0]
        assert "900 tokens" in texts()[0]

    def test_of_dollars_and_tokens_the_fuller_is_named(self) -> None:
        budget = make_budget("0.3", limit_tokens=1_000)
        BudgetPeriod.objects.filter(budget=budget).update(spent_tokens=1_000)
        warn_of_budgets()
        assert "100 %" in texts()[0]
        assert "1,000 tokens this day" in texts()[0]

    @pytest.mark.django_db(transaction=True)
    def test_of_two_workers_one_tells(self) -> None:
        make_budget("6")
        assert sum(in_threads(lambda number: warn_of_budgets(), 2)) == 1
        assert Alert.objects.get().count == 1


def make_waiting(budget: Budget, end: str = "A new day begins 2026-11-21 00:00 UTC.") -> AgentRun:
    run = make_agent_run(make_lead(budget.department).item, "intake", status="queued")
    run.waiting_for = (
        f"{wait_head(budget)}: $10.00, $9.9000 spent and $0.1000 reserved; this step may need $0.2000. {end}"
    )
    run.due_at = timezone.now() + timedelta(hours=1)
    run.save()
    return run


class TestMore:
    def test_once_counts_in_this_period_only_and_wakes_who_waits(self) -> None:
        budget, ada = make_budget("10"), make_user("ada")
        run = make_waiting(budget)
        warn_of_budgets()
        assert allow_once(budget=budget, usd=Decimal("2.5"), user=ada, reason="A fair is on.")
        period = BudgetPeriod.objects.get()
        assert (period.extra_usd, period.warned_percent) == (Decimal("2.5"), 0)
        run.refresh_from_db()
        assert run.due_at <= timezone.now()
        budget.refresh_from_db()
        assert budget.limit_usd == 10
        action = Action.objects.get(verb="allow_once")
        assert (action.user, action.reason, action.after["extra_usd"]) == (ada, "A fair is on.", "2.50000000")

    def test_twice_adds_up(self) -> None:
        budget, ada = make_budget(), make_user("ada")
        for _ in range(2):
            allow_once(budget=budget, usd=Decimal(1), user=ada, reason="")
        assert BudgetPeriod.objects.get().extra_usd == 2

    @pytest.mark.django_db(transaction=True)
    def test_two_people_at_once_both_count(self) -> None:
        budget, ada = make_budget(), make_user("ada")
        in_threads(lambda number: allow_once(budget=budget, usd=Decimal(1), user=ada, reason=""), 3)
        assert BudgetPeriod.objects.get().extra_usd == 3

    @pytest.mark.django_db(transaction=True)
    def test_it_does_not_wait_for_a_claim_that_waits_for_the_budget(self) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("SQLite has one writer at a time.")
        budget, ada = make_budget(), make_user("ada")
        run = make_waiting(budget)
        is_held, is_allowed = Event(), Event()

        def work(number: int) -> bool:
            if number:
                assert is_held.wait(10)
                allow_once(budget=budget, usd=Decimal(1), user=ada, reason="")
                is_allowed.set()
                return True
            with transaction.atomic():
                AgentRun.objects.select_for_update().get(pk=run.pk)
                is_held.set()
                return is_allowed.wait(10)

        assert in_threads(work, 2) == [True, True]

    def test_a_new_limit_is_written_down(self) -> None:
        budget, ada = make_budget("10"), make_user("ada")
        run = make_waiting(budget)
        assert change_budget(budget=budget, changes={"limit_usd": Decimal(20)}, user=ada)
        assert not change_budget(budget=budget, changes={"limit_usd": Decimal(20)}, user=ada)
        run.refresh_from_db()
        assert run.due_at <= timezone.now()
        action = Action.objects.get()
        assert (action.verb, action.before["limit_usd"]) == ("change_budget", "10.00000000")

    def test_nothing_is_not_more(self) -> None:
        budget, ada = make_budget(), make_user("ada")
        with pytest.raises(ValueError, match="more than nothing"):
            allow_once(budget=budget, usd=Decimal(0), user=ada, reason="")

    def test_the_fullest_stand_first_with_who_waits(self) -> None:
        budget = make_budget("1")
        agent = Agent.objects.get(department=budget.department, slug="writer")
        full = make_budget("9", department=budget.department, agent=agent)
        make_waiting(budget)
        fills = load_fills([budget.department], now=timezone.now())
        assert [(fill.budget, fill.percent, fill.waiting) for fill in fills] == [(budget, 10, 1), (full, 90, 0)]

    def test_who_waits_is_told_by_period_and_by_models_with_a_colon(self) -> None:
        department = make_department()
        whole, month = make_budget(department=department), make_budget(department=department, period="month")
        model = make_budget(department=department, model="llama3:8b")
        for budget, number in ((whole, 1), (month, 2), (model, 3)):
            for _ in range(number):
                make_waiting(budget)
        fills = load_fills([department], now=timezone.now())
        assert [(fill.budget, fill.waiting) for fill in fills] == [(model, 3), (month, 2), (whole, 1)]

    def test_what_is_held_is_told_in_what_is_limited(self, client: Client) -> None:
        budget = make_budget("1", limit_usd=None, limit_tokens=1_000)
        BudgetPeriod.objects.update(reserved_usd="0.75", reserved_tokens=400)
        (fill,) = load_fills([budget.department], now=timezone.now())
        assert (fill.percent, fill.reserved_percent) == (0, 40)
        client.force_login(_administrator(budget))
        page = client.get(reverse("runs:costs")).content.decode()
        assert "400 tokens held" in page
        assert "0.75" not in page


class TestPauses:
    def test_an_agent_whose_steps_wait_is_paused_and_the_others_are_not(self) -> None:
        budget = make_budget("1")
        run = make_waiting(budget)
        writer = Agent.objects.get(department=budget.department, slug="writer")
        agents = list(budget.department.agents.all())
        assert paused_by_budget(agents) == {run.agent_id: (budget, budget.periods.get().ends_at, 1, 10)}
        assert paused_by_budget([writer]) == {}
        assert paused_by_budget([]) == {}

    @pytest.mark.parametrize(
        "end",
        [
            "It is tried again each minute, as calls under way end.",
            "That is more than the whole budget: it waits until it is raised.",
        ],
    )
    def test_a_pause_that_does_not_end_with_the_period_says_no_time(self, end: str) -> None:
        budget = make_budget("1")
        run = make_waiting(budget, end)
        assert paused_by_budget([run.agent]) == {run.agent_id: (budget, None, 1, 10)}
        make_waiting(budget)
        assert paused_by_budget([run.agent]) == {run.agent_id: (budget, budget.periods.get().ends_at, 2, 10)}

    def test_the_ends_of_reasons_are_those_that_reservations_give(self) -> None:
        sync_prices()
        Budget.objects.all().delete()
        run = make_queued()
        budget = Budget.objects.create(department=run.department, period="day", limit_usd=Decimal("0.0000001"))
        for spent, is_known in ((0, False), (1, True)):
            with transaction.atomic():
                period = lock_period(budget, now=timezone.now())
            limit = Decimal("0.0000001") if not spent else Decimal(1)
            Budget.objects.update(limit_usd=limit)
            BudgetPeriod.objects.filter(pk=period.pk).update(spent_usd=spent)
            AgentRun.objects.update(due_at=timezone.now())
            assert claim() == []
            assert (paused_by_budget([run.agent])[run.agent_id].until is not None) is is_known

    def test_all_are_paused_once_all_is_spent(self) -> None:
        budget = make_budget("10")
        agents = list(budget.department.agents.all())
        others = make_department(slug="other").agents.all()
        found = paused_by_budget([*agents, *others])
        assert {*found} == {agent.pk for agent in agents}
        assert {(pause.budget, pause.waiting) for pause in found.values()} == {(budget, 0)}

    def test_a_budget_of_one_agent_or_another_model_pauses_no_one_else(self) -> None:
        department = make_department()
        writer, intake = (Agent.objects.get(department=department, slug=slug) for slug in ("writer", "intake"))
        own = make_budget("10", department=department, agent=writer)
        make_budget("10", department=department, model=writer.model, period="month")
        assert {*paused_by_budget([writer, intake])} == {writer.pk}
        BudgetPeriod.objects.filter(budget=own).update(ends_at=timezone.now() + timedelta(hours=5))
        assert paused_by_budget([writer])[writer.pk].budget == own, "of several the one that turns last"

    def test_a_step_that_waits_for_the_budget_of_a_fallback_model_pauses_its_agent(self) -> None:
        department = make_department()
        intake = Agent.objects.get(department=department, slug="intake")
        budget = make_budget("1", department=department, model="claude-of-last-resort")
        assert paused_by_budget([intake]) == {}
        make_waiting(budget)
        assert paused_by_budget([intake])[intake.pk].budget == budget

    def test_a_budget_that_is_off_or_has_turned_pauses_nobody(self) -> None:
        budget = make_budget("10")
        agents = list(budget.department.agents.all())
        with time_machine.travel(timezone.now() + timedelta(hours=2)):
            assert paused_by_budget(agents) == {} or connection.vendor == "postgresql"
        Budget.objects.update(is_enabled=False)
        assert paused_by_budget(agents) == {}

    def test_it_takes_three_queries_whatever_the_number_of_agents(self, django_assert_num_queries: Any) -> None:
        budget = make_budget("10")
        for _ in range(3):
            make_waiting(budget)
        agents = list(budget.department.agents.all())
        with django_assert_num_queries(3):
            found = paused_by_budget(agents, now=timezone.now())
        assert {pause.waiting for pause in found.values()} == {3, 0}

    def test_the_costs_page_says_so(self, client: Client) -> None:
        budget = make_budget("1")
        run = make_waiting(budget)
        make_model_call(run, started_at=timezone.now())
        client.force_login(_administrator(budget))
        page = client.get(reverse("runs:costs"), {"by": "agent"}).content.decode()
        assert "Paused by the budget: 1 step waits" in page


class TestViews:
    @pytest.mark.parametrize("name", ["runs:budget_allow", "runs:budget_change"])
    def test_administrators_may_and_others_find_nothing(self, client: Client, name: str) -> None:
        budget = make_budget()
        url = reverse(name, args=[budget.pk])
        stranger = make_user("eve", department=make_department(slug="other"), role="administrator")
        for user in (stranger, make_user("otto", department=budget.department, role="operator")):
            client.force_login(user)
            assert client.post(url, {"usd": "5"}).status_code == 404
        assert not Action.objects.exists()
        client.force_login(_administrator(budget))
        assert client.get(url).status_code == 405
        assert client.post(url, {"usd": "5"}).url == reverse("runs:costs")  # type: ignore[attr-defined]
        assert Action.objects.count() == 1
        assert b"$7.00" in client.post(url, {"usd": "7"}, headers=HTMX).content

    @pytest.mark.parametrize("usd", ["", "0", "-1", "much", "NaN", "Infinity", "99999999", "1e-9"])
    def test_what_is_no_amount_is_refused_in_words(self, client: Client, usd: str) -> None:
        budget = make_budget()
        client.force_login(_administrator(budget))
        for name in ("runs:budget_allow", "runs:budget_change"):
            response = client.post(reverse(name, args=[budget.pk]), {"usd": usd}, headers=HTMX)
            assert "such as 12.50" in response.content.decode()
        assert not Action.objects.exists()

    @pytest.mark.parametrize("tokens", ["", "0", "-1", "1.5", "much", "9" * 14])
    def test_what_is_no_number_of_tokens_is_refused_in_words(self, client: Client, tokens: str) -> None:
        budget = make_budget(limit_tokens=1_000)
        client.force_login(_administrator(budget))
        for name in ("runs:budget_allow", "runs:budget_change"):
            entered = {"tokens": tokens, "usd": "5" if tokens else ""}
            response = client.post(reverse(name, args=[budget.pk]), entered, headers=HTMX)
            assert "or a number of tokens" in response.content.decode()
        assert not Action.objects.exists()

    def test_a_budget_in_tokens_is_raised_on_the_page(self, client: Client) -> None:
        budget = make_budget(limit_usd=None, limit_tokens=1_000)
        run = make_waiting(budget)
        client.force_login(_administrator(budget))
        page = client.get(reverse("runs:costs")).content.decode()
        assert 'name="tokens"' in page
        assert 'name="usd"' not in page
        once, always = (reverse(f"runs:budget_{verb}", args=[budget.pk]) for verb in ("allow", "change"))
        # Dollars, which it does not limit, are no part of what is asked for.
        assert "Give a number of tokens" in client.post(once, {"usd": "5"}, headers=HTMX).content.decode()
        text = client.post(once, {"tokens": "500"}, headers=HTMX).content.decode()
        assert "500 tokens more are allowed in this day" in text
        assert "0</b> of 1,500 tokens" in client.get(reverse("runs:costs")).content.decode()
        text = client.post(always, {"tokens": "200000"}, headers=HTMX).content.decode()
        assert "The budget is 200,000 tokens a day now" in text
        budget.refresh_from_db()
        assert (budget.limit_usd, budget.limit_tokens) == (None, 200_000)
        run.refresh_from_db()
        assert run.due_at <= timezone.now()
        assert list(Action.objects.order_by("pk").values_list("verb", flat=True)) == ["allow_once", "change_budget"]

    def test_each_way_to_raise_it_has_an_amount_of_its_own(self, client: Client) -> None:
        budget = make_budget("5", limit_tokens=1_000)
        client.force_login(_administrator(budget))
        allow_once(budget=budget, usd=Decimal(2), user=User.objects.get(), reason="")
        page = client.get(reverse("runs:costs")).content.decode()
        for verb, dollars, tokens in (
            ("allow", "on top of $12.00", "on top of 1,000"),
            ("change", "instead of $10.00", "instead of 1,000"),
        ):
            address = reverse(f"runs:budget_{verb}", args=[budget.pk])
            form = page.split(f'action="{address}"')[1].split("</form>")[0]
            assert form.count('type="submit"') == form.count('name="usd"') == form.count('name="tokens"') == 1
            assert f"US dollars {dollars}<" in form
            assert f"Tokens {tokens}<" in form
        assert "formaction" not in page
        assert "of $12.00, <br><b>0</b> of 1,000 tokens" in " ".join(page.split()), "one line is too wide"

    def test_the_page_shows_the_button_to_administrators_only(self, client: Client) -> None:
        budget = make_budget("5")
        for user, is_shown in (
            (_administrator(budget), True),
            (make_user("vera", department=budget.department), False),
        ):
            client.force_login(user)
            page = client.get(reverse("runs:costs")).content.decode()
            assert "(50 %)" in page
            assert (reverse("runs:budget_allow", args=[budget.pk]) in page) is is_shown


def _administrator(budget: Budget) -> User:
    return make_user("ada", department=budget.department, role="administrator")
