from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from runs.models.item import Item, Trigger


class Output(models.Model):
    """One named entry of the shared context store, written by an agent or by a person."""

    class Verdict(models.TextChoices):
        NONE = "none", "nobody has judged it"
        APPROVED = "approved", "approved"
        REJECTED = "rejected", "rejected"

    class Origin(models.TextChoices):
        AGENT = "agent", "an agent"
        INJECTED = "injected", "entered by a person"
        EDITED = "edited", "edited by a person"
        CORRECTED = "corrected", "corrected by a person"

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="outputs")
    key = models.SlugField()
    trigger = models.ForeignKey(Trigger, null=True, blank=True, on_delete=models.CASCADE, related_name="outputs")
    number = models.PositiveIntegerField(default=1)
    payload = models.JSONField()
    facets = models.JSONField(default=dict, help_text="The fields that rules may test, copied from the payload.")
    schema_version = models.CharField(max_length=16)
    fingerprint = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the inputs it was made from.")
    made_from = models.JSONField(default=list, help_text="Ids of the outputs it was made from.")
    agent_run = models.ForeignKey(
        "runs.AgentRun", null=True, blank=True, on_delete=models.SET_NULL, related_name="outputs"
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    origin = models.CharField(max_length=9, choices=Origin, default=Origin.AGENT)
    replaces = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        help_text="The output that was current before a person wrote this one: the diff is between the two.",
    )
    is_current = models.BooleanField(default=True)
    is_stale = models.BooleanField(default=False)
    verdict = models.CharField(max_length=8, choices=Verdict, default=Verdict.NONE)
    retired_why = models.CharField(max_length=200, blank=True, help_text="Why it is no longer current.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["item", "key"],
                condition=Q(is_current=True, trigger=None),
                name="one_current_output_per_item_and_key",
            ),
            models.UniqueConstraint(
                fields=["item", "key", "trigger"],
                condition=Q(is_current=True, trigger__isnull=False),
                name="one_current_output_per_item_key_and_trigger",
            ),
            models.CheckConstraint(condition=Q(verdict__in=["none", "approved", "rejected"]), name="verdict_known"),
            models.CheckConstraint(
                condition=Q(origin="agent") | Q(origin__in=["injected", "edited", "corrected"]),
                name="output_origin_known",
            ),
        ]
        indexes = [
            models.Index(fields=["item", "key", "-number"], name="output_history"),
            # review_figures: what people wrote lately, among all that agents wrote.
            models.Index(
                fields=["created_at"],
                condition=Q(origin__in=["injected", "edited", "corrected"]),
                name="output_by_person",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.number}"

    @property
    def is_by_person(self) -> bool:
        """Whether a person wrote it: agents never overwrite those."""
        return self.origin != self.Origin.AGENT
