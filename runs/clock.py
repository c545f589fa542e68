"""What is done when the database's clock is put back: nothing waits until it has caught up."""

from __future__ import annotations

import time
from datetime import datetime

from django.db import transaction

from runs.models import AgentRun, Item

TOLERANCE_SECONDS = 5.0
"""Clocks are corrected by fractions of a second all the time; so little delays nobody."""


class ClockWatch:
    """Compares the database's clock with one that never goes back."""

    def __init__(self) -> None:
        self._distance: float | None = None

    def went_back(self, now: datetime) -> bool:
        """Whether the clock was put back since the last look."""
        before, self._distance = self._distance, now.timestamp() - time.monotonic()
        return before is not None and before - self._distance > TOLERANCE_SECONDS


def make_due(now: datetime) -> int:
    """Make due whatever the old clock had put into what is now the future. Returns how many agent runs.

    Too early is harmless: who waits for a model, a budget or a follow-up is found to wait still.
    """
    with transaction.atomic():
        items = Item.objects.filter(route_due_at__gt=now).select_for_update(no_key=True).order_by("pk")
        Item.objects.filter(pk__in=[item.pk for item in items]).update(route_due_at=now)
        runs = AgentRun.objects.filter(status=AgentRun.Status.QUEUED, due_at__gt=now).select_for_update().order_by("pk")
        return AgentRun.objects.filter(pk__in=[run.pk for run in runs]).update(due_at=now)
