"""What happened is recorded and the item is due: nothing is decided here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Department
from runs.models import Action, AgentRun, Item, LogEntry, Message, Trigger
from runs.triggers import BATCH, record_decision, record_reply, request_run
from tests.engine import in_threads, make_office
from tests.factories import make_item, make_lead, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


# --- Somebody asks for the pipeline ---------------------------------------------------------------------------


def test_asking_for_a_run_records_who_asked_and_why() -> None:
    item, user = make_lead(priority=80).item, make_user()
    assert request_run(items=[item.pk], user=user, reason="They called.") == 1
    trigger = Trigger.objects.get()
    assert (trigger.kind, trigger.status, trigger.payload) == ("operator", "open", {"reason": "They called."})
    action = Action.objects.get()
    assert (action.verb, action.user, action.item, action.reason) == ("run", user, item, "They called.")
    item.refresh_from_db()
    assert item.route_due_at is not None
    assert item.priority == Item.Priority.PERSON
    assert not AgentRun.objects.exists()
    assert LogEntry.objects.get().text == "An operator asked for it."


def test_a_whole_list_does_not_overtake_those_who_wait() -> None:
    items = [make_lead(priority=priority).item for priority in (20, 80)]
    assert request_run(items=[item.pk for item in items]) == 2
    assert list(Item.objects.order_by("pk").values_list("priority", flat=True)) == [20, 80]


def test_an_item_that_is_named_twice_is_asked_for_once() -> None:
    item = make_lead().item
    assert request_run(items=[item.pk, item.pk]) == 1
    assert Trigger.objects.count() == 1


@pytest.mark.parametrize("automation", ["paused", "taken_over", "closed"])
def test_items_that_are_not_active_are_left_alone(automation: str) -> None:
    item = make_lead(automation=automation).item
    assert request_run(items=[item.pk]) == 0
    assert not Trigger.objects.exists()
    assert not Action.objects.exists()


def test_many_items_are_marked_in_batches(django_assert_max_num_queries: Any) -> None:
    department = Department.objects.get()
    Item.objects.bulk_create(Item(department=department, title=f"Item {n}") for n in range(BATCH + 1))
    with django_assert_max_num_queries(20):
        assert request_run(items=Item.objects.values_list("pk", flat=True)) == BATCH + 1
    assert not Item.objects.filter(route_due_at=None).exists()


# --- Replies --------------------------------------------------------------------------------------------------


def test_a_reply_is_a_message_a_trigger_and_a_prospect_who_waits() -> None:
    item = make_lead(priority=50).item
    trigger = record_reply(item=item, body="Yes.", subject="Re: Invoices", address="a@example.com", source="imap")
    assert (trigger.kind, trigger.payload) == ("reply", {"subject": "Re: Invoices", "body": "Yes."})
    message = Message.objects.get()
    assert (message.direction, message.body, message.address, message.trigger) == (
        "in",
        "Yes.",
        "a@example.com",
        trigger,
    )
    item.refresh_from_db()
    assert item.priority == Item.Priority.PROSPECT
    assert item.route_due_at is not None


def test_a_reply_keeps_the_time_at_which_it_was_written() -> None:
    written = timezone.now() - timedelta(hours=3)
    record_reply(item=make_lead().item, body="Yes.", at=written)
    assert Message.objects.get().at == written


def test_the_same_delivery_is_recorded_once() -> None:
    item = make_lead().item
    first = record_reply(item=item, body="Yes.", source="imap", delivery_id="<1@example.com>")
    again = record_reply(item=item, body="Yes!", source="imap", delivery_id="<1@example.com>")
    assert again == first
    assert again.payload["body"] == "Yes."
    assert (Message.objects.count(), Trigger.objects.count()) == (1, 1)
    record_reply(item=item, body="Yes.", source="another", delivery_id="<1@example.com>")
    record_reply(item=item, body="No id")
    record_reply(item=item, body="No id")
    assert Trigger.objects.count() == 4


def test_a_reply_of_a_paused_lead_is_kept_for_later() -> None:
    item = make_lead(automation="paused").item
    record_reply(item=item, body="Hello?")
    item.refresh_from_db()
    assert item.route_due_at is not None
    assert item.automation == "paused"


def test_a_long_subject_does_not_lose_the_mail() -> None:
    record_reply(item=make_lead().item, body="Yes.", subject="x" * 900)
    assert len(Message.objects.get().subject) == 500


@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_comes_twice_at_once_is_recorded_once() -> None:
    item = make_lead().item
    found = in_threads(lambda _: record_reply(item=item, body="Yes.", source="imap", delivery_id="<1>").pk, 4)
    assert len(set(found)) == 1
    assert (Message.objects.count(), Trigger.objects.count()) == (1, 1)


# --- Decisions ------------------------------------------------------------------------------------------------


def test_the_log_says_of_a_decision_that_can_be_taken_back_that_it_was_made() -> None:
    due_at = timezone.now() + timedelta(seconds=10)
    record_decision(item=make_item(), payload={"answer": "won"}, user=make_user("rita"), due_at=due_at)
    said = f"A decision was made (rita). It does not take effect before {due_at:%H:%M:%S} UTC."
    assert LogEntry.objects.get().text == said


def test_a_decision_is_recorded_with_who_took_it() -> None:
    item, user = make_item(), make_user("rita")
    trigger = record_decision(item=item, payload={"answer": "won"}, user=user)
    assert (trigger.kind, trigger.payload) == ("decision", {"answer": "won"})
    assert LogEntry.objects.get().text == "A decision was made (rita)."
    item.refresh_from_db()
    assert item.route_due_at is not None
