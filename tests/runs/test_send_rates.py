"""Unusual rates hold sending, say so, and do not hold it again for what a person has seen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Department
from runs.models import Action, Alert, OutboxMessage, Review
from runs.send_rates import hold_if_unusual
from tests.factories import make_department, make_lead, make_outbox, make_output, make_review, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def department() -> Department:
    found = make_department()
    Department.objects.update(created_at=timezone.now() - timedelta(days=30))
    return found


def ended(department: Department, count: int, **fields: Any) -> None:
    at = fields.pop("at", timezone.now() - timedelta(minutes=5))
    item = make_lead(department).item
    output = make_output(item, "email")
    start = OutboxMessage.objects.count()
    for number in range(start, start + count):
        values = {"status": "sent", "sent_at": at, "ended_at": at, **fields}
        make_outbox(item, output=output, key=f"k{number}", **values)


def test_a_few_bounces_among_many_are_usual(department: Department) -> None:
    ended(department, 46)
    ended(department, 4, bounced_at=timezone.now())
    assert hold_if_unusual(department) == ""


def test_many_bounces_hold_sending_and_say_so(department: Department) -> None:
    ended(department, 45)
    ended(department, 5, status="failed", sent_at=None, bounced_at=timezone.now())
    assert hold_if_unusual(department).startswith("5 of the last 50 mails came back")
    department.refresh_from_db()
    assert department.state == "holding_sends"
    assert "5 of the last 50" in department.state_reason
    action = Action.objects.get()
    assert (action.verb, action.user, action.before["state"]) == ("hold_sends", None, "running")
    assert "holds its sends" in Alert.objects.get().text
    assert hold_if_unusual(department) == ""
    assert Action.objects.count() == 1


def test_few_mails_say_nothing(department: Department) -> None:
    ended(department, 9, bounced_at=timezone.now())
    assert hold_if_unusual(department) == ""


def test_one_or_two_among_a_dozen_are_no_rate(department: Department) -> None:
    ended(department, 10)
    ended(department, 2, bounced_at=timezone.now())
    assert hold_if_unusual(department) == ""


def test_what_a_person_has_released_is_not_held_against_it_again(department: Department) -> None:
    ended(department, 20, bounced_at=timezone.now())
    assert hold_if_unusual(department)
    Department.objects.update(state="running", state_since=timezone.now())
    assert hold_if_unusual(department) == ""
    assert Alert.objects.get().state == Alert.State.CLOSED


def test_rejections_by_people_hold_sending(department: Department) -> None:
    item, user = make_lead(department).item, make_user("rita")
    for number in range(10):
        make_review(
            item,
            output=make_output(item, "email", is_current=False),
            status=Review.Status.ANSWERED,
            answer="reject" if number < 6 else "approve",
            answered_by=user,
            answered_at=timezone.now(),
        )
    assert hold_if_unusual(department) == "People rejected or sent back 6 of the last 10 drafts."


def test_far_more_mails_in_an_hour_than_usual_hold_sending(department: Department, settings: Any) -> None:
    settings.SEND_HOURLY_FLOOR = 10
    for hour in range(2, 7):
        ended(department, 2, at=timezone.now() - timedelta(hours=hour))
    ended(department, 10)
    assert hold_if_unusual(department) == ""
    ended(department, 1)
    assert hold_if_unusual(department).startswith("11 mails left within an hour")


def test_the_first_day_has_no_usual(department: Department, settings: Any) -> None:
    settings.SEND_HOURLY_FLOOR = 10
    ended(department, 40)
    assert hold_if_unusual(department) == ""
