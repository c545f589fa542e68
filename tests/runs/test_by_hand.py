"""Notes, calls, replies, mails and outputs that people enter."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pydantic import ValidationError

from agents.models import Department
from runs import by_hand, control
from runs.commits import commit
from runs.dispatch import route_due
from runs.models import Action, AgentRun, Item, Message, OutboxMessage, Output, Review, Trigger
from runs.staff import load_staff
from tests.engine import answered, claim, drain, in_threads, keys_of, make_due, make_office
from tests.factories import (
    PAYLOADS,
    make_agent_run,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_trigger,
    make_user,
)
from tests.runs.test_outputs import made, made_all
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db
OFF = ["active", "paused", "taken_over"]


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def item() -> Item:
    return make_lead().item


@pytest.fixture
def olga() -> User:
    return make_user("olga")


def write(item: Item, user: User, key: str = "qualification", **options: Any) -> Any:
    trigger = options.setdefault("trigger", None)
    current = Output.objects.filter(item=item, key=key, trigger=trigger, is_current=True).first()
    options.setdefault("seen", current.pk if current else None)
    options.setdefault("payload", PAYLOADS[key])
    return by_hand.write_output(item=item, user=user, key=key, **options)


# --- Notes, replies, mails ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["note", "call"])
def test_agents_are_given_what_was_noted(channel: str, item: Item, olga: User) -> None:
    make_agent_run(item, "intake")
    assert by_hand.add_note(item=item, user=olga, text="She prefers the phone.", channel=channel)
    message = Message.objects.get()
    assert (message.direction, message.channel, message.author) == ("note", channel, olga)
    assert Action.objects.get().verb == f"add_{channel}"
    (work,) = claim()
    assert work.prepared.data.notes == ("She prefers the phone.",)
    assert "She prefers the phone." in json.dumps(work.first_call.request.params["messages"])


def test_a_note_without_words_is_refused(item: Item, olga: User) -> None:
    assert by_hand.add_note(item=item, user=olga, text="  ").reason == "Write something."
    assert not by_hand.add_note(item=item, user=olga, text="x", channel="fax")
    assert not Message.objects.exists()


@pytest.mark.parametrize("automation", OFF)
def test_a_reply_is_read_when_the_item_goes_on(automation: str, item: Item, olga: User) -> None:
    make_message(item, "out", at=timezone.now() - timedelta(days=1))
    for key in ("intake", "qualification"):
        make_output(item, key)
    Item.objects.update(automation=automation, status="contacted")
    assert by_hand.enter_reply(item=item, user=olga, body="Yes, gladly.", subject="Re: Hi", form="1")
    message = Message.objects.get(direction="in")
    assert (message.body, message.author, message.subject) == ("Yes, gladly.", olga, "Re: Hi")
    trigger = Trigger.objects.get(kind="reply")
    route_due(10, staff=load_staff())
    assert AgentRun.objects.filter(trigger=trigger).exists() is (automation == "active")
    Item.objects.update(automation="active")
    route_due(10, staff=load_staff())
    assert list(AgentRun.objects.filter(item=item).values_list("agent__slug", flat=True)) == ["reply_handler"]


def test_one_form_is_one_reply(item: Item, olga: User) -> None:
    assert by_hand.enter_reply(item=item, user=olga, body="Yes.", form="1")
    again = by_hand.enter_reply(item=item, user=olga, body="Yes.", form="1")
    assert again.reason == "This reply is recorded already."
    assert Trigger.objects.filter(kind="reply").count() == 1
    assert Action.objects.count() == 1


def test_a_reply_is_not_empty_and_not_from_the_future(item: Item, olga: User) -> None:
    assert not by_hand.enter_reply(item=item, user=olga, body=" ", form="1")
    later = timezone.now() + timedelta(hours=1)
    assert "future" in by_hand.enter_reply(item=item, user=olga, body="Yes.", at=later, form="1").reason
    assert not Message.objects.exists()


@pytest.mark.parametrize("automation", OFF)
def test_a_mail_goes_into_the_outbox(automation: str, item: Item, olga: User) -> None:
    Item.objects.update(automation=automation)
    assert by_hand.write_mail(item=item, user=olga, subject="Hello\nLena", body="Dear Lena,\n\nshall we talk?")
    message = OutboxMessage.objects.get()
    assert (message.status, message.approved_by, message.output) == ("pending", olga, None)
    assert message.rendered["subject"] == "Hello Lena"


def test_to_a_closed_item_nobody_writes(item: Item, olga: User) -> None:
    control.close_item(item=item, user=olga, reason="Bought.")
    assert "Reopen it first" in by_hand.write_mail(item=item, user=olga, subject="Hi", body="Hi").reason
    assert "subject and a text" in by_hand.write_mail(item=item, user=olga, subject="", body="Hi").reason
    assert not OutboxMessage.objects.exists()


# --- Outputs --------------------------------------------------------------------------------------------------


def test_an_output_is_entered_and_agents_go_on_from_it(item: Item, olga: User) -> None:
    made(item, "intake", facets={"category": "lead"})
    answer, output = write(item, olga, reason="I know her.")
    assert answer
    assert (output.origin, output.author, output.replaces, output.agent_run) == ("injected", olga, None, None)
    assert output.facets == {"tier": "Hot", "score": 84}
    action = Action.objects.get()
    assert (action.verb, action.target, action.reason) == ("inject", f"output:{output.pk}", "I know her.")
    item.refresh_from_db()
    assert (item.status, item.priority) == ("qualified", 20), "what it implies holds for a person's output, too"
    assert "researcher" in set(AgentRun.objects.filter(status="queued").values_list("agent__slug", flat=True))
    assert "qualifier" not in set(AgentRun.objects.values_list("agent__slug", flat=True))


@pytest.mark.django_db(transaction=True)
def test_agents_use_it_and_never_overwrite_it(simulator: SimulatorServer, olga: User) -> None:
    item = make_lead().item
    payload = {**PAYLOADS["draft"], "subject": "From Olga's own hand"}
    answer, mine = write(item, olga, "draft", payload=payload)
    assert answer
    make_due(item)
    drain()
    mine.refresh_from_db()
    assert mine.is_current
    assert not AgentRun.objects.filter(agent__slug="writer").exists()
    email = Output.objects.get(item=item, key="email", is_current=True)
    assert mine.pk in email.made_from
    asked = [r["body"] for r in simulator.requests() if r["headers"]["x-kontor-agent"] == "formatter"]
    assert "From Olga's own hand" in asked[0]


def test_an_edited_output_knows_what_it_replaced_and_takes_the_rest_along(item: Item, olga: User) -> None:
    rows = made_all(item)
    payload = {**PAYLOADS["research"], "unknowns": []}
    answer, output = write(item, olga, "research", payload=payload)
    assert answer
    assert (output.origin, output.replaces, output.number) == ("edited", rows["research"], 2)
    assert {key for key, _ in keys_of(item)} == {"intake", "qualification", "research"}
    action = Action.objects.get()
    assert action.verb == "edit"
    assert action.before["payload"]["unknowns"] != action.after["payload"]["unknowns"]


def test_a_final_mail_by_hand_is_still_asked_about(item: Item, olga: User) -> None:
    answer, output = write(item, olga, "email")
    assert answer
    review = Review.objects.get(status="open")
    assert (review.kind, review.output) == ("draft", output)


def test_what_does_not_fit_the_schema_is_refused(item: Item, olga: User) -> None:
    made_all(item)
    for payload in ({}, {**PAYLOADS["qualification"], "tier": "Cold"}, {**PAYLOADS["qualification"], "extra": 1}):
        with pytest.raises(ValidationError):
            write(item, olga, payload=payload)
    assert Output.objects.filter(is_current=True).count() == 7
    assert not Action.objects.exists()


def test_what_has_left_the_house_is_not_edited(item: Item, olga: User) -> None:
    rows = made_all(item)
    make_outbox(item, output=rows["email"], status="sent")
    answer, output = write(item, olga, "email", payload={**PAYLOADS["email"], "subject": "Other"})
    assert "left the house" in answer.reason
    assert output is None


def test_what_nobody_writes_for_the_occasion_is_refused(item: Item, olga: User) -> None:
    answer, _ = write(item, olga, "crm_update")
    assert "No agent" in answer.reason
    decision = make_trigger(item, "decision")
    answer, output = write(item, olga, "crm_update", trigger=decision)
    assert answer
    assert output.trigger == decision


def test_who_wrote_on_an_older_one_is_told(item: Item, olga: User) -> None:
    first = made(item, "qualification")
    write(item, make_user("otto"), payload={**PAYLOADS["qualification"], "score": 90})
    answer, _ = write(item, olga, payload={**PAYLOADS["qualification"], "score": 95}, seen=first.pk)
    assert "replaced while you wrote" in answer.reason
    assert Output.objects.get(is_current=True).payload["score"] == 90


def test_the_same_again_changes_nothing(item: Item, olga: User) -> None:
    made(item, "qualification")
    answer, _ = write(item, olga)
    assert answer.reason == "Nothing was changed."
    assert not Action.objects.exists()


def test_an_agent_at_work_on_it_is_stopped(item: Item, olga: User) -> None:
    make_agent_run(item, "qualifier")
    (work,) = claim()
    answer, mine = write(item, olga)
    assert answer
    commit([answered(work)], load_staff())
    assert Output.objects.get(item=item, key="qualification", is_current=True) == mine
    assert AgentRun.objects.get(pk=work.run_id).status == "cancelled"


def test_on_a_paused_item_it_is_kept_and_used_afterwards(item: Item, olga: User) -> None:
    control.pause_item(item=item, user=olga)
    answer, _ = write(item, olga)
    assert answer
    assert not AgentRun.objects.exists()
    control.resume_item(item=item, user=olga)
    route_due(10, staff=load_staff())
    assert AgentRun.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_who_write_at_once_one_is_told(item: Item) -> None:
    users = [make_user("olga"), make_user("otto")]

    def do(number: int) -> bool:
        payload = {**PAYLOADS["qualification"], "score": 80 + number}
        return bool(write(item, users[number], payload=payload, seen=None)[0])

    assert sorted(in_threads(do, 2)) == [False, True]
    assert Output.objects.filter(item=item, key="qualification").count() == 1


@pytest.mark.parametrize("status", ["sent", "unknown"])
def test_the_same_words_as_a_mail_that_has_left_are_refused_with_a_reason(item: Item, olga: User, status: str) -> None:
    assert by_hand.write_mail(item=item, user=olga, subject="Any news?", body="Dear Lena")
    assert by_hand.write_mail(item=item, user=olga, subject="Any news?", body="Dear Lena")  # pressed twice
    OutboxMessage.objects.update(status=status)
    refused = by_hand.write_mail(item=item, user=olga, subject="Any news?", body="Dear Lena")
    assert "Nothing was written" in refused.reason
    assert OutboxMessage.objects.count() == 1
