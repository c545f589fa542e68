from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from agents.models.department import Department
from agents.spec import AgentSpec, serves_kind

SECTIONS = ("identity", "responsibilities", "prohibitions")
CHANGED = "A published SOUL never changes. Make a draft from it and publish that."
DELETED = "A published SOUL is never deleted. Publish another one; this one is then retired."


class Agent(models.Model):
    """One job. Reads named outputs and item fields, writes one named output. Configured here, declared in code."""

    class Scope(models.TextChoices):
        ITEM = "item", "once for the item"
        OCCASION = "occasion", "once for each occasion"

    class Policy(models.TextChoices):
        AUTO = "auto", "nobody is asked"
        REVIEW = "review", "a person is asked"

    class Effort(models.TextChoices):
        DEFAULT = "", "the model's default"
        LOW = "low", "low"
        MEDIUM = "medium", "medium"
        HIGH = "high", "high"
        XHIGH = "xhigh", "xhigh"
        MAX = "max", "max"

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="agents")
    slug = models.SlugField()
    job = models.CharField(max_length=200)
    reports_to = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="reports")
    escalate_to = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    escalate_channel = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=64)
    fallback_models = models.JSONField(default=list, blank=True)
    effort = models.CharField(max_length=8, choices=Effort, blank=True, default="")
    max_tokens = models.PositiveIntegerField(default=4_000)
    timeout_seconds = models.PositiveIntegerField(default=120)
    latency_target_seconds = models.PositiveIntegerField(default=20)
    needs = models.JSONField(default=list, blank=True, help_text="Output keys it cannot work without.")
    uses = models.JSONField(default=list, blank=True, help_text="Output keys it takes if they can be had.")
    fields = models.JSONField(default=list, blank=True, help_text="Item fields it may see.")
    field_chars = models.PositiveIntegerField(default=4_000, help_text="The most characters of one field.")
    settings_keys = models.JSONField(default=list, blank=True, help_text="Department settings it is told.")
    conversation = models.BooleanField(default=False)
    tools = models.JSONField(default=list, blank=True)
    writes = models.SlugField()
    scope = models.CharField(max_length=8, choices=Scope, default=Scope.OCCASION)
    serves = models.JSONField(default=list, blank=True, help_text="Kinds of occasion; empty means all.")
    output_policy = models.CharField(max_length=8, choices=Policy, default=Policy.AUTO)
    is_enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("pk",)
        constraints = [models.UniqueConstraint(fields=["department", "slug"], name="agent_slug_unique")]

    def __str__(self) -> str:
        return self.slug

    @property
    def title(self) -> str:
        """The name a person reads: the part of the job before the colon."""
        return self.job.split(":")[0]

    @property
    def task(self) -> str:
        """What it does, in a few words: the part of the job after the colon."""
        return self.job.partition(":")[2].strip()

    def works_for(self, occasion_kind: str) -> bool:
        """Whether it writes its key for this kind of occasion: ``item`` or a trigger's kind."""
        return serves_kind(self.serves, occasion_kind)

    @property
    def spec(self) -> AgentSpec:
        """The declaration in code; KeyError if the installed release no longer has this agent."""
        return self.department.spec.agent(self.slug)


class SoulQuerySet(models.QuerySet["Soul"]):
    """Changes drafts only. The database refuses a changed text as well (migration 0003)."""

    def update(self, **kwargs: Any) -> int:
        """Refuses if a published or retired version is among the rows."""
        self._refuse_published(CHANGED)
        return super().update(**kwargs)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Refuses likewise. Deleting a department takes its SOULs along, if no run refers to them."""
        self._refuse_published(DELETED)
        return super().delete()

    def retire_published(self) -> int:
        """What ``agents.souls.publish`` does to the version that was in force."""
        return super().filter(status=Soul.Status.PUBLISHED)._move(Soul.Status.RETIRED)

    def _move(self, status: str) -> int:
        return super().update(status=status)

    def _refuse_published(self, sentence: str) -> None:
        if self.exclude(status=Soul.Status.DRAFT).exists():
            raise ValidationError(sentence)


class Soul(models.Model):
    """Identity, responsibilities, prohibitions. A published version never changes."""

    class Status(models.TextChoices):
        DRAFT = "draft", "draft"
        PUBLISHED = "published", "published"
        RETIRED = "retired", "retired"

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="souls")
    number = models.PositiveIntegerField(null=True, blank=True, help_text="Given when it is published.")
    identity = models.TextField()
    responsibilities = models.TextField()
    prohibitions = models.TextField()
    status = models.CharField(max_length=12, choices=Status, default=Status.DRAFT)
    note = models.CharField(max_length=300, blank=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True, blank=True)

    objects = SoulQuerySet.as_manager()

    class Meta:
        ordering = ("agent", "-number")
        constraints = [
            models.UniqueConstraint(
                fields=["agent"], condition=Q(status="published"), name="one_published_soul_per_agent"
            ),
            models.UniqueConstraint(fields=["agent", "number"], name="soul_number_unique"),
            models.CheckConstraint(
                condition=Q(status="draft", number=None) | Q(status__in=["published", "retired"], number__gte=1),
                name="soul_numbered_when_published",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.agent} SOUL {self.number or 'draft'}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saving refuses to change a published or retired version; ``agents.souls`` moves its status."""
        if self.pk and Soul.objects.filter(pk=self.pk).exclude(status=self.Status.DRAFT).exists():
            raise ValidationError(CHANGED)
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Deleting refuses a published or retired version: runs refer to it."""
        if self.status != self.Status.DRAFT:
            raise ValidationError(DELETED)
        return super().delete(*args, **kwargs)

    @property
    def text(self) -> str:
        """The SOUL as it goes into a request."""
        return "\n\n".join(f"# {name.capitalize()}\n{getattr(self, name).strip()}" for name in SECTIONS)
