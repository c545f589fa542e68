"""Questions that can wait: off the list for a while, back by themselves, and never past their deadline."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from django.contrib.auth.models import User
from django.db import transaction

from agents.models import Department
from runs import log
from runs.allowed import YES, Allowed, no
from runs.answerable import LAST_CALL, can_snooze, can_wake
from runs.database import now as database_now
from runs.models import Action, LogEntry, Review

CHOICES = {
    "hours": "In 4 hours",
    "tomorrow": "Tomorrow at 9:00",
    "monday": "Next Monday at 9:00",
    "at": "At the time below",
}
"""When a question may come back; ``at`` is a time that is given with it, and counts whatever is chosen."""
MORNING = 9
BATCH = 200


def read_until(choice: str, at: str, *, now: datetime, zone: tzinfo) -> datetime | None:
    """The moment that a form names, None if it names none. ``at``: local time, ``2026-03-02T09:30``. Pure."""
    if at.strip():
        return _read_local(at.strip(), zone)
    local = now.astimezone(zone)
    morning = local.replace(hour=MORNING, minute=0, second=0, microsecond=0)
    if choice == "hours":
        return now + timedelta(hours=4)
    if choice == "tomorrow":
        return morning + timedelta(days=1)
    if choice == "monday":
        return morning + timedelta(days=7 - local.weekday())
    return None


def _read_local(at: str, zone: tzinfo) -> datetime | None:
    try:
        given = datetime.fromisoformat(at)
        return given.replace(tzinfo=zone).astimezone(zone) if given.tzinfo is None else None
    except (ValueError, OverflowError):
        return None


def cut_to_deadline(until: datetime, deadline: datetime | None, now: datetime) -> datetime:
    """Back while there is still time: ``LAST_CALL`` before the deadline, or half of what is left of it. Pure."""
    if deadline is None:
        return until
    return min(until, max(deadline - LAST_CALL, now + (deadline - now) / 2))


def local_time(moment: datetime, department: Department) -> str:
    """A moment as the department's clocks show it: ``Mon 2 Mar 9:00 (Europe/Berlin)``."""
    local = moment.astimezone(ZoneInfo(department.time_zone))
    return f"{local:%a} {local.day} {local:%b} {local.hour}:{local:%M} ({department.time_zone})"


def snooze(*, review: Review, user: User, until: datetime) -> Allowed:
    """Take an open question off the list until then, at the latest until its deadline comes near."""
    with transaction.atomic():
        now = database_now()
        fresh = _locked(review)
        if not (allowed := can_snooze(fresh, now=now)):
            return allowed
        if until <= now:
            return no("This time is over: name one that lies ahead.")
        until = cut_to_deadline(until, fresh.deadline, now)
        Review.objects.filter(pk=fresh.pk).update(snoozed_until=until)
        _note(fresh, user, "snooze_review", f"{user} snoozed until {until:%Y-%m-%d %H:%M} UTC: {fresh.ask}", until, now)
    return YES


def wake(*, review: Review, user: User) -> Allowed:
    """Put a snoozed question back onto the list before its time."""
    with transaction.atomic():
        now = database_now()
        fresh = _locked(review)
        if not (allowed := can_wake(fresh, now=now)):
            return allowed
        Review.objects.filter(pk=fresh.pk).update(snoozed_until=None)
        _note(fresh, user, "wake_review", f"{user} woke: {fresh.ask}", None, now)
    return YES


def wake_due(*, now: datetime | None = None) -> int:
    """Say that questions are back whose time has come; how many. The list shows them without this, pages hear of it."""
    now = now or database_now()
    rows = Review.objects.filter(status=Review.Status.OPEN, snoozed_until__lte=now).order_by("snoozed_until", "pk")
    woken = 0
    for review in list(rows[:BATCH]):
        with transaction.atomic():
            due = Review.objects.filter(pk=review.pk, status=Review.Status.OPEN, snoozed_until__lte=now)
            if due.update(snoozed_until=None):
                woken += 1
                log.write([_line(review, f"Back on the list: {review.ask}", now)])
    return woken


def _locked(review: Review) -> Review:
    related = Review.objects.select_for_update(of=("self",)).select_related("answered_by", "by_rule")
    return related.get(pk=review.pk)


def _note(review: Review, user: User, verb: str, text: str, until: datetime | None, now: datetime) -> None:
    Action.objects.create(
        department_id=review.department_id,
        item_id=review.item_id,
        user=user,
        verb=verb,
        target=f"review:{review.pk}",
        before={"snoozed_until": _stamp(review.snoozed_until)},
        after={"snoozed_until": _stamp(until)},
    )
    log.write([_line(review, text, now)])


def _line(review: Review, text: str, now: datetime) -> LogEntry:
    return LogEntry(
        department_id=review.department_id, item_id=review.item_id, kind="review", text=text, data={}, at=now
    )


def _stamp(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""
