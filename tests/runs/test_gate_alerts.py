"""What holds up a whole department is told once, and closed when it is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone

from agents.budgets import HEAD_END, wait_head
from agents.causes import Cause
from agents.model_state import OPEN_AFTER
from agents.models import Budget, Department, ModelState
from runs import gate_alerts, tasks
from runs.commits import commit
from runs.models import AgentRun, Alert, AlertDelivery, LogEntry, Review
from runs.staff import load_staff
from tests.engine import answered, broken_off, claim, claim_one, in_threads, make_office, make_queued

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    return make_office()


def open_alerts() -> list[tuple[str, str, int]]:
    return list(Alert.objects.filter(state="open").order_by("department", "key").values_list("kind", "key", "count"))


def due_now(work: Any) -> None:
    AgentRun.objects.filter(pk=work.run_id).update(due_at=timezone.now() - timedelta(seconds=1))
    Department.objects.update(next_probe_at=None)
    ModelState.objects.update(closed_until=timezone.now() - timedelta(seconds=1))


def test_a_refused_key_is_told_to_every_department_that_uses_it_until_it_is_accepted(office: Department) -> None:
    make_office("second")
    make_office("third", api_key_env="OTHER_KEY")
    work = claim_one(department=office)
    commit([broken_off(work, Cause.ACCOUNT, "invalid x-api-key")], load_staff())
    assert open_alerts() == [("stop_the_line", "line", 1)] * 2
    alert = Alert.objects.get(department=office)
    assert "invalid x-api-key" in alert.text
    assert "ANTHROPIC_API_KEY" in alert.next_step
    question = Review.objects.get(department=office, kind="stop_the_line", status="open")
    assert (question.risk, question.item, question.cause) == (3, None, "line")
    due_now(work)
    again = claim()[0]
    commit([broken_off(again, Cause.ACCOUNT, "invalid x-api-key")], load_staff())
    assert open_alerts()[0] == ("stop_the_line", "line", 2)
    assert Review.objects.filter(kind="stop_the_line").count() == 2, "one for each department, asked once"
    due_now(work)
    commit([answered(claim()[0])], load_staff())
    assert open_alerts() == []
    question.refresh_from_db()
    assert (question.status, question.answer_note) == ("withdrawn", "The API accepts the key again.")


def test_pages_that_are_open_are_told_at_once_when_the_line_stops_and_when_it_goes_on(office: Department) -> None:
    """The banners look again on a line of the log whose kind they name, and otherwise every half a minute."""
    second = make_office("second")
    work = claim_one(department=office)
    told = LogEntry.objects.filter(kind="alert").order_by("pk").values_list("department", "level")
    for _ in range(2):
        commit([broken_off(work, Cause.ACCOUNT, "invalid x-api-key")], load_staff())
        assert list(told.all()) == [(office.pk, "error"), (second.pk, "error")], "once, however often the API is asked"
        due_now(work)
        work = claim()[0]
    commit([answered(work)], load_staff())
    assert list(told.all())[2:] == [(office.pk, "info"), (second.pk, "info")]
    assert "kind:alert" in render_to_string("_banners.html", {"banners": []})


def test_what_was_put_aside_is_not_asked_again_while_it_lasts(office: Department) -> None:
    work = claim_one(department=office)
    commit([broken_off(work, Cause.ACCOUNT, "invalid x-api-key")], load_staff())
    Review.objects.filter(kind="stop_the_line").update(status="answered", answer="dismiss")
    due_now(work)
    commit([broken_off(claim()[0], Cause.ACCOUNT, "invalid x-api-key")], load_staff())
    assert not Review.objects.filter(status="open").exists()


def test_a_breaker_that_opens_is_told_and_closed_with_it(office: Department) -> None:
    for _ in range(OPEN_AFTER):
        work = claim_one()
        commit([broken_off(work, Cause.TRANSIENT)], load_staff())
    assert open_alerts() == [("breaker", f"breaker:{work.agent.model}", 1)]
    AgentRun.objects.exclude(pk=work.run_id).update(status="cancelled")
    due_now(work)
    commit([answered(claim()[0])], load_staff())
    assert open_alerts() == []


def test_a_used_up_budget_is_told_and_closed_when_nobody_waits(office: Department) -> None:
    Budget.objects.update(limit_usd="0.000001")
    run = make_queued()
    make_queued()
    assert claim() == []
    key = f"budget:{wait_head(Budget.objects.get())}"
    assert open_alerts() == [("budget", key, 1)]
    assert "budget of the department" in Alert.objects.get().text
    question = Review.objects.get(kind="budget", status="open")
    assert question.cause == key
    gate_alerts.close_budget_alerts()
    assert len(open_alerts()) == 1
    Budget.objects.update(limit_usd=100)
    AgentRun.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert len(claim()) == 2
    tasks.every_minute()
    assert open_alerts() == []
    question.refresh_from_db()
    assert (question.status, question.answer_note) == ("withdrawn", "No run waits for the budget any more.")
    assert AgentRun.objects.get(pk=run.pk).status == "running"


def refusal(budget: Budget) -> tuple[int, str]:
    return budget.department_id, f"{wait_head(budget)}{HEAD_END}1.00 USD, 0.9900 spent and 0.0000 reserved."


def told_all() -> None:
    now = timezone.now()
    AlertDelivery.objects.filter(status="queued").update(status="sent", ended_at=now)


def test_a_refusal_each_minute_is_told_once_a_day(office: Department) -> None:
    budget = Budget.objects.get()
    gate_alerts.tell_budgets([refusal(budget)])
    told_all()
    for _ in range(3):
        gate_alerts.tell_budgets([refusal(budget)])
    assert not AlertDelivery.objects.filter(status="queued").exists()
    assert Alert.objects.get().count == 1
    Alert.objects.update(last_at=timezone.now() - gate_alerts.TELL_AGAIN)
    gate_alerts.tell_budgets([refusal(budget)])
    assert AlertDelivery.objects.filter(status="queued").exists()
    assert Alert.objects.get().count == 2


def test_budgets_of_a_day_and_of_a_month_and_of_models_with_a_colon_are_told_apart(office: Department) -> None:
    Budget.objects.all().delete()
    budgets = [
        Budget.objects.create(department=office, limit_usd=1, period=period, model=model)
        for model in ("", "llama3:8b", "llama3:70b")
        for period in ("day", "month")
    ]
    gate_alerts.tell_budgets(map(refusal, budgets))
    assert Alert.objects.filter(state="open").count() == len(budgets) == Review.objects.filter(kind="budget").count()
    run = make_queued()
    AgentRun.objects.filter(pk=run.pk).update(waiting_for=refusal(budgets[2])[1])
    gate_alerts.close_budget_alerts()
    assert [key for _, key, _ in open_alerts()] == ["budget:budget of the department, llama3:8b a day"]


@pytest.mark.django_db(transaction=True)
def test_of_two_claims_that_are_refused_at_once_one_tells(office: Department) -> None:
    budget = Budget.objects.get()

    def tell(number: int) -> None:
        with transaction.atomic():
            gate_alerts.tell_budgets([refusal(budget)])

    in_threads(tell, 2)
    assert Alert.objects.count() == Review.objects.filter(kind="budget").count() == 1
