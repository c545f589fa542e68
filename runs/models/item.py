from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse

from agents.models import Department


class Item(models.Model):
    """One piece of work on a department's desk: what the engine knows of a lead."""

    class Automation(models.TextChoices):
        ACTIVE = "active", "active"
        PAUSED = "paused", "paused"
        TAKEN_OVER = "taken_over", "taken over"
        CLOSED = "closed", "closed"

    TRANSITIONS: dict[str, tuple[str, ...]] = {
        Automation.ACTIVE: (Automation.PAUSED, Automation.TAKEN_OVER, Automation.CLOSED),
        Automation.PAUSED: (Automation.ACTIVE, Automation.TAKEN_OVER, Automation.CLOSED),
        Automation.TAKEN_OVER: (Automation.ACTIVE, Automation.CLOSED),
        Automation.CLOSED: (Automation.ACTIVE,),
    }
    """Of the automation; the status is the kind's own."""

    class Priority(models.IntegerChoices):
        """Smaller is sooner. Between these the kind may choose, by ``SetItem(priority)``."""

        PERSON = 0, "a person waits"
        PROSPECT = 10, "a prospect waits"
        NORMAL = 50, "normal"
        IMPORT = 90, "imported in bulk"

    ERASED = "erased"
    """The tag of an item whose person was erased: nobody gives or takes it, and nothing is done to the item again."""

    department = models.ForeignKey(Department, on_delete=models.PROTECT, related_name="items")
    title = models.CharField(max_length=300)
    status = models.SlugField(default="new")
    priority = models.PositiveSmallIntegerField(default=Priority.NORMAL)
    tags = models.JSONField(default=list, blank=True)
    flag = models.CharField(max_length=300, blank=True, help_text="What a person should know before anything else.")
    route_due_at = models.DateTimeField(null=True, blank=True, help_text="Null: there is nothing to decide.")
    automation = models.CharField(max_length=12, choices=Automation, default=Automation.ACTIVE)
    automation_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    automation_reason = models.CharField(max_length=300, blank=True)
    automation_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(automation__in=["active", "paused", "taken_over", "closed"]), name="item_automation_known"
            )
        ]
        indexes = [
            # dispatch.due_items: the shifts look here ten times a second.
            models.Index(
                fields=["priority", "route_due_at"],
                condition=Q(route_due_at__isnull=False, automation="active"),
                name="item_due",
            ),
            # control.resume_due: every few seconds, items that go on by themselves.
            models.Index(fields=["automation_until"], condition=Q(automation_until__isnull=False), name="item_goes_on"),
            models.Index(fields=["department", "status", "-id"], name="item_by_status"),
            # overview, list of leads: how many have each status, counted in a tenth of the pages of the one above.
            models.Index(fields=["department", "status"], name="item_counted"),
            models.Index(fields=["department", "-id"], name="item_newest"),
            # lists: where something has happened last.
            models.Index(fields=["department", "-changed_at", "-id"], name="item_last_changed"),
            # lists of several departments: the same order, and what is due next.
            models.Index(fields=["-changed_at", "-id"], name="item_last_changed_of_all"),
            models.Index(
                fields=["route_due_at", "id"], condition=Q(route_due_at__isnull=False), name="item_due_next_of_all"
            ),
            # overview, undecided alerts: the few that a person should look at.
            models.Index(fields=["department", "-id"], condition=~Q(flag=""), name="item_flagged"),
            # examples: those that wait for a person's word.
            models.Index(fields=["department", "id"], condition=Q(automation="paused"), name="item_paused"),
        ]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        """The kind's own page for its item."""
        return reverse(self.department.spec.item_url_name, args=[self.pk])

    @property
    def is_erased(self) -> bool:
        """Whether nothing is left of its person; see ``runs.erasure``."""
        return self.ERASED in self.tags


class Trigger(models.Model):
    """Something that happened and is recorded. It stays open until it has been handled, if it wants an answer."""

    class Kind(models.TextChoices):
        CREATED = "created", "created"
        REPLY = "reply", "reply"
        FOLLOW_UP = "follow_up", "follow-up"
        DECISION = "decision", "decision"
        SCHEDULE = "schedule", "schedule"
        OPERATOR = "operator", "operator"
        RESUME = "resume", "resume"

    class Status(models.TextChoices):
        OPEN = "open", "open"
        HANDLED = "handled", "handled"
        NOTED = "noted", "noted"

    TRANSITIONS: dict[str, tuple[str, ...]] = {
        Status.OPEN: (Status.HANDLED, Status.NOTED),
        Status.HANDLED: (Status.OPEN,),  # what was made for it is to be made again
        Status.NOTED: (),
    }

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="triggers")
    kind = models.CharField(max_length=12, choices=Kind)
    status = models.CharField(max_length=8, choices=Status, default=Status.OPEN)
    source = models.CharField(max_length=80, blank=True, help_text="Where it came from, for example webhook:sales.")
    delivery_id = models.CharField(max_length=200, blank=True)
    payload = models.JSONField(default=dict, blank=True)
    raw_body = models.TextField(blank=True, help_text="The body of the webhook, byte for byte as it came (UTF-8).")
    due_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_note = models.CharField(max_length=300, blank=True, help_text="What handled it, or why it was noted.")
    handled_by_run = models.ForeignKey(
        "runs.AgentRun", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    handled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["source", "delivery_id"], condition=~Q(delivery_id=""), name="one_trigger_per_delivery"
            ),
            models.CheckConstraint(condition=Q(status__in=["open", "handled", "noted"]), name="trigger_status_known"),
        ]
        indexes = [
            # facts.load: the open triggers of the items that are being routed.
            models.Index(fields=["item", "due_at"], condition=Q(status="open"), name="trigger_open"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
