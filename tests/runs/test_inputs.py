"""What agents are given: what they declare, for the right occasion, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Agent, Department, Soul
from leads.schemas import Draft, Email
from runs.inputs import LAST_NOTES, Prepared, conversation, gather_inputs, schema_version
from runs.models import AgentRun, Item, Message, SendBack
from runs.staff import load_staff
from tests.engine import make_office, make_queued
from tests.factories import make_agent_run, make_lead, make_message, make_output, make_review, make_trigger

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def prepared(run: AgentRun) -> Prepared:
    """The input of one run."""
    fresh = AgentRun.objects.select_related("trigger").get(pk=run.pk)
    return gather_inputs([fresh], load_staff().desks)[run.pk]


def mail(item: Item, number: int, direction: str = "in") -> Message:
    """The number-th mail of a conversation, a day after the one before."""
    at = timezone.now() - timedelta(days=100 - number)
    return make_message(item, direction, subject=f"Subject {number % 2}", body=f"Body {number}", at=at)


def test_an_agent_sees_its_fields_and_no_others() -> None:
    lead = make_lead(phone="+49 30 1", attributes={"vat": "DE1"}, country="")
    data = prepared(make_agent_run(lead.item, "writer")).data
    assert dict(data.item) == {
        "name": lead.name,
        "company": lead.company,
        "title": lead.title,
        "message": lead.message,
    }
    assert (data.trigger, data.conversation, data.notes) == (None, None, ())


def test_an_agent_sees_the_outputs_it_declares_in_its_own_order() -> None:
    lead = make_lead()
    for key in ("qualification", "research", "strategy", "intake", "draft"):
        make_output(lead.item, key)
    make_output(lead.item, "research", is_current=False, number=0, payload={"old": True})
    found = prepared(make_agent_run(lead.item, "writer"))
    assert list(found.data.outputs) == ["research", "strategy"]
    assert "old" not in found.data.outputs["research"]
    ids = [lead.item.outputs.get(key=key, is_current=True).pk for key in ("research", "strategy")]
    assert list(found.made_from) == ids


def test_an_output_of_the_occasion_comes_before_the_items_own() -> None:
    item = make_lead().item
    reply = make_trigger(item, "reply", payload={"body": "Yes."})
    make_output(item, "draft", payload={"body": "first mail"})
    make_output(item, "draft", payload={"body": "answer"}, trigger=reply)
    make_output(item, "research", payload={"facts": []})
    data = prepared(make_agent_run(item, "fact_checker", trigger=reply)).data
    assert data.outputs == {"draft": {"body": "answer"}, "research": {"facts": []}}
    assert data.trigger == {"kind": "reply", "payload": {"body": "Yes."}}


def test_what_was_made_for_another_occasion_is_never_given() -> None:
    item = make_lead().item
    first, second = make_trigger(item, "reply"), make_trigger(item, "reply")
    make_output(item, "draft", payload={"body": "first mail"})
    make_output(item, "fact_check", payload={"unsupported": 3})
    make_output(item, "fact_check", payload={"unsupported": 2}, trigger=first)
    make_output(item, "draft", payload={"body": "second answer"}, trigger=second)
    # The Fact-Checker failed on the second answer: its Formatter must not take another mail's check for it.
    data = prepared(make_agent_run(item, "formatter", trigger=second)).data
    assert data.outputs == {"draft": {"body": "second answer"}}


def test_where_nobody_writes_a_key_for_the_occasion_the_items_own_counts() -> None:
    item = make_lead().item
    decision = make_trigger(item, "decision")
    make_output(item, "qualification", payload={"tier": "Hot"})
    Agent.objects.filter(slug="qualifier").update(serves=["item"], scope="occasion")
    data = prepared(make_agent_run(item, "crm_scribe", trigger=decision)).data
    assert data.outputs["qualification"] == {"tier": "Hot"}


def test_a_long_field_is_cut_and_says_so() -> None:
    Agent.objects.update(field_chars=10)
    lead = make_lead(message="x" * 25, attributes={"note": "y" * 40})
    item = prepared(make_agent_run(lead.item, "qualifier")).data.item
    assert item["message"] == f"{'x' * 10} … [15 characters cut]"
    assert item["attributes"].startswith('{"note": "')
    assert item["attributes"].endswith("characters cut]")


def test_a_conversation_is_a_summary_and_the_last_three_messages() -> None:
    item = make_lead().item
    for number in range(1, 8):
        mail(item, number, "in" if number % 2 else "out")
    make_message(item, "note", body="Called him.", at=timezone.now())
    data = prepared(make_agent_run(item, "reply_handler")).data
    assert data.conversation is not None
    bodies = [message["body"] for message in data.conversation["messages"]]
    assert bodies == ["Body 5", "Body 6", "Body 7"]
    assert [m["direction"] for m in data.conversation["messages"]] == ["received", "sent", "received"]
    assert data.conversation["summary"].startswith("4 earlier messages from ")
    assert "2 received and 2 sent" in data.conversation["summary"]
    assert "Body 4" not in str(data.as_json())
    assert data.notes == ("Called him.",)


def test_long_mails_and_notes_are_cut_and_a_reply_is_said_once() -> None:
    Agent.objects.update(field_chars=10)
    item = make_lead().item
    reply = make_trigger(item, "reply", payload={"subject": "Re: x", "body": "y" * 25})
    make_message(item, body="y" * 25, trigger=reply)
    make_message(item, "note", body="z" * 25)
    cut = " … [15 characters cut]"
    data = prepared(make_agent_run(item, "reply_handler", trigger=reply)).data
    assert data.conversation is not None
    assert [m["body"] for m in data.conversation["messages"]] == [f"{'y' * 10}{cut}"]
    assert data.notes == (f"{'z' * 10}{cut}",)
    assert data.trigger == {"kind": "reply", "payload": {"subject": "Re: x"}}
    checker = prepared(make_agent_run(item, "fact_checker", trigger=reply)).data
    assert checker.trigger == {"kind": "reply", "payload": {"subject": "Re: x", "body": f"{'y' * 10}{cut}"}}


def test_a_reply_that_is_no_longer_among_the_last_messages_is_told_with_its_trigger() -> None:
    item = make_lead().item
    reply = make_trigger(item, "reply", payload={"subject": "Re: x", "body": "The first reply."})
    make_message(item, body="The first reply.", trigger=reply, at=timezone.now() - timedelta(days=200))
    for number in range(1, 4):
        mail(item, number)
    data = prepared(make_agent_run(item, "reply_handler", trigger=reply)).data
    assert data.trigger == {"kind": "reply", "payload": {"subject": "Re: x", "body": "The first reply."}}


def test_a_short_conversation_has_nothing_to_sum_up() -> None:
    item = make_lead().item
    assert conversation([mail(item, 1), mail(item, 2)], 100)["summary"] == "No earlier messages."
    assert conversation([], 100)["messages"] == []


def test_only_the_last_notes_are_given() -> None:
    item = make_lead().item
    for number in range(LAST_NOTES + 3):
        make_message(item, "note", body=f"Note {number}", at=timezone.now() + timedelta(seconds=number))
    assert prepared(make_agent_run(item, "writer")).data.notes == tuple(f"Note {n}" for n in range(3, 8))


def test_whoever_writes_it_again_is_given_every_round_in_order() -> None:
    item = make_lead().item
    first = make_output(
        item, "email", is_current=False, payload={"subject": "A", "body": "B", "reasoning_summary": "C"}
    )
    SendBack.objects.create(item=item, key="draft", note="Shorter.", output=first)
    review = make_review(item, output=first, status="answered", reason_code="tone")
    SendBack.objects.create(item=item, key="draft", note="Warmer.", output=first, review=review)
    reply = make_trigger(item, "reply")
    SendBack.objects.create(item=item, key="draft", note="Of the answer.", trigger=reply)
    data = prepared(make_agent_run(item, "writer")).data
    material = {"subject": "A", "body": "B"}
    assert data.sent_back == (
        {"round": 1, "note": "Shorter.", "what_was_sent_back": material},
        {"round": 2, "note": "Warmer.", "reason": "wrong tone", "what_was_sent_back": material},
    )
    assert data.as_json()["sent_back"] == list(data.sent_back)
    answer = prepared(make_agent_run(item, "reply_handler", trigger=reply)).data
    assert [entry["note"] for entry in answer.sent_back] == ["Of the answer."]
    assert prepared(make_agent_run(item, "formatter")).data.sent_back == ()


def test_what_was_never_sent_back_has_no_word_of_it() -> None:
    data = prepared(make_agent_run(make_lead().item, "writer")).data
    assert "sent_back" not in data.as_json(), "or every fingerprint from before would differ"


def test_the_fingerprint_changes_with_the_material_and_the_soul_and_with_nothing_else() -> None:
    lead = make_lead()
    run = make_agent_run(lead.item, "writer")
    before = prepared(run).fingerprint
    make_output(lead.item, "intake")  # the Writer does not take it
    assert prepared(run).fingerprint == before
    make_output(lead.item, "research")
    with_research = prepared(run).fingerprint
    assert with_research != before
    Soul.objects.filter(agent=run.agent).retire_published()
    Soul.objects.create(
        agent=run.agent, number=2, status="published", identity="New.", responsibilities="R.", prohibitions="P."
    )
    assert prepared(run).fingerprint != with_research


def test_items_do_not_see_each_other() -> None:
    first, second = make_queued("writer"), make_queued("writer")
    make_output(first.item, "research", payload={"company_summary": "of the first"})
    make_message(first.item)
    runs = list(AgentRun.objects.select_related("trigger").order_by("pk"))
    found = gather_inputs(runs, load_staff().desks)
    assert "of the first" in str(found[first.pk].data)
    assert "of the first" not in str(found[second.pk].data)


def test_it_asks_as_often_for_many_as_for_one(django_assert_num_queries: Any) -> None:
    staff = load_staff()
    for _ in range(20):
        make_output(make_queued("writer").item, "research")
    runs = list(AgentRun.objects.select_related("trigger"))
    with django_assert_num_queries(4):
        gather_inputs(runs[:1], staff.desks)
    with django_assert_num_queries(4):
        gather_inputs(runs, staff.desks)


def test_a_schema_has_a_version_of_its_own() -> None:
    assert schema_version(Draft) == schema_version(Draft)
    assert schema_version(Draft) != schema_version(Email)
