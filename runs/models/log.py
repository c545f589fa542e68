from __future__ import annotations

from django.db import models

from agents.models import Department
from runs.models.item import Item
from runs.models.run import AgentRun, PipelineRun


class LogEntry(models.Model):
    """One line of the live log. Its id is the event id of the live stream."""

    class Level(models.TextChoices):
        INFO = "info", "info"
        WARNING = "warning", "warning"
        ERROR = "error", "error"

    department = models.ForeignKey(Department, null=True, blank=True, on_delete=models.CASCADE, related_name="log")
    item = models.ForeignKey(Item, null=True, blank=True, on_delete=models.CASCADE, related_name="log")
    pipeline_run = models.ForeignKey(
        PipelineRun, null=True, blank=True, on_delete=models.CASCADE, related_name="log", db_index=False
    )
    agent_run = models.ForeignKey(AgentRun, null=True, blank=True, on_delete=models.CASCADE, related_name="log")
    level = models.CharField(max_length=8, choices=Level, default=Level.INFO)
    kind = models.SlugField(help_text="What sort of thing: decision, started, output, waiting, failed …")
    text = models.TextField()
    data = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "log entries"

    def __str__(self) -> str:
        return self.text
