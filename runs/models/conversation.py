from __future__ import annotations

from django.db import models
from django.db.models import Q

from agents.models import Department
from runs.models.item import Item, Trigger
from runs.models.output import Output


class Message(models.Model):
    """One mail or note in the conversation with an item's person, in or out."""

    class Direction(models.TextChoices):
        IN = "in", "received"
        OUT = "out", "sent"
        NOTE = "note", "note"

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="messages")
    direction = models.CharField(max_length=4, choices=Direction)
    channel = models.CharField(max_length=32, default="email")
    subject = models.CharField(max_length=500, blank=True)
    body = models.TextField()
    address = models.CharField(max_length=320, blank=True, help_text="Whom it came from or went to.")
    message_id = models.CharField(max_length=255, blank=True)
    in_reply_to = models.CharField(max_length=255, blank=True)
    output = models.ForeignKey(Output, null=True, blank=True, on_delete=models.SET_NULL, related_name="messages")
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.SET_NULL, related_name="messages")
    at = models.DateTimeField()

    class Meta:
        ordering = ("at", "pk")
        constraints = [
            models.CheckConstraint(condition=Q(direction__in=["in", "out", "note"]), name="message_direction_known")
        ]

    def __str__(self) -> str:
        return self.subject or f"message {self.pk}"


class OutboxMessage(models.Model):
    """One thing that leaves the house, written before it is sent. ``key`` is ``item:purpose[:trigger]``."""

    class Status(models.TextChoices):
        PENDING = "pending", "waiting to be sent"
        SENDING = "sending", "being sent"
        SENT = "sent", "sent"
        FAILED = "failed", "failed"
        UNKNOWN = "unknown", "unsure whether it was sent"
        WITHDRAWN = "withdrawn", "withdrawn"

    department = models.ForeignKey(Department, on_delete=models.PROTECT, related_name="outbox")
    item = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="outbox")
    output = models.ForeignKey(Output, on_delete=models.PROTECT, related_name="outbox")
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    key = models.CharField(max_length=200, unique=True)
    purpose = models.SlugField()
    channel = models.CharField(max_length=32, default="email")
    address = models.CharField(max_length=320)
    rendered = models.JSONField(help_text="Exactly what will be sent.")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    reason = models.CharField(max_length=300, blank=True)
    release_at = models.DateTimeField()
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    provider_id = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["pending", "sending", "sent", "failed", "unknown", "withdrawn"]),
                name="outbox_status_known",
            )
        ]
        indexes = [
            # the sender: what may leave now.
            models.Index(fields=["release_at"], condition=Q(status="pending"), name="outbox_due"),
        ]

    def __str__(self) -> str:
        return self.key


class Suppression(models.Model):
    """An address or a domain nobody writes to, in every department of the installation."""

    class Reason(models.TextChoices):
        OPT_OUT = "opt_out", "asked not to be written to"
        BOUNCE = "bounce", "mail came back"
        MANUAL = "manual", "entered by a person"

    address = models.CharField(max_length=320, unique=True, help_text="Normalised address, or @domain.")
    reason = models.CharField(max_length=12, choices=Reason)
    note = models.CharField(max_length=300, blank=True)
    item = models.ForeignKey(Item, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.address
