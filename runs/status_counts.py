"""How many pipeline runs and agent runs there are in each status, for the lists that show them.

What is over is counted by a job and kept: a page may not count a million rows. What is under way or has failed is
few rows, found by an index: a page counts those itself, up to ``MOST``, and they are right as they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Max, Min, QuerySet, Sum

from runs.database import now as database_now
from runs.models import AgentRun, PipelineRun, StatusCount

Rows = StatusCount.Rows
MOST = 1_000
"""A page counts no further itself: more is said as more."""
EACH = timedelta(seconds=55)
ROWS_A_SECOND = 20_000
"""The pause grows with what there is: so many rows a second, which takes about one hundredth of the time."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of rows. ``is_more``: at least so many. ``at``: when the job counted them, None if just now."""

    number: int
    is_more: bool = False
    at: datetime | None = None


def count_up_to(rows: QuerySet[Any], most: int = MOST) -> Counted:
    """How many rows there are, in a time that does not grow with them."""
    found = rows.order_by()[: most + 1].count()
    return Counted(min(found, most), is_more=found > most)


def read_counts(rows: str, departments: Iterable[int]) -> dict[str, Counted]:
    """What the job has counted in these departments: ``{status: Counted}``."""
    kept = StatusCount.objects.filter(rows=rows, department__in=list(departments)).order_by().values("status")
    sums = kept.annotate(number=Sum("count"), at=Min("counted_at")).values_list("status", "number", "at")
    return {status: Counted(number, at=at) for status, number, at in sums}


def count_statuses() -> bool:
    """Count everything if that is due: each minute, and more rarely the more there is. Returns whether it was."""
    now = database_now()
    last = StatusCount.objects.aggregate(at=Max("counted_at"), number=Sum("count"))
    if last["at"] is not None:
        pause = max(EACH, timedelta(seconds=(last["number"] or 0) / ROWS_A_SECOND))
        # One from a clock that was put back since is of no time at all.
        if now - pause < last["at"] <= now:
            return False
    pipelines = PipelineRun.objects.values_list("item__department", "status")
    agents = AgentRun.objects.values_list("department", "status")
    found = [
        StatusCount(department_id=department, rows=rows, status=status, count=number, counted_at=now)
        for rows, counted in ((Rows.PIPELINE_RUNS, pipelines), (Rows.AGENT_RUNS, agents))
        for department, status, number in counted.annotate(number=Count("pk")).order_by()
    ]
    with transaction.atomic():
        StatusCount.objects.all().delete()
        StatusCount.objects.bulk_create(found)
    return True
