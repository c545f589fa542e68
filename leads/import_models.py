"""What is stored about an import: the job, what was remarked on its rows, and which leads wait for its end."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse

from agents.models import Department


def uploads_dir() -> Path:
    """Where uploaded files lie until their import has ended. Shared by the web server and the workers."""
    return Path(settings.BASE_DIR) / "var" / "uploads"


class ImportJob(models.Model):
    """One file of leads on its way in. A worker holds it by a lease and says after every batch how far it is."""

    class Status(models.TextChoices):
        DRAFT = "draft", "not started"
        WAITING = "waiting", "waiting for a worker"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"

    class Origin(models.TextChoices):
        UPLOAD = "upload", "uploaded"
        COMMAND = "command", "command line"

    ACTIVE = (Status.WAITING, Status.RUNNING)
    MAX_ATTEMPTS = 5
    """Claims without a batch in between; a file that kills its worker is then given up."""

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="imports")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.UPLOAD)
    status = models.CharField(max_length=8, choices=Status, default=Status.DRAFT)
    error = models.TextField(blank=True)
    source = models.CharField(max_length=80, help_text="Says where the leads come from; keys external ids.")
    file_name = models.CharField(max_length=200, help_text="As the person calls it; never used as a path.")
    file_key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    file_bytes = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the file.")
    mapping = models.JSONField(default=dict, blank=True, help_text="Column to field; empty: as recognised.")
    examples_first = models.BooleanField(
        default=False, help_text="Only the first leads are worked on until a person says go on; see runs.examples."
    )
    percent = models.PositiveSmallIntegerField(default=0)
    rows_done = models.PositiveIntegerField(default=0, help_text="Number of the last row that is stored.")
    created = models.PositiveIntegerField(default=0)
    merged = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["draft", "waiting", "running", "done", "failed"]),
                name="import_status_known",
            )
        ]
        indexes = [
            # importing.open_command_job: the same file again continues what was interrupted.
            models.Index(fields=["department", "digest"], name="import_by_digest"),
        ]

    def __str__(self) -> str:
        return self.file_name

    def get_absolute_url(self) -> str:
        """The page of the import: its preview while it is a draft, then its progress."""
        return reverse("leads:import_job", args=[self.pk])

    @property
    def path(self) -> Path:
        """Where an uploaded file lies."""
        return uploads_dir() / str(self.file_key)

    @property
    def usable(self) -> int:
        """Rows that are a lead now."""
        return self.created + self.merged + self.unchanged

    @property
    def is_active(self) -> bool:
        """Whether a worker has, or will have, something to do."""
        return self.status in self.ACTIVE


class ImportRemark(models.Model):
    """What has to be said about one row: why it was rejected, or what was left out of it."""

    class Kind(models.TextChoices):
        REJECTED = "rejected", "rejected"
        NOTE = "note", "note"

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="remarks", db_index=False)
    row_number = models.PositiveIntegerField(help_text="As in a spreadsheet: the header is row 1.")
    kind = models.CharField(max_length=8, choices=Kind)
    text = models.CharField(max_length=500)

    class Meta:
        indexes = [models.Index(fields=["job", "kind", "row_number"], name="import_remarks")]

    def __str__(self) -> str:
        return f"Row {self.row_number}: {self.text}"


class StagedLead(models.Model):
    """A lead that an import wrote and has not made due yet. A row goes in the transaction that makes it due."""

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="staged", db_index=False)
    lead = models.ForeignKey("leads.Lead", on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "lead"], name="one_staging_per_import")]

    def __str__(self) -> str:
        return f"lead {self.lead_id} of import {self.job_id}"
