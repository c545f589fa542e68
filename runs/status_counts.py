"""How many items, pipeline runs and agent runs there are in each status, for the pages that show them.

Runs that are over are counted by a job and kept: a page may not count a million rows. What is under way or has failed
is few rows, found by an index: a page counts those itself, up to ``MOST``, and they are right as they are shown. So are
items, of which there are a tenth as many as runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import CharField, Count, Max, Min, Sum

from agents.statements import Among, Given, Statement, count_each
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


def count_up_to(statements: Mapping[str, Statement[Any]], *, most: int = MOST, **given: Any) -> dict[str, Counted]:
    """How many rows each of them has, in a time that does not grow with them; one query for all."""
    found = count_each(statements, limit=most + 1, **given)
    return {name: Counted(min(number, most), is_more=number > most) for name, number in found.items()}


def read_counts(rows: str, departments: Iterable[int]) -> dict[str, Counted]:
    """What the job has counted in these departments: ``{status: Counted}``."""
    found = _KEPT.rows(rows=rows, departments=departments)
    return {status: Counted(number, at=at) for status, number, at in found}


_KEPT = Statement(
    lambda: (
        StatusCount.objects.filter(Among("department_id", "departments"), rows=Given("rows", CharField()))
        .order_by()
        .values("status")
        .annotate(number=Sum("count"), at=Min("counted_at"))
        .values_list("status", "number", "at")
    )
)


def count_items(departments: Sequence[int], *, most: int | None = None) -> dict[tuple[int, str], int]:
    """How many items have each status that there is, as they are now: ``{(department id, status): number}``; one query.

    With ``most`` no more are counted of a status. In each department the index ``item_counted`` leads from one status
    to the next, and each is counted in it: half the work of the same in groups.
    """
    if not departments:
        return {}
    here = "FROM runs_item WHERE department_id = found.department_id AND status"
    counted = f"SELECT COUNT(*) {here} = found.status"
    if most is not None:
        counted = f"SELECT COUNT(*) FROM (SELECT 1 {here} = found.status LIMIT %s) counted"
    sql = (
        "WITH RECURSIVE found(department_id, status) AS (SELECT id, CAST('' AS VARCHAR) FROM agents_department "  # noqa: S608
        f"WHERE id IN ({', '.join(['%s'] * len(departments))}) "
        f"UNION ALL SELECT department_id, (SELECT MIN(status) {here} > found.status) "
        f"FROM found WHERE status IS NOT NULL) SELECT department_id, status, ({counted}) FROM found WHERE status > ''"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [*departments, *([] if most is None else [most])])
        return {(department, status): number for department, status, number in cursor.fetchall()}


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
