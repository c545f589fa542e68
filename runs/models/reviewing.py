"""What makes reviewing bearable: who covers for whom, drafts that are alike, and what people change again and again."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from agents.models import Agent, Department


class Absence(models.Model):
    """A person is away, and another looks at the questions they were asked. From ``starts_at`` until ``ends_at``."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="absences")
    cover = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="covers")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="absence_ends_after_it_starts"),
            models.CheckConstraint(condition=~Q(cover=F("user")), name="nobody_covers_for_themselves"),
        ]
        # absences.read_roster: who is away now; the list of a person.
        indexes = [models.Index(fields=["ends_at"], name="absence_end")]

    def __str__(self) -> str:
        return f"{self.user} away, covered by {self.cover}"


class DraftGroup(models.Model):
    """Drafts of one agent for one purpose whose words are alike, but for what is personal."""

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="+", db_index=False)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+")
    purpose = models.SlugField(help_text="The kind of occasion: item, follow_up, reply.")
    signature = models.JSONField(help_text="MinHash of the first draft's words; see runs.alike.")
    used_at = models.DateTimeField(help_text="When the last draft was found to be like it.")

    class Meta:
        # alike.find_group: the groups that were used last, of one agent and purpose.
        indexes = [models.Index(fields=["department", "agent", "purpose", "-used_at"], name="draft_group_used")]

    def __str__(self) -> str:
        return f"drafts of {self.agent} like group {self.pk}"


class EditPattern(models.Model):
    """How often one person changed the same thing in one agent's texts on one day."""

    class Kind(models.TextChoices):
        REMOVED = "removed", "removed"
        CHANGED = "changed", "changed"
        ADDED = "added", "added"

    class Place(models.TextChoices):
        SUBJECT = "subject", "subject"
        OPENING = "opening", "opening"
        BODY = "body", "body"
        CLOSING = "closing", "closing"

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="edit_patterns", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    day = models.DateField(help_text="UTC.")
    kind = models.CharField(max_length=8, choices=Kind)
    place = models.CharField(max_length=8, choices=Place)
    digest = models.CharField(max_length=32, help_text="Of kind, place and the text without what is personal.")
    text = models.CharField(max_length=300, help_text="What the agent wrote; of an addition, what the person wrote.")
    became = models.CharField(max_length=300, blank=True, help_text="What the person made of it last.")
    count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["agent", "user", "day", "digest"], name="one_edit_pattern_per_person_and_day"
            ),
            models.CheckConstraint(condition=Q(kind__in=["removed", "changed", "added"]), name="edit_kind_known"),
        ]
        # edit_patterns.edit_patterns: what was changed of one agent's texts lately.
        indexes = [models.Index(fields=["agent", "day"], name="edit_pattern_recent")]

    def __str__(self) -> str:
        return f"{self.kind} in the {self.place}: {self.text}"
