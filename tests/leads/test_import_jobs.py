"""Imports as jobs: staged, due at the end, continued after a kill, and never done twice."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import openpyxl
import pytest
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from agents.models import Department
from leads import importing
from leads.decoding import ReadError
from leads.import_jobs import (
    IMPORT_TASK,
    LostLeaseError,
    claim_job,
    discard_job,
    discard_old_drafts,
    open_command_job,
    resume_job,
    resume_stalled,
    start_job,
    store_upload,
)
from leads.importing import run_import, work_on
from leads.models import ImportJob, Lead, StagedLead
from leads.tasks import import_file, tidy_imports
from leads.views_import import show_job
from runs.models import Item, LogEntry
from tests.engine import in_threads
from tests.factories import make_department, make_lead, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def sales(settings: Any, tmp_path: Path) -> Department:
    settings.BASE_DIR = tmp_path
    return make_department()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH_ROWS", 10)


def _table(count: int = 25) -> bytes:
    return ("email,name\n" + "".join(f"p{n}@x.example,Person {n}\n" for n in range(count))).encode()


def _upload(department: Department, content: bytes | None = None, **fields: Any) -> ImportJob:
    values: dict[str, Any] = {"chunks": [content or _table()], "file_name": "people.csv", "source": ""}
    user = make_user(f"user{uuid4().hex[:6]}", department=department)
    return store_upload(department=department, user=user, **{**values, **fields})


def _started(department: Department, content: bytes | None = None) -> ImportJob:
    job = _upload(department, content)
    assert start_job(job=job)
    return job


def _queued() -> list[tuple[str, tuple[Any, ...]]]:
    return [(entry.task["func"], entry.task["args"]) for entry in OrmQ.objects.all()]


def _due() -> int:
    return Item.objects.exclude(route_due_at=None).count()


def test_an_upload_is_kept_under_a_name_of_our_own(sales: Department, tmp_path: Path) -> None:
    job = _upload(sales, file_name="../../etc/passwd.csv")
    assert job.path.parent == tmp_path / "var" / "uploads"
    assert job.path.read_bytes() == _table()
    assert (job.file_name, job.source, job.status) == ("../../etc/passwd.csv", "passwd.csv", "draft")


def test_what_is_no_table_is_not_kept(sales: Department, tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        _upload(sales, b"%PDF-1.7")
    assert not ImportJob.objects.exists()
    assert not list((tmp_path / "var" / "uploads").iterdir())


def test_starting_queues_one_task_however_often_it_is_pressed(sales: Department) -> None:
    job = _upload(sales)
    assert start_job(job=job)
    assert not start_job(job=job)
    assert _queued() == [(IMPORT_TASK, (job.pk,))]


def test_the_task_imports_and_makes_due_at_the_end(sales: Department) -> None:
    make_lead(sales, email="p3@x.example", name="Known")
    job = _started(sales, _table() + b"nobody,None\np1@x.example,Again\n")
    import_file(job.pk)
    job.refresh_from_db()
    assert (job.status, job.percent, job.error) == ("done", 100, "")
    assert (job.created, job.merged, job.unchanged, job.rejected) == (24, 0, 2, 1)
    assert job.lease_token is None
    assert job.ended_at is not None
    assert _due() == 24
    assert set(Item.objects.exclude(route_due_at=None).values_list("priority", flat=True)) == {Item.Priority.IMPORT}
    assert not StagedLead.objects.exists()
    assert [(r.row_number, r.kind) for r in job.remarks.all()] == [(27, "rejected")]
    assert not job.path.exists()
    assert "24 new, 0 merged, 2 unchanged, 1 rejected" in LogEntry.objects.get(kind="import").text


@pytest.mark.usefixtures("small_batches")
def test_nothing_is_due_before_the_last_row_is_stored(sales: Department) -> None:
    job = _started(sales)
    work_on(job.pk, seconds=0)
    job.refresh_from_db()
    assert (job.status, job.rows_done, job.created) == ("waiting", 11, 10)
    assert (Lead.objects.count(), _due(), StagedLead.objects.count()) == (10, 0, 10)


@pytest.mark.usefixtures("small_batches")
def test_a_long_import_is_done_in_slices_that_queue_each_other(sales: Department) -> None:
    job = _started(sales)
    for slices in range(1, 5):
        assert len(_queued()) == slices
        work_on(job.pk, seconds=0)
    job.refresh_from_db()
    assert (job.status, job.created, job.unchanged) == ("done", 25, 0)
    assert len(_queued()) == 4
    assert _due() == 25


def test_one_upload_is_worked_on_at_a_time_and_its_end_queues_the_next(sales: Department) -> None:
    first, second = _started(sales), _started(sales, b"email,name\nlast@x.example,Last\n")
    assert claim_job(first.pk) is not None
    queued = len(_queued())
    work_on(second.pk)
    second.refresh_from_db()
    assert (second.status, second.attempts, Lead.objects.count()) == ("waiting", 0, 0)
    assert len(_queued()) == queued, "it does not ask again and again"
    past = timezone.now() - timedelta(seconds=1)
    ImportJob.objects.filter(pk=first.pk).update(lease_expires_at=past)
    work_on(first.pk)
    assert _queued()[-1] == (IMPORT_TASK, (second.pk,))
    work_on(second.pk)
    second.refresh_from_db()
    assert (second.status, Lead.objects.count()) == ("done", 26)


@pytest.mark.usefixtures("small_batches")
def test_a_small_upload_need_not_sit_out_a_large_one(sales: Department) -> None:
    large, small = _started(sales), _started(sales, _table(3))
    work_on(large.pk, seconds=0)
    assert _queued()[-1] == (IMPORT_TASK, (small.pk,))
    work_on(small.pk)
    small.refresh_from_db()
    assert small.status == "done"
    assert _queued()[-1] == (IMPORT_TASK, (large.pk,))


def test_an_upload_that_waits_for_another_is_not_stalled(sales: Department) -> None:
    first, second = _started(sales), _started(sales)
    assert claim_job(first.pk) is not None
    past = timezone.now() - timedelta(seconds=1)
    ImportJob.objects.filter(pk=second.pk).update(lease_expires_at=past)
    second.refresh_from_db()
    assert resume_stalled() == 0
    assert show_job(second).label == "waiting for its turn"
    ImportJob.objects.filter(pk=first.pk).update(status="done", lease_token=None, lease_expires_at=None)
    assert show_job(second).label == "interrupted"
    assert resume_stalled() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_that_claim_different_uploads_one_gets_one(sales: Department) -> None:
    ids = [_started(sales).pk for _ in range(4)]
    claimed = in_threads(lambda number: claim_job(ids[number]), 4)
    assert len([job for job in claimed if job is not None]) == 1
    assert ImportJob.objects.filter(status="running").count() == 1


@pytest.mark.usefixtures("small_batches")
def test_a_worker_that_is_told_to_stop_hands_over_after_a_batch(
    sales: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "is_stopping", lambda: True)
    job = _started(sales)
    queued = len(_queued())
    work_on(job.pk)
    job.refresh_from_db()
    assert (job.status, job.lease_token, Lead.objects.count()) == ("waiting", None, 10)
    assert len(_queued()) == queued + 1


def test_a_worker_that_is_told_to_stop_makes_nothing_more_due(
    sales: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter((False, True))
    monkeypatch.setattr(importing, "is_stopping", lambda: next(told))
    job = _started(sales)
    work_on(job.pk)
    job.refresh_from_db()
    assert (job.status, StagedLead.objects.count(), _due()) == ("waiting", 25, 0)
    monkeypatch.setattr(importing, "is_stopping", lambda: False)
    work_on(job.pk)
    job.refresh_from_db()
    assert (job.status, StagedLead.objects.count(), _due()) == ("done", 0, 25)


def test_a_task_presented_again_after_the_end_changes_nothing(sales: Department) -> None:
    job = _started(sales)
    work_on(job.pk)
    Item.objects.update(route_due_at=None)
    work_on(job.pk)
    job.refresh_from_db()
    assert (job.status, job.created, Lead.objects.count(), _due()) == ("done", 25, 25, 0)


@pytest.mark.usefixtures("small_batches")
def test_a_task_presented_while_another_works_only_looks_again_later(sales: Department) -> None:
    job = _started(sales)
    held_until = timezone.now() + timedelta(seconds=50)
    ImportJob.objects.filter(pk=job.pk).update(status="running", lease_token=uuid4(), lease_expires_at=held_until)
    work_on(job.pk)
    assert not Lead.objects.exists()
    later = Schedule.objects.get()
    assert (later.func, later.args) == (IMPORT_TASK, f"({job.pk},)")
    assert later.next_run > held_until


@pytest.mark.usefixtures("small_batches")
def test_an_import_whose_worker_was_killed_is_continued_where_it_stood(sales: Department) -> None:
    job = _started(sales)
    work_on(job.pk, seconds=0)
    # What a kill leaves behind: running, with a lease that nobody renews.
    past = timezone.now() - timedelta(seconds=1)
    ImportJob.objects.filter(pk=job.pk).update(status="running", lease_token=uuid4(), lease_expires_at=past)
    assert resume_stalled() == 1
    assert resume_stalled() == 0
    work_on(job.pk)
    job.refresh_from_db()
    assert (job.status, job.created, job.unchanged) == ("done", 25, 0)
    assert (Lead.objects.count(), _due()) == (25, 25)


@pytest.mark.usefixtures("small_batches")
def test_who_lost_the_lease_writes_nothing_more(sales: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _started(sales)
    claimed = claim_job(job.pk)
    assert claimed is not None
    ImportJob.objects.filter(pk=job.pk).update(lease_token=uuid4())
    with pytest.raises(LostLeaseError):
        run_import(claimed, claimed.path)
    assert not Lead.objects.exists()


def test_an_error_queues_the_import_again_and_after_five_it_is_given_up(
    sales: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _started(sales)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(importing, "_store_batch", fail)
    for _ in range(ImportJob.MAX_ATTEMPTS):
        with pytest.raises(ZeroDivisionError):
            work_on(job.pk)
    work_on(job.pk)
    job.refresh_from_db()
    assert job.status == "failed"
    assert "Given up after 5 tries" in job.error
    assert "broken" in job.error


@pytest.mark.usefixtures("small_batches")
def test_what_was_read_of_a_damaged_file_is_made_due_and_the_job_says_why_it_stopped(
    sales: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _started(sales)
    whole = importing._rows_left

    def damaged(job: ImportJob, rows: Any) -> Iterator[Any]:
        for row in whole(job, rows):
            if row.number == 15:
                raise ReadError("The worksheet is damaged from here on (ParseError).")
            yield row

    monkeypatch.setattr(importing, "_rows_left", damaged)
    work_on(job.pk)
    job.refresh_from_db()
    assert (job.status, job.created, _due()) == ("failed", 13, 13)
    assert "damaged" in job.error


def test_a_file_that_is_not_there_fails_the_job_with_what_to_do(sales: Department) -> None:
    job = _started(sales)
    job.path.unlink()
    work_on(job.pk)
    job.refresh_from_db()
    assert job.status == "failed"
    assert "must share the folder" in job.error


def test_a_workbook_is_imported(sales: Department) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].append(["E-Mail", "Vorname", "Nachname"])
    book.worksheets[0].append(["anna@x.example", "Anna", "Weiß"])
    content = io.BytesIO()
    book.save(content)
    work_on(_started(sales, content.getvalue()).pk)
    assert Lead.objects.get().name == "Anna Weiß"


def test_an_unchanged_file_marks_nothing_due_the_second_time(sales: Department) -> None:
    work_on(_started(sales).pk)
    Item.objects.update(route_due_at=None)
    again = _started(sales)
    work_on(again.pk)
    again.refresh_from_db()
    assert (again.created, again.merged, again.unchanged) == (0, 0, 25)
    assert _due() == 0


def test_only_a_draft_can_be_discarded(sales: Department) -> None:
    job = _upload(sales)
    path = job.path
    assert discard_job(job=job)
    assert not path.exists()
    started = _started(sales)
    assert not discard_job(job=started)
    assert started.path.exists()


def test_tidying_throws_old_drafts_away_and_continues_what_stalled(sales: Department) -> None:
    old, young, stalled = _upload(sales), _upload(sales), _started(sales)
    past = timezone.now() - timedelta(days=2)
    ImportJob.objects.filter(pk=old.pk).update(created_at=past)
    ImportJob.objects.filter(pk=stalled.pk).update(lease_expires_at=past, created_at=past)
    queued = len(_queued())
    tidy_imports()
    assert set(ImportJob.objects.values_list("pk", flat=True)) == {young.pk, stalled.pk}
    assert len(_queued()) == queued + 1
    assert discard_old_drafts() == 0


def test_a_job_that_is_held_is_not_resumed(sales: Department) -> None:
    job = _started(sales)
    assert claim_job(job.pk)
    assert not resume_job(job=job)


@pytest.mark.usefixtures("small_batches")
def test_the_same_command_continues_an_import_that_was_killed(sales: Department, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(_table())
    arguments: dict[str, Any] = {"department": sales, "path": path, "source": "people", "mapping": {}}
    killed, is_continued = open_command_job(**arguments)
    assert not is_continued
    assert not run_import(killed, path, seconds=0)
    assert (Lead.objects.count(), _due()) == (10, 0)

    job, is_continued = open_command_job(**arguments)
    assert is_continued
    assert job.pk == killed.pk
    assert run_import(job, path)
    assert (job.status, job.created, job.unchanged) == ("done", 15, 10)
    assert (Lead.objects.count(), _due()) == (25, 25)
    with pytest.raises(LostLeaseError):
        run_import(killed, path)


@pytest.mark.usefixtures("small_batches")
def test_leads_of_an_import_that_nobody_continues_become_due_with_the_next_file(
    sales: Department, tmp_path: Path
) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_bytes(_table())
    other.write_bytes(_table(5))
    killed, _ = open_command_job(department=sales, path=path, source="s", mapping={})
    run_import(killed, path, seconds=0)
    job, _ = open_command_job(department=sales, path=other, source="s", mapping={})
    run_import(job, other)
    assert (job.unchanged, _due()) == (5, 5)
    assert StagedLead.objects.count() == 5
