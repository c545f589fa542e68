from __future__ import annotations

from django.conf import settings
from django.core.validators import RegexValidator
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
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The person who wrote it by hand, or entered it.",
    )
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.SET_NULL, related_name="messages")
    at = models.DateTimeField()

    class Meta:
        ordering = ("at", "pk")
        constraints = [
            models.CheckConstraint(condition=Q(direction__in=["in", "out", "note"]), name="message_direction_known")
        ]

    def __str__(self) -> str:
        return self.subject or f"message {self.pk}"


class Channel(models.Model):
    """A way out of the house, as a department uses it. ``kind`` names a plug-in of ``runs.send_channels``."""

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="channels")
    kind = models.SlugField()
    is_enabled = models.BooleanField(default=True)
    settings = models.JSONField(default=dict, blank=True, help_text="What the plug-in asks for: sender, URL, ...")
    secret_env = models.CharField(
        max_length=64,
        blank=True,
        validators=[RegexValidator(r"^[A-Z][A-Z0-9_]*$", "Name an environment variable.")],
        help_text="Name of the environment variable with its secret. The secret itself is never stored.",
    )
    undo_seconds = models.PositiveIntegerField(default=60, help_text="So long an approval can be taken back.")
    per_minute = models.PositiveIntegerField(default=30, help_text="The most that leaves in a minute; 0: no limit.")
    daily_cap = models.PositiveIntegerField(default=200, help_text="The most that leaves in 24 hours; 0: no limit.")
    quiet_from = models.TimeField(null=True, blank=True, help_text="In the time zone of the item's person.")
    quiet_to = models.TimeField(null=True, blank=True)
    tested_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="When a test last left over it.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["department", "kind"], name="one_channel_of_a_kind"),
            models.CheckConstraint(
                condition=Q(quiet_from=None, quiet_to=None) | Q(quiet_from__isnull=False, quiet_to__isnull=False),
                name="quiet_hours_begin_and_end",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.department}"


class OutboxMessage(models.Model):
    """One thing that leaves the house, written before it is sent. ``key`` is ``item:purpose[:trigger]``.

    A second message of the same purpose, which a person must ask for, ends in ``:again-2``.
    """

    class Status(models.TextChoices):
        PENDING = "pending", "waiting to be sent"
        SENDING = "sending", "being sent"
        SENT = "sent", "sent"
        FAILED = "failed", "failed"
        UNKNOWN = "unknown", "unsure whether it was sent"
        WITHDRAWN = "withdrawn", "withdrawn"

    LEFT = (Status.SENDING, Status.SENT, Status.UNKNOWN)
    """It has left the house, or may have."""

    TRANSITIONS: dict[str, tuple[str, ...]] = {
        # To sent without being sent: a person has sent it by hand.
        Status.PENDING: (Status.SENDING, Status.SENT, Status.WITHDRAWN, Status.UNKNOWN),
        Status.SENDING: (Status.SENT, Status.FAILED, Status.UNKNOWN, Status.PENDING),
        # By a person's word, or by a late but clear answer of the other side.
        Status.UNKNOWN: (Status.SENT, Status.FAILED, Status.PENDING),
        Status.FAILED: (Status.PENDING, Status.SENT),
        Status.WITHDRAWN: (Status.PENDING,),
        Status.SENT: (),
    }

    department = models.ForeignKey(Department, on_delete=models.PROTECT, related_name="outbox")
    item = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="outbox")
    output = models.ForeignKey(
        Output,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="outbox",
        help_text="Null: a person wrote it by hand.",
    )
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    key = models.CharField(max_length=200, unique=True)
    purpose = models.SlugField()
    channel = models.CharField(max_length=32, default="email")
    address = models.CharField(max_length=320)
    rendered = models.JSONField(help_text="Exactly what will be sent.")
    configuration = models.CharField(
        max_length=64, blank=True, help_text="Fingerprint of SOULs, models and rules that made it."
    )
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Null: a rule or the agent's policy approved it.",
    )
    approved_at = models.DateTimeField()
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    waiting_for = models.CharField(max_length=300, blank=True, help_text="Why it has not left although it is due.")
    attempt = models.PositiveIntegerField(default=0, help_text="How often it was claimed for sending.")
    error = models.TextField(blank=True, help_text="What the other side said last.")
    reason = models.CharField(max_length=300, blank=True)
    release_at = models.DateTimeField()
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    provider_id = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True, help_text="When it was sent, or found to be undeliverable.")
    bounced_at = models.DateTimeField(null=True, blank=True, help_text="When it came back, or was complained about.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["pending", "sending", "sent", "failed", "unknown", "withdrawn"]),
                name="outbox_status_known",
            ),
            models.CheckConstraint(
                condition=~Q(status="sending") | Q(lease_token__isnull=False, lease_expires_at__isnull=False),
                name="outbox_sending_means_leased",
            ),
        ]
        indexes = [
            # sending.claim: what may leave now.
            models.Index(fields=["release_at"], condition=Q(status="pending"), name="outbox_due"),
            # sending.reap: whose sender was lost.
            models.Index(fields=["lease_expires_at"], condition=Q(status="sending"), name="outbox_leased"),
            # sending: rate limits and daily caps.
            models.Index(
                fields=["department", "channel", "-sent_at"], condition=Q(sent_at__isnull=False), name="outbox_sent"
            ),
            # send_rates: how the latest sends of a department ended.
            models.Index(fields=["department", "-ended_at"], condition=Q(ended_at__isnull=False), name="outbox_ended"),
            # views.outbox: one state of one department, newest first, and how many are in it.
            models.Index(fields=["department", "status", "-id"], name="outbox_by_status"),
        ]

    def __str__(self) -> str:
        return self.key


class Sender(models.Model):
    """The one sender at work: a row, so that several workers do not each ask the queue for one."""

    asked_at = models.DateTimeField(
        null=True, blank=True, help_text="When one was asked for or last showed a sign of life; null: none is at work."
    )

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="one_sender")]

    def __str__(self) -> str:
        return "the sender"


class Suppression(models.Model):
    """An address or a domain nobody writes to, in every department of the installation."""

    class Reason(models.TextChoices):
        OPT_OUT = "opt_out", "asked not to be written to"
        BOUNCE = "bounce", "mail came back"
        COMPLAINT = "complaint", "complained about a mail"
        MANUAL = "manual", "entered by a person"

    address = models.CharField(max_length=320, unique=True, help_text="Normalised address, or @domain.")
    reason = models.CharField(max_length=12, choices=Reason)
    note = models.CharField(max_length=300, blank=True)
    item = models.ForeignKey(Item, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        # Of an erased person only a hash is kept.
        return f"an erased address (#{self.address[1:9]})" if self.is_erased else self.address

    @property
    def is_erased(self) -> bool:
        """Whether it is the hash of an erased person's address."""
        return self.address.startswith("#")
