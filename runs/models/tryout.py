from __future__ import annotations

import uuid
from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q

from agents.causes import Cause
from agents.models import Agent, Department, Soul
from runs.models.item import Item, Trigger
from runs.models.output import Output


class TryOut(models.Model):
    """One agent tried on one item, with a SOUL and a model that a person chose. Writes nothing but its own answer.

    Not a step: no run, output, log line or effect comes of it. Its model calls are in the accounts like any other.
    """

    class Status(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        STOPPED = "stopped", "stopped"

    ACTIVE = (Status.QUEUED, Status.RUNNING)
    TRANSITIONS: dict[str, tuple[str, ...]] = {
        Status.QUEUED: (Status.RUNNING, Status.FAILED, Status.STOPPED),
        Status.RUNNING: (Status.DONE, Status.FAILED, Status.STOPPED),
        Status.DONE: (),
        Status.FAILED: (),
        Status.STOPPED: (),
    }

    batch = models.UUIDField(default=uuid.uuid4, help_text="Those that were started together share it.")
    department = models.ForeignKey(Department, on_delete=models.PROTECT, related_name="try_outs")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="try_outs")
    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="try_outs")
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    soul = models.ForeignKey(
        Soul, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="Null: deleted since."
    )
    soul_name = models.CharField(max_length=40, help_text="What the SOUL was then: a number, or a draft.")
    sections = models.JSONField(help_text="The SOUL's text as it was tried: a draft may have changed since.")
    model = models.CharField(max_length=64)
    compared_with = models.ForeignKey(
        Output, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="What was current then."
    )
    bound_usd = models.DecimalField(max_digits=16, decimal_places=8, help_text="The most its first call can cost.")
    status = models.CharField(max_length=8, choices=Status, default=Status.QUEUED)
    payload = models.JSONField(null=True, blank=True, help_text="The answer, once it fits the schema.")
    cause = models.CharField(max_length=16, choices=Cause, blank=True, default=Cause.NONE)
    error = models.TextField(blank=True)
    trespasses = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=120, blank=True)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running", "done", "failed", "stopped"]), name="try_out_status_known"
            ),
            models.CheckConstraint(
                condition=~Q(status="running") | Q(lease_token__isnull=False, lease_expires_at__isnull=False),
                name="running_try_out_is_leased",
            ),
            models.CheckConstraint(
                condition=~Q(status="done") | Q(payload__isnull=False), name="done_try_out_answered"
            ),
        ]
        indexes = [
            # tryouts.claim and reap: the few that are not over.
            models.Index(fields=["id"], condition=Q(status__in=["queued", "running"]), name="try_out_active"),
            # the agent's page and the result's: the latest of an agent, those of one start.
            models.Index(fields=["agent", "-id"], name="try_out_by_agent"),
            models.Index(fields=["batch"], name="try_out_by_batch"),
        ]

    def __str__(self) -> str:
        return f"try-out {self.pk}"

    @property
    def is_active(self) -> bool:
        """Whether it is still to come to an end."""
        return self.status in self.ACTIVE

    def is_lost(self, now: datetime) -> bool:
        """Whether it says running but nobody holds it any more."""
        expires = self.lease_expires_at
        return self.status == self.Status.RUNNING and expires is not None and expires < now
