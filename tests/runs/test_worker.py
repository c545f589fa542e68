"""The worker command before it starts anything. What it does at work is in tests/test_end_to_end.py."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django_q.models import OrmQ, Schedule

from runs.management.commands.worker import Command
from runs.models import ShiftSlot
from runs.stopping import is_stopping

pytestmark = pytest.mark.django_db


def test_it_does_not_start_on_a_database_that_lacks_migrations() -> None:
    recorder = MigrationRecorder(connection)
    app, name = max(key for key in recorder.applied_migrations() if key[0] == "leads")
    recorder.record_unapplied(app, name)
    with pytest.raises(CommandError, match="Run `python manage.py migrate` first"):
        call_command("worker")
    assert not Schedule.objects.exists()
    assert not OrmQ.objects.exists()


def test_it_says_where_to_look_when_the_database_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr("runs.management.commands.worker.MigrationExecutor", refused)
    with pytest.raises(CommandError, match="connection refused. Check DATABASE_URL"):
        call_command("worker")


def test_a_complete_database_is_fine_and_looking_changes_nothing() -> None:
    Command()._check_database()
    assert not ShiftSlot.objects.exists()
    assert not is_stopping()
