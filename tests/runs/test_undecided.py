"""Work that is put off every minute: one alert for each department and reason, which closes by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Agent, Department, ModelPrice, Soul
from runs import dispatch, leases
from runs.models import AgentRun, Alert, Item
from runs.router import Router
from runs.staff import load_staff
from runs.undecided import reason_of, watch_undecided
from tests.engine import claim, make_office, make_queued
from tests.factories import make_department, make_lead

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def route() -> None:
    """Route what is due, as a shift does."""
    dispatch.route_due(100, staff=load_staff())


def open_alerts() -> list[Alert]:
    """What is told."""
    return list(Alert.objects.filter(key__startswith="undecided:", state="open").order_by("pk"))


def due_now() -> None:
    """Let what was put off be looked at again."""
    early = timezone.now() - timedelta(seconds=1)
    AgentRun.objects.filter(status="queued").update(due_at=early)
    Item.objects.exclude(route_due_at=None).update(route_due_at=early)


def break_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """No item can be routed."""

    def broken(router: Router, facts: Any) -> Any:
        raise KeyError("tier")

    monkeypatch.setattr(Router, "decide", broken)


def test_without_such_work_nobody_is_told() -> None:
    make_queued("intake")
    assert watch_undecided() == 0
    assert open_alerts() == []


def test_items_that_cannot_be_routed_are_one_alert_until_they_can(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        item = make_lead(office, name=f"Lead {number}", email=f"lead{number}@example.com").item
        Item.objects.filter(pk=item.pk).update(route_due_at=timezone.now() - timedelta(seconds=1))
    break_router(monkeypatch)
    route()
    assert watch_undecided() == 1
    (alert,) = open_alerts()
    assert (alert.department, alert.key, alert.kind) == (office, "undecided:routing KeyError", "system")
    assert "3 items, such as" in alert.text
    assert "KeyError: 'tier'" in alert.text
    assert alert.deliveries.exists()
    watch_undecided()
    alert.refresh_from_db()
    assert alert.count == 1, "nothing new has happened"
    monkeypatch.undo()
    due_now()
    route()
    assert watch_undecided() == 0
    assert open_alerts() == []


def test_one_item_is_named_and_linked(office: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    item = make_lead(office, name="Lena Weber").item
    Item.objects.filter(pk=item.pk).update(route_due_at=timezone.now() - timedelta(seconds=1))
    break_router(monkeypatch)
    route()
    watch_undecided()
    (alert,) = open_alerts()
    assert alert.link == item.get_absolute_url()
    assert alert.item == item


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda run: Agent.objects.filter(pk=run.agent_id).update(is_enabled=False), "The agent is switched off"),
        (lambda run: Soul.objects.filter(agent=run.agent_id).retire_published(), "The agent has no published SOUL"),
        (lambda run: Agent.objects.filter(pk=run.agent_id).update(slug="gone"), "This release no longer declares"),
        (lambda run: ModelPrice.objects.filter(model=run.agent.model).delete(), "The model "),
    ],
)
def test_steps_that_cannot_start_as_things_are_set_up_are_told(office: Department, spoil: Any, reason: str) -> None:
    run = make_queued("intake")
    spoil(run)
    assert claim() == []
    watch_undecided()
    (alert,) = open_alerts()
    assert alert.key.startswith(f"undecided:{reason}")
    assert str(run.item) in alert.text
    AgentRun.objects.filter(pk=run.pk).update(status="cancelled")
    watch_undecided()
    assert open_alerts() == []


def test_a_step_whose_request_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    make_queued("intake")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no such field")

    monkeypatch.setattr(leases, "build_params", broken)
    assert claim() == []
    watch_undecided()
    assert [alert.key for alert in open_alerts()] == ["undecided:preparing ValueError"]
    monkeypatch.undo()
    due_now()
    assert len(claim()) == 1
    watch_undecided()
    assert open_alerts() == []


def test_departments_and_reasons_are_told_apart(office: Department) -> None:
    other = make_department(slug="other")
    for department in (office, other):
        for error in ("KeyError: a", "ValueError: b"):
            item = make_lead(department, name=error, email=f"{error[:3]}@{department.slug}.example").item
            Item.objects.filter(pk=item.pk).update(flag=f"Kontor could not decide what is next: {error}")
    assert watch_undecided() == 4
    assert {(alert.department_id, alert.key) for alert in open_alerts()} == {
        (department.pk, f"undecided:routing {name}")
        for department in (office, other)
        for name in ("KeyError", "ValueError")
    }


def test_a_paused_item_alarms_nobody(office: Department) -> None:
    item = make_lead(office).item
    Item.objects.filter(pk=item.pk).update(
        flag="Kontor could not decide what is next: KeyError: a", automation="paused"
    )
    assert watch_undecided() == 0


def test_a_reason_is_the_class_of_the_error() -> None:
    assert reason_of("Kontor could not decide what is next: KeyError: 'a'") == "routing KeyError"
    assert reason_of("Kontor could not prepare its request: ValueError: x: y") == "preparing ValueError"
    assert reason_of("The agent has no published SOUL. Publish one. (Writer)") == "The agent has no published SOUL"
