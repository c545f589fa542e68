from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.db import models
from django.db.models import DateTimeField, F, Q, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from agents.models import Department
from runs.models.item import Item, Trigger
from runs.models.output import Output
from runs.models.run import AgentRun

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""Where a question without a deadline stands in the order."""
DUE = Coalesce("deadline", Value(NEVER, output_field=DateTimeField()))


class Review(models.Model):
    """One question to a person, with a deadline."""

    class Kind(models.TextChoices):
        DRAFT = "draft", "draft to approve"
        DEGRADED = "degraded", "run that ended degraded"
        FAILURE = "failure", "failure"
        INCIDENT = "incident", "incident"
        REFUSAL = "refusal", "refusal"
        LOW_CONFIDENCE = "low_confidence", "low confidence"
        UNSURE_SEND = "unsure_send", "unsure send"
        BUDGET = "budget", "budget"
        STOP_THE_LINE = "stop_the_line", "stop the line"
        FELL_THROUGH = "fell_through", "fell through"

    class Status(models.TextChoices):
        OPEN = "open", "open"
        ANSWERED = "answered", "answered"
        WITHDRAWN = "withdrawn", "withdrawn"

    TRANSITIONS: dict[str, tuple[str, ...]] = {
        Status.OPEN: (Status.ANSWERED, Status.WITHDRAWN),
        Status.ANSWERED: (Status.OPEN,),  # an answer that is taken back
        Status.WITHDRAWN: (),
    }

    class Answer(models.TextChoices):
        APPROVE = "approve", "approved"
        APPROVE_EDITED = "approve_edited", "approved with changes"
        SEND_BACK = "send_back", "sent back"
        REJECT = "reject", "rejected"
        CORRECT = "correct", "corrected"
        TAKE_OVER = "take_over", "taken over"
        RETRY = "retry", "retried"
        ACCEPT = "accept", "gone on without"
        WAS_SENT = "was_sent", "had been sent"
        NOT_SENT = "not_sent", "had not been sent"
        DISMISS = "dismiss", "put aside"

    APPROVALS = (Answer.APPROVE, Answer.APPROVE_EDITED)
    """Answers after which the output may be used."""

    class AtDeadline(models.TextChoices):
        """What happens by itself at the deadline. Never: send."""

        NOTHING = "nothing", "nothing happens"
        REMIND = "remind", "people are reminded"
        ESCALATE = "escalate", "it goes up the chain of command"
        REJECT = "reject", "it is rejected"

    class ReasonCode(models.TextChoices):
        """Why something was rejected or sent back, as it is counted."""

        FACTS = "facts", "wrong or unsupported facts"
        TONE = "tone", "wrong tone"
        PERSON = "person", "wrong person or company"
        TIMING = "timing", "wrong moment"
        OFFER = "offer", "wrong offer"
        LENGTH = "length", "too long or too short"
        OTHER = "other", "something else"

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
    risk_why = models.CharField(max_length=300, blank=True, help_text="The risk rules that raised it.")
    outbox = models.ForeignKey(
        "runs.OutboxMessage",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="reviews",
        db_index=False,
        help_text="The message it asks about, if that may have been sent.",
    )
    status = models.CharField(max_length=10, choices=Status, default=Status.OPEN)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    deadline = models.DateTimeField(null=True, blank=True)
    at_deadline = models.CharField(max_length=12, choices=AtDeadline, default=AtDeadline.REMIND)
    reminded_at = models.DateTimeField(null=True, blank=True, help_text="When the deadline was last acted upon.")
    snoozed_until = models.DateTimeField(null=True, blank=True, help_text="Off the list until then.")
    group = models.ForeignKey(
        "runs.DraftGroup",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="reviews",
        db_index=False,
        help_text="The drafts that this one is like.",
    )
    answer = models.CharField(max_length=20, blank=True, choices=Answer)
    answer_note = models.TextField(blank=True)
    reason_code = models.CharField(max_length=12, blank=True, choices=ReasonCode)
    edited = models.ForeignKey(
        Output,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        help_text="What a person made of the output: an edited mail, a corrected classification.",
    )
    by_rule = models.ForeignKey(
        "runs.AutoApproval",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="reviews",
        db_index=False,
        help_text="The rule that answered it instead of a person, or that left it to one as a sample.",
    )
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
            models.UniqueConstraint(
                fields=["item", "kind"],
                condition=Q(status="open", kind__in=["degraded", "fell_through"]),
                name="one_open_review_per_item_and_kind",
            ),
            models.UniqueConstraint(
                fields=["item"],
                condition=Q(status="open", kind="budget", item__isnull=False),
                name="one_open_budget_review_per_item",
            ),
            models.UniqueConstraint(
                fields=["outbox"],
                condition=Q(status="open", outbox__isnull=False),
                name="one_open_review_per_outbox_message",
            ),
        ]
        indexes = [
            # review_queue.act_on_deadlines.
            models.Index(fields=["deadline"], condition=Q(status="open"), name="review_deadline"),
            # review_figures: the latest answers of several departments, without sorting all of the last month.
            models.Index(fields=["-answered_at"], condition=Q(status="answered"), name="review_answered_lately"),
            # the auto-approval's look at recent answers.
            models.Index(fields=["department", "-answered_at"], condition=Q(status="answered"), name="review_answered"),
            # the badge of the menu, and what needs a person.
            models.Index(fields=["department", "-risk", "deadline"], condition=Q(status="open"), name="review_open"),
            # review_queue.in_order: the first questions of one or of several departments, without sorting all.
            models.Index(F("risk").desc(), DUE, "id", condition=Q(status="open"), name="review_in_order"),
            # snoozing.wake_due: what comes back to the list.
            models.Index(
                fields=["snoozed_until"],
                condition=Q(status="open", snoozed_until__isnull=False),
                name="review_snoozed",
            ),
            # alike.count_alike, and the page of drafts that are alike.
            models.Index(fields=["group"], condition=Q(status="open", group__isnull=False), name="review_group"),
        ]

    def __str__(self) -> str:
        return self.ask


class RiskRule(models.Model):
    """When an item looks like this, a draft about it has at least this risk. Clauses as in ``Rule``."""

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="risk_rules")
    position = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=120)
    when = models.JSONField(default=dict, help_text="Clauses on the item's facts; see runs.risk for its own marks.")
    risk = models.PositiveSmallIntegerField(default=3, help_text="1 low, 2 medium, 3 high.")
    is_enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("position", "pk")
        constraints = [
            models.UniqueConstraint(fields=["department", "name"], name="risk_rule_named_once"),
            models.CheckConstraint(condition=Q(risk__in=[1, 2, 3]), name="risk_known"),
        ]

    def __str__(self) -> str:
        return self.name


class AutoApproval(models.Model):
    """Drafts of one agent that need no person, but for a sample. Off until an administrator switches it on."""

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="auto_approvals")
    agent = models.ForeignKey("agents.Agent", on_delete=models.CASCADE, related_name="auto_approvals")
    name = models.CharField(max_length=120)
    when = models.JSONField(default=dict, help_text="Clauses on the item's facts, for example a tier.")
    max_risk = models.PositiveSmallIntegerField(default=1)
    sample_percent = models.PositiveSmallIntegerField(default=10, help_text="So many of 100 still go to a person.")
    is_enabled = models.BooleanField(default=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_why = models.CharField(max_length=300, blank=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["department", "name"], name="auto_approval_named_once"),
            models.CheckConstraint(condition=Q(sample_percent__lte=100), name="sample_is_a_share"),
            models.CheckConstraint(
                condition=Q(is_enabled=False) | Q(revoked_at=None), name="revoked_auto_approval_is_off"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class SendBack(models.Model):
    """What a person wants done differently: an input of the next run that writes the key for the occasion."""

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="send_backs")
    key = models.SlugField(help_text="What is to be written again.")
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.CASCADE, related_name="send_backs")
    review = models.ForeignKey(Review, null=True, blank=True, on_delete=models.SET_NULL, related_name="send_backs")
    output = models.ForeignKey(
        Output, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="What was sent back."
    )
    note = models.TextField()
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["item", "key"], name="send_back_of_item")]

    def __str__(self) -> str:
        return self.note


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
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        indexes = [
            # the action log: newest first, by department or by person.
            models.Index(fields=["department", "-id"], name="action_by_department"),
            models.Index(fields=["user", "-id"], name="action_by_user"),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.target}"


class BulkAction(models.Model):
    """One verb on many items, with progress and abort."""

    class Status(models.TextChoices):
        RUNNING = "running", "running"
        DONE = "done", "done"
        ABORTED = "aborted", "aborted"

    TRANSITIONS: dict[str, tuple[str, ...]] = {
        Status.RUNNING: (Status.DONE, Status.ABORTED),
        Status.DONE: (),
        Status.ABORTED: (),
    }

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
