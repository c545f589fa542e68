"""Departments' schedules: cron expressions in their own time zone, each fired once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone
from django_q.models import Schedule

from agents.models import Department
from leads.models import ImportJob, StagedLead
from runs import schedules
from runs.models import AgentRun, Item, LogEntry, Trigger
from runs.schedules import ensure_clock, next_run, run_due
from tests.engine import in_threads, make_office
from tests.factories import make_lead

pytestmark = pytest.mark.django_db


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def office() -> Department:
    return make_office(schedule="0 9 * * *", time_zone="Europe/Berlin")


def set_now(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """What the database's clock says to the schedules."""
    monkeypatch.setattr(schedules, "database_now", lambda: moment)


# --- When -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "following"),
    [
        ("2026-01-15 07:59", "2026-01-15 08:00"),  # winter: 9:00 is 8:00 UTC
        ("2026-01-15 08:00", "2026-01-16 08:00"),
        ("2026-07-15 06:00", "2026-07-15 07:00"),  # summer: 9:00 is 7:00 UTC
        ("2026-03-28 08:00", "2026-03-29 07:00"),  # the day on which the clocks go forward
        ("2026-10-24 07:00", "2026-10-25 08:00"),  # the day on which they go back
    ],
)
def test_the_expression_is_read_in_the_departments_time_zone(office: Department, after: str, following: str) -> None:
    assert next_run(office, at(after)) == at(following)


def test_an_hour_that_a_day_does_not_have_is_made_up_for(office: Department) -> None:
    office.schedule = "30 2 * * *"
    fired = _all_runs(office, at("2026-03-28 00:00"), at("2026-03-31 00:00"))
    assert [moment.date().isoformat() for moment in fired] == ["2026-03-28", "2026-03-29", "2026-03-30"]


def test_an_hour_that_a_day_has_twice_fires_in_both_which_marking_due_can_bear(office: Department) -> None:
    office.schedule = "30 2 * * *"
    fired = _all_runs(office, at("2026-10-24 00:00"), at("2026-10-27 00:00"))
    assert [moment.date().day for moment in fired] == [24, 25, 25, 26]


def _all_runs(department: Department, first: datetime, last: datetime) -> list[datetime]:
    found: list[datetime] = []
    moment = next_run(department, first)
    while moment is not None and moment < last:
        found.append(moment)
        moment = next_run(department, moment)
    return found


def test_without_an_expression_there_is_no_next_run(office: Department) -> None:
    office.schedule = "  "
    assert next_run(office, timezone.now()) is None


@pytest.mark.parametrize("expression", ["every day", "61 * * * *", "* * *"])
def test_an_expression_that_nobody_understands_cannot_be_saved(office: Department, expression: str) -> None:
    office.schedule = expression
    with pytest.raises(ValidationError, match="0 \\*/6 \\* \\* \\*"):
        office.full_clean()


# --- Firing ---------------------------------------------------------------------------------------------------


def test_a_new_schedule_does_not_fire_but_shows_when_it_will(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_now(monkeypatch, at("2026-01-15 07:00"))
    assert run_due() == []
    office.refresh_from_db()
    assert (office.schedule_next_at, office.schedule_last_at) == (at("2026-01-15 08:00"), None)


def test_it_fires_once_and_shows_the_last_and_the_next_run(office: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    item = make_lead().item
    set_now(monkeypatch, at("2026-01-15 07:00"))
    run_due()
    set_now(monkeypatch, at("2026-01-15 08:00:20"))
    assert run_due() == ["sales"]
    assert run_due() == []
    office.refresh_from_db()
    assert (office.schedule_next_at, office.schedule_last_at) == (at("2026-01-16 08:00"), at("2026-01-15 08:00:20"))
    item.refresh_from_db()
    assert item.route_due_at == at("2026-01-15 08:00:20")
    assert LogEntry.objects.get(kind="schedule").text == "The schedule marked 1 items due."


def test_a_schedule_only_marks_items_due(office: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lead()
    Department.objects.update(schedule_next_at=at("2026-01-15 08:00"))
    set_now(monkeypatch, at("2026-01-15 08:00:01"))
    run_due()
    assert not AgentRun.objects.exists()
    assert not Trigger.objects.exists()


def test_what_was_missed_while_nobody_worked_is_made_up_for_once(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    Department.objects.update(schedule_next_at=at("2026-01-10 08:00"))
    set_now(monkeypatch, at("2026-01-15 12:00"))
    assert run_due() == ["sales"]
    assert run_due() == []


def test_closed_paused_and_other_departments_items_are_left_alone(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_office("other", schedule="")
    closed, paused = make_lead(office, status="won").item, make_lead(office, automation="paused").item
    theirs, ours = make_lead(other).item, make_lead(office).item
    Department.objects.update(schedule_next_at=at("2026-01-15 08:00"))
    set_now(monkeypatch, at("2026-01-15 08:00:01"))
    assert run_due() == ["sales"]
    due = set(Item.objects.filter(route_due_at__isnull=False))
    assert due == {ours}
    assert not due & {closed, paused, theirs}


def test_what_an_import_has_staged_waits_for_its_end(office: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    staged, ready = make_lead(office), make_lead(office)
    job = ImportJob.objects.create(department=office, source="fair", file_name="fair.csv", status="running")
    StagedLead.objects.create(job=job, lead=staged)
    Department.objects.update(schedule_next_at=at("2026-01-15 08:00"))
    set_now(monkeypatch, at("2026-01-15 08:00:01"))
    assert run_due() == ["sales"]
    assert list(Item.objects.exclude(route_due_at=None)) == [ready.item]
    assert LogEntry.objects.get(kind="schedule").text == "The schedule marked 1 items due."


def test_a_run_that_broke_off_is_made_up_for(office: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [make_lead(office).item for _ in range(3)]
    Department.objects.update(schedule_next_at=at("2026-01-15 08:00"))
    set_now(monkeypatch, at("2026-01-15 08:00:01"))

    def killed(*_: object) -> int:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(schedules, "mark_due", killed)
        with pytest.raises(SystemExit):
            run_due()
    office.refresh_from_db()
    assert office.schedule_last_at is None
    assert run_due() == ["sales"]
    assert Item.objects.exclude(route_due_at=None).count() == len(items)


def test_an_expression_that_fires_earlier_counts_from_now_on(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_now(monkeypatch, at("2026-01-15 09:00"))
    run_due()
    Department.objects.update(schedule="*/15 * * * *")
    assert run_due() == []
    office.refresh_from_db()
    assert office.schedule_next_at == at("2026-01-15 09:15")


def test_an_expression_that_fires_later_does_not_fire_at_the_old_time(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_now(monkeypatch, at("2026-01-15 07:00"))
    run_due()
    Department.objects.update(schedule="0 18 * * *")
    run_due()
    office.refresh_from_db()
    assert office.schedule_next_at == at("2026-01-15 17:00")
    set_now(monkeypatch, at("2026-01-15 08:00:20"))
    assert run_due() == []


def test_a_schedule_that_was_taken_away_does_not_fire(office: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    Department.objects.update(schedule="", schedule_next_at=at("2026-01-15 08:00"))
    set_now(monkeypatch, at("2026-01-15 08:00:01"))
    assert run_due() == []


def test_a_broken_expression_does_not_hold_up_other_departments(
    office: Department, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_office("broken", schedule="every day", name="A first one")
    Department.objects.update(schedule_next_at=at("2026-01-15 08:00"))
    set_now(monkeypatch, at("2026-01-15 08:00:01"))
    assert run_due() == ["sales"]
    assert "broken" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_it_fires_once_whoever_looks(office: Department) -> None:
    make_lead(office)
    Department.objects.update(schedule_next_at=timezone.now() - timedelta(seconds=1))
    assert sum(len(fired) for fired in in_threads(lambda _: run_due(), 4)) == 1
    assert LogEntry.objects.filter(kind="schedule").count() == 1


# --- The queue's clock ----------------------------------------------------------------------------------------


def test_the_clock_is_one_entry_of_the_queues_scheduler() -> None:
    ensure_clock()
    ensure_clock()
    entry = Schedule.objects.get()
    assert (entry.func, entry.schedule_type, entry.minutes, entry.repeats) == (schedules.EVERY_MINUTE, "I", 1, -1)
