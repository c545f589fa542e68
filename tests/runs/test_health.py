"""When the installation counts as healthy, for doctor and for probes."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ

from runs import health
from runs.health import Finding
from runs.models import ShiftSlot
from tests import factories
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_shift(settings: Any) -> None:
    settings.SHIFTS = 1


def make_shift(seconds_ago: float = 1, **fields: Any) -> ShiftSlot:
    """A shift that was last heard of so many seconds ago."""
    heard = timezone.now() - timedelta(seconds=seconds_ago)
    values = {"number": 1, "token": uuid4(), "worker": "host:1", "started_at": heard, "heartbeat_at": heard}
    return ShiftSlot.objects.create(**{**values, **fields})


def faults() -> dict[str, str]:
    """What is not well, by check."""
    return {finding.check: finding.text for finding in health.look(health.READY) if not finding.is_well}


def test_all_is_well_with_a_shift_and_nothing_waiting() -> None:
    make_shift()
    assert faults() == {}


def test_a_shift_that_fell_silent_is_not_alive() -> None:
    make_shift(seconds_ago=60)
    assert faults() == {"shifts": "0 of 1 are alive. Start `python manage.py worker`."}


def test_a_slot_that_is_being_handed_over_is_no_fault() -> None:
    make_shift(started_at=None, worker="")
    assert faults() == {}


def test_a_slot_that_was_left_is_empty_at_once() -> None:
    make_shift(token=None)
    assert "shifts" in faults()


@pytest.mark.parametrize(("seconds", "is_fault"), [(5, False), (60, True)])
def test_a_task_that_nobody_fetches_is_a_fault(seconds: int, is_fault: bool) -> None:
    make_shift()
    OrmQ.objects.create(key="kontor", payload="x", lock=timezone.now() - timedelta(seconds=seconds))
    assert ("queue" in faults()) is is_fault


def test_a_task_that_is_carried_out_is_no_fault_however_long_it_takes() -> None:
    make_shift()
    OrmQ.objects.create(key="kontor", payload="x", lock=timezone.now() + timedelta(seconds=150))
    assert faults() == {}
    state = health.read_queue(timezone.now())
    assert state == health.QueueState(waiting=0, taken=1, oldest_at=None)


@pytest.mark.parametrize(
    ("minutes", "fields", "is_fault"),
    [
        (1, {}, False),
        (10, {}, True),
        (10, {"automation": "paused"}, False),
    ],
)
def test_an_item_that_nobody_looks_at_is_a_fault(minutes: int, fields: dict[str, Any], is_fault: bool) -> None:
    make_shift()
    factories.make_item(route_due_at=timezone.now() - timedelta(minutes=minutes), **fields)
    assert ("due work" in faults()) is is_fault


def test_items_of_a_stopped_department_wait_by_intention() -> None:
    make_shift()
    department = factories.make_department(state="stopped")
    factories.make_item(department, route_due_at=timezone.now() - timedelta(hours=1))
    assert faults() == {}


def test_a_lost_run_that_nobody_recovers_is_a_fault() -> None:
    make_shift()
    lost = timezone.now() - timedelta(minutes=2)
    factories.make_agent_run(factories.make_item(), status="running", lease_expires_at=lost)
    assert faults() == {"due work": "1 agent runs are lost and nobody recovers them."}


def test_a_missing_migration_is_a_fault_and_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "missing_migrations", lambda _: ["runs.9999_later"])
    findings = health.look(health.READY)
    assert [finding.check for finding in findings] == ["database"]
    assert findings[0].text.startswith("1 migration is missing.")


def test_a_database_that_is_ahead_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "newer_migrations", lambda _: ["runs.9999_later"])
    assert "ahead of this release" in faults()["database"]


# --- Probes --------------------------------------------------------------------------------------------------


def test_live_asks_nothing_of_the_database(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = Client().get("/healthz/live")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_ready_is_200_when_work_flows_and_503_with_reasons_when_not() -> None:
    slot = make_shift()
    response = Client().get("/healthz/ready")
    assert (response.status_code, response.json()["reasons"]) == (200, [])
    slot.delete()
    response = Client().get("/healthz/ready/")
    assert response.status_code == 503
    assert response.json()["reasons"] == ["shifts: 0 of 1 are alive. Start `python manage.py worker`."]


def test_probes_are_answered_at_any_address() -> None:
    assert Client().get("/healthz/live", headers={"host": "10.1.2.3:8000"}).status_code == 200
    assert Client().get("/login/", headers={"host": "10.1.2.3:8000"}).status_code == 400


def test_probes_cannot_be_posted_to() -> None:
    assert Client().post("/healthz/ready").status_code == 405


def test_the_text_of_an_error_is_not_told_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_database() -> Finding:
        raise OperationalError('connection to server at "db.internal", user "kontor" failed')

    monkeypatch.setattr(health, "check_database", check_database)
    monkeypatch.setattr("runs.views.probes.READY", [check_database])
    response = Client().get("/healthz/ready")
    assert response.status_code == 503
    assert "OperationalError" in response.content.decode()
    assert "db.internal" not in response.content.decode()


def test_nobody_needs_a_session_or_a_login_for_probes() -> None:
    assert "sessionid" not in Client().get("/healthz/live").cookies


# --- doctor --------------------------------------------------------------------------------------------------


def test_doctor_applies_the_same_rules_and_asks_the_model_endpoint(simulator: SimulatorServer) -> None:
    factories.make_department()
    make_shift()
    out = StringIO()
    call_command("doctor", "--json", stdout=out)
    told = json.loads(out.getvalue())
    checks = {row["check"] for row in told["checks"]}
    assert told["healthy"] is True
    assert checks == {"database", "clock", "departments", "queue", "shifts", "due work", "model endpoint"}


def test_doctor_ready_asks_what_the_probe_asks_and_its_exit_code_says_it() -> None:
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", "--ready", stdout=out)
    assert ended.value.code == 1
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == [
        "ok  database",
        "ok  queue",
        "BAD shifts",
        "ok  due work",
    ]
