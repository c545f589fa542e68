"""What an output implies, applied in the transaction that stores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agents.models import Agent, Department
from agents.spec import Effect, OpenReview, ScheduleTrigger, SetItem, Suppress, WithdrawTriggers
from runs.dispatch import output_event
from runs.effects import REVIEW_DEADLINE, apply_effects
from runs.models import Item, LogEntry, Output, Review, Suppression, Trigger
from runs.staff import load_staff
from tests.engine import make_office
from tests.factories import make_lead, make_message, make_output, make_trigger

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def output() -> Output:
    make_office()
    # Otherwise a person is asked about every mail, whatever the kind says.
    Agent.objects.update(output_policy=Agent.Policy.AUTO)
    return make_output(make_lead(email="Lena@Example.com").item, "email")


def apply(output: Output, *effects: Effect) -> tuple[Item, list[LogEntry], set[int]]:
    """Apply effects as a kind might name them: the item (not saved), the log lines, the changed items."""
    item = Item.objects.get(pk=output.item_id)
    desk = load_staff().desks[item.department_id]

    def named(_: object) -> Sequence[Effect]:
        return effects

    desk = replace(desk, spec=replace(desk.spec, effects=named))
    event = output_event("written", output, None, {})
    entries, changed = apply_effects([((item, output, event), desk)], now=NOW)
    return item, entries, changed


def test_a_question_is_opened_once_for_each_output(output: Output) -> None:
    ask = OpenReview("draft", "Send the first mail?", risk=3)
    _, entries, changed = apply(output, ask)
    apply(output, ask)
    review = Review.objects.get()
    assert (review.output, review.item_id, review.kind, review.risk) == (output, output.item_id, "draft", 3)
    assert (review.ask, review.deadline) == ("Send the first mail?", NOW + REVIEW_DEADLINE)
    assert [entry.text for entry in entries] == ["A person is asked: Send the first mail?"]
    assert changed == set()


def test_a_kind_says_how_long_a_question_waits_and_what_happens_then(output: Output) -> None:
    apply(output, OpenReview("draft", "Send it?", within=timedelta(hours=2), at_deadline="reject"))
    review = Review.objects.get()
    assert (review.deadline, review.at_deadline) == (NOW + timedelta(hours=2), "reject")


def test_an_answered_question_may_be_asked_again(output: Output) -> None:
    apply(output, OpenReview("draft", "Send it?"))
    Review.objects.update(status="answered")
    apply(output, OpenReview("draft", "Send it now?"))
    assert Review.objects.filter(status="open").count() == 1


def test_an_opt_out_counts_for_the_address_in_every_department(output: Output) -> None:
    item, entries, changed = apply(output, Suppress("opt_out"))
    assert item.tags == ["suppressed"]
    suppression = Suppression.objects.get()
    assert (suppression.address, suppression.reason, suppression.item) == ("lena@example.com", "opt_out", item)
    assert entries[0].level == "warning"
    assert entries[0].text == "Nobody writes to this person any more: opt-out."
    assert changed == {item.pk}


def test_an_opt_out_counts_for_the_address_it_was_written_from_as_well(output: Output) -> None:
    reply = make_trigger(output.item, "reply")
    make_message(output.item, "in", trigger=reply, address="Lena <lena@home.example>")
    make_message(output.item, "in", address="someone.else@example.com")
    apply(make_output(output.item, "draft", trigger=reply), Suppress("opt_out"))
    assert set(Suppression.objects.values_list("address", flat=True)) == {"lena@example.com", "lena@home.example"}


def test_a_second_opt_out_changes_nothing(output: Output) -> None:
    item, _, _ = apply(output, Suppress("opt_out"))
    item.save()
    again, _, _ = apply(output, Suppress("opt_out"))
    assert again.tags == ["suppressed"]
    assert Suppression.objects.count() == 1


def test_a_lead_without_an_address_is_tagged_all_the_same(output: Output) -> None:
    item = make_lead(email="").item
    tagged, _, _ = apply(make_output(item, "draft"), Suppress("opt_out"))
    assert tagged.tags == ["suppressed"]
    assert not Suppression.objects.exists()


def test_something_is_planned_for_later(output: Output) -> None:
    item, entries, changed = apply(output, ScheduleTrigger("follow_up", timedelta(days=4), {"number": 1}))
    trigger = Trigger.objects.get()
    assert (trigger.kind, trigger.status, trigger.payload) == ("follow_up", "open", {"number": 1})
    assert trigger.due_at == NOW + timedelta(days=4)
    assert entries[0].text == "A follow-up is planned for 2026-03-06 09:00 UTC."
    assert changed == {item.pk}


def test_what_was_planned_is_withdrawn_with_its_reason(output: Output) -> None:
    planned = make_trigger(output.item, "follow_up")
    handled = make_trigger(output.item, "follow_up", status="handled")
    other = make_trigger(output.item, "decision")
    elsewhere = make_trigger(make_lead().item, "follow_up")
    _, entries, _ = apply(output, WithdrawTriggers("follow_up", "They have replied."))
    planned.refresh_from_db()
    assert (planned.status, planned.settled_note, planned.settled_at) == ("noted", "They have replied.", NOW)
    for untouched in (handled, other, elsewhere):
        before = untouched.status
        untouched.refresh_from_db()
        assert untouched.status == before
    assert [entry.text for entry in entries] == ["1 open follow-up withdrawn: They have replied."]


def test_withdrawing_nothing_is_not_worth_a_line(output: Output) -> None:
    assert apply(output, WithdrawTriggers("follow_up", "They have replied."))[1] == []


def test_columns_of_the_item_follow_from_an_output(output: Output) -> None:
    item, _, changed = apply(output, SetItem({"priority": 20, "tags": ["vip"]}))
    assert (item.priority, item.tags) == (20, ["vip"])
    assert changed == {item.pk}
    assert Item.objects.get(pk=item.pk).priority != 20, "the routing saves it"


def test_effects_of_a_kind_are_applied_in_their_order(output: Output) -> None:
    plan = ScheduleTrigger("follow_up", timedelta(days=1))
    apply(output, plan, WithdrawTriggers("follow_up", "No."))
    assert Trigger.objects.get().status == "noted"
    apply(output, WithdrawTriggers("follow_up", "No."), plan)
    assert Trigger.objects.filter(status="open").count() == 1
    assert Department.objects.count() == 1
