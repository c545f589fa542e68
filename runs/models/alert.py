from __future__ import annotations

from django.db import models
from django.db.models import Q

from agents.models import Department
from runs.models.item import Item
from runs.models.run import AgentRun


class Alert(models.Model):
    """Something a person must hear of: what, where, since when, what happens next. One row as long as it lasts."""

    class Kind(models.TextChoices):
        FAILURE = "failure", "failure"
        STOP_THE_LINE = "stop_the_line", "stop the line"
        BREAKER = "breaker", "model not working"
        BUDGET = "budget", "budget"
        SYSTEM = "system", "system"

    class State(models.TextChoices):
        OPEN = "open", "open"
        CLOSED = "closed", "closed"

    department = models.ForeignKey(
        Department, null=True, blank=True, on_delete=models.CASCADE, related_name="alerts", help_text="Null: all."
    )
    key = models.CharField(max_length=200, help_text="What is the same alert; one of a key is open at a time.")
    kind = models.CharField(max_length=16, choices=Kind)
    text = models.TextField(help_text="The latest news of it.")
    next_step = models.CharField(max_length=300, blank=True, help_text="What happens next, by itself or by whom.")
    link = models.CharField(max_length=300, blank=True, help_text="Path of the page to look at.")
    item = models.ForeignKey(Item, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    agent_run = models.ForeignKey(AgentRun, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    count = models.PositiveIntegerField(default=1)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # Two constraints, because two nulls are never the same. Whoever raises an alert is alone with its key.
            models.UniqueConstraint(
                fields=["department", "key"],
                condition=Q(state="open", department__isnull=False),
                name="one_open_alert_per_department_and_key",
            ),
            models.UniqueConstraint(
                fields=["key"], condition=Q(state="open", department=None), name="one_open_alert_of_all_per_key"
            ),
            models.CheckConstraint(condition=Q(state__in=["open", "closed"]), name="alert_state_known"),
        ]
        indexes = [models.Index(fields=["department", "-last_at"], condition=Q(state="open"), name="alert_open")]

    def __str__(self) -> str:
        return self.text


class AlertDelivery(models.Model):
    """The news of an alert on its way to one target, such as ``slack`` or ``email:ops@acme.example``."""

    class Status(models.TextChoices):
        QUEUED = "queued", "queued"
        SENDING = "sending", "being sent"
        SENT = "sent", "sent"
        FAILED = "failed", "not delivered"

    PENDING = (Status.QUEUED, Status.SENDING)

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="deliveries")
    target = models.CharField(max_length=200)
    status = models.CharField(max_length=8, choices=Status, default=Status.QUEUED)
    due_at = models.DateTimeField()
    attempt = models.PositiveIntegerField(default=0)
    told_count = models.PositiveIntegerField(default=0, help_text="The alert's count when it was told.")
    error = models.TextField(blank=True, help_text="Of the latest attempt.")
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "alert deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["alert", "target"],
                condition=Q(status__in=["queued", "sending"]),
                name="one_pending_delivery_per_alert_and_target",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "sending", "sent", "failed"]), name="alert_delivery_status_known"
            ),
            models.CheckConstraint(
                condition=~Q(status="sending") | Q(lease_token__isnull=False, lease_expires_at__isnull=False),
                name="sending_means_leased",
            ),
        ]
        indexes = [
            # alerts.claim: what is due.
            models.Index(
                fields=["due_at"], condition=Q(status__in=["queued", "sending"]), name="alert_delivery_pending"
            ),
            # alerts.claim: when the target was last told anything.
            models.Index(fields=["target", "-ended_at"], name="alert_delivery_by_target"),
        ]

    def __str__(self) -> str:
        return f"alert {self.alert_id} to {self.target}"
