"""What happens to questions that wait: at their deadline, and when something waits longer than it should."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department, Member
from runs.models import Alert, Item, LogEntry, OutboxMessage, Review, Trigger
from runs.review_deadlines import act_on_deadlines, ask_about_fallen, notify_waiting
from runs.reviews import approve, dismiss
from tests.engine import in_threads, make_office
from tests.factories import agent_of, make_agent_run, make_lead, make_outbox, make_review, make_trigger, make_user
from tests.runs.desk import mail_of, make_drafted

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def anna(office: Department) -> User:
    return make_user("anna", department=office, role=Member.Role.ADMINISTRATOR)


def overdue(at_deadline: str) -> Review:
    """A draft whose deadline passed an hour ago."""
    review = make_drafted()
    review.deadline, review.at_deadline = timezone.now() - timedelta(hours=1), at_deadline
    review.save()
    return review


def alerts() -> list[tuple[str, str]]:
    return list(Alert.objects.order_by("pk").values_list("key", "state"))


@pytest.mark.parametrize("at_deadline", ["nothing", "remind", "escalate", "reject"])
def test_before_the_deadline_nothing_happens_and_a_deadline_never_sends(at_deadline: str) -> None:
    review = overdue(at_deadline)
    before = timezone.now() - timedelta(hours=2)
    assert act_on_deadlines(now=before) == 0
    assert act_on_deadlines() == 1
    assert act_on_deadlines() == 0, "once"
    assert not OutboxMessage.objects.exists()
    assert mail_of(review).verdict in ("none", "rejected")


def test_a_reminder_goes_to_people_every_day_until_somebody_answers(anna: User) -> None:
    review = overdue("remind")
    assert act_on_deadlines() == 1
    alert = Alert.objects.get()
    assert (alert.key, alert.link, alert.count) == (f"review:{review.pk}", f"/reviews/{review.pk}/", 1)
    assert alert.deliveries.filter(target="email:anna@example.com").exists()
    assert act_on_deadlines(now=timezone.now() + timedelta(hours=23)) == 0
    assert act_on_deadlines(now=timezone.now() + timedelta(hours=25)) == 1
    alert.refresh_from_db()
    assert alert.count == 2
    assert approve(review=review, user=anna)
    act_on_deadlines()
    assert alerts() == [(f"review:{review.pk}", "closed")]


def test_where_nothing_is_to_happen_nobody_is_told() -> None:
    overdue("nothing")
    act_on_deadlines()
    assert alerts() == []
    assert LogEntry.objects.filter(kind="deadline").count() == 1


def test_it_goes_up_the_chain_of_command_one_step_a_day(office: Department) -> None:
    boss, chief = (make_user(name, department=office) for name in ("boss", "chief"))
    guest = make_user("guest")  # who may not answer it is not asked
    chain = (("formatter", guest, "fact_checker"), ("fact_checker", boss, "strategist"), ("strategist", chief, None))
    for slug, person, above in chain:
        agent = agent_of(office, slug)
        agent.escalate_to = person
        agent.reports_to = agent_of(office, above) if above else None
        agent.save()
    review = overdue("escalate")
    act_on_deadlines()
    review.refresh_from_db()
    assert review.assignee == boss
    assert "Now asked of boss." in Alert.objects.get().text
    for days in (1, 2, 3):
        act_on_deadlines(now=timezone.now() + timedelta(days=days, hours=days))
        review.refresh_from_db()
        assert review.assignee == chief, "and never down again"


def test_a_chain_without_people_is_a_reminder() -> None:
    review = overdue("escalate")
    act_on_deadlines()
    review.refresh_from_db()
    assert (review.assignee, review.status) == (None, "open")
    assert len(alerts()) == 1


def test_a_draft_is_rejected_at_its_deadline_where_that_was_said() -> None:
    review = overdue("reject")
    assert act_on_deadlines() == 1
    review.refresh_from_db()
    assert (review.status, review.answer, review.answered_by) == ("answered", "reject", None)
    assert review.answer_note == "Nobody answered before the deadline."
    assert mail_of(review).verdict == "rejected"


def test_what_was_answered_has_no_deadline_any_more() -> None:
    Review.objects.filter(pk=overdue("reject").pk).update(status="answered")
    assert act_on_deadlines() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("at_deadline", ["remind", "reject"])
def test_of_several_workers_one_acts_on_a_deadline(at_deadline: str) -> None:
    overdue(at_deadline)
    assert sum(in_threads(lambda _: act_on_deadlines(), 4)) == 1
    assert Trigger.objects.filter(kind="decision").count() == (at_deadline == "reject")


# --- Waiting --------------------------------------------------------------------------------------------------


def test_people_are_told_when_something_waits_too_long_and_not_every_minute(anna: User, settings: Any) -> None:
    settings.REVIEW_NOTIFY_MINUTES = 60
    review = make_drafted()
    assert notify_waiting() == 0
    Review.objects.update(created_at=timezone.now() - timedelta(minutes=61))
    assert notify_waiting() == 1
    alert = Alert.objects.get()
    assert alert.text == "Sales: 1 question waits for a person, the oldest for 1 h."
    assert (alert.link, alert.count) == ("/reviews/", 1)
    assert alert.deliveries.filter(target="email:anna@example.com").exists()
    notify_waiting()
    alert.refresh_from_db()
    assert alert.count == 1
    notify_waiting(now=timezone.now() + timedelta(minutes=61))
    alert.refresh_from_db()
    assert alert.count == 2
    Review.objects.filter(pk=review.pk).update(status="answered")
    assert notify_waiting() == 0
    assert alerts() == [("reviews", "closed")]


def test_nobody_is_told_where_that_is_switched_off(settings: Any) -> None:
    settings.REVIEW_NOTIFY_MINUTES = 0
    make_drafted()
    assert notify_waiting(now=timezone.now() + timedelta(days=30)) == 0
    assert alerts() == []


# --- Fallen through -------------------------------------------------------------------------------------------


def still(status: str = "contacted", days: int = 8, **fields: Any) -> Item:
    """A lead on which nothing has moved for so many days."""
    item = make_lead(status=status, **fields).item
    Item.objects.filter(pk=item.pk).update(changed_at=timezone.now() - timedelta(days=days))
    return item


def test_a_person_is_asked_about_what_nothing_moves_on() -> None:
    item = still()
    assert ask_about_fallen() == 1
    review = Review.objects.get()
    assert (review.item, review.kind, review.at_deadline) == (item, "fell_through", "nothing")
    assert review.ask == f"{item.title} is “Contacted”, and nothing has moved for 8 days. What shall become of it?"
    assert ask_about_fallen() == 0, "asked once"


@pytest.mark.parametrize("status", ["won", "lost", "opted_out", "rejected", "nurturing", "shelved"])
def test_what_is_closed_or_rests_may_stand_still(status: str) -> None:
    still(status)
    assert ask_about_fallen() == 0


def test_who_is_waited_for_has_not_fallen_through() -> None:
    still(days=6)
    still(automation="paused")
    still(route_due_at=timezone.now() + timedelta(days=1))
    make_review(still())
    make_agent_run(still(), "writer")
    make_outbox(still())
    make_trigger(still(), "follow_up", due_at=timezone.now() + timedelta(days=3))
    assert ask_about_fallen() == 0


def test_what_was_put_aside_is_asked_about_again_after_as_long(anna: User) -> None:
    still()
    ask_about_fallen()
    assert dismiss(review=Review.objects.get(), user=anna)
    assert ask_about_fallen() == 0
    assert ask_about_fallen(now=timezone.now() + timedelta(days=8)) == 1


def test_nobody_is_asked_where_that_is_switched_off(settings: Any) -> None:
    settings.REVIEW_FELL_THROUGH_DAYS = 0
    still(days=100)
    assert ask_about_fallen() == 0


@pytest.mark.django_db(transaction=True)
def test_of_several_workers_one_asks() -> None:
    still()
    assert sum(in_threads(lambda _: ask_about_fallen(), 4)) == 1
    assert Review.objects.count() == 1
