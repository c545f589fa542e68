from __future__ import annotations

from django.db import models


class ShiftSlot(models.Model):
    """One of the ``SHIFTS`` places at which a worker process may run the event loop that does the work."""

    number = models.PositiveIntegerField(unique=True)
    token = models.UUIDField(null=True, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    in_flight = models.PositiveIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return f"slot {self.number}"
