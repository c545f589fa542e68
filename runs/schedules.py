"""Departments' schedules: a cron expression in the department's own time zone that marks open items due."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import croniter
from django.db import transaction
from django_q.models import Schedule

from agents.models import Department
from agents.spec import kinds
from runs.database import now as database_now
from runs.models import Item, LogEntry

logger = logging.getLogger(__name__)
EVERY_MINUTE = "runs.tasks.every_minute"
BATCH = 2_000


def next_run(department: Department, after: datetime) -> datetime | None:
    """The next time after ``after`` (UTC) at which the schedule fires; None without a schedule."""
    if not department.schedule.strip():
        return None
    local = after.astimezone(ZoneInfo(department.time_zone))
    found: datetime = croniter(department.schedule, local).get_next(datetime)
    return found.astimezone(UTC)


def ensure_clock() -> None:
    """Have the queue's scheduler call ``every_minute``; the one entry it needs."""
    Schedule.objects.get_or_create(
        name="kontor every minute",
        defaults={"func": EVERY_MINUTE, "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1},
    )


def run_due() -> list[str]:
    """Fire every schedule that is due, each once, whoever asks. Returns the departments' slugs."""
    now, fired = database_now(), []
    for department in Department.objects.filter(kind__in=[spec.kind for spec in kinds()]).exclude(schedule=""):
        try:
            following = next_run(department, now)
        except (ValueError, KeyError):
            logger.exception("the schedule %r of %s cannot be read", department.schedule, department.slug)
            continue
        due = department.schedule_next_at
        # Conditional on the date that was read: of two workers that look at the same time one fires.
        ours = Department.objects.filter(pk=department.pk, schedule_next_at=due)
        if due is None or due > now:
            if due != following:  # new, or the expression was changed
                ours.update(schedule_next_at=following)
        else:
            # Marked first: a worker that is killed in between leaves the run to the next look, which marks again.
            count = mark_due(department, now)
            with transaction.atomic():
                if ours.update(schedule_next_at=following, schedule_last_at=now):
                    text = f"The schedule marked {count} items due."
                    LogEntry.objects.create(department=department, kind="schedule", text=text, at=now)
                    fired.append(department.slug)
    return fired


def look_soon(*, department: Department) -> bool:
    """Have the schedule fire at the next minute instead of when it would; False if the department has none."""
    return bool(
        Department.objects.filter(pk=department.pk).exclude(schedule="").update(schedule_next_at=database_now())
    )


def mark_due(department: Department, now: datetime) -> int:
    """Mark the department's open items due, in batches so that no lock is held long. Decides nothing.

    Items that are still being put together, by an import for example, are left alone. Returns how many were marked.
    """
    closing = [status.slug for status in department.spec.statuses if status.is_closing]
    ids = list(
        Item.objects.filter(department=department, automation=Item.Automation.ACTIVE)
        .exclude(status__in=closing)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    unready, count = department.spec.unready, 0
    for start in range(0, len(ids), BATCH):
        with transaction.atomic():
            batch = Item.objects.filter(pk__in=ids[start : start + BATCH]).select_for_update(no_key=True).order_by("pk")
            locked = [item.pk for item in batch.only("pk")]
            held = unready(locked) if unready else set()
            count += Item.objects.filter(pk__in=[pk for pk in locked if pk not in held]).update(route_due_at=now)
    return count
