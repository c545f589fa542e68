"""Answers to reviews: the first one wins, the second person is told; what was answered can be taken back in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department
from agents.spec import OutputEvent
from runs.by_hand import write_output
from runs.control import close_item, reopen_item
from runs.effects import apply_effects
from runs.models import (
    Action,
    AgentRun,
    Channel,
    Item,
    LogEntry,
    Message,
    OutboxMessage,
    Output,
    Review,
    SendBack,
    Suppression,
    Trigger,
)
from runs.payloads import Unfit
from runs.reviews import approve, approve_edited, dismiss, mark_sent, reject, take_over, undo
from runs.rewrites import send_back
from runs.send_channels import CHANNELS
from runs.sending import claim
from runs.staff import load_staff
from runs.triggers import record_reply
from tests.engine import in_threads, make_office
from tests.factories import (
    make_agent_run,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_review,
    make_trigger,
    make_user,
)
from tests.runs.desk import item_of, mail_of, make_drafted
from tests.stateful.channel import RememberingChannel

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def rita() -> User:
    return make_user("rita")


def test_an_approval_marks_the_output_and_writes_the_mail_for_sending(rita: User) -> None:
    review = make_drafted()
    assert approve(review=review, user=rita, note="Fine.")
    review.refresh_from_db()
    found = (review.status, review.answer, review.answer_note, review.answered_by)
    assert found == ("answered", "approve", "Fine.", rita)
    assert review.answered_at is not None
    assert mail_of(review).verdict == "approved"
    action = Action.objects.get()
    assert (action.verb, action.target, action.user) == ("approve", f"review:{review.pk}", rita)
    message = OutboxMessage.objects.get()
    assert (message.output_id, message.status, message.approved_by) == (review.output_id, "pending", rita)
    assert (message.channel, message.purpose, message.key) == ("email", "first_mail", f"{review.item_id}:first_mail")
    assert Item.objects.get().status == "approved"
    assert LogEntry.objects.get(kind="answer").text.startswith("rita answered approve to: ")


def test_other_agents_hear_of_the_decision_when_it_cannot_be_taken_back_any_more(
    rita: User, office: Department
) -> None:
    Channel.objects.create(department=office, kind="email", undo_seconds=300)
    review = make_drafted()
    assert approve(review=review, user=rita, note="Fine.")
    trigger, message = Trigger.objects.get(), OutboxMessage.objects.get()
    assert (trigger.kind, trigger.payload) == ("decision", {"answer": "approve", "key": "email", "note": "Fine."})
    assert trigger.due_at == message.release_at > timezone.now() + timedelta(seconds=290)
    assert item_of(review).route_due_at == trigger.due_at
    assert not AgentRun.objects.exclude(status="done").exists()


def test_without_time_to_take_it_back_the_decision_is_told_at_once(rita: User, office: Department) -> None:
    Channel.objects.create(department=office, kind="email", undo_seconds=0)
    review = make_drafted()
    assert approve(review=review, user=rita)
    due = item_of(review).route_due_at
    assert due is not None
    assert due <= timezone.now()


def test_a_rejection_keeps_the_output_marked_and_nothing_is_written_again(rita: User) -> None:
    review = make_drafted()
    assert reject(review=review, user=rita, reason="Too pushy.", reason_code="tone")
    assert (mail_of(review).verdict, mail_of(review).is_current) == ("rejected", True)
    review.refresh_from_db()
    assert (review.reason_code, review.answer_note) == ("tone", "Too pushy.")
    assert Item.objects.get().status == "shelved"
    assert not AgentRun.objects.exclude(status="done").exists()
    assert not OutboxMessage.objects.exists()
    assert Trigger.objects.get().payload["answer"] == "reject"
    assert Action.objects.get().reason == "Too pushy."


ANSWERS: dict[str, Callable[[Review, User], Any]] = {
    "approve": lambda review, user: approve(review=review, user=user),
    "approve_edited": lambda review, user: approve_edited(review=review, user=user, changes={"subject": "New"}),
    "reject": lambda review, user: reject(review=review, user=user, reason="No."),
    "send_back": lambda review, user: send_back(review=review, user=user, note="Shorter."),
    "take_over": lambda review, user: take_over(review=review, user=user),
}


@pytest.mark.parametrize("first", ANSWERS)
@pytest.mark.parametrize("second", ANSWERS)
def test_the_first_answer_wins_and_the_second_person_is_told_whose_it_was(rita: User, first: str, second: str) -> None:
    review = make_drafted()
    assert ANSWERS[first](review, rita)
    actions = Action.objects.count()
    refused = ANSWERS[second](review, make_user("sam"))
    assert not refused
    assert "answered already by rita: " in refused.reason
    review.refresh_from_db()
    assert (review.answer, review.answered_by) == (first, rita)
    assert Action.objects.count() == actions


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_question_about_an_output_that_was_replaced_cannot_be_answered(rita: User, answer: str) -> None:
    review = make_drafted(is_current=False, retired_why="Somebody wrote another.")
    refused = ANSWERS[answer](review, rita)
    assert not refused
    assert refused.reason == "It has been replaced since. Somebody wrote another."
    assert mail_of(review).verdict == "none"
    assert not Action.objects.exists()


def test_a_question_without_an_output_is_not_answered_here(rita: User) -> None:
    assert not approve(review=make_review(make_lead().item), user=rita)


def test_an_approval_on_a_paused_lead_starts_nothing_yet(rita: User) -> None:
    review = make_drafted()
    Item.objects.update(automation="paused")
    assert approve(review=review, user=rita)
    assert not AgentRun.objects.exclude(status="done").exists()
    assert Item.objects.get().route_due_at is not None


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_item_that_is_worked_on_right_now_can_be_answered(rita: User, answer: str) -> None:
    review = make_drafted()
    running = make_agent_run(item_of(review), "researcher", status="running")
    assert ANSWERS[answer](review, rita)
    running.refresh_from_db()
    assert running.status == "running", "what is under way on something else goes on"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("answer", ANSWERS)
def test_of_two_people_who_answer_at_once_one_does(rita: User, answer: str) -> None:
    review = make_drafted()
    answers = in_threads(lambda _: bool(ANSWERS[answer](review, rita)), 4)
    assert sorted(answers) == [False, False, False, True]
    assert Action.objects.filter(target=f"review:{review.pk}").count() == 1
    assert OutboxMessage.objects.count() == (answer in ("approve", "approve_edited"))


@pytest.mark.django_db(transaction=True)
def test_of_different_answers_at_once_one_counts(rita: User) -> None:
    review = make_drafted()
    names = sorted(ANSWERS)
    answers = in_threads(lambda number: bool(ANSWERS[names[number]](review, rita)), len(names))
    assert sum(answers) == 1
    review.refresh_from_db()
    assert review.answer == names[answers.index(True)]


# --- The text that was shown ------------------------------------------------------------------------------------

PINNED: dict[str, Callable[[Review, User, int], Any]] = {
    "approve": lambda review, user, shown: approve(review=review, user=user, output_id=shown),
    "approve_edited": lambda review, user, shown: approve_edited(
        review=review, user=user, changes={"subject": "New"}, output_id=shown
    ),
    "reject": lambda review, user, shown: reject(review=review, user=user, reason="No.", output_id=shown),
    "send_back": lambda review, user, shown: send_back(review=review, user=user, note="Shorter.", output_id=shown),
}


def change_and_undo(review: Review, user: User) -> bool:
    """Another text has come in the place of the one that was asked about, and the question is open again."""
    changed = approve_edited(review=review, user=user, changes={"body": "Another text."})
    return bool(changed) and bool(undo(review=review, user=user))


@pytest.mark.parametrize("answer", PINNED)
def test_no_answer_is_about_another_text_than_the_one_that_was_shown(rita: User, answer: str) -> None:
    review = make_drafted()
    shown = mail_of(review).pk
    assert change_and_undo(review, rita)
    review.refresh_from_db()
    actions = Action.objects.count()
    refused = PINNED[answer](review, make_user("sam"), shown)
    assert refused.reason == "It is about another text than the one that you were shown. Look again."
    review.refresh_from_db()
    assert (review.status, mail_of(review).verdict, Action.objects.count()) == ("open", "none", actions)
    assert not SendBack.objects.exists()
    if answer != "send_back":  # a person wrote what is asked about now
        assert PINNED[answer](review, rita, mail_of(review).pk)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("answer", PINNED)
def test_an_answer_that_races_another_text_is_about_the_one_that_was_shown_or_none(rita: User, answer: str) -> None:
    review = make_drafted()
    shown, sam = mail_of(review), make_user("sam")

    def job(number: int) -> bool:
        return change_and_undo(review, rita) if number == 0 else bool(PINNED[answer](review, sam, shown.pk))

    in_threads(job, 3)
    decided = Action.objects.filter(user=sam, target=f"review:{review.pk}")
    assert decided.count() <= 1
    review.refresh_from_db()
    if decided.exists():
        assert (review.answer, review.answered_by, review.output) == (answer, sam, shown)
        assert not Output.objects.filter(payload__body="Another text.").exists()
    else:
        assert (review.status, mail_of(review).verdict) == ("open", "none")
        assert mail_of(review).payload["body"] == "Another text."


# --- Edited ---------------------------------------------------------------------------------------------------


def test_an_edited_mail_is_a_new_output_of_a_person_and_the_old_one_stays_for_the_diff(rita: User) -> None:
    review = make_drafted()
    before = mail_of(review)
    assert approve_edited(review=review, user=rita, changes={"body": "Dear Ms Weber,\n\nhello."})
    review.refresh_from_db()
    edited = review.edited
    assert edited is not None
    assert (edited.key, edited.number, edited.origin, edited.author) == ("email", before.number + 1, "edited", rita)
    assert (edited.replaces, edited.verdict, edited.is_current) == (before, "approved", True)
    assert edited.payload == {**before.payload, "body": "Dear Ms Weber,\n\nhello."}
    assert (review.output, review.answer) == (before, "approve_edited")
    message = OutboxMessage.objects.get()
    assert (message.output, message.approved_by) == (edited, rita)
    assert "hello." in str(message.rendered)


def test_only_the_final_message_is_replaced(rita: User) -> None:
    review = make_drafted()
    others = set(Output.objects.exclude(key="email").values_list("pk", flat=True))
    assert approve_edited(review=review, user=rita, changes={"subject": "Freight"})
    assert set(Output.objects.filter(is_current=True).exclude(key="email").values_list("pk", flat=True)) == others


@pytest.mark.parametrize("names", [("subject",), ("subject", "body"), ()])
def test_an_edit_that_changes_nothing_approves_what_is_there(rita: User, names: tuple[str, ...]) -> None:
    review = make_drafted()
    assert approve_edited(review=review, user=rita, changes={name: mail_of(review).payload[name] for name in names})
    review.refresh_from_db()
    assert (review.answer, review.edited, mail_of(review).verdict) == ("approve", None, "approved")
    assert Action.objects.get().verb == "approve", "as written: it does not count as an edit of the agent's"


@pytest.mark.parametrize("changes", [{"subject": ""}, {"body": ""}, {"subject": "Two\nlines"}, {"other": "x"}])
def test_what_does_not_fit_the_schema_is_refused_and_nothing_happens(rita: User, changes: dict[str, str]) -> None:
    review = make_drafted()
    with pytest.raises(Unfit):
        approve_edited(review=review, user=rita, changes=changes)
    review.refresh_from_db()
    assert (review.status, mail_of(review).verdict, mail_of(review).is_current) == ("open", "none", True)
    assert not Action.objects.exists()
    assert not OutboxMessage.objects.exists()


# --- Undo -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["approve", "approve_edited", "reject"])
def test_an_answer_can_be_taken_back_until_it_has_left(rita: User, answer: str) -> None:
    review = make_drafted()
    assert ANSWERS[answer](review, rita)
    assert undo(review=review, user=rita)
    review.refresh_from_db()
    assert (review.status, review.answer, review.answered_by, review.answered_at) == ("open", "", None, None)
    assert (mail_of(review).verdict, mail_of(review).is_current) == ("none", True)
    assert not OutboxMessage.objects.exclude(status="withdrawn").exists()
    trigger = Trigger.objects.get()
    assert (trigger.status, trigger.settled_note) == ("noted", "rita took the answer back.")
    assert item_of(review).status == "drafted"
    assert item_of(review).route_due_at is None
    assert list(Action.objects.order_by("pk").values_list("verb", flat=True)) == [answer, "undo"]


def test_what_was_edited_is_asked_about_again_as_it_was_edited(rita: User) -> None:
    review = make_drafted()
    assert approve_edited(review=review, user=rita, changes={"subject": "Freight"})
    assert undo(review=review, user=rita)
    review.refresh_from_db()
    assert mail_of(review).payload["subject"] == "Freight"
    assert mail_of(review).replaces is not None
    assert approve(review=review, user=rita)
    assert OutboxMessage.objects.get().output_id == review.output_id


def test_who_was_told_of_it_while_the_mail_waited_on_stops_and_nothing_leaves_of_it(rita: User) -> None:
    review = make_drafted()
    item = item_of(review)
    assert approve(review=review, user=rita)
    # The undo time is over, but the mail waits for its quiet hours: the CRM Scribe is at work on the decision.
    told = Trigger.objects.get(item=item, source=f"review:{review.pk}")
    run = make_agent_run(item, "crm_scribe", status="running", trigger=told)
    written = make_output(item, "crm_update", trigger=told)
    key = f"{item.pk}:crm_update:{told.pk}"
    update = make_outbox(item, key=key, output=written, channel="crm", purpose="crm_update", trigger=told)
    assert undo(review=review, user=rita)
    run.refresh_from_db()
    update.refresh_from_db()
    told.refresh_from_db()
    assert (run.status, run.lease_token) == (AgentRun.Status.CANCELLED, None)
    assert update.status == OutboxMessage.Status.WITHDRAWN
    assert told.status == Trigger.Status.NOTED


def test_an_answer_that_was_taken_back_can_be_given_again_with_the_same_message(rita: User) -> None:
    review = make_drafted()
    for _ in range(2):
        assert approve(review=review, user=rita)
        assert undo(review=review, user=rita)
    assert approve(review=review, user=rita)
    assert OutboxMessage.objects.get().status == "pending"
    assert Trigger.objects.filter(status="open").count() == 1


@pytest.mark.parametrize("status", ["sending", "sent", "unknown"])
def test_what_has_left_cannot_be_taken_back(rita: User, status: str) -> None:
    review = make_drafted()
    assert approve(review=review, user=rita)
    OutboxMessage.objects.all().delete()
    make_outbox(item_of(review), output=mail_of(review), status=status)
    refused = undo(review=review, user=rita)
    assert not refused
    assert refused.reason == "It has left the house, or is just leaving."
    assert mail_of(review).verdict == "approved"


@pytest.mark.parametrize("status", ["withdrawn", "failed"])
def test_what_was_withdrawn_or_could_not_be_sent_is_decided_anew(rita: User, status: str) -> None:
    review = make_drafted()
    assert approve(review=review, user=rita)
    OutboxMessage.objects.update(status=status)
    Review.objects.update(answered_at=timezone.now() - timedelta(days=1))
    assert undo(review=review, user=rita)
    assert approve(review=review, user=rita)
    assert OutboxMessage.objects.get().status == "pending"


@pytest.mark.parametrize("how", ["close", "edit", "hold"])
def test_of_an_approval_that_came_to_nothing_nobody_is_told(
    rita: User, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANNELS, "email", RememberingChannel(Counter()))
    review = make_drafted()
    item, mail = item_of(review), mail_of(review)
    settings = {"sender": "mara@example.com"}
    Channel.objects.create(department=item.department, kind="email", settings=settings)
    assert approve(review=review, user=rita)
    if how == "close":
        assert close_item(item=item, user=rita)
    elif how == "edit":
        payload = {**mail.payload, "body": "Dear Ms Weber,\n\nmy own words."}
        assert write_output(item=item, user=rita, key="email", trigger=None, payload=payload, seen=mail.pk)[0]
    else:
        record_reply(item=item, body="Please wait.")
        assert claim(worker="host:1") is None
    assert not OutboxMessage.objects.filter(status="pending").exists()
    assert Trigger.objects.get(kind="decision").status == "noted"


def test_a_rejection_can_be_taken_back_for_a_while_only(rita: User) -> None:
    review = make_drafted()
    assert reject(review=review, user=rita, reason="No.")
    Review.objects.update(answered_at=timezone.now() - timedelta(seconds=61))
    assert undo(review=review, user=rita).reason == "The time to take it back is over."


def test_what_was_sent_back_is_being_written_again_and_not_taken_back(rita: User) -> None:
    review = make_drafted()
    assert send_back(review=review, user=rita, note="Shorter.")
    assert undo(review=review, user=rita).reason == "There is no answer that can be taken back."


def test_on_a_closed_item_nothing_is_asked_again(rita: User) -> None:
    review = make_drafted()
    assert approve(review=review, user=rita)
    assert close_item(item=item_of(review), user=rita)
    assert undo(review=review, user=rita).reason == "It is closed. Reopen it first."
    assert not Review.objects.filter(status="open").exists()


def test_what_is_asked_anew_meanwhile_is_not_asked_twice(rita: User) -> None:
    review = make_drafted()
    assert approve(review=review, user=rita)
    assert close_item(item=item_of(review), user=rita)
    assert reopen_item(item=item_of(review), user=rita)
    assert undo(review=review, user=rita).reason == "It is asked about already."
    assert Review.objects.filter(status="open", output=review.output_id).count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_take_it_back_at_once_one_does(rita: User) -> None:
    review = make_drafted()
    assert approve(review=review, user=rita)
    assert sorted(in_threads(lambda _: bool(undo(review=review, user=rita)), 4)) == [False, False, False, True]
    assert Action.objects.filter(verb="undo").count() == 1


# --- Taken over, put aside ------------------------------------------------------------------------------------


def test_who_takes_over_has_answered_and_the_item_is_theirs(rita: User) -> None:
    review = make_drafted()
    assert take_over(review=review, user=rita, reason="A friend of mine.")
    review.refresh_from_db()
    assert (review.status, review.answer) == ("answered", "take_over")
    item = item_of(review)
    assert (item.automation, item.automation_by, item.automation_reason) == ("taken_over", rita, "A friend of mine.")


def test_what_is_taken_over_already_is_not_taken_over_again(rita: User) -> None:
    review = make_drafted()
    Item.objects.update(automation="taken_over")
    assert not take_over(review=review, user=rita)
    review.refresh_from_db()
    assert review.status == "open"


def test_an_item_that_fell_through_is_put_aside_and_counts_from_now(rita: User) -> None:
    item = make_lead().item
    long_ago = timezone.now() - timedelta(days=30)
    Item.objects.update(changed_at=long_ago)
    review = make_review(item, kind="fell_through")
    assert dismiss(review=review, user=rita, reason="They are on holiday.")
    assert not dismiss(review=review, user=rita)
    review.refresh_from_db()
    assert (review.status, review.answer, review.answer_note) == ("answered", "dismiss", "They are on holiday.")
    assert item_of(review).changed_at > long_ago
    assert Action.objects.get().verb == "dismiss"


def test_a_question_about_a_budget_belongs_to_no_item_and_is_put_aside(rita: User, office: Department) -> None:
    review = Review.objects.create(department=office, kind="budget", ask="Raise it?")
    assert dismiss(review=review, user=rita)
    assert Action.objects.get().item is None


def test_a_draft_cannot_be_put_aside(rita: User) -> None:
    review = make_drafted()
    assert not dismiss(review=review, user=rita)
    review.refresh_from_db()
    assert review.status == "open"


# --- Sent by hand ---------------------------------------------------------------------------------------------


def test_a_mail_that_a_person_sent_is_a_message_and_the_follow_up_counts_from_it(rita: User) -> None:
    output = mail_of(make_drafted(verdict="approved"))
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
    output = mail_of(make_drafted(verdict="approved"))
    assert mark_sent(output=output, user=rita, subject="Changed", body="By hand")
    assert (Message.objects.get().subject, Message.objects.get().body) == ("Changed", "By hand")


@pytest.mark.parametrize("verdict", ["none", "rejected"])
def test_what_nobody_approved_cannot_have_been_sent(rita: User, verdict: str) -> None:
    assert not mark_sent(output=mail_of(make_drafted(verdict=verdict)), user=rita)
    assert not Message.objects.exists()
    assert not Action.objects.exists()


def test_a_mail_is_recorded_as_sent_once(rita: User) -> None:
    output = mail_of(make_drafted(verdict="approved"))
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
    output = mail_of(make_drafted(verdict="approved"))
    assert sorted(in_threads(lambda _: mark_sent(output=output, user=rita), 4)) == [False, False, False, True]
    assert Message.objects.count() == 1


# --- What must not be approved any more -----------------------------------------------------------------------


def test_a_reply_takes_back_the_question_whether_the_first_mail_may_leave(rita: User) -> None:
    review = make_drafted()
    assert review.item is not None
    record_reply(item=review.item, body="I found something else.")
    review.refresh_from_db()
    assert (review.status, review.answer_note) == ("withdrawn", "A reply came in after it was written.")
    assert not approve(review=review, user=rita)
    assert mail_of(review).verdict == "none"


def test_an_opt_out_takes_back_every_open_draft(rita: User) -> None:
    review = make_drafted()
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
    review = make_drafted()
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


def test_what_was_sent_by_hand_does_not_leave_the_outbox_as_well(rita: User) -> None:
    review = make_drafted()
    assert approve(review=review, user=rita)
    assert mark_sent(output=mail_of(review), user=rita)
    assert not mark_sent(output=mail_of(review), user=rita)
    assert OutboxMessage.objects.get().status == "sent"
    assert Message.objects.get().direction == "out"


@pytest.mark.parametrize("status", ["sending", "unknown"])
def test_what_may_have_left_by_itself_is_not_recorded_as_sent_by_hand(rita: User, status: str) -> None:
    output = mail_of(make_drafted(verdict="approved"))
    make_outbox(output.item, output=output, status=status)
    assert not mark_sent(output=output, user=rita)
    assert not Message.objects.exists()
