"""Answers after which agents work again: sent back with a note, and corrected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User

from agents.models import Department
from agents.prompts import SENT_BACK_RULE, read_data
from runs.answerable import can_answer
from runs.models import Action, AgentRun, AutoApproval, ModelCall, Output, Review, SendBack, Suppression
from runs.payloads import Unfit
from runs.rewrites import correct, send_back
from tests.engine import drain, in_threads, make_office
from tests.factories import (
    agent_of,
    make_agent_run,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_review,
    make_trigger,
    make_user,
)
from tests.leads.test_corrections import REPLY
from tests.runs.desk import item_of, mail_of, make_drafted
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def rita() -> User:
    return make_user("rita")


def doubted(key: str = "qualification", agent: str = "qualifier", **fields: Any) -> Review:
    """A classification that its agent was not sure of."""
    item = make_lead().item
    run = make_agent_run(item, agent, status="done", trigger=fields.get("trigger"))
    output = make_output(item, key, agent_run=run, **fields)
    return make_review(item, output=output, kind="low_confidence", ask="Is it right?")


# --- Sent back ------------------------------------------------------------------------------------------------


def test_a_mail_that_is_sent_back_is_drafted_again_with_all_that_follows(rita: User) -> None:
    review = make_drafted()
    assert send_back(review=review, user=rita, note="Shorter, please.", reason_code="length")
    review.refresh_from_db()
    found = (review.status, review.answer, review.answer_note, review.reason_code)
    assert found == ("answered", "send_back", "Shorter, please.", "length")
    gone = Output.objects.filter(is_current=False)
    assert set(gone.values_list("key", flat=True)) == {"draft", "fact_check", "email"}
    assert set(gone.values_list("retired_why", flat=True)) == {"rita sent it back: Shorter, please."}
    assert item_of(review).status == "qualified"
    assert AgentRun.objects.get(status="queued").agent.slug == "writer"
    told = SendBack.objects.get()
    assert (told.key, told.trigger, told.output, told.author) == ("draft", None, review.output, rita)
    action = Action.objects.get()
    assert (action.verb, action.reason, action.after["written_again"]) == ("send_back", "Shorter, please.", "draft")


def test_a_note_is_asked_for(rita: User) -> None:
    review = make_drafted()
    assert "Say what is to be different" in send_back(review=review, user=rita, note="  ").reason
    review.refresh_from_db()
    assert review.status == "open"


def test_an_answer_is_written_again_for_its_own_reply(rita: User) -> None:
    item = make_lead().item
    reply = make_trigger(item, "reply", status="handled")
    make_message(item, trigger=reply)
    for key in ("intake", "qualification"):
        make_output(item, key)
    first = make_output(item, "draft", agent_run=make_agent_run(item, "writer", status="done"))
    draft = make_output(
        item, "draft", trigger=reply, payload=REPLY, agent_run=make_agent_run(item, "reply_handler", status="done")
    )
    run = make_agent_run(item, "formatter", status="done", trigger=reply)
    mail = make_output(item, "email", trigger=reply, agent_run=run, made_from=[draft.pk])
    assert send_back(review=make_review(item, output=mail), user=rita, note="Warmer.")
    first.refresh_from_db()
    draft.refresh_from_db()
    assert (first.is_current, draft.is_current) == (True, False)
    assert SendBack.objects.get().trigger == reply
    again = AgentRun.objects.get(status="queued")
    assert (again.agent.slug, again.trigger) == ("reply_handler", reply)


def test_after_three_rounds_a_person_must_choose(rita: User) -> None:
    review = make_drafted()
    for number in range(3):
        SendBack.objects.create(item=item_of(review), key="draft", note=f"Round {number}", author=rita)
    refused = send_back(review=review, user=rita, note="Again.")
    assert refused.reason == "It was sent back 3 times: approve it, edit it, reject it, or take over."
    assert mail_of(review).is_current
    review.refresh_from_db()
    for answer in ("approve", "approve_edited", "reject", "take_over"):
        assert can_answer(review, answer)


def test_rounds_of_another_occasion_do_not_count(rita: User) -> None:
    review = make_drafted()
    reply = make_trigger(item_of(review), "reply", status="handled")
    for _ in range(3):
        SendBack.objects.create(item=item_of(review), key="draft", trigger=reply, note="Of the answer.")
    assert send_back(review=review, user=rita, note="Shorter.")


def test_what_a_person_wrote_is_not_sent_back_to_an_agent(rita: User) -> None:
    review = make_drafted(origin="edited", author=rita)
    assert send_back(review=review, user=rita, note="Hm.").reason == "rita wrote it: edit it, or reject it."


def test_who_is_switched_off_writes_nothing_again(rita: User, office: Department) -> None:
    agent = agent_of(office, "writer")
    agent.is_enabled = False
    agent.save()
    assert send_back(review=make_drafted(), user=rita, note="Hm.").reason == "Writer is switched off."


def test_what_is_leaving_is_not_written_again(rita: User) -> None:
    review = make_drafted()
    make_outbox(item_of(review), output=mail_of(review), status="sending")
    assert "is just leaving" in send_back(review=review, user=rita, note="Hm.").reason


def test_a_step_that_is_at_work_on_it_is_stopped(rita: User) -> None:
    review = make_drafted()
    running = make_agent_run(item_of(review), "fact_checker", status="running")
    assert send_back(review=review, user=rita, note="Shorter.")
    running.refresh_from_db()
    assert (running.status, running.lease_token) == ("cancelled", None)


def test_a_draft_that_was_sent_back_switches_its_automatic_approval_off(rita: User, office: Department) -> None:
    rule = AutoApproval.objects.create(
        department=office, agent=agent_of(office, "writer"), name="Warm", is_enabled=True
    )
    assert send_back(review=make_drafted(), user=rita, note="Shorter.")
    rule.refresh_from_db()
    assert (rule.is_enabled, rule.revoked_why) == (False, "rita sent a draft back: Shorter.")


@pytest.mark.django_db(transaction=True)
def test_the_note_and_what_was_sent_back_reach_the_request_of_whoever_writes_it(
    rita: User, simulator: SimulatorServer
) -> None:
    review = make_drafted()
    was = mail_of(review).payload
    assert send_back(review=review, user=rita, note="Shorter, please.", reason_code="length")
    drain()
    requests = [json.loads(request["body"]) for request in simulator.requests() if request["body"]]
    texts = [body["messages"][0]["content"] for body in requests if "messages" in body]
    told = [[value for kind, _, value in read_data(text) if kind == "sent_back"] for text in texts]
    assert [value for value in told if value] == [
        [
            [
                {
                    "round": 1,
                    "note": "Shorter, please.",
                    "reason": "too long or too short",
                    "what_was_sent_back": {n: v for n, v in was.items() if n != "reasoning_summary"},
                }
            ]
        ]
    ]
    assert sum(SENT_BACK_RULE in text for text in texts) == 1
    call = ModelCall.objects.filter(agent__slug="writer").latest("pk")
    assert "Shorter, please." in json.dumps(call.body.request)
    again = Review.objects.get(status="open", kind="draft")
    assert again.output_id is not None
    assert again.output_id != review.output_id
    assert Output.objects.get(key="draft", is_current=True).number == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_send_it_back_at_once_one_does(rita: User) -> None:
    review = make_drafted()
    answers = in_threads(lambda n: bool(send_back(review=review, user=rita, note=f"Note {n}")), 4)
    assert sorted(answers) == [False, False, False, True]
    assert SendBack.objects.count() == AgentRun.objects.filter(status="queued").count() == 1


# --- Corrected ------------------------------------------------------------------------------------------------


def test_a_corrected_tier_is_a_persons_output_and_routes_the_item_anew(rita: User) -> None:
    review = doubted(payload={**_qualification("Cold", 30), "confidence": "low"})
    make_output(item_of(review), "intake")
    assert review.output is not None
    assert correct(output=review.output, user=rita, changes={"tier": "Hot"}, reason="I know them.", review=review)
    review.refresh_from_db()
    written = review.edited
    assert written is not None
    assert (review.status, review.answer, review.answered_by) == ("answered", "correct", rita)
    assert (written.origin, written.author, written.replaces) == ("corrected", rita, review.output)
    assert (written.payload["tier"], written.payload["score"], written.facets["tier"]) == ("Hot", 70, "Hot")
    item = item_of(review)
    assert (item.status, item.priority) == ("qualified", 20)
    assert {run.agent.slug for run in AgentRun.objects.filter(status="queued")} == {"researcher"}
    action = Action.objects.get()
    assert (action.verb, action.before["tier"], action.after["tier"]) == ("correct", "Cold", "Hot")
    assert not Review.objects.filter(status="open").exists()


def test_what_followed_from_what_was_corrected_is_made_again(rita: User) -> None:
    review = make_drafted()
    output = Output.objects.get(key="qualification")
    Output.objects.filter(key="research").update(made_from=[output.pk])
    assert correct(output=output, user=rita, changes={"tier": "Cold"})
    current = Output.objects.filter(is_current=True).values_list("key", flat=True)
    assert set(current) == {"intake", "qualification"}
    review.refresh_from_db()
    assert (review.status, review.answer_note) == ("withdrawn", "rita corrected it.")
    assert item_of(review).status == "nurturing"


def test_a_corrected_intent_suppresses_who_wants_no_more_mails(rita: User) -> None:
    item = make_lead(email="lena@example.com").item
    reply = make_trigger(item, "reply", status="handled")
    make_message(item, trigger=reply)
    run = make_agent_run(item, "reply_handler", status="done", trigger=reply)
    output = make_output(item, "draft", trigger=reply, payload=REPLY, agent_run=run)
    review = make_review(item, output=output, kind="low_confidence")
    assert correct(output=output, user=rita, changes={"intent": "unsubscribe"}, review=review)
    assert Suppression.objects.get().address == "lena@example.com"
    assert item_of(review).status == "opted_out"


def test_a_correction_that_changes_nothing_is_refused(rita: User) -> None:
    review = doubted()
    assert review.output is not None
    assert not correct(output=review.output, user=rita, changes={"tier": "Hot"}, review=review)
    assert not correct(output=review.output, user=rita, changes={}, review=review)
    review.refresh_from_db()
    assert review.status == "open"


def test_what_no_schema_allows_is_refused_and_nothing_happens(rita: User) -> None:
    review = doubted()
    assert review.output is not None
    with pytest.raises(Unfit):
        correct(output=review.output, user=rita, changes={"tier": "Lukewarm"}, review=review)
    review.refresh_from_db()
    assert (review.status, mail_of(review).is_current) == ("open", True)


@pytest.mark.parametrize("key", ["research", "email", "strategy"])
def test_what_sorts_nothing_is_edited_instead(rita: User, key: str) -> None:
    output = make_output(make_lead().item, key)
    assert correct(output=output, user=rita, changes={"x": 1}).reason == "It sorts nothing: edit it instead."


def test_a_replaced_output_is_not_corrected(rita: User) -> None:
    output = make_output(make_lead().item, "qualification", is_current=False)
    assert not correct(output=output, user=rita, changes={"tier": "Cold"})


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_correct_it_at_once_one_does(rita: User) -> None:
    review = doubted()
    output = review.output
    assert output is not None
    answers = in_threads(lambda _: bool(correct(output=output, user=rita, changes={"tier": "Cold"}, review=review)), 4)
    assert sorted(answers) == [False, False, False, True]
    assert Output.objects.filter(is_current=True, key="qualification").count() == 1


def _qualification(tier: str, score: int) -> dict[str, Any]:
    return {
        "reasoning_summary": "Little is known.",
        "score": score,
        "tier": tier,
        "fit_reasons": [],
        "missing_information": [],
        "confidence": "high",
    }
