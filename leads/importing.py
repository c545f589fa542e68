"""Imports: a file of leads is stored in batches and made due at the end.

A batch is one transaction: leads, remarks, and how far the job is. Whoever works on a job holds it by a lease and
a token; without the token nothing is written. An import that is killed is continued by its task, which comes again,
by ``resume_stalled``, or by the same command; its leads are staged until then and not lost.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.db.models import F, Q
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_task, schedule

from agents.models import Department
from leads.decoding import ReadError
from leads.intake import Arrival, Landed, upsert_leads
from leads.mapping import LeadRow, MappingError, RowError, check_mapping, read_lead
from leads.models import ImportJob, ImportRemark, StagedLead
from leads.reading import Row, Table, open_table
from runs import database
from runs.models import Item, LogEntry

IMPORT_TASK = "leads.tasks.import_file"
BATCH_ROWS = 500
LEASE_SECONDS = 60
SLICE_SECONDS = 40
"""How long one task works before it hands over: well within the queue's ``retry``."""
TASK_TIMEOUT_SECONDS = 600
CLAIM_WITHIN_SECONDS = 600
_BATCH_TRIES = 3
_CHUNK_BYTES = 1_048_576
_RENEW_EVERY_ROWS = 5_000
_MAX_REMARK = 500
_ANALYSE_AFTER = (4, 16, 64, 256, 1_024)
"""Batches of a slice."""

logger = logging.getLogger(__name__)


class LostLeaseError(Exception):
    """Somebody else works on this import now; nothing more may be written."""


# --- Making and starting jobs ------------------------------------------------------------------------------


def store_upload(
    *, department: Department, user: User, chunks: Iterable[bytes], file_name: str, source: str
) -> ImportJob:
    """Keep an uploaded file under a name of our own and make a draft of it; ``ReadError`` if it is no table."""
    job = ImportJob(department=department, user=user, file_name=file_name[:200])
    job.source = (source or Path(file_name).stem or "upload")[:80]
    job.path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with job.path.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
        job.file_bytes = job.path.stat().st_size
        job.digest = digest.hexdigest()
        with open_table(job.path):
            pass
        job.save()
    except BaseException:
        job.path.unlink(missing_ok=True)
        raise
    return job


def open_command_job(
    *, department: Department, path: Path, source: str, mapping: Mapping[str, str]
) -> tuple[ImportJob, bool]:
    """A claimed job for a file on this machine, and whether it continues one that was interrupted.

    It starts at the first row either way: what is stored already comes out unchanged. A process that still works on
    the file loses its token and stops.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    interrupted = ImportJob.objects.filter(
        department=department,
        digest=digest,
        source=source,
        origin=ImportJob.Origin.COMMAND,
        status=ImportJob.Status.RUNNING,
    )
    job = interrupted.order_by("-pk").first() or ImportJob(department=department, digest=digest, source=source)
    is_continued = job.pk is not None
    now = database.now()
    job.origin, job.status, job.error = ImportJob.Origin.COMMAND, ImportJob.Status.RUNNING, ""
    job.file_name, job.file_bytes, job.mapping = path.name[:200], path.stat().st_size, dict(mapping)
    job.rows_done = job.percent = job.created = job.merged = job.unchanged = job.rejected = job.attempts = 0
    job.lease_token, job.lease_expires_at = uuid.uuid4(), now + timedelta(seconds=LEASE_SECONDS)
    job.started_at = now
    with transaction.atomic():
        job.save()
        job.remarks.all().delete()
    return job, is_continued


def start_job(*, job: ImportJob) -> bool:
    """Hand a draft to the queue; False if it was started already."""
    with transaction.atomic():
        started = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.DRAFT).update(
            status=ImportJob.Status.WAITING,
            lease_expires_at=database.now() + timedelta(seconds=CLAIM_WITHIN_SECONDS),
        )
        if started:
            _enqueue(job.pk)
    return bool(started)


def discard_job(*, job: ImportJob) -> bool:
    """Throw a draft and its file away; False if it is no draft any more."""
    deleted, _ = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.DRAFT).delete()
    if deleted:
        job.path.unlink(missing_ok=True)
    return bool(deleted)


def discard_old_drafts(*, older_than: timedelta = timedelta(days=1)) -> int:
    """Throw away what was uploaded and never started: the files hold personal data. Returns how many."""
    drafts = ImportJob.objects.filter(status=ImportJob.Status.DRAFT, created_at__lt=timezone.now() - older_than)
    return sum(discard_job(job=job) for job in drafts)


def resume_stalled() -> int:
    """Queue uploads whose worker died or that no worker ever took; returns how many."""
    stalled = ImportJob.objects.filter(origin=ImportJob.Origin.UPLOAD, status__in=ImportJob.ACTIVE)
    return sum(resume_job(job=job) for job in stalled.filter(lease_expires_at__lt=database.now()))


def resume_job(*, job: ImportJob) -> bool:
    """Queue one stalled upload again; False if somebody works on it or did so a moment ago."""
    now = database.now()
    with transaction.atomic():
        resumed = ImportJob.objects.filter(
            pk=job.pk,
            origin=ImportJob.Origin.UPLOAD,
            status__in=ImportJob.ACTIVE,
            lease_expires_at__lt=now,
        ).update(
            status=ImportJob.Status.WAITING,
            lease_token=None,
            lease_expires_at=now + timedelta(seconds=CLAIM_WITHIN_SECONDS),
        )
        if resumed:
            _enqueue(job.pk)
    return bool(resumed)


def _enqueue(job_id: int) -> None:
    async_task(IMPORT_TASK, job_id, timeout=TASK_TIMEOUT_SECONDS)


# --- Working on a job --------------------------------------------------------------------------------------


def work_on(job_id: int, *, seconds: float = SLICE_SECONDS) -> None:
    """What the task does: work for a while, then queue the rest. Presented twice, the second one only looks again
    when the first one's lease would have run out."""
    job = _claim(job_id)
    if job is None:
        _look_again(job_id)
        return
    try:
        if job.attempts > ImportJob.MAX_ATTEMPTS:
            _give_up(job)
        elif not run_import(job, job.path, seconds=seconds):
            _hand_over(job)
    except LostLeaseError:
        logger.warning("Import %s is worked on by somebody else.", job_id)
    except Exception as error:
        _put_back(job, error)
        raise


def run_import(job: ImportJob, path: Path, *, seconds: float | None = None) -> bool:
    """Store the rows of a claimed job and make them due; False if the time was up before the end.

    A file that cannot be read to its end fails the job; what was read before is made due all the same.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    problem = ""
    try:
        with open_table(path) as table:
            mapping = check_mapping(job.mapping, table.columns)
            if not _store_rows(job, table, mapping, deadline):
                return False
    except (ReadError, MappingError) as error:
        problem = str(error)
    except FileNotFoundError:
        problem = "The file is not on this machine. Web server and workers must share the folder var/uploads."
    _make_due(job)
    _end(job, problem)
    return True


def read_rows(rows: Sequence[Row], mapping: Mapping[str, str]) -> tuple[list[LeadRow], list[tuple[int, str]]]:
    """The leads in these rows, and ``(number, reason)`` of each row that is none."""
    leads, rejected = [], []
    for row in rows:
        try:
            if row.problem:
                raise RowError(row.problem)
            lead = read_lead(row.number, row.cells, mapping)
        except RowError as error:
            rejected.append((row.number, str(error)))
            continue
        if row.note:
            lead = LeadRow(lead.number, lead.fields, lead.attributes, (row.note, *lead.notes))
        leads.append(lead)
    return leads, rejected


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Lists of at most ``BATCH_ROWS`` rows. What was read before a ``ReadError`` comes before the error does."""
    batch: list[Row] = []
    problem = None
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH_ROWS:
                yield batch
                batch = []
    except ReadError as error:
        problem = error
    if batch:
        yield batch
    if problem:
        raise problem


def _store_rows(job: ImportJob, table: Table, mapping: Mapping[str, str], deadline: float | None) -> bool:
    for number, batch in enumerate(batches(_rows_left(job, table.rows())), start=1):
        _store_batch(job, batch, mapping, table.percent())
        if number in _ANALYSE_AFTER:
            _analyse()
        if deadline is not None and time.monotonic() > deadline:
            return False
    return True


def _analyse() -> None:
    """Tell PostgreSQL that the table has grown: while it takes it for small, it reads the whole of it to find a
    batch's addresses. Its own look every minute comes too late for an import."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE leads_lead")


def _rows_left(job: ImportJob, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows that are not stored yet. To get there takes a while in a workbook, so the lease is renewed."""
    done = job.rows_done
    for skipped, row in enumerate(rows):
        if row.number > done:
            yield row
        elif skipped % _RENEW_EVERY_ROWS == 0:
            _advance(job)


def _store_batch(job: ImportJob, batch: list[Row], mapping: Mapping[str, str], percent: int) -> None:
    leads, rejected = read_rows(batch, mapping)
    arrival = Arrival(
        source=job.source,
        trigger_source=f"import:{job.source}"[:80],
        now=timezone.now(),
        priority=Item.Priority.IMPORT,
        job=job,
    )
    for tries_left in reversed(range(_BATCH_TRIES)):
        try:
            with transaction.atomic():
                landed = upsert_leads(department=job.department, rows=leads, arrival=arrival)
                _remark(job, rejected, landed)
                _advance(job, batch[-1].number, percent, len(rejected), landed)
            return
        except OperationalError:
            # Two transactions that lock each other's rows: the database ends one of them.
            if not tries_left:
                raise


def _remark(job: ImportJob, rejected: Iterable[tuple[int, str]], landed: Iterable[Landed]) -> None:
    kinds = ImportRemark.Kind
    remarks = [(kinds.REJECTED, number, reason) for number, reason in rejected]
    remarks += [(kinds.NOTE, one.number, note) for one in landed for note in one.notes]
    ImportRemark.objects.bulk_create(
        ImportRemark(job=job, kind=kind, row_number=number, text=text[:_MAX_REMARK]) for kind, number, text in remarks
    )


def _advance(
    job: ImportJob,
    rows_done: int | None = None,
    percent: int | None = None,
    rejected: int = 0,
    landed: Sequence[Landed] = (),
) -> None:
    """Write down how far the job is and renew the lease; ``LostLeaseError`` if it is not ours any more."""
    columns: dict[str, Any] = {"lease_expires_at": database.now() + timedelta(seconds=LEASE_SECONDS)}
    if rows_done is not None:
        columns |= {"rows_done": rows_done, "percent": percent, "attempts": 0}
        columns["rejected"] = F("rejected") + rejected
        for what in ("created", "merged", "unchanged"):
            columns[what] = F(what) + sum(one.what == what for one in landed)
    held = ImportJob.objects.filter(pk=job.pk, lease_token=job.lease_token, status=ImportJob.Status.RUNNING)
    if not held.update(**columns):
        raise LostLeaseError


def _make_due(job: ImportJob) -> None:
    """Make the staged leads due, some hundred at a time, so that no lock is held long."""
    while True:
        with transaction.atomic():
            staged = StagedLead.objects.filter(job=job).order_by("lead_id")
            ids = list(staged.values_list("lead_id", flat=True)[:BATCH_ROWS])
            if not ids:
                return
            items = Item.objects.filter(pk__in=ids)
            list(items.select_for_update().order_by("pk").values_list("pk", flat=True))
            now = timezone.now()
            items.filter(Q(route_due_at=None) | Q(route_due_at__gt=now)).update(route_due_at=now, changed_at=now)
            StagedLead.objects.filter(lead__in=ids).delete()
            _advance(job)


def _end(job: ImportJob, problem: str) -> None:
    status = ImportJob.Status.FAILED if problem else ImportJob.Status.DONE
    with transaction.atomic():
        ended = ImportJob.objects.filter(pk=job.pk, lease_token=job.lease_token).update(
            status=status,
            error=problem,
            percent=100 if not problem else F("percent"),
            lease_token=None,
            lease_expires_at=None,
            ended_at=timezone.now(),
        )
        if not ended:
            raise LostLeaseError
        job.refresh_from_db()
        LogEntry.objects.create(
            department=job.department,
            kind="import",
            level=LogEntry.Level.WARNING if problem else LogEntry.Level.INFO,
            text=f"Import of {job.file_name}: {job.created} new, {job.merged} merged, {job.unchanged} unchanged, "
            f"{job.rejected} rejected. {problem}".strip(),
            data={"import": job.pk},
            at=timezone.now(),
        )
    if job.origin == ImportJob.Origin.UPLOAD:
        job.path.unlink(missing_ok=True)


# --- Leases ------------------------------------------------------------------------------------------------


def _claim(job_id: int) -> ImportJob | None:
    now, token = database.now(), uuid.uuid4()
    claimed = (
        ImportJob.objects.filter(pk=job_id, status__in=ImportJob.ACTIVE)
        .filter(Q(lease_token=None) | Q(lease_expires_at__lt=now))
        .update(
            status=ImportJob.Status.RUNNING,
            lease_token=token,
            lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
            attempts=F("attempts") + 1,
        )
    )
    if not claimed:
        return None
    ImportJob.objects.filter(pk=job_id, started_at=None).update(started_at=now)
    return ImportJob.objects.select_related("department").get(pk=job_id)


def _look_again(job_id: int) -> None:
    """The queue forgets both presentations of a task when one of them ends. If the other one dies, this look finds
    its lease expired."""
    job = ImportJob.objects.filter(pk=job_id, status=ImportJob.Status.RUNNING).first()
    if job is not None and job.lease_expires_at is not None:
        moment = job.lease_expires_at + timedelta(seconds=5)
        schedule(IMPORT_TASK, job_id, schedule_type=Schedule.ONCE, next_run=moment)


def _hand_over(job: ImportJob) -> None:
    with transaction.atomic():
        if _release(job, error=""):
            _enqueue(job.pk)


def _put_back(job: ImportJob, error: Exception) -> None:
    with transaction.atomic():
        if _release(job, error=f"{type(error).__name__}: {error}"[:1_000]):
            _enqueue(job.pk)


def _release(job: ImportJob, *, error: str) -> int:
    return ImportJob.objects.filter(pk=job.pk, lease_token=job.lease_token).update(
        status=ImportJob.Status.WAITING,
        error=error,
        lease_token=None,
        lease_expires_at=database.now() + timedelta(seconds=CLAIM_WITHIN_SECONDS),
    )


def _give_up(job: ImportJob) -> None:
    _make_due(job)
    _end(job, f"Given up after {ImportJob.MAX_ATTEMPTS} tries at row {job.rows_done + 1}. {job.error}".strip())
