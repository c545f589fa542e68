"""Whether release and database fit each other, and what is done and said where they do not."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.db.migrations.recorder import MigrationRecorder
from django.urls import reverse
from django_q.models import OrmQ

from runs import releases, slots, tasks
from runs.health import check_database
from runs.models import ShiftSlot
from runs.releases import missing_migrations, newer_migrations
from tests.runs.scene import make_scene

pytestmark = pytest.mark.django_db
NEXT = ("runs", "9999_of_the_next_release")


def record(app: str, name: str) -> None:
    """Have the database say that a migration is applied, after all others."""
    MigrationRecorder.Migration.objects.create(app=app, name=name)


def test_a_database_of_this_release_fits() -> None:
    assert missing_migrations() == set()
    assert newer_migrations() == set()


def test_what_a_newer_release_has_applied_is_newer() -> None:
    record(*NEXT)
    assert newer_migrations() == {NEXT}


def test_what_an_app_left_that_is_not_installed_any_more_is_not_newer() -> None:
    record("oldapp", "0001_initial")
    assert newer_migrations() == set()


def test_what_was_squashed_and_removed_since_is_not_newer() -> None:
    latest = MigrationRecorder.Migration.objects.filter(app="runs").order_by("-pk")[0]
    record("runs", "0000_squashed_since")
    MigrationRecorder.Migration.objects.filter(pk=latest.pk).delete()
    record(latest.app, latest.name)
    assert newer_migrations() == set()


def test_what_a_migration_of_this_release_replaces_is_not_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    record(*NEXT)
    known, _ = releases._migrations()
    monkeypatch.setattr(releases, "_migrations", lambda: (known, frozenset({NEXT})))
    assert newer_migrations() == set()


def test_what_the_database_lacks_is_missing() -> None:
    MigrationRecorder.Migration.objects.filter(app="runs", name="0001_initial").delete()
    assert missing_migrations() == {("runs", "0001_initial")}


def test_a_release_that_is_behind_fills_no_slots_and_begins_no_shift() -> None:
    slots.ensure_shifts()
    token = ShiftSlot.objects.get(number=1).token
    assert isinstance(token, UUID)
    queued = OrmQ.objects.count()
    record(*NEXT)
    tasks.hold_shift(1, str(token))
    slot = ShiftSlot.objects.get(number=1)
    assert (slot.token, slot.started_at) == (None, None), "the newer release's worker need not wait for the place"
    assert slots.ensure_shifts() == 0
    assert OrmQ.objects.count() == queued


def test_doctor_says_that_its_shifts_take_up_no_work() -> None:
    record("oldapp", "0001_initial")
    assert check_database().is_well
    record(*NEXT)
    finding = check_database()
    assert not finding.is_well
    assert "Start the newer release" in finding.text
    assert ".".join(NEXT) in finding.detail


def test_one_query_answers_both_questions(django_assert_num_queries: Any) -> None:
    check_database()
    with django_assert_num_queries(1):
        check_database()


def test_a_database_without_a_single_migration_lacks_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "_tables", set())
    monkeypatch.setattr(MigrationRecorder, "has_table", lambda _: False)
    assert ("runs", "0001_initial") in missing_migrations()
    assert newer_migrations() == set()


def test_the_overview_says_it_before_anything_that_follows_from_it() -> None:
    scene = make_scene()
    sentence = b"The database: it is 1 migration ahead of this release"
    client = scene.client(scene.operator)
    assert sentence not in client.get(reverse("runs:overview")).content
    record(*NEXT)
    assert sentence in client.get(reverse("runs:overview")).content
