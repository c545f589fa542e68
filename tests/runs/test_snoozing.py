"""Questions that wait: until when, who wakes them, and that no deadline is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department, Member
from runs.models import Action, LogEntry, Review
from runs.review_deadlines import notify_waiting
from runs.review_queue import Filters, count_open, find_open
from runs.snoozing import cut_to_deadline, local_time, read_until, snooze, wake, wake_due
from tests.engine import in_threads, make_office
from tests.factories import make_user
from tests.runs.desk import make_drafted

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 27, 15, 0, tzinfo=UTC)
"""A Friday; on the Sunday after it clocks go forward in Berlin."""


@pytest.mark.parametrize(
    ("choice", "at", "found"),
    [
        ("hours", "", "2026-03-27T19:00+00:00"),
        ("tomorrow", "", "2026-03-28T09:00+01:00"),
        ("monday", "", "2026-03-30T09:00+02:00"),
        ("at", "2026-03-29T08:15", "2026-03-29T08:15+02:00"),
        ("at", "", None),
        ("at", "tomorrow", None),
        ("at", "2026-03-29T08:15+05:00", None),
        ("", "2026-03-29T08:15", "2026-03-29T08:15+02:00"),
        ("hours", "2026-03-29T08:15", "2026-03-29T08:15+02:00"),
        ("hours", "tomorrow", None),
        ("hours", " ", "2026-03-27T19:00+00:00"),
        ("never", "", None),
    ],
)
def test_what_a_form_names_is_a_moment_of_the_departments_clocks(choice: str, at: str, found: str | None) -> None:
    expected = datetime.fromisoformat(found) if found else None
    assert read_until(choice, at, now=NOW, zone=BERLIN) == expected


def test_on_a_monday_next_monday_is_a_week_ahead() -> None:
    monday = datetime(2026, 3, 2, 5, 0, tzinfo=UTC)
    assert read_until("monday", "", now=monday, zone=UTC) == datetime(2026, 3, 9, 9, 0, tzinfo=UTC)


def test_it_is_back_an_hour_before_its_deadline_or_after_half_of_what_is_left() -> None:
    later = NOW + timedelta(days=9)
    assert cut_to_deadline(later, None, NOW) == later
    assert cut_to_deadline(later, NOW + timedelta(hours=5), NOW) == NOW + timedelta(hours=4)
    assert cut_to_deadline(later, NOW + timedelta(minutes=40), NOW) == NOW + timedelta(minutes=20)
    assert cut_to_deadline(NOW + timedelta(hours=1), NOW + timedelta(hours=5), NOW) == NOW + timedelta(hours=1)


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def rita(office: Department) -> User:
    return make_user("rita", department=office, role=Member.Role.REVIEWER)


def listed(office: Department, user: User, **filters: str) -> list[int]:
    return find_open([office.pk], Filters(**filters), user, limit=10)


@pytest.mark.django_db
def test_a_snoozed_question_leaves_the_list_and_comes_back_by_itself(office: Department, rita: User) -> None:
    review, other = make_drafted(office), make_drafted(office)
    until = timezone.now() + timedelta(hours=4)
    assert snooze(review=review, user=rita, until=until)
    assert listed(office, rita) == [other.pk]
    assert listed(office, rita, snoozed="1") == [review.pk]
    assert count_open([office.pk]) == 1
    action = Action.objects.get()
    assert (action.verb, action.after) == ("snooze_review", {"snoozed_until": f"{until:%Y-%m-%d %H:%M} UTC"})
    assert wake_due(now=until - timedelta(seconds=1)) == 0
    Review.objects.filter(pk=review.pk).update(snoozed_until=timezone.now() - timedelta(seconds=1))
    assert set(listed(office, rita)) == {review.pk, other.pk}, "without anybody doing anything"
    assert wake_due() == 1
    assert wake_due() == 0
    assert LogEntry.objects.filter(item=review.item, text__startswith="Back on the list").count() == 1


@pytest.mark.django_db
def test_it_is_never_snoozed_past_its_deadline(office: Department, rita: User) -> None:
    review = make_drafted(office)
    deadline = timezone.now() + timedelta(hours=3)
    Review.objects.filter(pk=review.pk).update(deadline=deadline)
    assert snooze(review=review, user=rita, until=timezone.now() + timedelta(days=3))
    review.refresh_from_db()
    assert review.snoozed_until == deadline - timedelta(hours=1)


@pytest.mark.django_db
def test_what_cannot_be_snoozed_says_why(office: Department, rita: User) -> None:
    review, until = make_drafted(office), timezone.now() + timedelta(hours=4)
    assert "is over" in snooze(review=review, user=rita, until=timezone.now() - timedelta(hours=1)).reason
    Review.objects.update(deadline=timezone.now() - timedelta(minutes=1))
    assert "deadline is over" in snooze(review=review, user=rita, until=until).reason
    Review.objects.update(deadline=None)
    assert snooze(review=review, user=rita, until=until)
    assert "wake it first" in snooze(review=review, user=rita, until=until).reason
    Review.objects.update(status="answered", answer="approve", answered_by=rita, answered_at=timezone.now())
    assert "answered already by rita" in snooze(review=review, user=rita, until=until).reason
    assert Action.objects.count() == 1


@pytest.mark.django_db
def test_anybody_who_may_answer_wakes_it_once(office: Department, rita: User) -> None:
    sam = make_user("sam", department=office, role=Member.Role.OPERATOR)
    review = make_drafted(office)
    assert "not snoozed" in wake(review=review, user=sam).reason
    snooze(review=review, user=rita, until=timezone.now() + timedelta(hours=4))
    assert wake(review=review, user=sam)
    assert not wake(review=review, user=sam)
    assert listed(office, rita) == [review.pk]
    assert list(Action.objects.order_by("pk").values_list("verb", flat=True)) == ["snooze_review", "wake_review"]


@pytest.mark.django_db
def test_nobody_is_told_that_a_snoozed_question_waits(office: Department, rita: User, settings: Any) -> None:
    settings.REVIEW_NOTIFY_MINUTES = 30
    review = make_drafted(office)
    Review.objects.filter(pk=review.pk).update(created_at=timezone.now() - timedelta(hours=2))
    assert notify_waiting() == 1
    snooze(review=review, user=rita, until=timezone.now() + timedelta(hours=4))
    assert notify_waiting() == 0


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_snooze_at_once_one_does(office: Department, rita: User) -> None:
    review = make_drafted(office)
    until = timezone.now() + timedelta(hours=4)
    won = in_threads(lambda number: bool(snooze(review=review, user=rita, until=until)), 3)
    assert sum(won) == 1
    assert Action.objects.count() == 1


def test_a_moment_is_told_as_the_departments_clocks_show_it() -> None:
    department = Department(time_zone="Europe/Berlin")
    assert local_time(datetime(2026, 3, 2, 8, 5, tzinfo=UTC), department) == "Mon 2 Mar 9:05 (Europe/Berlin)"
