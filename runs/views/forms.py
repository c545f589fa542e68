"""What forms send, as Python values."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.utils import timezone

from agents.models import Department


def read_moment(text: str, department: Department) -> tuple[datetime | None, str]:
    """A date and time as a form sends it, in the department's time zone: the moment in UTC, or what is wrong."""
    if not text.strip():
        return None, ""
    try:
        local = datetime.fromisoformat(text.strip())
        zoned = local.replace(tzinfo=ZoneInfo(department.time_zone)) if local.tzinfo is None else local
        return zoned.astimezone(UTC), ""
    except (ValueError, OverflowError):  # the first and the last day there are have no other time zone
        return None, "Write the time as year-month-day and hours:minutes."


def read_time(text: str) -> datetime | None:
    """An exact time of an address, in UTC; None for anything else and for what has no place in UTC."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def read_number(text: str) -> int | None:
    """A whole number as forms and addresses send it, from 0; None for anything else and for what no row could have."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def read_day(text: str) -> date | None:
    """A day as forms and addresses send it (2026-11-30); None for anything else and for the ends of the calendar."""
    try:
        found = date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None
    return found if found is not None and date.min.year < found.year < date.max.year else None


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """When the day of ``read_day`` begins and when the next one does, in the zone whose times the person sees."""
    begin = datetime.combine(day, time(), timezone.get_current_timezone())
    return begin, begin + timedelta(days=1)
