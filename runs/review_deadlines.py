"""What happens to questions that wait: at their deadline, and when something waits longer than it should.

Called every minute, by several workers at once. Nothing here ever sends what a question asks about.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Min, Q
from django.urls import reverse

from agents.models import Agent, Department, Member
from agents.spec import kind
from runs import alerts, alike, log, questions, reviews, snoozing
from runs.absences import read_roster
from runs.access import can
from runs.commits import lock_items
from runs.database import now as database_now
from runs.effects import REVIEW_DEADLINE
from runs.models import Alert, Item, LogEntry, PipelineRun, Review, Trigger

logger = logging.getLogger(__name__)
AtDeadline, Status = Review.AtDeadline, Review.Status
AGAIN = timedelta(days=1)
"""A question that is still open is acted upon again after this."""
BATCH = 200
WAITING = "reviews"
"""The key of a department's alert that questions wait."""
FELL_THROUGH_MINUTE = 17
"""Looking for items on which nothing moves reads many rows, and days do not hurry: once an hour."""


def look_after_reviews() -> None:
    """Everything that is done about waiting questions; called each minute."""
    snoozing.wake_due()
    act_on_deadlines()
    notify_waiting()
    now = database_now()
    if now.minute == FELL_THROUGH_MINUTE:
        ask_about_fallen(now=now)
        alike.forget_old(now=now)


def act_on_deadlines(*, now: datetime | None = None) -> int:
    """Remind, escalate or reject what is overdue, as each question says; how many were acted upon."""
    now = now or database_now()
    due = Q(reminded_at=None) | Q(reminded_at__lte=now - AGAIN)
    rows = Review.objects.filter(due, status=Status.OPEN, deadline__lte=now).order_by("deadline", "pk")
    acted = 0
    for pk in list(rows.values_list("pk", flat=True)[:BATCH]):
        try:
            acted += _act(pk, now)
        except Exception:
            logger.exception("the deadline of review %s could not be acted upon", pk)
    _close_reminders()
    return acted


def notify_waiting(*, now: datetime | None = None) -> int:
    """Tell people where questions have waited longer than they should; the number of departments that are told.

    One alert a department, closed when nothing waits so long any more.
    """
    minutes = settings.REVIEW_NOTIFY_MINUTES
    now = now or database_now()
    waiting = Review.objects.filter(status=Status.OPEN, created_at__lte=now - timedelta(minutes=minutes)).order_by()
    waiting = waiting.exclude(snoozed_until__gt=now)
    counts = waiting.values("department").annotate(count=Count("pk"), oldest=Min("created_at")) if minutes else []
    found = {row["department"]: row for row in counts}
    told = 0
    for department in Department.objects.order_by("pk"):
        row = found.get(department.pk)
        with transaction.atomic():
            if row is None:
                alerts.close_alert(department=department, key=WAITING)
                continue
            told += 1
            _tell_waiting(department, row["count"], row["oldest"], now)
    return told


def ask_about_fallen(*, now: datetime | None = None) -> int:
    """Ask about items on which nothing is wanted and nothing has moved for days; how many. At most ``BATCH``."""
    days = settings.REVIEW_FELL_THROUGH_DAYS
    if not days:
        return 0
    now = now or database_now()
    asked = 0
    for department in Department.objects.filter(state__in=Department.WORKING).order_by("pk"):
        try:
            spec = kind(department.kind)
        except LookupError:
            continue
        moving = [status.slug for status in spec.statuses if not (status.is_closing or status.is_resting)]
        still = Item.objects.filter(
            department=department,
            status__in=moving,
            automation=Item.Automation.ACTIVE,
            route_due_at=None,
            changed_at__lte=now - timedelta(days=days),
        )
        busy = Q(reviews__status=Status.OPEN) | Q(pipeline_runs__status=PipelineRun.Status.ACTIVE)
        busy |= Q(outbox__status__in=("pending", "sending", "unknown"))
        found = still.exclude(pk__in=Item.objects.filter(busy, department=department).values("pk"))
        for pk in list(found.order_by("pk").values_list("pk", flat=True)[: BATCH - asked]):
            asked += _ask_about(pk, days, now)
    return asked


def _act(pk: int, now: datetime) -> bool:
    review = questions.read_review(pk)
    if review.at_deadline == AtDeadline.REJECT:
        # Marked first: what cannot be rejected is not tried again every minute.
        marked = _mark(review, now)
        return marked and bool(reviews.reject(review=review, user=None, reason="Nobody answered before the deadline."))
    with transaction.atomic():
        item = lock_items({review.item_id}).get(review.item_id) if review.item_id is not None else None
        if not _mark(review, now):
            return False
        text = f"Nobody has answered for {_words(now - review.created_at)}: {review.ask}"
        person = _escalate(review) if review.at_deadline == AtDeadline.ESCALATE else None
        if person is not None:
            cover = read_roster(now).cover_of(person.pk)
            away = f", who is away; {cover} covers" if cover is not None else ""
            text = f"Now asked of {person}{away}. {text}"
        if review.at_deadline != AtDeadline.NOTHING:
            _remind(review, text)
        if item is not None:
            entry = log.item_entry(item, "deadline", text, at=now, level=LogEntry.Level.WARNING)
            log.write([entry])
    return True


def _mark(review: Review, now: datetime) -> bool:
    """Be the one who acts on this deadline; False if somebody else was, or it was answered."""
    rows = Review.objects.filter(Q(reminded_at=None) | Q(reminded_at__lte=now - AGAIN), pk=review.pk)
    return bool(rows.filter(status=Status.OPEN, deadline__lte=now).update(reminded_at=now))


def _escalate(review: Review) -> User | None:
    """Assign the question to the next person up the chain of command, and never down again; None above the last."""
    people = [person for person in _chain(review) if can(person, review, Member.Role.REVIEWER)]
    if review.assignee in people:
        people = people[people.index(review.assignee) + 1 :]
    if people:
        Review.objects.filter(pk=review.pk, status=Status.OPEN).update(assignee=people[0])
    return people[0] if people else None


def _chain(review: Review) -> list[User]:
    """Whom the agent and those above it escalate to, from below, each once."""
    current: Agent | None = review.agent_run.agent if review.agent_run else None
    seen: set[int] = set()
    people: list[User] = []
    while current is not None and current.pk not in seen:
        seen.add(current.pk)
        people += [current.escalate_to] if current.escalate_to is not None else []
        current = current.reports_to
    return list(dict.fromkeys(people))


def _remind(review: Review, text: str) -> None:
    alerts.raise_alert(
        kind=Alert.Kind.SYSTEM,
        department=review.department,
        key=reminder_key(review.pk),
        text=text[:1_000],
        link=reverse("runs:review", args=[review.pk]),
        next_step="It waits on. Nothing is ever sent by a deadline.",
        item=review.item,
        agent_run=review.agent_run,
    )


def reminder_key(pk: int) -> str:
    """The key of the alert that one question is overdue."""
    return f"review:{pk}"


def _close_reminders() -> None:
    """Close the reminders of questions that were answered."""
    rows = Alert.objects.filter(state=Alert.State.OPEN, key__startswith="review:").select_related("department")
    asked = {reminder_key(pk): pk for pk in (int(a.key.partition(":")[2]) for a in rows)}
    answered = set(
        Review.objects.filter(pk__in=asked.values()).exclude(status=Status.OPEN).values_list("pk", flat=True)
    )
    for alert in rows:
        if asked[alert.key] in answered:
            alerts.close_alert(department=alert.department, key=alert.key)


def _tell_waiting(department: Department, count: int, oldest: datetime, now: datetime) -> None:
    noun = "question waits" if count == 1 else "questions wait"
    text = f"{department}: {count} {noun} for a person, the oldest for {_words(now - oldest)}."
    open_one = alerts.lock_alert(department, WAITING)
    if open_one is not None and open_one.last_at > now - timedelta(minutes=settings.REVIEW_NOTIFY_MINUTES):
        return  # told not long ago
    alerts.raise_alert(
        kind=Alert.Kind.SYSTEM,
        department=department,
        key=WAITING,
        text=text,
        link=reverse("runs:reviews"),
        next_step="What is asked waits until somebody answers; nothing is sent meanwhile.",
    )


def _ask_about(pk: int, days: int, now: datetime) -> bool:
    with transaction.atomic():
        item = lock_items({pk}).get(pk)
        if item is None or item.route_due_at is not None or item.changed_at > now - timedelta(days=days):
            return False
        if Trigger.objects.filter(item=item, status=Trigger.Status.OPEN).exists():
            return False
        label = item.department.spec.status_spec(item.status).label
        _, is_new = Review.objects.get_or_create(
            item=item,
            kind=Review.Kind.FELL_THROUGH,
            status=Status.OPEN,
            defaults={
                "department_id": item.department_id,
                "ask": f"{item.title} is “{label}”, and nothing has moved for {_words(now - item.changed_at)}. "
                "What shall become of it?"[:500],
                "deadline": now + REVIEW_DEADLINE,
                "at_deadline": AtDeadline.NOTHING,
            },
        )
        if is_new:
            text = f"Nothing is wanted and nothing has moved for {_words(now - item.changed_at)}: a person is asked."
            log.write([log.item_entry(item, "review", text, at=now)])
    return is_new


def _words(time: timedelta) -> str:
    hours = int(time.total_seconds() // 3_600)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h" if hours else f"{int(time.total_seconds() // 60)} min"
