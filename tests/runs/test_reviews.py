"""Answers to reviews: the first one wins, the second person is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department
from agents.spec import OutputEvent
from runs.effects import apply_effects
from runs.models import Action, AgentRun, Item, LogEntry, Message, Output, Review, Suppression, Trigger
from runs.reviews import approve, mark_sent, reject
from runs.staff import load_staff
from runs.triggers import record_reply
from tests.engine import in_threads, make_office
from tests.factories import make_lead, make_message, make_output, make_review, make_trigger, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def rita() -> User:
    return make_user("rita")


def drafted(**fields: object) -> Review:
    """A first mail that waits for its approval."""
    item = make_lead().item
    for key in ("intake", "qualification", "research", "strategy", "draft", "fact_check"):
        make_output(item, key)
    item.status = "drafted"
    item.save()
    return make_review(item, output=make_output(item, "email", **fields))


def mail_of(review: Review) -> Output:
    output = review.output
    assert output is not None
    output.refresh_from_db()
    return output


def test_an_approval_marks_the_output_and_is_a_decision(rita: User) -> None:
    review = drafted()
    assert approve(review=review, user=rita, note="Fine.")
    review.refresh_from_db()
    assert (review.status, review.answer, review.answer_note, review.answered_by) == (
        "answered",
        "approve",
        "Fine.",
        rita,
    )
    assert review.answered_at is not None
    assert mail_of(review).verdict == "approved"
    action = Action.objects.get()
    assert (action.verb, action.target, action.user) == ("approve", f"review:{review.pk}", rita)
    trigger = Trigger.objects.get()
    assert (trigger.kind, trigger.payload) == ("decision", {"answer": "approve", "key": "email", "note": "Fine."})
    assert Item.objects.get().status == "approved"
    assert AgentRun.objects.get().agent.slug == "crm_scribe"
    assert LogEntry.objects.get(kind="answer").text.startswith("rita answered approve to: ")


def test_a_rejection_keeps_the_output_marked_and_nothing_is_written_again(rita: User) -> None:
    review = drafted()
    assert reject(review=review, user=rita, reason="Too pushy.")
    assert (mail_of(review).verdict, mail_of(review).is_current) == ("rejected", True)
    assert Item.objects.get().status == "shelved"
    assert {run.agent.slug for run in AgentRun.objects.all()} == {"crm_scribe"}
    assert Action.objects.get().reason == "Too pushy."


@pytest.mark.parametrize(
    "second",
    [
        lambda review, user: approve(review=review, user=user),
        lambda review, user: reject(review=review, user=user, reason="No."),
    ],
    ids=["approve", "reject"],
)
def test_the_first_answer_wins(rita: User, second: Callable[[Review, User], bool]) -> None:
    review = drafted()
    assert approve(review=review, user=rita)
    assert not second(review, make_user("sam"))
    review.refresh_from_db()
    assert (review.answer, review.answered_by) == ("approve", rita)
    assert mail_of(review).verdict == "approved"
    assert Action.objects.count() == 1
    assert Trigger.objects.count() == 1


def test_a_question_about_an_output_that_was_replaced_cannot_be_answered(rita: User) -> None:
    review = drafted(is_current=False)
    assert not approve(review=review, user=rita)
    assert mail_of(review).verdict == "none"


def test_a_question_without_an_output_is_not_answered_here(rita: User) -> None:
    assert not approve(review=make_review(make_lead().item), user=rita)


def test_an_approval_on_a_paused_lead_starts_nothing_yet(rita: User) -> None:
    review = drafted()
    Item.objects.update(automation="paused")
    assert approve(review=review, user=rita)
    assert not AgentRun.objects.exists()
    assert Item.objects.get().route_due_at is not None


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_answer_at_once_one_does(rita: User) -> None:
    review = drafted()
    answers = in_threads(lambda n: approve(review=review, user=rita, note=str(n)), 4)
    assert sorted(answers) == [False, False, False, True]
    assert (Action.objects.count(), Trigger.objects.count()) == (1, 1)
    assert AgentRun.objects.count() == 1


# --- Sent by hand ---------------------------------------------------------------------------------------------


def test_a_mail_that_a_person_sent_is_a_message_and_the_follow_up_counts_from_it(rita: User) -> None:
    review = drafted(verdict="approved")
    output = mail_of(review)
    assert mark_sent(output=output, user=rita, address="lena@example.com")
    message = Message.objects.get()
    assert (message.direction, message.subject, message.body) == (
        "out",
        output.payload["subject"],
        output.payload["body"],
    )
    assert (message.output, message.trigger, message.address) == (output, None, "lena@example.com")
    assert Action.objects.get().verb == "mark_sent"
    follow_up = Trigger.objects.get(kind="follow_up")
    assert (follow_up.status, follow_up.payload) == ("open", {"number": 1})
    item = Item.objects.get()
    assert item.status == "contacted"
    assert item.route_due_at == follow_up.due_at


def test_what_was_sent_is_recorded_as_it_was_sent(rita: User) -> None:
    output = mail_of(drafted(verdict="approved"))
    assert mark_sent(output=output, user=rita, subject="Changed", body="By hand")
    assert (Message.objects.get().subject, Message.objects.get().body) == ("Changed", "By hand")


@pytest.mark.parametrize("verdict", ["none", "rejected"])
def test_what_nobody_approved_cannot_have_been_sent(rita: User, verdict: str) -> None:
    assert not mark_sent(output=mail_of(drafted(verdict=verdict)), user=rita)
    assert not Message.objects.exists()
    assert not Action.objects.exists()


def test_a_mail_is_recorded_as_sent_once(rita: User) -> None:
    output = mail_of(drafted(verdict="approved"))
    assert mark_sent(output=output, user=rita)
    assert not mark_sent(output=output, user=rita)
    assert Message.objects.count() == Trigger.objects.filter(kind="follow_up").count() == 1


def test_an_answer_belongs_to_its_reply(rita: User) -> None:
    item = make_lead().item
    reply = make_trigger(item, "reply", status="handled")
    output = make_output(item, "email", trigger=reply, verdict="approved")
    assert mark_sent(output=output, user=rita)
    assert Message.objects.get().trigger == reply
    assert not Trigger.objects.filter(kind="follow_up").exists(), "an answer is not followed up"


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_say_it_was_sent_one_is_recorded(rita: User) -> None:
    output = mail_of(drafted(verdict="approved"))
    assert sorted(in_threads(lambda _: mark_sent(output=output, user=rita), 4)) == [False, False, False, True]
    assert Message.objects.count() == 1


# --- What must not be approved any more -----------------------------------------------------------------------


def test_a_reply_takes_back_the_question_whether_the_first_mail_may_leave(rita: User) -> None:
    review = drafted()
    assert review.item is not None
    record_reply(item=review.item, body="I found something else.")
    review.refresh_from_db()
    assert (review.status, review.answer_note) == ("withdrawn", "A reply came in after it was written.")
    assert not approve(review=review, user=rita)
    assert mail_of(review).verdict == "none"


def test_an_opt_out_takes_back_every_open_draft(rita: User) -> None:
    review = drafted()
    assert review.item is not None
    trigger = make_trigger(review.item, "reply")
    reply = make_output(review.item, "draft", trigger=trigger)
    event = OutputEvent("written", "draft", {"opt_out": True, "intent": "unsubscribe"}, occasion_kind="reply")
    desk = load_staff().desks[review.department_id]
    apply_effects([((review.item, reply, event), desk)], now=timezone.now())
    review.refresh_from_db()
    assert review.status == "withdrawn"
    assert not approve(review=review, user=rita)


@pytest.mark.parametrize("entry", ["{email}", "@{domain}"])
def test_an_address_on_the_list_is_not_written_to_by_any_department(rita: User, entry: str) -> None:
    review = drafted()
    assert review.item is not None
    email = review.item.lead.email
    Suppression.objects.create(address=entry.format(email=email, domain=email.split("@")[1]), reason="manual")
    assert not approve(review=review, user=rita)
    review.refresh_from_db()
    assert (review.status, mail_of(review).verdict) == ("withdrawn", "none")
    assert "nobody writes to" in review.answer_note


def test_a_mail_that_answers_the_newest_reply_may_leave(rita: User) -> None:
    item = make_lead().item
    trigger = record_reply(item=item, body="Tell me more.")
    review = make_review(item, output=make_output(item, "email", trigger=trigger))
    assert approve(review=review, user=rita)
    older = make_review(item, output=make_output(item, "email", is_current=True))
    make_message(item, direction="in", at=timezone.now() + timedelta(seconds=1))
    assert not approve(review=older, user=rita)
