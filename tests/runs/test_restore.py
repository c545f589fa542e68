"""What becomes of a restored database, and how it is noticed."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.utils import timezone

from agents.models import Department
from runs import departures, marker, restore
from runs.models import Action, AgentRun, Alert, Item, LogEntry, ModelCall, OutboxMessage, PipelineRun, ShiftSlot
from tests import factories
from tests.engine import assert_accounts_agree, claim, make_office, make_queued

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def var_dir(settings: Any, tmp_path: Path) -> Path:
    """Markers of tests lie in a directory of their own."""
    settings.VAR_DIR = tmp_path
    return tmp_path


def state_of(department: Department) -> str:
    return str(Department.objects.values_list("state", flat=True).get(pk=department.pk))


# --- What is done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("running", "holding_sends"),
        ("holding_sends", "holding_sends"),
        ("draining", "stopped"),
        ("stopped", "stopped"),
    ],
)
def test_no_department_may_send_afterwards(before: str, after: str) -> None:
    department = factories.make_department(state=before)
    restore.after_restore(user=None, reason="Test.")
    assert state_of(department) == after
    action = Action.objects.get(verb=restore.RESTORED)
    assert (action.before["state"], action.after["state"]) == (before, after)


def test_what_was_unsent_is_unsure_and_the_rest_stays() -> None:
    item = factories.make_lead().item
    output = factories.make_output(item, "email")
    rows = {
        status: factories.make_outbox(item, key=f"k:{status}", status=status, output=output)
        for status in OutboxMessage.Status.values
    }
    restore.after_restore(user=None, reason="Test.")
    found = {was: OutboxMessage.objects.get(pk=row.pk).status for was, row in rows.items()}
    assert found == {
        "pending": "unknown",
        "sending": "unknown",
        "sent": "sent",
        "failed": "failed",
        "unknown": "unknown",
        "withdrawn": "withdrawn",
    }
    assert restore.unsure_messages().count() == 2


def test_a_step_on_a_closed_item_is_not_queued_again() -> None:
    make_office()
    make_queued("intake")
    (work,) = claim()
    Item.objects.update(automation="closed")
    restore.after_restore(user=None, reason="Test.")
    assert AgentRun.objects.get(pk=work.run_id).status == "cancelled"
    assert PipelineRun.objects.get().status == "cancelled"


def test_running_work_is_queued_again_with_its_calls_unseen() -> None:
    make_office()
    runs = [make_queued() for _ in range(3)]
    works = claim()
    assert len(works) == 3
    restored = restore.after_restore(user=None, reason="Test.")
    assert restored is not None
    assert (restored.agent_runs, restored.calls) == (3, 3)
    for run in runs:
        run.refresh_from_db()
        assert (run.status, run.lease_token, run.lost_leases) == ("queued", None, 0)
    assert set(ModelCall.objects.values_list("status", "is_estimate")) == {("unseen", True)}
    assert_accounts_agree()
    assert len(claim()) == 3


def test_a_worker_of_before_the_restore_writes_nothing() -> None:
    make_office()
    run = make_queued()
    token = claim()[0].token
    restore.after_restore(user=None, reason="Test.")
    assert not AgentRun.objects.filter(lease_token=token).exists()
    run.refresh_from_db()
    assert run.status == AgentRun.Status.QUEUED


def test_more_runs_than_one_batch_are_all_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "BATCH", 2)
    for _ in range(5):
        factories.make_agent_run(factories.make_lead().item, status="running")
    restore.after_restore(user=None, reason="Test.")
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"queued"}


def test_the_places_of_shifts_are_empty() -> None:
    factories.make_department()
    later = timezone.now() + timedelta(hours=1)
    ShiftSlot.objects.create(number=1, token=uuid4(), worker="host:1", lease_expires_at=later, in_flight=7)
    restore.after_restore(user=None, reason="Test.")
    assert ShiftSlot.objects.values_list("token", "lease_expires_at", "in_flight").get() == (None, None, 0)


def test_it_is_told_in_log_actions_and_alerts() -> None:
    department = factories.make_department()
    user = factories.make_user("ada", is_superuser=True)
    restore.after_restore(user=user, reason="The disk was lost.")
    action = Action.objects.get()
    assert (action.user, action.department, action.reason) == (user, department, "The disk was lost.")
    assert LogEntry.objects.filter(department=department, kind="restored", level="warning").count() == 1
    assert Alert.objects.get(state="open").link == restore.PAGE


# --- Release -------------------------------------------------------------------------------------------------


def test_release_gives_back_the_state_of_before_once() -> None:
    department = factories.make_department(state="draining")
    user = factories.make_user("ada", is_superuser=True)
    restore.after_restore(user=None, reason="Test.")
    assert restore.release_department(department=department, user=user)
    assert state_of(department) == "draining"
    assert not Alert.objects.filter(state="open").exists()
    assert not restore.release_department(department=department, user=user)
    assert Action.objects.filter(verb=restore.RELEASED).count() == 1


def test_a_second_restore_run_does_not_forget_the_state_of_before() -> None:
    department = factories.make_department()
    restore.after_restore(user=None, reason="Test.")
    restore.after_restore(user=None, reason="Once more.")
    restore.release_department(department=department, user=factories.make_user("ada", is_superuser=True))
    assert state_of(department) == "running"


def test_a_department_that_was_switched_meanwhile_stays_as_it_was_switched() -> None:
    department = factories.make_department()
    restore.after_restore(user=None, reason="Test.")
    Department.objects.filter(pk=department.pk).update(state="stopped")
    assert restore.release_department(department=department, user=factories.make_user("ada", is_superuser=True))
    assert state_of(department) == "stopped"


def test_nothing_is_released_without_a_restore() -> None:
    department = factories.make_department(state="holding_sends")
    assert not restore.release_department(department=department, user=factories.make_user("ada", is_superuser=True))
    assert state_of(department) == "holding_sends"


@pytest.mark.parametrize(("was_sent", "status"), [(True, "sent"), (False, "pending")])
def test_a_person_decides_once_on_an_unsure_message(was_sent: bool, status: str) -> None:
    message = factories.make_outbox(factories.make_lead().item)
    user = factories.make_user("ada", is_superuser=True)
    restore.after_restore(user=None, reason="Test.")
    assert departures.settle_unknown(message=message, user=user, was_sent=was_sent)
    assert not departures.settle_unknown(message=message, user=user, was_sent=not was_sent)
    message.refresh_from_db()
    assert message.status == status
    assert Action.objects.get(verb="settle_unsure").after == {"status": status}


def test_a_released_department_is_listed_while_messages_are_unsure() -> None:
    message = factories.make_outbox(factories.make_lead().item)
    user = factories.make_user("ada", is_superuser=True)
    restore.after_restore(user=None, reason="Test.")
    restore.release_department(department=message.department, user=user)
    assert [held.is_released for held in restore.held_departments(Department.objects.all())] == [True]
    departures.settle_unknown(message=message, user=user, was_sent=True)
    assert restore.held_departments(Department.objects.all()) == []


# --- How it is noticed ---------------------------------------------------------------------------------------


def test_a_database_that_only_moves_on_is_not_older() -> None:
    factories.make_department()
    factories.make_log_entry()
    assert restore.keep_marker() is None
    factories.make_log_entry()
    assert restore.keep_marker() is None
    assert not Action.objects.exists()


def test_lines_that_were_deleted_are_no_restore() -> None:
    factories.make_department()
    factories.make_log_entry()
    factories.make_log_entry()
    restore.keep_marker()
    LogEntry.objects.all().delete()
    assert restore.keep_marker() is None


def test_a_database_that_has_not_come_as_far_is_older() -> None:
    department = factories.make_department()
    entry = factories.make_log_entry()
    restore.keep_marker()
    path = marker.marker_path()
    path.write_text(json.dumps({"entry_id": entry.pk + 1_000, "at": timezone.now().isoformat()}))
    assert restore.keep_marker() is not None
    assert state_of(department) == "holding_sends"
    assert restore.keep_marker() is None, "the marker is of the restored database now"


def test_a_database_that_came_there_on_another_way_is_older() -> None:
    department = factories.make_department()
    entry = factories.make_log_entry()
    restore.keep_marker()
    LogEntry.objects.filter(pk=entry.pk).update(at=entry.at + timedelta(minutes=5))
    assert restore.keep_marker() is not None
    assert state_of(department) == "holding_sends"


def test_what_another_machine_has_done_already_is_not_done_again() -> None:
    department = factories.make_department()
    entry = factories.make_log_entry()
    restore.after_restore(user=None, reason="By another machine.")
    restore.release_department(department=department, user=factories.make_user("ada", is_superuser=True))
    before = timezone.now() - timedelta(hours=1)
    marker.marker_path().write_text(json.dumps({"entry_id": entry.pk + 1_000, "at": before.isoformat()}))
    assert restore.keep_marker() is None
    assert state_of(department) == "running"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entry_id": "x", "at": "y"}'])
def test_a_marker_that_cannot_be_read_is_written_anew(text: str) -> None:
    entry = factories.make_log_entry()
    marker.marker_path().write_text(text)
    assert restore.keep_marker() is None
    assert marker.read_marker() == marker.Marker(entry.pk, entry.at)


def test_a_marker_that_cannot_be_written_stops_nothing(settings: Any, tmp_path: Path) -> None:
    factories.make_log_entry()
    settings.VAR_DIR = tmp_path / "missing"
    assert restore.keep_marker() is None


def test_the_command_says_what_it_did() -> None:
    factories.make_outbox(factories.make_lead().item)
    out = StringIO()
    call_command("after_restore", "--json", stdout=out)
    told = json.loads(out.getvalue())
    assert (told["departments"], told["unsure"]) == (["sales"], 1)
    words = StringIO()
    call_command("after_restore", stdout=words)
    assert "Sends are held in 1 departments." in words.getvalue()
    assert marker.read_marker() is not None
