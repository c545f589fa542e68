from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q

from agents.causes import Cause
from agents.models import Agent, Department, Soul
from runs.models.item import Item, Trigger


class PipelineRun(models.Model):
    """The work on an item from the moment something is wanted until nothing is."""

    class Status(models.TextChoices):
        ACTIVE = "active", "active"
        COMPLETED = "completed", "completed"
        DEGRADED = "degraded", "degraded"
        CANCELLED = "cancelled", "cancelled"

    TRANSITIONS: dict[str, tuple[str, ...]] = {
        Status.ACTIVE: (Status.COMPLETED, Status.DEGRADED, Status.CANCELLED),
        Status.COMPLETED: (),
        Status.DEGRADED: (),
        Status.CANCELLED: (),
    }

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="pipeline_runs")
    status = models.CharField(max_length=12, choices=Status, default=Status.ACTIVE)
    cause = models.CharField(max_length=200, blank=True, help_text="What woke it, in words.")
    missing = models.TextField(
        blank=True, help_text="Of a degraded run: what is missing, what was done without it, what was left out."
    )
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["item"], condition=Q(status="active"), name="one_active_pipeline_run_per_item"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["active", "completed", "degraded", "cancelled"]),
                name="pipeline_run_status_known",
            ),
        ]
        indexes = [
            # The list of runs by status.
            models.Index(fields=["status", "-id"], name="pipeline_run_by_status"),
            # agent_health.count_hours: what has ended since it last looked.
            models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="pipeline_run_ended"),
        ]

    def __str__(self) -> str:
        return f"pipeline run {self.pk}"


class AgentRun(models.Model):
    """One agent working on one item for one occasion inside a pipeline run."""

    class Status(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"
        SUPERSEDED = "superseded", "superseded"

    ACTIVE = (Status.QUEUED, Status.RUNNING)
    TRANSITIONS: dict[str, tuple[str, ...]] = {
        Status.QUEUED: (Status.RUNNING, Status.CANCELLED, Status.FAILED),
        Status.RUNNING: (Status.QUEUED, Status.DONE, Status.FAILED, Status.CANCELLED),
        Status.FAILED: (Status.QUEUED, Status.SUPERSEDED),
        Status.DONE: (),
        Status.CANCELLED: (),
        Status.SUPERSEDED: (),
    }

    department = models.ForeignKey(Department, on_delete=models.PROTECT, related_name="agent_runs")
    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="agent_runs")
    # Found by the index below, which has the newest first.
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="runs", db_index=False)
    pipeline_run = models.ForeignKey(PipelineRun, on_delete=models.CASCADE, related_name="agent_runs")
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.CASCADE, related_name="agent_runs")
    soul = models.ForeignKey(Soul, null=True, blank=True, on_delete=models.PROTECT, related_name="runs")
    pinned_soul = models.ForeignKey(
        Soul,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        help_text="The SOUL a person chose for this run, instead of the published one.",
    )
    pinned_model = models.CharField(max_length=64, blank=True, help_text="The model a person chose for this run.")
    status = models.CharField(max_length=12, choices=Status, default=Status.QUEUED)
    why = models.CharField(max_length=300, help_text="The decision that started it, in words.")
    priority = models.PositiveSmallIntegerField(default=Item.Priority.NORMAL)
    due_at = models.DateTimeField()
    waiting_for = models.CharField(max_length=300, blank=True)
    waiting_since = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0, help_text="How often it was claimed.")
    failures = models.PositiveIntegerField(default=0, help_text="Errors of its own; lost leases and waits not counted.")
    lost_leases = models.PositiveIntegerField(default=0)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    trespasses = models.PositiveIntegerField(default=0, help_text="Answers refused for keys outside the role.")
    cause = models.CharField(max_length=16, choices=Cause, blank=True, default=Cause.NONE)
    error = models.TextField(blank=True)
    incident = models.ForeignKey(
        "runs.Review",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="affected_runs",
        db_index=False,
        help_text="The question about its failure: its own, or one for many of the same cause.",
    )
    cost_usd = models.DecimalField(max_digits=16, decimal_places=8, default=0)
    queued_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True, help_text="Of the latest attempt.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # The database is the only referee that several workers share.
            models.UniqueConstraint(
                fields=["item", "agent"],
                condition=Q(status__in=["queued", "running"], trigger=None),
                name="one_active_agent_run_per_item",
            ),
            models.UniqueConstraint(
                fields=["item", "agent", "trigger"],
                condition=Q(status__in=["queued", "running"], trigger__isnull=False),
                name="one_active_agent_run_per_trigger",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running", "done", "failed", "cancelled", "superseded"]),
                name="agent_run_status_known",
            ),
            models.CheckConstraint(
                condition=~Q(status="running") | Q(lease_token__isnull=False, lease_expires_at__isnull=False),
                name="running_means_leased",
            ),
        ]
        indexes = [
            # shift claims: the next due runs by priority.
            models.Index(fields=["priority", "due_at"], condition=Q(status="queued"), name="agent_run_due"),
            # leases.is_starving: the few that may only be claimed alone; no other run pays for it.
            models.Index(
                fields=["priority", "due_at"], condition=Q(status="queued", lost_leases__gte=2), name="agent_run_alone"
            ),
            # leases.reap: expired leases.
            models.Index(fields=["lease_expires_at"], condition=Q(status="running"), name="agent_run_leased"),
            models.Index(fields=["department", "status", "-id"], name="agent_run_by_status"),
            # The list of steps by agent, and whatever else finds the runs of one.
            models.Index(fields=["agent", "-id"], name="agent_run_by_agent"),
            # The list of steps by cause, and the next failure: the few that did not go well.
            models.Index(fields=["cause", "-id"], condition=~Q(cause=""), name="agent_run_by_cause"),
            # agent_health.count_hours: what has ended since it last looked.
            models.Index(fields=["ended_at"], condition=Q(status__in=["done", "failed"]), name="agent_run_ended"),
            # agent_figures: the few runs whose answers went outside the role; no other run pays for it.
            models.Index(fields=["agent", "queued_at"], condition=Q(trespasses__gt=0), name="agent_run_trespassed"),
            # incidents: the few runs of one incident; no other run pays for it.
            models.Index(fields=["incident"], condition=Q(incident__isnull=False), name="agent_run_of_incident"),
        ]

    def __str__(self) -> str:
        return f"agent run {self.pk}"

    def is_lost(self, now: datetime) -> bool:
        """Whether it says running but nobody holds it any more."""
        return bool(
            self.status == self.Status.RUNNING and self.lease_expires_at is not None and self.lease_expires_at < now
        )


class StatusCount(models.Model):
    """How many rows of a department had a status when they were last counted: the lists are too long to count."""

    class Rows(models.TextChoices):
        PIPELINE_RUNS = "pipeline_run", "pipeline runs"
        AGENT_RUNS = "agent_run", "agent runs"

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="status_counts")
    rows = models.CharField(max_length=16, choices=Rows)
    status = models.CharField(max_length=12)
    count = models.PositiveBigIntegerField(default=0)
    counted_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["department", "rows", "status"], name="status_counted_once"),
        ]

    def __str__(self) -> str:
        return f"{self.count} {self.rows} {self.status}"
