from __future__ import annotations

from django.db import models
from django.db.models import Q

from agents.models import Agent, Department

BUCKET_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300)
"""Upper bounds of the histogram's buckets; what takes longer is in the last one."""
BUCKETS = (*(f"took_{seconds}" for seconds in BUCKET_SECONDS), "took_longer")
"""Columns of ``AgentHour``: how many of the steps that were done took at most so long, and more than the one before."""


class AgentHour(models.Model):
    """How the steps of one agent ended in one hour (UTC): counted from the agent runs by ``runs.agent_health``."""

    department = models.ForeignKey(
        Department, on_delete=models.CASCADE, related_name="+", db_index=False, help_text="The agent's."
    )
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+", db_index=False)
    hour = models.DateTimeField(help_text="Its beginning.")
    done = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    took_1 = models.PositiveIntegerField(default=0)
    took_2 = models.PositiveIntegerField(default=0)
    took_5 = models.PositiveIntegerField(default=0)
    took_10 = models.PositiveIntegerField(default=0)
    took_20 = models.PositiveIntegerField(default=0)
    took_30 = models.PositiveIntegerField(default=0)
    took_60 = models.PositiveIntegerField(default=0)
    took_120 = models.PositiveIntegerField(default=0)
    took_300 = models.PositiveIntegerField(default=0)
    took_longer = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "hour"], name="one_row_per_agent_and_hour")]
        indexes = [models.Index(fields=["department", "hour"], name="agent_hour_by_department")]

    def __str__(self) -> str:
        return f"agent {self.agent_id} at {self.hour:%Y-%m-%d %H}"


class DepartmentHour(models.Model):
    """How many pipeline runs of a department ended in one hour (UTC)."""

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="+", db_index=False)
    hour = models.DateTimeField(help_text="Its beginning.")
    completed = models.PositiveIntegerField(default=0)
    degraded = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["department", "hour"], name="one_row_per_department_and_hour")]

    def __str__(self) -> str:
        return f"department {self.department_id} at {self.hour:%Y-%m-%d %H}"


class HourCount(models.Model):
    """How far those hours are counted: one row, locked by whoever counts."""

    counted_to = models.DateTimeField(null=True, blank=True, help_text="What ended before this is in the sums.")
    settled_to = models.DateTimeField(
        null=True, blank=True, help_text="The hours before this were counted a second time, after they were over."
    )

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="one_hour_count")]

    def __str__(self) -> str:
        return f"counted to {self.counted_to}"
