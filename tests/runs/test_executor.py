"""One claimed agent run on the event loop: calls, tools, repairs, and what is written down between them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from agents.causes import Cause
from agents.knowledge import add_document
from agents.llm import ModelClient
from agents.models import Budget, Department
from agents.prompts import read_data
from agents.replies import ModelReply
from runs import shift
from runs.budget_changes import allow_once
from runs.executor import MAX_REPAIRS, MAX_TOOL_ROUNDS, MAX_TOOLS_A_ROUND
from runs.models import AgentRun, ModelCall, Output, Review, Rule, ToolCall
from tests.engine import assert_accounts_agree, drain, make_office, make_queued
from tests.factories import agent_of, make_user
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
SEARCH = {"name": "search_knowledge", "input": {"query": "freight invoices audit"}}


@pytest.fixture(autouse=True)
def office() -> Department:
    """A department in which nothing is wanted by itself: only the runs that a test queues."""
    department = make_office()
    Rule.objects.update(is_enabled=False)
    return department


def work_off(run: AgentRun) -> AgentRun:
    """Let a shift carry out one attempt."""
    drain(until=lambda: not AgentRun.objects.filter(pk=run.pk, status__in=["queued", "running"], cause="").exists())
    run.refresh_from_db()
    return run


def bodies(simulator: SimulatorServer) -> list[dict[str, Any]]:
    """The bodies of all requests, oldest first."""
    return [json.loads(request["body"]) for request in simulator.requests()]


def test_an_answer_that_fits_is_an_output_after_one_call(simulator: SimulatorServer) -> None:
    run = work_off(make_queued("intake"))
    assert run.status == "done"
    call = ModelCall.objects.get()
    assert (call.number, call.cause, call.error, call.stop_reason) == (1, "", "", "end_turn")
    assert call.latency_ms is not None
    assert call.first_token_ms is not None
    assert call.body.response is not None
    said = "".join(block["text"] for block in call.body.response["content"] if block["type"] == "text")
    assert Output.objects.get().payload == json.loads(said)
    assert_accounts_agree()


# --- Repairs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("violation", ["type", "missing", "enum"])
def test_an_answer_that_does_not_fit_is_shown_its_error_and_corrected(
    simulator: SimulatorServer, violation: str
) -> None:
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "schema", "violation": violation}}])
    run = work_off(make_queued("intake"))
    assert run.status == "done"
    first, second = ModelCall.objects.order_by("number")
    assert (first.cause, second.cause, second.error) == ("", "", "")
    assert first.error, "the page shows what was wrong with the answer"
    asked, again = bodies(simulator)
    assert again["messages"][0] == asked["messages"][0]
    turn, told = again["messages"][1:]
    assert (turn["role"], told["role"]) == ("assistant", "user")
    assert first.body.response is not None
    assert turn["content"] == first.body.response["content"], "the whole turn, thinking included"
    assert read_data(told["content"]) == [("errors", "", first.error)]
    assert {key: again[key] for key in again if key != "messages"} == {
        key: asked[key] for key in asked if key != "messages"
    }
    assert_accounts_agree()


def test_a_broken_answer_is_corrected_at_most_twice(simulator: SimulatorServer) -> None:
    simulator.faults([{"what": {"kind": "schema", "violation": "missing"}}])
    run = work_off(make_queued("intake"))
    assert (run.status, run.cause, run.failures) == ("failed", Cause.INVALID, 0)
    assert len(bodies(simulator)) == 1 + MAX_REPAIRS
    assert "Field required" in run.error
    assert "reasoning_summary" in run.error
    assert not Output.objects.exists()
    assert Review.objects.count() == 1
    assert_accounts_agree()


def test_prose_instead_of_json_is_a_broken_answer(simulator: SimulatorServer) -> None:
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "text", "text": "Sure! Here is the JSON: {}"}}])
    assert work_off(make_queued("intake")).status == "done"
    assert ModelCall.objects.get(number=1).error.startswith("answer: Invalid JSON")


def test_what_our_own_rules_refuse_is_corrected_too(simulator: SimulatorServer) -> None:
    lie = {
        "reasoning_summary": "Ten points, but I like them.",
        "score": 10,
        "tier": "Hot",
        "fit_reasons": [],
        "missing_information": [],
        "confidence": "high",
    }
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "answer", "answer": lie}}])
    assert work_off(make_queued("qualifier")).status == "done"
    assert "a score of 10 is Cold" in ModelCall.objects.get(number=1).error


def test_keys_beyond_the_schema_are_refused_and_counted_as_trespass(simulator: SimulatorServer) -> None:
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "extra_keys", "keys": {"send_mail_now": True}}}])
    run = work_off(make_queued("intake"))
    assert (run.status, run.trespasses) == ("done", 1)
    assert "send_mail_now" not in Output.objects.get().payload
    assert "send_mail_now: Extra inputs are not permitted" in ModelCall.objects.get(number=1).error


def test_an_agent_that_keeps_leaving_its_role_fails_and_every_time_counts(simulator: SimulatorServer) -> None:
    simulator.faults([{"what": {"kind": "extra_keys"}}])
    run = work_off(make_queued("intake"))
    assert (run.status, run.cause, run.trespasses) == ("failed", Cause.INVALID, 1 + MAX_REPAIRS)


def test_an_answer_holds_no_character_that_a_database_refuses(simulator: SimulatorServer) -> None:
    answer = {
        "reasoning_summary": "With a null \x00 inside.",
        "category": "lead",
        "language": "en",
        "country": "",
        "summary": "Fine",
        "confidence": "high",
    }
    simulator.faults([{"what": {"kind": "answer", "answer": answer}}])
    assert work_off(make_queued("intake")).status == "done"
    assert "\x00" not in Output.objects.get().payload["reasoning_summary"]


# --- Cut, refused, broken off ------------------------------------------------------------------------------------


def test_an_answer_that_was_cut_gets_twice_the_room_once(simulator: SimulatorServer) -> None:
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "truncate"}}])
    run = work_off(make_queued("intake"))
    assert run.status == "done"
    asked, again = bodies(simulator)
    assert again["max_tokens"] == 2 * asked["max_tokens"]
    assert again["messages"] == asked["messages"], "what was cut is not continued"
    first, second = ModelCall.objects.order_by("number")
    assert (first.cause, first.stop_reason) == (Cause.TRUNCATED, "max_tokens")
    assert second.reserved_usd > first.reserved_usd
    assert_accounts_agree()


def test_an_answer_that_is_cut_again_fails(simulator: SimulatorServer) -> None:
    simulator.faults([{"what": {"kind": "truncate"}}])
    run = work_off(make_queued("intake"))
    assert (run.status, run.cause) == ("failed", Cause.TRUNCATED)
    assert len(bodies(simulator)) == 2


def test_a_refusal_is_for_a_person_to_decide(simulator: SimulatorServer) -> None:
    simulator.faults([{"what": {"kind": "refusal", "category": "cyber", "text": "I cannot help with that."}}])
    run = work_off(make_queued("intake"))
    assert (run.status, run.cause, run.error) == ("failed", Cause.REFUSAL, "I cannot help with that.")
    assert Review.objects.get().kind == Review.Kind.REFUSAL
    assert len(bodies(simulator)) == 1
    assert_accounts_agree()


def test_a_stream_that_breaks_off_is_tried_again_later_not_at_once(simulator: SimulatorServer) -> None:
    simulator.faults([{"match": {"times": 1}, "what": {"kind": "drop", "after_deltas": 5}}])
    run = work_off(make_queued("intake"))
    assert (run.status, run.cause, run.failures) == ("queued", Cause.TRANSIENT, 1)
    call = ModelCall.objects.get()
    assert call.is_estimate
    assert call.input_tokens > 0
    assert_accounts_agree()


def test_a_request_that_the_api_refuses_is_not_repeated(simulator: SimulatorServer, office: Department) -> None:
    agent = agent_of(office, "intake")
    agent.effort = "enormous"
    agent.save()
    run = work_off(make_queued("intake"))
    assert (run.status, run.cause) == ("failed", Cause.REQUEST)
    assert "effort" in run.error
    call = ModelCall.objects.get()
    assert (call.http_status, call.is_estimate) == (400, False)
    assert call.cost_usd == 0
    assert_accounts_agree()


# --- Tools --------------------------------------------------------------------------------------------------------


def test_tools_are_used_logged_and_their_results_returned(simulator: SimulatorServer, office: Department) -> None:
    add_document(department=office, title="Audit", text="An audit of freight invoices takes three weeks.")
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "tools", "calls": [SEARCH]}}])
    run = work_off(make_queued("researcher"))
    assert run.status == "done"
    first, second, *_ = ModelCall.objects.order_by("number")
    use = ToolCall.objects.get(model_call=first)
    assert (use.name, use.arguments, use.is_error) == ("search_knowledge", SEARCH["input"], False)
    assert use.agent_run == run
    assert "three weeks" in use.result
    assert use.latency_ms >= 0
    asked, again, *_ = bodies(simulator)
    assert [tool["name"] for tool in asked["tools"]] == ["read_website", "search_knowledge"]
    assert all(tool["strict"] for tool in asked["tools"])
    turn, results = again["messages"][1:3]
    assert first.body.response is not None
    assert turn == {"role": "assistant", "content": first.body.response["content"]}
    asked_for = next(block for block in turn["content"] if block["type"] == "tool_use")
    assert results["role"] == "user"
    assert results["content"] == [
        {"type": "tool_result", "tool_use_id": asked_for["id"], "content": use.result, "is_error": False}
    ]
    assert read_data(use.result), "what a tool found is data, not instruction"
    assert second.attempt == first.attempt
    assert_accounts_agree()


def test_several_tools_of_one_turn_come_back_in_one_message_in_their_order(simulator: SimulatorServer) -> None:
    site = {"name": "read_website", "input": {"page": "/about"}}
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "tools", "calls": [SEARCH, site, SEARCH]}}])
    assert work_off(make_queued("researcher")).status == "done"
    turn, results = bodies(simulator)[1]["messages"][1:3]
    asked = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
    assert [result["tool_use_id"] for result in results["content"]] == asked
    first = ModelCall.objects.get(number=1)
    assert ToolCall.objects.filter(model_call=first).count() == 3
    off = ToolCall.objects.get(model_call=first, name="read_website")
    assert off.is_error
    assert "network access is off" in off.result


def test_a_tool_that_the_agent_does_not_have_is_refused_and_counted_as_trespass(simulator: SimulatorServer) -> None:
    wish = {"name": "send_mail", "input": {"to": "everybody"}}
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "tools", "calls": [wish]}}])
    run = work_off(make_queued("researcher"))
    assert (run.status, run.trespasses) == ("done", 1)
    use = ToolCall.objects.get(name="send_mail")
    assert use.is_error
    assert use.result == "There is no tool 'send_mail'."


def test_arguments_that_do_not_fit_come_back_as_an_error(simulator: SimulatorServer) -> None:
    wrong = {"name": "search_knowledge", "input": {"question": "?"}}
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "tools", "calls": [wrong]}}])
    assert work_off(make_queued("researcher")).status == "done"
    assert ToolCall.objects.filter(is_error=True, arguments={"question": "?"}).count() == 1


def test_asking_for_tools_without_end_fails(simulator: SimulatorServer) -> None:
    simulator.faults([{"what": {"kind": "tools", "calls": [SEARCH]}}])
    run = work_off(make_queued("researcher"))
    assert (run.status, run.cause) == ("failed", Cause.TOOLS)
    assert ToolCall.objects.count() == MAX_TOOL_ROUNDS
    assert len(bodies(simulator)) == MAX_TOOL_ROUNDS + 1
    assert_accounts_agree()


def test_asking_for_too_many_tools_at_once_fails_before_any_is_used(simulator: SimulatorServer) -> None:
    simulator.faults([{"what": {"kind": "tools", "calls": [SEARCH] * (MAX_TOOLS_A_ROUND + 1)}}])
    run = work_off(make_queued("researcher"))
    assert (run.status, run.cause) == ("failed", Cause.TOOLS)
    assert run.error == f"It asked for {MAX_TOOLS_A_ROUND + 1} tools at once; {MAX_TOOLS_A_ROUND} are allowed."
    assert not ToolCall.objects.exists()


# --- Budgets in the middle of a run --------------------------------------------------------------------------------


def test_a_run_whose_next_call_does_not_fit_the_budget_waits_for_it(simulator: SimulatorServer) -> None:
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "truncate"}}])
    run = make_queued("intake")
    # Enough for the first request, not for one with twice the room.
    limit = Decimal("0.002")
    Budget.objects.update(limit_usd=limit)
    drain(until=lambda: ModelCall.objects.filter(status="finished").exists() and _waits(run))
    run.refresh_from_db()
    assert (run.status, run.failures, run.attempt) == ("queued", 0, 1)
    assert run.waiting_for.startswith("budget of the department")
    assert len(bodies(simulator)) == 1
    assert_accounts_agree()
    period = Budget.objects.get().periods.get()
    assert 0 < period.spent_usd <= limit


def test_it_goes_on_as_soon_as_more_is_allowed(simulator: SimulatorServer) -> None:
    simulator.faults([{"match": {"nth": 1}, "what": {"kind": "truncate"}}])
    run = make_queued("intake")
    Budget.objects.update(limit_usd=Decimal("0.002"))
    drain(until=lambda: _waits(run))
    run.refresh_from_db()
    period = Budget.objects.get().periods.get()
    assert run.due_at == period.ends_at, "nothing but a person, or the next period, makes room"
    allow_once(budget=Budget.objects.get(), usd=Decimal(1), user=make_user("ada"), reason="Go on.")
    run.refresh_from_db()
    assert run.due_at <= timezone.now()
    assert work_off(run).status == "done"
    assert_accounts_agree()


def _waits(run: AgentRun) -> bool:
    return AgentRun.objects.filter(pk=run.pk, status="queued", waiting_for__startswith="budget").exists()


# --- Errors of our own -------------------------------------------------------------------------------------------


class Stumbling(ModelClient):
    """A client with an error of ours in it: it has sent the request, and loses its head over the answer."""

    async def call(self, request: Any, on_event: Any = None, *, into: ModelReply | None = None) -> ModelReply:
        reply = await super().call(request, on_event, into=into)
        reply.is_usage_final = False
        raise RuntimeError("lost its head")


def test_a_call_that_an_error_of_ours_leaves_open_is_settled_as_an_estimate(
    simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "ModelClient", Stumbling)
    run = work_off(make_queued("intake"))
    assert (run.status, run.cause, run.error) == ("queued", Cause.INTERNAL, "RuntimeError: lost its head")
    call = ModelCall.objects.get()
    assert (call.status, call.cause, call.is_estimate) == ("finished", Cause.INTERNAL, True)
    assert 0 < call.cost_usd <= call.reserved_usd
    assert_accounts_agree()
