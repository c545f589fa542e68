"""Import jobs: made from an upload or a command, queued, held by one worker at a time, given back, thrown away.

One upload at a time is worked on, because each of them would take a place of the workers from the shifts. The
others wait, and whoever lets go of an import queues the next one.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_task, schedule

from agents.models import Department
from leads.models import ImportJob
from leads.reading import open_table
from runs import database

IMPORT_TASK = "leads.tasks.import_file"
LEASE_SECONDS = 60
TASK_TIMEOUT_SECONDS = 600
CLAIM_WITHIN_SECONDS = 600
"""How long a queued import may wait for a worker before it counts as stalled."""


class LostLeaseError(Exception):
    """Somebody else works on this import now; nothing more may be written."""


# --- Making and starting jobs ------------------------------------------------------------------------------


def store_upload(
    *, department: Department, user: User, chunks: Iterable[bytes], file_name: str, source: str
) -> ImportJob:
    """Keep an uploaded file under a name of our own and make a draft of it; ``ReadError`` if it is no table."""
    job = ImportJob(department=department, user=user, file_name=file_name[:200])
    job.source = (source or Path(file_name).name or "upload")[:80]
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


def start_job(*, job: ImportJob, examples_first: bool = False) -> bool:
    """Hand a draft to the queue; False if it was started already. ``examples_first``: see ``runs.examples``."""
    with transaction.atomic():
        started = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.DRAFT).update(
            status=ImportJob.Status.WAITING,
            examples_first=examples_first,
            lease_expires_at=database.now() + timedelta(seconds=CLAIM_WITHIN_SECONDS),
        )
        if started:
            enqueue(job.pk)
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
    """Queue uploads whose worker died or that no worker ever took; returns how many.

    What waits for another import to end is not stalled.
    """
    stalled = _active_uploads().filter(lease_expires_at__lt=database.now())
    if is_one_at_work():
        stalled = stalled.filter(status=ImportJob.Status.RUNNING)
    return sum(resume_job(job=job) for job in stalled)


def is_one_at_work() -> bool:
    """Whether a worker holds an upload now, so that the others have to wait."""
    return _active_uploads().filter(lease_token__isnull=False, lease_expires_at__gte=database.now()).exists()


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
            enqueue(job.pk)
    return bool(resumed)


def enqueue(job_id: int) -> None:
    """Queue the task that works on the import, in the transaction that made it wait."""
    async_task(IMPORT_TASK, job_id, timeout=TASK_TIMEOUT_SECONDS)


def enqueue_next() -> None:
    """Queue the waiting upload of which least is done, so that a small one need not sit out a large one.

    To be called in the transaction that lets go of an import: whoever found it held waits for this.
    """
    waiting = _active_uploads().filter(status=ImportJob.Status.WAITING)
    job_id = waiting.order_by("rows_done", "pk").values_list("pk", flat=True).first()
    if job_id is not None:
        enqueue(job_id)


def _active_uploads() -> QuerySet[ImportJob]:
    return ImportJob.objects.filter(origin=ImportJob.Origin.UPLOAD, status__in=ImportJob.ACTIVE)


# --- Leases ------------------------------------------------------------------------------------------------


def claim_job(job_id: int) -> ImportJob | None:
    """Take the job, with a new token; None if it has ended or somebody holds it or another upload."""
    with transaction.atomic():
        # All of them, in one order: of two workers that claim different uploads the second sees the first one's.
        list(_active_uploads().select_for_update().order_by("pk").values_list("pk", flat=True))
        if is_one_at_work():
            return None
        now = database.now()
        claimed = (
            ImportJob.objects.filter(pk=job_id, status__in=ImportJob.ACTIVE)
            .filter(Q(lease_token=None) | Q(lease_expires_at__lt=now))
            .update(
                status=ImportJob.Status.RUNNING,
                lease_token=uuid.uuid4(),
                lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
                attempts=F("attempts") + 1,
            )
        )
        if not claimed:
            return None
        ImportJob.objects.filter(pk=job_id, started_at=None).update(started_at=now)
    return ImportJob.objects.select_related("department").get(pk=job_id)


def look_again(job_id: int) -> None:
    """The queue forgets both presentations of a task when one of them ends. If the other one dies, this look finds
    its lease expired."""
    job = ImportJob.objects.filter(pk=job_id, status=ImportJob.Status.RUNNING).first()
    if job is not None and job.lease_expires_at is not None:
        moment = job.lease_expires_at + timedelta(seconds=5)
        schedule(IMPORT_TASK, job_id, schedule_type=Schedule.ONCE, next_run=moment)


def hand_over(job: ImportJob) -> None:
    """Let go of the job; the rest of it, or another one's turn, is queued."""
    with transaction.atomic():
        if _release(job, error=""):
            enqueue_next()


def put_back(job: ImportJob, error: Exception) -> None:
    """Let go of the job after an error, which is written down; it, or another one's turn, is queued."""
    with transaction.atomic():
        if _release(job, error=f"{type(error).__name__}: {error}"[:1_000]):
            enqueue_next()


def _release(job: ImportJob, *, error: str) -> int:
    return ImportJob.objects.filter(pk=job.pk, lease_token=job.lease_token).update(
        status=ImportJob.Status.WAITING,
        error=error,
        lease_token=None,
        lease_expires_at=database.now() + timedelta(seconds=CLAIM_WITHIN_SECONDS),
    )
