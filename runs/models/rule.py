from __future__ import annotations

from django.db import models

from agents.models import Department


class Rule(models.Model):
    """When an item looks like this, these outputs are wanted."""

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="rules")
    position = models.PositiveIntegerField()
    name = models.CharField(max_length=120)
    when = models.JSONField(default=dict, blank=True)
    want = models.JSONField(default=list)
    is_enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("department", "position", "pk")
        constraints = [models.UniqueConstraint(fields=["department", "name"], name="rule_name_unique")]

    def __str__(self) -> str:
        return self.name
