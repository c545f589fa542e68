"""What forms send, as Python values."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

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
