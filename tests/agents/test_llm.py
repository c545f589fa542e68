"""The model API through the real SDK: every fault becomes a cause, and whatever was used is kept."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, ConfigDict

from agents import stream
from agents.causes import Cause
from agents.llm import ModelClient, _classify, api_schema
from agents.replies import ModelReply, ModelRequest
from agents.stream import MOST_TOKENS, UnpricedFees, read_events
from tests.engine import wait_for
from tests.simulator_fixture import SimulatorServer

HAIKU = "claude-haiku-5-5"
KEY = "KONTOR_TEST_KEY"


class Weather(BaseModel):
    """An output with a name that no answer book knows."""

    model_config = ConfigDict(extra="forbid")

    reasoning_summary: str
    city: str
    degrees: int


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.reset()
    server.set_latency(0)
    monkeypatch.setenv(KEY, "key-of-the-department")


def make_request(**changes: Any) -> ModelRequest:
    """A request for a structured answer of some twenty deltas."""
    params: dict[str, Any] = {
        "model": HAIKU,
        "max_tokens": 1_000,
        "system": [{"type": "text", "text": "You are a weather station."}],
        "messages": [{"role": "user", "content": "Write the `weather` output now."}],
        "output_config": {"format": {"type": "json_schema", "schema": api_schema(Weather)}},
    }
    values: dict[str, Any] = {"agent": "station", "api_key_env": KEY, "timeout_seconds": 5.0}
    values |= {name: changes.pop(name) for name in list(changes) if name in values}
    return ModelRequest(call_id=uuid4(), params={**params, **changes}, **values)


def ask(server: SimulatorServer | str, *requests: ModelRequest, on_event: Any = None) -> list[ModelReply]:
    """Send the requests side by side; their replies."""

    async def run() -> list[ModelReply]:
        client = ModelClient(server if isinstance(server, str) else server.base_url)
        try:
            return list(await asyncio.gather(*(client.call(request, on_event) for request in requests)))
        finally:
            await client.close()

    return asyncio.run(run())


def ask_under(server: SimulatorServer, fault: dict[str, Any], **changes: Any) -> ModelReply:
    """The reply to one request that the fault befalls."""
    server.faults([{"what": fault}])
    reply = ask(server, make_request(**changes))[0]
    assert server.faults_fired() == [1]
    return reply


def test_a_good_answer_brings_text_usage_and_the_servers_names(server: SimulatorServer) -> None:
    request = make_request()
    reply = ask(server, request)[0]
    assert (reply.cause, reply.error, reply.stop_reason) == (Cause.NONE, "", "end_turn")
    Weather.model_validate_json(reply.text)
    assert reply.model == HAIKU
    assert reply.is_usage_final
    assert reply.first_token_ms is not None
    call = server.calls()[0]
    assert (call["call_id"], call["agent"]) == (str(request.call_id), "station")
    assert reply.request_id == call["request_id"]
    usage = reply.usage
    assert (usage.input_tokens, usage.output_tokens) == (call["usage"]["input_tokens"], call["usage"]["output_tokens"])
    assert usage.thinking_tokens > 0
    assert reply.as_json()["content"] == reply.content
    assert reply.content[0]["type"] == "thinking"
    assert reply.content[0]["signature"]


def test_the_key_goes_as_a_bearer_and_nowhere_else(server: SimulatorServer) -> None:
    ask(server, make_request())
    headers = server.requests()[-1]["headers"]
    assert headers["authorization"] == "Bearer key-of-the-department"
    assert "x-api-key" not in headers
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["x-stainless-retry-count"] == "0"


STATUSES = [
    (400, "invalid_request_error", Cause.REQUEST),
    (401, "authentication_error", Cause.ACCOUNT),
    (402, "billing_error", Cause.ACCOUNT),
    (403, "permission_error", Cause.ACCOUNT),
    (404, "not_found_error", Cause.REQUEST),
    (408, "timeout_error", Cause.TRANSIENT),
    (413, "request_too_large", Cause.REQUEST),
    (429, "rate_limit_error", Cause.RATE_LIMITED),
    (500, "api_error", Cause.TRANSIENT),
    (502, "api_error", Cause.TRANSIENT),
    (503, "api_error", Cause.TRANSIENT),
    (504, "timeout_error", Cause.TRANSIENT),
    (529, "overloaded_error", Cause.OVERLOADED),
]


@pytest.mark.parametrize(("status", "kind", "cause"), STATUSES)
def test_an_http_error_has_its_cause_and_costs_nothing(
    server: SimulatorServer, status: int, kind: str, cause: Cause
) -> None:
    reply = ask_under(server, {"kind": "status", "status": status, "type": kind, "message": "As scripted."})
    assert (reply.cause, reply.http_status, reply.error_type, reply.error) == (cause, status, kind, "As scripted.")
    assert not reply.was_sent
    assert reply.usage.total_tokens == 0
    assert reply.request_id == server.calls()[0]["request_id"]
    assert len(server.calls()) == 1, "retries are not made here"


def test_a_spend_limit_is_about_the_account_although_its_status_is_429(server: SimulatorServer) -> None:
    fault = {"kind": "status", "status": 429, "error_code": "enforced_spend_limit_reached"}
    assert ask_under(server, fault).cause is Cause.ACCOUNT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7200"}, 7200.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_it_says_when_the_server_wants_to_hear_from_us(
    server: SimulatorServer, headers: dict[str, str], seconds: float | None
) -> None:
    began = time.monotonic()
    reply = ask_under(server, {"kind": "status", "status": 429, "headers": headers})
    assert reply.retry_after_seconds == seconds
    assert time.monotonic() - began < 5, "it must not wait itself"


def test_retry_after_may_be_a_date(server: SimulatorServer) -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    headers = {"retry-after": format_datetime(later, usegmt=True)}
    reply = ask_under(server, {"kind": "status", "status": 529, "headers": headers})
    assert reply.retry_after_seconds == pytest.approx(90, abs=5)


def test_a_proxy_that_answers_in_html_is_server_trouble(server: SimulatorServer) -> None:
    reply = ask_under(server, {"kind": "status", "status": 502, "body": "<html>Bad gateway</html>"})
    assert (reply.cause, reply.http_status) == (Cause.TRANSIENT, 502)


BROKEN_STREAMS: list[dict[str, Any]] = [
    {"kind": "drop", "after_deltas": 5},
    {"kind": "drop", "after_deltas": 5, "how": "reset"},
    {"kind": "end", "after_deltas": 5},
    {"kind": "end", "without": "message_delta"},
    {"kind": "stream_error", "after_deltas": 5, "type": "api_error"},
    {"kind": "stream_error", "after_deltas": 5, "body": "not json"},
]


@pytest.mark.parametrize("fault", BROKEN_STREAMS, ids=str)
def test_a_stream_that_breaks_off_is_transient_and_its_prompt_counts(
    server: SimulatorServer, fault: dict[str, Any]
) -> None:
    reply = ask_under(server, fault)
    assert reply.cause is Cause.TRANSIENT
    assert reply.error
    assert reply.was_sent
    assert reply.usage.input_tokens > 0
    assert not reply.is_usage_final
    assert reply.tool_uses == []


def test_an_error_inside_a_stream_can_be_overload(server: SimulatorServer) -> None:
    reply = ask_under(server, {"kind": "stream_error", "after_deltas": 3, "type": "overloaded_error"})
    assert (reply.cause, reply.http_status) == (Cause.OVERLOADED, 200)
    assert reply.usage.input_tokens > 0


def test_an_answer_is_whole_once_its_last_delta_came(server: SimulatorServer) -> None:
    reply = ask_under(server, {"kind": "end", "without": "message_stop"})
    assert reply.cause is Cause.NONE
    assert reply.is_usage_final


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("where", ["before", "headers"])
def test_a_connection_that_is_lost_before_the_answer_is_transient(
    server: SimulatorServer, where: str, how: str
) -> None:
    reply = ask_under(server, {"kind": "drop", "where": where, "how": how})
    assert reply.cause is Cause.TRANSIENT
    assert reply.was_sent, "nobody knows what the server did, so it may cost"


@pytest.mark.parametrize("where", ["before", "headers", ""])
def test_silence_ends_with_the_time_out(server: SimulatorServer, where: str) -> None:
    fault = {"kind": "silence", "seconds": 60, **({"where": where} if where else {"after_deltas": 4})}
    began = time.monotonic()
    reply = ask_under(server, fault, timeout_seconds=0.4)
    assert reply.cause is Cause.TIMEOUT
    assert 0.3 < time.monotonic() - began < 5
    assert (reply.usage.input_tokens > 0) == (where == "")


def test_pings_do_not_prolong_the_time_out_but_are_signs_of_life(server: SimulatorServer) -> None:
    server.faults([{"what": {"kind": "pings", "seconds": 60, "interval_ms": 50, "after_deltas": 2}}])
    heard: list[float] = []
    reply = ask(server, make_request(timeout_seconds=1.0), on_event=lambda: heard.append(time.monotonic()))[0]
    assert reply.cause is Cause.TIMEOUT
    assert len([moment for moment in heard if moment > heard[0] + 0.3]) > 5


def test_every_event_of_an_answer_is_a_sign_of_life(server: SimulatorServer) -> None:
    server.set_latency(300)
    heard: list[float] = []
    ask(server, make_request(), on_event=lambda: heard.append(time.monotonic()))
    assert len(heard) > 5
    assert heard[-1] - heard[0] > 0.1


@pytest.mark.parametrize(
    "rubbish",
    ["html", "null", "empty_object", "error_body", "text", "bad_json", "no_events", "unnamed_events", "bad_event"],
)
def test_a_200_that_is_no_message_is_transient(server: SimulatorServer, rubbish: str) -> None:
    reply = ask_under(server, {"kind": "rubbish", "rubbish": rubbish})
    assert reply.cause is Cause.TRANSIENT
    assert reply.error
    assert not reply.is_usage_final


def gather(*events: str, into: ModelReply | None = None) -> ModelReply:
    """What is kept of a stream of these events, each the JSON text of its data."""
    reply = into or ModelReply()

    async def run() -> ModelReply:
        await stream.gather(read_events(chunks()), reply, time.monotonic(), None)
        return reply

    async def chunks() -> AsyncIterator[bytes]:
        for event in events:
            yield f"data: {event}\n\n".encode()

    return asyncio.run(run())


def begin(**changes: Any) -> str:
    message = {"id": "msg_1", "model": HAIKU, "usage": {"input_tokens": 9}, **changes}
    return json.dumps({"type": "message_start", "message": message})


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 5_000}, (0, 5_000)),
        ({"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 4_000}, (1_000, 4_000)),
        ({"ephemeral_5m_input_tokens": 5_000}, (5_000, 0)),
        (None, (5_000, 0)),
    ],
)
def test_the_end_of_a_stream_does_not_count_a_cache_write_again(kinds: Any, expected: tuple[int, int]) -> None:
    usage = {"input_tokens": 9, "cache_creation_input_tokens": 5_000}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {**usage, "output_tokens": 7}}
    reply = gather(begin(usage={**usage, "cache_creation": kinds}), json.dumps(end))
    assert (reply.usage.cache_write_5m_tokens, reply.usage.cache_write_1h_tokens) == expected
    assert (reply.usage.prompt_tokens, reply.usage.output_tokens) == (5_009, 7)


def block(index: int, kind: str, *deltas: dict[str, str], **start: Any) -> list[str]:
    """The events of a block up to its last delta."""
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind, **start}}
    ]
    events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [json.dumps(event) for event in events]


THOUGHT = block(0, "thinking", {"type": "signature_delta", "signature": "s" * 100}, thinking="", signature="")
SUMMARY = block(0, "thinking", {"type": "thinking_delta", "thinking": "Hm. " * 50}, thinking="", signature="")
SAID = {"type": "text_delta", "text": "Über " * 5}
ASKED = {"type": "input_json_delta", "partial_json": '{"side": "'}
SO_FAR = json.dumps({"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 400}})


@pytest.mark.parametrize(
    ("events", "output_tokens"),
    [
        (block(0, "text", SAID, SAID, text=""), 4 + 60),
        ([*block(0, "text", SAID, text=""), *block(1, "tool_use", ASKED, id="t_1", name="look")], 34 + 8 + 3 + 4 + 10),
        ([*block(0, "text", SAID, text=""), SO_FAR], 400),
    ],
)
def test_of_a_stream_that_is_cut_every_byte_that_was_shown_is_a_token(events: list[str], output_tokens: int) -> None:
    reply = gather(begin(), *events)
    assert not reply.is_usage_final
    assert reply.seen_usage is not None
    assert (reply.seen_usage.input_tokens, reply.seen_usage.output_tokens) == (9, output_tokens)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [SO_FAR],
        THOUGHT[:1],
        THOUGHT,
        SUMMARY,
        [*THOUGHT, *block(1, "text", SAID, text="")],
        [*block(0, "text", SAID, text=""), *block(1, "redacted_thinking", data="d" * 100)],
    ],
)
def test_what_a_model_that_may_have_thought_has_used_is_not_known(events: list[str]) -> None:
    assert gather(begin(), *events).seen_usage is None


@pytest.mark.parametrize("where", ["message_start", "message_delta"])
def test_a_fee_beside_the_tokens_is_never_zero_unnoticed(where: str) -> None:
    usage = {"input_tokens": 9, "output_tokens": 4, "server_tool_use": {"web_search_requests": 2, "web_fetch": 0}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    reply = ModelReply()
    with pytest.raises(UnpricedFees, match=r"\(2 web search requests\), for which Kontor knows no fee") as error:
        gather(begin(usage=usage) if where == "message_start" else begin(), json.dumps(end), into=reply)
    _classify(error.value, reply)
    assert (reply.cause, reply.has_unpriced_fees, reply.is_usage_final) == (Cause.REQUEST, True, False)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.stop_reason) == (9, 4, "")


def test_no_fee_is_no_fee() -> None:
    usage = {"input_tokens": 9, "output_tokens": 4, "server_tool_use": {"web_search_requests": 0}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    assert gather(begin(usage={**usage, "server_tool_use": None}), json.dumps(end)).is_usage_final


def test_names_that_a_server_gives_are_cut_to_what_is_stored() -> None:
    reply = gather(
        begin(model="m\x00" * 100), json.dumps({"type": "message_delta", "delta": {"stop_reason": "s" * 90}})
    )
    assert (reply.model, reply.stop_reason) == ("m" * 64, "s" * 40)


@pytest.mark.parametrize(
    "event",
    [
        begin(model=None),
        begin(model={}),
        begin(usage={"input_tokens": -1}),
        begin(usage={"input_tokens": MOST_TOKENS + 1}),
        begin(usage={"input_tokens": "many"}),
        json.dumps({"type": "message_delta", "delta": {"stop_reason": 7}}),
        '{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": NaN}}',
    ],
)
def test_what_no_database_can_hold_is_no_answer(event: str) -> None:
    with pytest.raises(ValueError, match="."):
        gather(event)


def test_a_refusal_is_its_own_cause_and_its_usage_is_kept(server: SimulatorServer) -> None:
    reply = ask_under(server, {"kind": "refusal", "category": "cyber", "text": "I would rather not."})
    assert (reply.cause, reply.error) == (Cause.REFUSAL, "I would rather not.")
    assert reply.is_usage_final
    assert reply.usage.input_tokens > 0


def test_an_answer_that_was_cut_says_so(server: SimulatorServer) -> None:
    reply = ask_under(server, {"kind": "truncate"})
    assert (reply.cause, reply.stop_reason) == (Cause.TRUNCATED, "max_tokens")
    assert reply.usage.output_tokens > 0


def test_an_answer_without_usage_is_an_answer_whose_cost_is_not_final(server: SimulatorServer) -> None:
    reply = ask_under(server, {"kind": "no_usage"})
    assert reply.cause is Cause.NONE
    assert not reply.is_usage_final
    assert reply.usage.total_tokens == 0


def test_tools_the_model_asks_for_come_with_their_input(server: SimulatorServer) -> None:
    tool = {
        "name": "look",
        "description": "Looks out of the window.",
        "input_schema": {
            "type": "object",
            "properties": {"side": {"type": "string", "description": "Which side."}},
            "required": ["side"],
            "additionalProperties": False,
        },
    }
    server.faults([{"what": {"kind": "tools", "calls": [{"name": "look", "input": {"side": 'north é "x"'}}]}}])
    reply = ask(server, make_request(tools=[tool]))[0]
    assert (reply.cause, reply.stop_reason) == (Cause.NONE, "tool_use")
    assert [(use["name"], use["input"]) for use in reply.tool_uses] == [("look", {"side": 'north é "x"'})]


def test_nobody_listening_is_transient_and_was_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, nobody answers
        reply = ask(f"http://127.0.0.1:{taken.getsockname()[1]}", make_request())[0]
    assert (reply.cause, reply.was_sent, reply.error) == (Cause.TRANSIENT, False, "The model API cannot be reached.")


def test_a_missing_key_names_its_variable(server: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    reply = ask(server, make_request())[0]
    assert (reply.cause, reply.was_sent) == (Cause.ACCOUNT, False)
    assert KEY in reply.error
    assert server.calls() == []


def test_a_key_that_the_api_does_not_accept_is_about_the_account(
    server: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "invalid")
    reply = ask(server, make_request())[0]
    assert (reply.cause, reply.http_status) == (Cause.ACCOUNT, 401)


def test_two_departments_use_a_key_each(server: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONTOR_OTHER_KEY", "key-of-the-other")
    first, second = make_request(), make_request(api_key_env="KONTOR_OTHER_KEY")
    ask(server, first, second)
    keys = {r["headers"]["x-kontor-call"]: r["headers"]["authorization"] for r in server.requests()}
    assert keys == {
        str(first.call_id): "Bearer key-of-the-department",
        str(second.call_id): "Bearer key-of-the-other",
    }


def test_cancelling_closes_the_stream(server: SimulatorServer) -> None:
    server.faults([{"what": {"kind": "pings", "seconds": 60, "interval_ms": 50}}])

    async def run() -> None:
        client = ModelClient(server.base_url)
        heard = asyncio.Event()
        task = asyncio.create_task(client.call(make_request(timeout_seconds=60), heard.set))
        await asyncio.wait_for(heard.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(
            wait_for, lambda: server.stats()["in_flight"] == 0, "the server sees the connection closed"
        )
        await client.close()

    asyncio.run(run())
    assert [call["outcome"] for call in server.calls()] in (["abandoned"], ["fault"])


def test_three_hundred_calls_are_in_flight_at_once(server: SimulatorServer) -> None:
    server.set_latency(1_500)
    requests = [make_request(timeout_seconds=30) for _ in range(300)]
    replies = ask(server, *requests)
    assert {reply.cause for reply in replies} == {Cause.NONE}
    assert server.stats()["max_in_flight"] > 250
    assert {call["call_id"] for call in server.calls()} == {str(request.call_id) for request in requests}


def test_tokens_can_be_counted_beforehand(server: SimulatorServer) -> None:
    request = make_request()

    async def run() -> tuple[int, ModelReply]:
        client = ModelClient(server.base_url)
        try:
            return await client.count_tokens(request), await client.call(request)
        finally:
            await client.close()

    counted, reply = asyncio.run(run())
    assert counted == reply.usage.input_tokens


def test_it_tells_whether_anybody_answers(server: SimulatorServer) -> None:
    async def reach(base_url: str) -> str | None:
        client = ModelClient(base_url)
        try:
            return await client.reach()
        finally:
            await client.close()

    assert asyncio.run(reach(server.base_url)) is None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = asyncio.run(reach(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert answer is not None
    assert "ANTHROPIC_BASE_URL" in answer
