"""A conversation from the first mail to the last, worked on by real shifts against the simulator."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department
from agents.prompts import read_data
from runs.inputs import LAST_MESSAGES
from runs.models import AgentRun, Channel, Item, Message, Output, PipelineRun, Review, Suppression, Trigger
from runs.reviews import approve, mark_sent
from runs.triggers import record_reply
from tests.engine import assert_accounts_agree, drain, make_due, make_office
from tests.factories import make_lead, make_user
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
MAIL_KEYS = ("draft", "fact_check", "email")


@pytest.fixture
def office() -> Department:
    department = make_office()
    # What is decided cannot be taken back, so that nobody waits for the time in which it could.
    Channel.objects.create(department=department, kind="email", undo_seconds=0)
    return department


@pytest.fixture
def rita(office: Department) -> User:
    return make_user("rita", department=office)


def new_lead(**fields: Any) -> Item:
    """A lead that turns out hot, worked on until its first mail waits for approval."""
    item = make_lead(attributes={"Industry": "Furniture", "Number of Employees": "420"}, **fields).item
    make_due(item)
    drain()
    item.refresh_from_db()
    assert item.status == "drafted"
    return item


def send(item: Item, user: User, trigger: Trigger | None = None) -> Message:
    """A person approves the mail of the occasion and sends it by hand."""
    review = Review.objects.get(item=item, kind=Review.Kind.DRAFT, status="open", output__trigger=trigger)
    assert review.output is not None
    assert review.output.key == "email"
    assert approve(review=review, user=user)
    drain()
    review.output.refresh_from_db()
    assert mark_sent(output=review.output, user=user)
    drain()
    item.refresh_from_db()
    return Message.objects.get(output=review.output)


def receive(item: Item, body: str) -> Trigger:
    """The person writes, and the engine works on it."""
    trigger = record_reply(item=item, body=body, subject="Re: Your freight invoices", address="lena@example.com")
    drain()
    item.refresh_from_db()
    trigger.refresh_from_db()
    return trigger


def let_follow_up_come_due(item: Item) -> Trigger:
    """Move the next planned follow-up to now."""
    trigger = Trigger.objects.get(item=item, kind="follow_up", status="open")
    assert item.route_due_at == trigger.due_at
    Trigger.objects.filter(pk=trigger.pk).update(due_at=timezone.now() - timedelta(seconds=1))
    make_due(item)
    drain()
    item.refresh_from_db()
    trigger.refresh_from_db()
    return trigger


def made_for(item: Item, trigger: Trigger | None) -> dict[str, Output]:
    """The current outputs of one occasion by key."""
    return {output.key: output for output in item.outputs.filter(trigger=trigger, is_current=True)}


def agents_for(trigger: Trigger) -> set[str]:
    return set(AgentRun.objects.filter(trigger=trigger).values_list("agent__slug", flat=True))


def test_two_replies_are_answered_each_on_its_own(simulator: SimulatorServer, office: Department, rita: User) -> None:
    item = new_lead()
    first_mail = send(item, rita)
    assert item.status == "contacted"
    assert Trigger.objects.get(kind="follow_up").status == "open"

    first = receive(item, "Thank you. What does it cost for 1,200 invoices a month?")
    assert first.status == "handled"
    assert item.status == "replied"
    withdrawn = Trigger.objects.get(kind="follow_up")
    assert (withdrawn.status, withdrawn.settled_note) == ("noted", "They have replied.")
    assert set(made_for(item, first)) == set(MAIL_KEYS)
    assert made_for(item, first)["draft"].payload["intent"] == "question"
    assert {"reply_handler", "fact_checker", "formatter"} <= agents_for(first)
    assert not {"writer", "followup_writer"} & agents_for(first)
    first_answer = send(item, rita, first)

    second = receive(item, "That sounds good. Let's talk on Thursday, please call me.")
    assert second.status == "handled"
    assert set(made_for(item, second)) == set(MAIL_KEYS)
    assert made_for(item, second)["draft"].payload["intent"] == "interested"
    assert made_for(item, second)["draft"].payload["urgency"] == "high"
    second_answer = send(item, rita, second)

    occasions: list[Trigger | None] = [None, first, second]
    for key in MAIL_KEYS:
        versions = [made_for(item, occasion)[key] for occasion in occasions]
        assert [version.number for version in versions] == [1, 2, 3]
        assert all(version.is_current for version in versions)
    assert made_for(item, first)["email"].made_from == [made_for(item, first)[key].pk for key in MAIL_KEYS[:2]]
    assert made_for(item, None)["email"].verdict == "approved"
    assert [m.output for m in (first_mail, first_answer, second_answer)] == [
        made_for(item, occasion)["email"] for occasion in occasions
    ]
    assert item.outputs.filter(key__in=["intake", "qualification", "research", "strategy"]).count() == 4
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    assert set(PipelineRun.objects.values_list("status", flat=True)) == {"completed"}
    assert not Trigger.objects.filter(item=item, status="open").exists()
    assert_accounts_agree()


def test_who_does_not_answer_gets_two_follow_ups_and_then_peace(
    simulator: SimulatorServer, office: Department, rita: User
) -> None:
    item = new_lead()
    send(item, rita)
    for number, days in ((1, 4), (2, 7)):
        planned = Trigger.objects.get(item=item, kind="follow_up", status="open")
        assert planned.payload == {"number": number}
        assert abs(planned.due_at - timezone.now() - timedelta(days=days)) < timedelta(minutes=5)
        follow_up = let_follow_up_come_due(item)
        assert follow_up.pk == planned.pk
        assert follow_up.status == "handled"
        assert set(made_for(item, follow_up)) == set(MAIL_KEYS)
        assert {"followup_writer", "fact_checker", "formatter"} <= agents_for(follow_up)
        assert "writer" not in agents_for(follow_up)
        send(item, rita, follow_up)
        assert item.status == "contacted"
    assert not Trigger.objects.filter(item=item, status="open").exists()
    assert item.route_due_at is None
    assert Message.objects.filter(item=item, direction="out").count() == 3
    assert item.outputs.filter(key="email", is_current=True).count() == 3
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    assert_accounts_agree()


def test_a_follow_up_is_not_written_before_its_time(simulator: SimulatorServer, office: Department, rita: User) -> None:
    item = new_lead()
    send(item, rita)
    before = len(simulator.calls())
    make_due(item)
    drain()
    item.refresh_from_db()
    follow_up = Trigger.objects.get(item=item, kind="follow_up")
    assert (follow_up.status, item.route_due_at) == ("open", follow_up.due_at)
    assert len(simulator.calls()) == before


def test_an_opt_out_suppresses_and_drafts_nothing(simulator: SimulatorServer, office: Department, rita: User) -> None:
    item = new_lead(email="lena@example.com")
    send(item, rita)
    reply = receive(item, "Please take me off your list and stop writing to me.")
    assert reply.status == "handled"
    assert item.status == "opted_out"
    assert "suppressed" in item.tags
    draft = made_for(item, reply)
    assert set(draft) == {"draft"}
    assert (draft["draft"].payload["opt_out"], draft["draft"].payload["body"]) == (True, "")
    assert Suppression.objects.get().address == "lena@example.com"
    assert Trigger.objects.get(kind="follow_up").settled_note == "They asked not to be written to again."
    assert not Review.objects.filter(kind=Review.Kind.DRAFT, status="open").exists()
    before = len(simulator.calls())
    make_due(item)
    drain()
    assert len(simulator.calls()) == before


def test_a_reply_while_a_follow_up_waits_for_approval_leaves_no_second_one_planned(
    simulator: SimulatorServer, office: Department, rita: User
) -> None:
    item = new_lead()
    send(item, rita)
    let_follow_up_come_due(item)
    reply = receive(item, "Not interested, we already have a provider.")
    assert reply.status == "handled"
    assert item.status == "replied"
    assert not Trigger.objects.filter(item=item, kind="follow_up", status="open").exists()


def test_an_absence_is_read_and_the_follow_up_stays(simulator: SimulatorServer, office: Department, rita: User) -> None:
    item = new_lead()
    send(item, rita)
    reply = receive(item, "Automatic reply: I am out of the office until Monday.")
    assert reply.status == "handled"
    assert set(made_for(item, reply)) == {"draft"}
    assert item.status == "contacted"
    assert Trigger.objects.get(item=item, kind="follow_up").status == "open"


def test_two_replies_that_come_together_are_answered_one_after_the_other(
    simulator: SimulatorServer, office: Department, rita: User
) -> None:
    item = new_lead()
    send(item, rita)
    first = record_reply(item=item, body="What does it cost?", subject="Re:")
    second = receive(item, "And where is our data stored?")
    first.refresh_from_db()
    assert (first.status, second.status) == ("handled", "handled")
    assert set(made_for(item, first)) == set(made_for(item, second)) == set(MAIL_KEYS)
    assert_accounts_agree()


def test_agents_get_a_summary_and_the_last_three_messages(
    simulator: SimulatorServer, office: Department, rita: User
) -> None:
    item = new_lead()
    send(item, rita)
    for number in range(3):
        send(item, rita, receive(item, f"Question {number}: what about data, prices and audits?"))
    receive(item, "Question 3: one more?")
    assert Message.objects.filter(item=item).count() == 8
    seen = []
    for request in simulator.requests():
        content = json.loads(request["body"])["messages"][0]["content"]
        seen += [value for kind, _, value in read_data(content) if kind == "conversation"]
    assert seen
    assert max(len(value["messages"]) for value in seen) == LAST_MESSAGES
    last = seen[-1]
    assert [message["direction"] for message in last["messages"]] == ["received", "sent", "received"]
    assert last["messages"][-1]["body"] == "Question 3: one more?"
    assert last["summary"].startswith("5 earlier messages from ")
    assert "Question 0" not in json.dumps(last)
