"""Imports: a file of leads is stored in batches and made due at the end.

A batch is one transaction: leads, remarks, and how far the job is. Whoever works on a job holds it by a lease and
a token; without the token nothing is written. An import that is killed is continued by its task, which comes again,
by ``resume_stalled``, or by the same command; its leads are staged until then and not lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from leads.decoding import ReadError
from leads.import_jobs import (
    LEASE_SECONDS,
    LostLeaseError,
    claim_job,
    enqueue_next,
    hand_over,
    look_again,
    put_back,
)
from leads.intake import Arrival, Landed, upsert_leads
from leads.mapping import LeadRow, MappingError, RowError, check_mapping, read_lead
from leads.models import ImportJob, ImportRemark, StagedLead
from leads.reading import Row, Table, open_table
from runs import database, examples
from runs.models import Item, LogEntry
from runs.stopping import is_stopping

BATCH_ROWS = 500
SLICE_SECONDS = 40
"""How long one task works before it hands over: well within the queue's ``retry``."""
_BATCH_TRIES = 3
_RENEW_EVERY_ROWS = 5_000
_MAX_REMARK = 500
_ANALYSE_AFTER = (4, 16, 64, 256, 1_024)
"""Batches of a slice."""

logger = logging.getLogger(__name__)


def work_on(job_id: int, *, seconds: float = SLICE_SECONDS) -> None:
    """What the task does: work for a while, then queue the rest. Presented twice, the second one only looks again
    when the first one's lease would have run out."""
    job = claim_job(job_id)
    if job is None:
        look_again(job_id)
        return
    try:
        if job.attempts > ImportJob.MAX_ATTEMPTS:
            is_ended = _give_up(job)
        else:
            is_ended = run_import(job, job.path, seconds=seconds)
        if not is_ended:
            hand_over(job)
    except LostLeaseError:
        logger.warning("Import %s is worked on by somebody else.", job_id)
    except Exception as error:
        put_back(job, error)
        raise


def run_import(job: ImportJob, path: Path, *, seconds: float | None = None) -> bool:
    """Store the rows of a claimed job and make them due; False if the time was up, or the worker was told to stop,
    before the end.

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
    if not _make_due(job):
        return False
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
        if is_stopping() or (deadline is not None and time.monotonic() > deadline):
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


def _make_due(job: ImportJob) -> bool:
    """Make the staged leads due, some hundred at a time, so that no lock is held long; False if told to stop."""
    while not is_stopping():
        with transaction.atomic():
            staged = StagedLead.objects.filter(job=job).order_by("lead_id")
            ids = list(staged.values_list("lead_id", flat=True)[:BATCH_ROWS])
            if not ids:
                return True
            items = Item.objects.filter(pk__in=ids)
            list(items.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
            now = timezone.now()
            held = examples.hold_back(job.department, ids, user=job.user, now=now) if job.examples_first else []
            due = items.exclude(pk__in=held).filter(Q(route_due_at=None) | Q(route_due_at__gt=now))
            due.update(route_due_at=now, changed_at=now)
            StagedLead.objects.filter(lead__in=ids).delete()
            _advance(job)
    return False


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
        if job.origin == ImportJob.Origin.UPLOAD:
            enqueue_next()
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


def _give_up(job: ImportJob) -> bool:
    """End a job that fails again and again; False if told to stop before its leads were due."""
    if not _make_due(job):
        return False
    _end(job, f"Given up after {ImportJob.MAX_ATTEMPTS} tries at row {job.rows_done + 1}. {job.error}".strip())
    return True
