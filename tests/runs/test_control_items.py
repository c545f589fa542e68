"""Pausing, taking over and closing items, and letting them go on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department
from runs import control, tasks
from runs.allowed import Allowed
from runs.commits import commit
from runs.dispatch import route_due
from runs.models import Action, AgentRun, Item, LogEntry, OutboxMessage, Output, PipelineRun, Review, Trigger
from runs.staff import load_staff
from tests.engine import answered, at_work, claim, in_threads, keys_of, make_office, run_of, wait_for
from tests.factories import (
    make_agent_run,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_pipeline_run,
    make_review,
    make_user,
)
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db
Verb = Callable[..., Allowed]
VERBS: dict[str, tuple[Verb, str, str]] = {
    "pause": (control.pause_item, "active", "paused"),
    "resume": (control.resume_item, "paused", "active"),
    "take_over": (control.take_over_item, "active", "taken_over"),
    "hand_back": (control.hand_back_item, "taken_over", "active"),
    "close": (control.close_item, "active", "closed"),
    "reopen": (control.reopen_item, "closed", "active"),
}


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def olga() -> User:
    return make_user("olga")


def make_item(automation: str = "active", **fields: Any) -> Item:
    return make_lead(automation=automation, **fields).item


def now_of(item: Item) -> Item:
    return Item.objects.get(pk=item.pk)


# --- Every verb -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_it_switches_the_item_and_says_who_and_why(verb: str, olga: User) -> None:
    do, before, after = VERBS[verb]
    item = make_item(before)
    assert do(item=item, user=olga, reason="She is on holiday.")
    item = now_of(item)
    assert item.automation == after
    is_off = after != "active"
    assert (item.automation_by, item.automation_reason) == ((olga, "She is on holiday.") if is_off else (None, ""))
    action = Action.objects.get()
    assert (action.verb, action.user, action.item, action.reason) == (verb, olga, item, "She is on holiday.")
    assert (action.before["automation"], action.after["automation"]) == (before, after)
    text = LogEntry.objects.get(kind="automation").text
    assert text.startswith("olga ")
    assert "She is on holiday" in text


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_time_changes_nothing_and_says_why(verb: str, olga: User) -> None:
    do, before, _ = VERBS[verb]
    item = make_item(before)
    do(item=item, user=olga)
    state = (now_of(item).automation, Trigger.objects.count())
    answer = do(item=item, user=make_user("otto"))
    assert not answer
    assert answer.reason
    assert (now_of(item).automation, Trigger.objects.count()) == state
    assert Action.objects.count() == 1


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.django_db(transaction=True)
def test_of_two_people_at_once_one_does_it(verb: str) -> None:
    do, before, _ = VERBS[verb]
    item, users = make_item(before), [make_user("olga"), make_user("otto")]
    done = in_threads(lambda number: bool(do(item=item, user=users[number])), 2)
    assert sorted(done) == [False, True]
    assert Action.objects.count() == 1


def test_the_second_person_is_told_who_was_first_and_why(olga: User) -> None:
    item = make_item()
    control.take_over_item(item=item, user=olga, reason="I know her.")
    answer = control.pause_item(item=item, user=make_user("otto"))
    assert answer.reason == "It is taken over by olga: I know her."


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("pause", "taken_over"),
        ("pause", "closed"),
        ("resume", "taken_over"),
        ("resume", "closed"),
        ("take_over", "closed"),
        ("hand_back", "paused"),
        ("hand_back", "closed"),
        ("reopen", "paused"),
        ("reopen", "taken_over"),
    ],
)
def test_a_state_is_left_by_its_own_way_only(verb: str, state: str, olga: User) -> None:
    item = make_item(state)
    assert not VERBS[verb][0](item=item, user=olga)
    assert now_of(item).automation == state


@pytest.mark.parametrize("state", ["paused", "taken_over"])
def test_what_is_switched_off_can_be_closed(state: str, olga: User) -> None:
    item = make_item(state)
    assert control.close_item(item=item, user=olga)


def test_a_paused_item_can_be_taken_over(olga: User) -> None:
    assert control.take_over_item(item=make_item("paused"), user=olga)


# --- What it means for the work -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pause", "take_over", "close"])
def test_a_step_under_way_ends_and_nothing_further_starts(verb: str, olga: User) -> None:
    run = make_agent_run(make_item(), "intake")
    work = claim()[0]
    item = run.item
    assert VERBS[verb][0](item=item, user=olga)
    assert run_of(work).status == "running", "it finishes its step"
    commit([answered(work)], load_staff())
    assert run_of(work).status == "done"
    assert keys_of(item) == {("intake", "item")}
    assert not AgentRun.objects.filter(item=item, status="queued").exists()
    assert route_due(10, staff=load_staff()) == 0
    assert claim() == []


@pytest.mark.parametrize(("stop", "go_on"), [("pause", "resume"), ("take_over", "hand_back"), ("close", "reopen")])
def test_what_was_wanted_is_wanted_when_it_goes_on(stop: str, go_on: str, olga: User) -> None:
    item = make_item(route_due_at=timezone.now())
    VERBS[stop][0](item=item, user=olga)
    assert route_due(10, staff=load_staff()) == 0
    VERBS[go_on][0](item=item, user=olga, reason="Back.")
    resumed = Trigger.objects.get(item=item, kind="resume")
    assert resumed.payload == {"reason": "Back."}
    route_due(10, staff=load_staff())
    assert [run.agent.slug for run in AgentRun.objects.filter(item=item, status="queued")] == ["intake"]
    resumed.refresh_from_db()
    assert resumed.status == "noted", "no rule of sales speaks of it; it has woken the router"


def test_a_queued_step_waits_while_it_is_paused_and_is_taken_afterwards(olga: User) -> None:
    run = make_agent_run(make_item(), "intake")
    control.pause_item(item=run.item, user=olga)
    assert claim() == []
    control.resume_item(item=run.item, user=olga)
    assert [work.run_id for work in claim()] == [run.pk]


# --- Until when -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pause", "take_over", "close"])
def test_it_goes_on_by_itself_when_the_time_has_come(verb: str, olga: User) -> None:
    item = make_item()
    assert VERBS[verb][0](item=item, user=olga, until=timezone.now() + timedelta(hours=1))
    assert control.resume_due() == 0
    Item.objects.update(automation_until=timezone.now() - timedelta(seconds=1))
    assert control.resume_due() == 1
    item = now_of(item)
    assert (item.automation, item.automation_until, item.automation_by) == ("active", None, None)
    assert Trigger.objects.filter(item=item, kind="resume", status="open").exists() or verb == "close"
    assert "by itself" in LogEntry.objects.filter(kind="automation").latest("pk").text
    assert control.resume_due() == 0
    route_due(10, staff=load_staff())
    assert AgentRun.objects.filter(item=item, status="queued").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_several_workers_one_lets_it_go_on() -> None:
    item = make_item("paused")
    Item.objects.update(automation_until=timezone.now() - timedelta(seconds=1))
    assert sum(in_threads(lambda _: control.resume_due(), 4)) == 1
    assert Trigger.objects.filter(item=item, kind="resume").count() == 1


def test_a_time_that_has_passed_is_refused(olga: User) -> None:
    item = make_item()
    answer = control.pause_item(item=item, user=olga, until=timezone.now() - timedelta(minutes=1))
    assert "has to lie ahead" in answer.reason
    assert now_of(item).automation == "active"


def test_a_resume_by_hand_forgets_the_time(olga: User) -> None:
    item = make_item()
    control.pause_item(item=item, user=olga, until=timezone.now() + timedelta(hours=1))
    control.resume_item(item=item, user=olga)
    assert now_of(item).automation_until is None


# --- Closing --------------------------------------------------------------------------------------------------


def test_closing_leaves_nothing_waiting(olga: User) -> None:
    item = make_item(flag="Qualifier failed.")
    pipeline = make_pipeline_run(item)
    waiting = make_agent_run(item, "writer")
    failed = make_agent_run(item, "qualifier", status="failed")
    question = make_review(item, agent_run=failed, cause="qualifier:timeout")
    email = make_output(item, "email", verdict="approved")
    draft = make_review(item, output=make_output(item, "intake"), kind="low_confidence")
    unsent = make_outbox(item, output=email)
    control.close_item(item=item, user=olga, reason="Bought elsewhere.")
    for row in (pipeline, waiting, question, draft, unsent, email):
        row.refresh_from_db()
    assert (pipeline.status, waiting.status) == ("cancelled", "cancelled")
    assert (question.status, question.answer, draft.status) == ("answered", "accept", "withdrawn")
    assert (unsent.status, email.verdict) == ("withdrawn", "none")
    assert "Bought elsewhere" in unsent.reason
    assert now_of(item).flag == ""
    assert not Review.objects.filter(item=item, status="open").exists()


def test_what_may_have_been_sent_stays_as_it_is_and_a_person_still_has_to_say(olga: User) -> None:
    item = make_item()
    sent = make_outbox(item, status="sent")
    unsure = make_outbox(item, status="unknown", key="x", output=sent.output)
    question = make_review(item, kind="unsure_send", outbox=unsure)
    control.close_item(item=item, user=olga)
    assert set(OutboxMessage.objects.values_list("status", flat=True)) == {"sent", "unknown"}
    question.refresh_from_db()
    assert question.status == "open"


def test_reopening_asks_again_about_a_mail_that_never_left(olga: User) -> None:
    item = make_item(status="drafted")
    email = make_output(item, "email")
    make_review(item, output=email)
    control.close_item(item=item, user=olga)
    control.reopen_item(item=item, user=olga)
    assert [r.output_id for r in Review.objects.filter(item=item, status="open", kind="draft")] == [email.pk]


def test_reopening_asks_nothing_about_a_mail_that_was_sent_or_rejected(olga: User) -> None:
    item = make_item(status="contacted")
    make_message(item, "out", output=make_output(item, "email"))
    control.close_item(item=item, user=olga)
    control.reopen_item(item=item, user=olga)
    rejected = make_item(status="shelved")
    make_output(rejected, "email", verdict=Output.Verdict.REJECTED)
    control.close_item(item=rejected, user=olga)
    control.reopen_item(item=rejected, user=olga)
    assert not Review.objects.filter(status="open").exists()


def test_a_run_that_was_closed_is_not_the_one_that_goes_on(olga: User) -> None:
    item = make_item(route_due_at=timezone.now())
    route_due(10, staff=load_staff())
    control.close_item(item=item, user=olga)
    control.reopen_item(item=item, user=olga)
    route_due(10, staff=load_staff())
    assert sorted(PipelineRun.objects.filter(item=item).values_list("status", flat=True)) == ["active", "cancelled"]


def test_every_minute_lets_go_on_what_is_due() -> None:
    item = make_item("paused")
    Item.objects.update(automation_until=timezone.now() - timedelta(seconds=1))
    tasks.every_minute()
    assert now_of(item).automation == "active"


@pytest.mark.django_db(transaction=True)
def test_a_shift_lets_go_on_what_is_due_within_seconds(simulator: SimulatorServer) -> None:
    item = make_item("paused")
    Item.objects.update(automation_until=timezone.now() + timedelta(seconds=1))
    with at_work():
        wait_for(lambda: now_of(item).automation == "active", "it goes on", 6)
        wait_for(lambda: keys_of(item) >= {("intake", "item")}, "agents work on it")


def test_one_that_cannot_go_on_holds_up_no_other() -> None:
    broken, fine = make_item("closed"), make_item("paused")
    gone = Department.objects.create(kind="gone", slug="gone", name="Gone")
    Item.objects.filter(pk=broken.pk).update(department=gone)
    Item.objects.update(automation_until=timezone.now() - timedelta(seconds=1))
    assert control.resume_due() == 1
    assert (now_of(broken).automation, now_of(fine).automation) == ("closed", "active")
