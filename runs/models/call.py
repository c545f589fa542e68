from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from agents.causes import Cause
from agents.models import Agent, Department, ModelPrice, Soul
from runs.models.item import Item
from runs.models.run import AgentRun
from runs.models.tryout import TryOut


class ModelCall(models.Model):
    """One request to the model API. Tokens are as reported; cost is computed from them by ``price``.

    Of a stream that was cut the prompt is as reported, and the output as much as was seen: an estimate.
    A check (``manage.py doctor --live``) belongs to no item, no step and no try-out.
    """

    class Status(models.TextChoices):
        STARTED = "started", "under way"
        FINISHED = "finished", "finished"
        UNSEEN = "unseen", "end not seen"

    class Rolled(models.TextChoices):
        """A call that was given up as unseen may still be settled, and one that was of use may prove to have been of
        none: then it is rolled up once more."""

        NOT = "", "not yet"
        UNSEEN = "unseen", "as unseen"
        USED = "used", "as used, and it was of no use"
        DONE = "done", "as settled"

    department = models.ForeignKey(Department, on_delete=models.PROTECT, related_name="model_calls")
    item = models.ForeignKey(
        Item, null=True, blank=True, on_delete=models.CASCADE, related_name="model_calls", help_text="Null: a check."
    )
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="model_calls")
    agent_run = models.ForeignKey(
        AgentRun, null=True, blank=True, on_delete=models.CASCADE, related_name="model_calls", help_text="Whose step."
    )
    # Found by the unique constraint below, which holds the few calls that have one.
    try_out = models.ForeignKey(
        TryOut,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="model_calls",
        db_index=False,
        help_text="Of calls that belong to no step: whose try-out.",
    )
    soul = models.ForeignKey(Soul, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    call_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    attempt = models.PositiveIntegerField()
    number = models.PositiveIntegerField(default=1, help_text="Which call of its attempt.")
    worker = models.CharField(max_length=120, blank=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.STARTED)
    model_asked = models.CharField(max_length=64)
    model_used = models.CharField(max_length=64, blank=True)
    input_tokens = models.PositiveIntegerField(default=0, help_text="Uncached part of the prompt.")
    cache_write_5m_tokens = models.PositiveIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveIntegerField(default=0)
    cache_read_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0, help_text="Thinking included.")
    thinking_tokens = models.PositiveIntegerField(default=0)
    price = models.ForeignKey(ModelPrice, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    reserved_usd = models.DecimalField(max_digits=16, decimal_places=8, default=0)
    reserved_tokens = models.PositiveIntegerField(default=0)
    reserved_in = models.JSONField(default=list, help_text="Ids of the budget periods that hold the reservation.")
    cost_usd = models.DecimalField(max_digits=16, decimal_places=8, default=0)
    is_estimate = models.BooleanField(default=False, help_text="The end was not seen: the cost is a bound.")
    cause = models.CharField(max_length=16, choices=Cause, blank=True, default="")
    error = models.TextField(
        blank=True,
        help_text="What was wrong with the call, or why its answer was of no use. Empty with no cause: used.",
    )
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    stop_reason = models.CharField(max_length=40, blank=True)
    request_id = models.CharField(max_length=120, blank=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    first_token_ms = models.PositiveIntegerField(null=True, blank=True)
    rolled = models.CharField(
        max_length=6, choices=Rolled, blank=True, default=Rolled.NOT, help_text="As what it is in the rollups of costs."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["started", "finished", "unseen"]), name="model_call_status_known"
            ),
            models.UniqueConstraint(fields=["agent_run", "attempt", "number"], name="model_call_numbered"),
            models.UniqueConstraint(
                fields=["try_out", "number"], condition=Q(try_out__isnull=False), name="model_call_of_try_out"
            ),
            models.CheckConstraint(
                condition=Q(agent_run__isnull=False, try_out=None, item__isnull=False)
                | Q(agent_run=None, try_out__isnull=False, item__isnull=False)
                | Q(agent_run=None, try_out=None, item=None),
                name="model_call_belongs_to_one",
            ),
        ]
        indexes = [
            models.Index(fields=["department", "started_at"], name="model_call_by_day"),
            # cost_unrolled: settled calls that are not in the rollups as they are now.
            models.Index(
                fields=["id"],
                condition=Q(rolled="", status__in=["finished", "unseen"])
                | Q(rolled="unseen", status="finished")
                | Q(rolled="used", status="finished"),
                name="model_call_to_roll",
            ),
        ]

    def __str__(self) -> str:
        return str(self.call_id)

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt, cache reads and writes included."""
        written = self.cache_write_5m_tokens + self.cache_write_1h_tokens
        return self.input_tokens + written + self.cache_read_tokens


class ModelCallBody(models.Model):
    """Exact request and exact response; apart from the accounts, so that they can be pruned or erased."""

    call = models.OneToOneField(ModelCall, on_delete=models.CASCADE, primary_key=True, related_name="body")
    request = models.JSONField()
    response = models.JSONField(null=True, blank=True)

    def __str__(self) -> str:
        return f"bodies of {self.call_id}"


class ToolCall(models.Model):
    """One read-only tool used inside an agent run or a try-out."""

    agent_run = models.ForeignKey(
        AgentRun,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="tool_calls",
        help_text="Null: a try-out's.",
    )
    model_call = models.ForeignKey(ModelCall, on_delete=models.CASCADE, related_name="tool_calls")
    name = models.SlugField()
    arguments = models.JSONField()
    result = models.TextField(blank=True)
    is_error = models.BooleanField(default=False)
    detail = models.JSONField(default=dict, blank=True)
    started_at = models.DateTimeField()
    latency_ms = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.name} in call {self.model_call_id}"
