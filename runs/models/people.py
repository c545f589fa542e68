from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from agents.models import Department
from runs.models.item import Item
from runs.models.output import Output
from runs.models.run import AgentRun


class Review(models.Model):
    """One question to a person, with a deadline."""

    class Kind(models.TextChoices):
        DRAFT = "draft", "draft to approve"
        DEGRADED = "degraded", "run that ended degraded"
        FAILURE = "failure", "failure"
        INCIDENT = "incident", "incident"
        REFUSAL = "refusal", "refusal"
        LOW_CONFIDENCE = "low_confidence", "low confidence"
        UNSUPPORTED_CLAIM = "unsupported_claim", "unsupported claim"
        UNSURE_SEND = "unsure_send", "unsure send"
        BUDGET = "budget", "budget"
        STOP_THE_LINE = "stop_the_line", "stop the line"
        FELL_THROUGH = "fell_through", "fell through"

    class Status(models.TextChoices):
        OPEN = "open", "open"
        ANSWERED = "answered", "answered"
        WITHDRAWN = "withdrawn", "withdrawn"

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="reviews")
    item = models.ForeignKey(Item, null=True, blank=True, on_delete=models.CASCADE, related_name="reviews")
    output = models.ForeignKey(
        Output, null=True, blank=True, on_delete=models.CASCADE, related_name="reviews", help_text="What it asks about."
    )
    agent_run = models.ForeignKey(AgentRun, null=True, blank=True, on_delete=models.SET_NULL, related_name="reviews")
    kind = models.CharField(max_length=20, choices=Kind)
    cause = models.CharField(max_length=200, blank=True, help_text="Failures of one cause are one review.")
    count = models.PositiveIntegerField(default=1)
    ask = models.CharField(max_length=500)
    risk = models.PositiveSmallIntegerField(default=1, help_text="1 low, 2 medium, 3 high.")
    status = models.CharField(max_length=10, choices=Status, default=Status.OPEN)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    deadline = models.DateTimeField(null=True, blank=True)
    at_deadline = models.CharField(max_length=12, default="remind")
    answer = models.CharField(max_length=20, blank=True)
    answer_note = models.TextField(blank=True)
    answered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["open", "answered", "withdrawn"]), name="review_status_known"
            ),
            models.UniqueConstraint(
                fields=["output", "kind"],
                condition=Q(status="open", output__isnull=False),
                name="one_open_review_per_output_and_kind",
            ),
            models.UniqueConstraint(
                fields=["department", "cause"],
                condition=Q(status="open", kind="incident"),
                name="one_open_incident_per_cause",
            ),
        ]
        indexes = [
            # the review queue: by risk, then deadline.
            models.Index(fields=["department", "-risk", "deadline"], condition=Q(status="open"), name="review_open")
        ]

    def __str__(self) -> str:
        return self.ask


class Action(models.Model):
    """One thing a person did: who, what, when, before, after, why."""

    department = models.ForeignKey(Department, null=True, blank=True, on_delete=models.CASCADE, related_name="actions")
    item = models.ForeignKey(Item, null=True, blank=True, on_delete=models.CASCADE, related_name="actions")
    bulk = models.ForeignKey("runs.BulkAction", null=True, blank=True, on_delete=models.CASCADE, related_name="actions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    verb = models.SlugField()
    target = models.CharField(max_length=120, blank=True, help_text="What it was done to, for example review:12.")
    before = models.JSONField(default=dict, blank=True)
    after = models.JSONField(default=dict, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.verb} {self.target}"


class BulkAction(models.Model):
    """One verb on many items, with progress and abort."""

    class Status(models.TextChoices):
        RUNNING = "running", "running"
        DONE = "done", "done"
        ABORTED = "aborted", "aborted"

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="bulk_actions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    verb = models.SlugField()
    selection = models.JSONField(help_text="The filter that chose the items; never empty.")
    arguments = models.JSONField(default=dict, blank=True)
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    refused = models.JSONField(default=dict, blank=True, help_text="Item id to the reason it was left out.")
    status = models.CharField(max_length=8, choices=Status, default=Status.RUNNING)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.verb} on {self.total}"
