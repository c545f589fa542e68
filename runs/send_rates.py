"""Whether what leaves looks as usual: bounces, rejections by reviewers, mails in an hour. If not, sending is held."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Min

from agents.models import Department
from runs.alerts import close_alert, raise_alert
from runs.database import now as database_now
from runs.models import Action, Alert, LogEntry, OutboxMessage, Review

HOUR = timedelta(hours=1)
USUAL = timedelta(days=14)
KEY = "unusual_sends"
LEAST_BAD = 3
"""One mail that came back among a dozen is no rate."""
_JUDGED = (Review.Answer.APPROVE, Review.Answer.APPROVE_EDITED, Review.Answer.SEND_BACK, Review.Answer.REJECT)


def hold_if_unusual(department: Department) -> str:
    """Hold the department's sends if the rates are unusual, and tell people; the reason, empty if all is well."""
    department = Department.objects.get(pk=department.pk)
    if department.state != Department.State.RUNNING:
        return ""
    now = database_now()
    # What a person has seen and released is not held against the department again.
    since = department.state_since or department.created_at
    why = _bounces(department, since) or _rejections(department, since) or _volume(department, since, now)
    if not why:
        close_alert(department=department, key=KEY)
    return why if why and _hold(department, why, now) else ""


def _bounces(department: Department, since: datetime) -> str:
    rows = OutboxMessage.objects.filter(department=department, channel="email", ended_at__gt=since)
    last = list(rows.order_by("-ended_at").values_list("status", "bounced_at")[: settings.SEND_WATCH_LAST])
    bad = sum(status == OutboxMessage.Status.FAILED or bounced is not None for status, bounced in last)
    if not _is_unusual(bad, len(last), settings.SEND_MAX_BOUNCED_PERCENT):
        return ""
    return f"{bad} of the last {len(last)} mails came back, drew a complaint or could not be delivered."


def _rejections(department: Department, since: datetime) -> str:
    rows = Review.objects.filter(
        department=department, kind=Review.Kind.DRAFT, status=Review.Status.ANSWERED, answered_at__gt=since
    )
    answers = rows.filter(answer__in=_JUDGED, answered_by__isnull=False).order_by("-answered_at")
    last = list(answers.values_list("answer", flat=True)[: settings.SEND_WATCH_LAST])
    bad = sum(answer in (Review.Answer.REJECT, Review.Answer.SEND_BACK) for answer in last)
    if not _is_unusual(bad, len(last), settings.SEND_MAX_REJECTED_PERCENT):
        return ""
    return f"People rejected or sent back {bad} of the last {len(last)} drafts."


def _is_unusual(bad: int, of: int, percent: int) -> bool:
    return bad >= LEAST_BAD and of >= settings.SEND_WATCH_LEAST and bad * 100 > of * percent


def _volume(department: Department, since: datetime, now: datetime) -> str:
    rows = OutboxMessage.objects.filter(department=department, channel="email")
    hour = rows.filter(sent_at__gt=max(since, now - HOUR)).count()
    if hour <= settings.SEND_HOURLY_FLOOR:
        return ""
    before = rows.filter(sent_at__gt=now - USUAL, sent_at__lte=now - HOUR)
    first = before.aggregate(first=Min("sent_at"))["first"]
    if first is None:
        return ""  # there is no usual yet; caps and the rate limit hold
    usual = before.count() / max((now - HOUR - first) / HOUR, 1)
    if hour <= usual * settings.SEND_HOURLY_TIMES:
        return ""
    return f"{hour} mails left within an hour; usual are {usual:.0f}."


def _hold(department: Department, why: str, now: datetime) -> bool:
    with transaction.atomic():
        rows = Department.objects.filter(pk=department.pk, state=Department.State.RUNNING)
        state = Department.State.HOLDING_SENDS
        if not rows.update(state=state, state_reason=why[:300], state_by=None, state_since=now):
            return False
        Action.objects.create(
            department=department,
            user=None,
            verb="hold_sends",
            target=f"department:{department.pk}",
            before={"state": Department.State.RUNNING},
            after={"state": state},
            reason=why[:300],
        )
        text = f"{department} holds its sends: {why}"
        LogEntry.objects.create(department=department, kind="outbox", text=text, level=LogEntry.Level.WARNING, at=now)
        raise_alert(
            kind=Alert.Kind.SYSTEM,
            department=department,
            key=KEY,
            text=text,
            link="/outbox/",
            next_step="Nothing leaves until a person has looked at it and lets the department run again.",
        )
    return True
