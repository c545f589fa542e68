"""Every scripted fault, as the SDK sees it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx2
import pytest
from pydantic import BaseModel, ValidationError

from agents.prompts import AgentInput, user_message
from agents.simulator.faults import Script
from tests.simulator_fixture import SimulatorServer


class Verdict(BaseModel):
    tier: Literal["Hot", "Cold"]
    score: int
    reason: str
    model_config = {"extra": "forbid"}


DATA = user_message(AgentInput(item={"company": "Acme"}), "verdict")
REQUEST: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 2000,
    "messages": [{"role": "user", "content": DATA}],
    "output_config": {
        "format": {"type": "json_schema", "schema": anthropic.transform_schema(Verdict)},
    },
}
_WAIT_SECONDS = 5


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatorServer]:
    with SimulatorServer() as server:
        yield server


@pytest.fixture
def server(running: SimulatorServer) -> SimulatorServer:
    running.reset()
    return running


def client_of(server: SimulatorServer, agent: str = "", timeout: float = 5) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="key",
        base_url=server.base_url,
        max_retries=0,
        timeout=timeout,
        default_headers={"x-kontor-agent": agent, "x-kontor-call": "call-1"},
    )


def ask(server: SimulatorServer, agent: str = "", timeout: float = 5) -> anthropic.types.Message:
    message: anthropic.types.Message = client_of(server, agent, timeout).messages.create(**REQUEST)
    return message


def stream(server: SimulatorServer, timeout: float = 5) -> list[Any]:
    """All events of a streamed answer."""
    return list(client_of(server, timeout=timeout).messages.create(**REQUEST, stream=True))


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def streamed_text(events: list[Any]) -> str:
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    return "".join(delta.text for delta in deltas if delta.type == "text_delta")


def fault(kind: str, **what: Any) -> list[dict[str, Any]]:
    return [{"what": {"kind": kind, **what}}]


@pytest.mark.parametrize(
    ("status", "error", "type_"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, anthropic.PaymentRequiredError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.ContentTooLargeError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.ServiceUnavailableError, "api_error"),
        (504, anthropic.GatewayTimeoutError, "timeout_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
def test_an_http_error_is_the_exception_of_its_status(
    server: SimulatorServer, status: int, error: type[anthropic.APIStatusError], type_: str
) -> None:
    server.faults(fault("status", status=status, error_code="demo", headers={"retry-after": "7"}))
    for call in (ask, stream):
        with pytest.raises(error) as caught:
            call(server)
        assert caught.value.type == type_
        assert caught.value.error_code == "demo"
        assert caught.value.response.headers["retry-after"] == "7"
    assert [call["status"] for call in server.calls()] == [status, status]
    assert {call["outcome"] for call in server.calls()} == {"fault"}


def test_a_proxy_answers_with_html(server: SimulatorServer) -> None:
    server.faults(fault("status", status=502, body="<html>Bad gateway</html>"))
    with pytest.raises(anthropic.InternalServerError) as caught:
        ask(server)
    assert caught.value.body == "<html>Bad gateway</html>"


def test_a_delay_runs_into_the_timeout(server: SimulatorServer) -> None:
    server.faults(fault("delay", delay_ms=2000))
    with pytest.raises(anthropic.APITimeoutError):
        ask(server, timeout=0.2)


@pytest.mark.parametrize("where", ["before", "headers"])
def test_silence_runs_into_the_timeout(server: SimulatorServer, where: str) -> None:
    server.faults(fault("silence", where=where, seconds=60))
    with pytest.raises((anthropic.APITimeoutError, httpx2.ReadTimeout)):
        ask(server, timeout=0.2)
    with pytest.raises((anthropic.APITimeoutError, httpx2.ReadTimeout)):
        stream(server, timeout=0.2)


def test_silence_in_the_middle_of_a_stream_is_a_read_timeout(server: SimulatorServer) -> None:
    server.faults(fault("silence", after_deltas=3, seconds=60))
    events: list[Any] = []
    with pytest.raises(httpx2.ReadTimeout):
        events.extend(client_of(server, timeout=0.2).messages.create(**REQUEST, stream=True))
    deltas = [event.delta.type for event in events if event.type == "content_block_delta"]
    assert deltas.count("text_delta") == 3


def test_after_a_short_silence_the_answer_goes_on(server: SimulatorServer) -> None:
    server.faults(fault("silence", after_deltas=3, seconds=0.3))
    Verdict.model_validate_json(streamed_text(stream(server)))


def test_pings_keep_a_stream_alive_without_bringing_anything(server: SimulatorServer) -> None:
    server.faults(fault("pings", seconds=0.5, interval_ms=50, after_deltas=2))
    started = time.monotonic()
    events = stream(server, timeout=0.3)
    assert time.monotonic() - started >= 0.5
    Verdict.model_validate_json(streamed_text(events))


@pytest.mark.parametrize(("how", "error"), [("close", httpx2.RemoteProtocolError), ("reset", httpx2.ReadError)])
def test_a_stream_that_drops_is_a_transport_error(server: SimulatorServer, how: str, error: type[Exception]) -> None:
    server.faults(fault("drop", how=how, after_deltas=5))
    with pytest.raises(error):
        stream(server)
    call = server.calls()[0]
    assert call["outcome"] == "fault"
    assert call["fault"] == "drop"
    assert call["usage"]["output_tokens"] > 0


@pytest.mark.parametrize("where", ["before", ""])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_plain_answer_that_drops_is_a_connection_error(server: SimulatorServer, how: str, where: str) -> None:
    server.faults(fault("drop", how=how, where=where))
    with pytest.raises(anthropic.APIConnectionError):
        ask(server)


def test_a_stream_that_ends_too_early_has_no_stop_reason(server: SimulatorServer) -> None:
    server.faults(fault("end", after_deltas=5))
    kinds = [event.type for event in stream(server)]
    assert "message_delta" not in kinds
    with client_of(server).messages.stream(**REQUEST) as managed:
        assert managed.get_final_message().stop_reason is None


def test_a_stream_may_lack_only_its_last_event(server: SimulatorServer) -> None:
    server.faults(fault("end", without="message_stop"))
    assert stream(server)[-1].type == "message_delta"


def test_an_error_in_a_stream_keeps_its_type(server: SimulatorServer) -> None:
    server.faults(fault("stream_error", after_deltas=2))
    with pytest.raises(anthropic.APIStatusError) as caught:
        stream(server)
    assert caught.value.status_code == 200
    assert caught.value.type == "overloaded_error"
    with pytest.raises(anthropic.InternalServerError):
        ask(server)


def test_an_answer_cut_by_max_tokens_is_no_json(server: SimulatorServer) -> None:
    server.faults([{"match": {"max_tokens_below": 4000}, "what": {"kind": "truncate"}}])
    message = ask(server)
    assert message.stop_reason == "max_tokens"
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of(message))
    roomy = client_of(server).messages.create(**{**REQUEST, "max_tokens": 4000})
    assert roomy.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("violation", "error"), [("type", "literal_error"), ("missing", "missing"), ("enum", "literal_error")]
)
def test_a_violation_breaks_the_schema(server: SimulatorServer, violation: str, error: str) -> None:
    server.faults(fault("schema", violation=violation))
    with pytest.raises(ValidationError) as caught:
        Verdict.model_validate_json(text_of(ask(server)))
    assert [entry["type"] for entry in caught.value.errors()] == [error]


def test_extra_keys_are_added(server: SimulatorServer) -> None:
    server.faults(fault("extra_keys", keys={"send_now": True}))
    given = json.loads(text_of(ask(server)))
    assert given.pop("send_now") is True
    Verdict.model_validate(given)


def test_the_answer_after_a_refused_one_is_right(server: SimulatorServer) -> None:
    server.faults([{"match": {"first": 1}, "what": {"kind": "schema", "violation": "missing"}}])
    first = ask(server)
    turns = [
        *REQUEST["messages"],
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": "That answer was refused. Answer again."},
    ]
    second = client_of(server).messages.create(**{**REQUEST, "messages": turns})
    assert "Acme" in Verdict.model_validate_json(text_of(second)).reason


def test_a_refusal_is_a_200_with_stop_details(server: SimulatorServer) -> None:
    server.faults(fault("refusal", category="cyber"))
    message = ask(server)
    assert message.stop_reason == "refusal"
    assert message.content == []
    assert message.stop_details is not None
    assert message.stop_details.category == "cyber"
    assert message.usage.output_tokens == 0
    assert [e.type for e in stream(server)] == ["message_start", "message_delta", "message_stop"]


def test_a_refusal_may_say_something(server: SimulatorServer) -> None:
    server.faults(fault("refusal", text="I cannot help with that."))
    assert text_of(ask(server)) == "I cannot help with that."


def test_rubbish_with_status_200_is_no_message(server: SimulatorServer) -> None:
    seen: list[object] = []
    for rubbish in ("html", "null", "empty_object", "error_body", "text"):
        server.faults(fault("rubbish", rubbish=rubbish))
        seen.append(ask(server))
    assert seen[0] == "<html><body><h1>Welcome to the proxy</h1></body></html>"
    assert seen[1] is None
    assert all(getattr(answer, "content", None) is None for answer in seen)


def test_broken_json_with_status_200_is_a_decode_error(server: SimulatorServer) -> None:
    server.faults(fault("rubbish", rubbish="bad_json"))
    with pytest.raises(json.JSONDecodeError):
        ask(server)


def test_streams_of_rubbish_bring_no_message(server: SimulatorServer) -> None:
    for rubbish in ("no_events", "unnamed_events", "html"):
        server.faults(fault("rubbish", rubbish=rubbish))
        assert stream(server) == []
    server.faults(fault("rubbish", rubbish="bad_event"))
    with pytest.raises(json.JSONDecodeError):
        stream(server)


def test_usage_may_be_missing(server: SimulatorServer) -> None:
    server.faults(fault("no_usage"))
    assert ask(server).usage is None
    events = stream(server)
    assert events[0].message.usage is None
    assert events[-2].usage is None


def test_an_answer_can_be_prescribed(server: SimulatorServer) -> None:
    server.faults(fault("answer", answer={"tier": "Hot"}))
    assert json.loads(text_of(ask(server))) == {"tier": "Hot"}
    server.faults(fault("text", text="Hm."))
    assert text_of(ask(server)) == "Hm."


def test_tool_calls_can_be_prescribed(server: SimulatorServer) -> None:
    server.faults(fault("tools", calls=[{"name": "look_up", "input": {"q": "x"}}]))
    message = ask(server)
    assert message.stop_reason == "tool_use"
    block = message.content[-1]
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("look_up", {"q": "x"})


def test_a_slow_connection_is_read_late(server: SimulatorServer) -> None:
    server.faults([{"match": {"times": 1}, "what": {"kind": "slow_connect", "seconds": 0.4}}])
    started = time.monotonic()
    assert ask(server).type == "message"
    assert time.monotonic() - started >= 0.4


def test_rules_count_for_each_agent(server: SimulatorServer) -> None:
    server.faults([{"match": {"agent": ["writer", "reader"], "nth": 2}, "what": {"kind": "text", "text": "second"}}])
    said = [text_of(ask(server, agent)) == "second" for agent in ("writer", "reader", "writer", "other")]
    assert said == [False, False, True, False]
    assert text_of(ask(server, "reader")) == "second"
    assert server.faults_fired() == [2]


@pytest.mark.parametrize(
    ("match", "fired"),
    [
        ({"nth": [1, 4]}, [True, False, False, True]),
        ({"every": 2}, [False, True, False, True]),
        ({"first": 2}, [True, True, False, False]),
        ({"after": 3}, [False, False, False, True]),
        ({"times": 1, "after": 1}, [False, True, False, False]),
        ({"model": "claude-opus-5-5"}, [False] * 4),
        ({"contains": "Acme"}, [True] * 4),
        ({"contains": "Nobody"}, [False] * 4),
        ({"stream": True}, [False] * 4),
        ({"endpoint": "count_tokens"}, [False] * 4),
    ],
)
def test_a_rule_fires_when_its_match_says(server: SimulatorServer, match: dict[str, Any], fired: list[bool]) -> None:
    server.faults([{"match": match, "what": {"kind": "text", "text": "fired"}}])
    assert [text_of(ask(server)) == "fired" for _ in range(4)] == fired


def test_chance_has_a_seed(server: SimulatorServer) -> None:
    runs = []
    for seed in (1, 1, 2):
        match = {"probability": 0.5, "seed": seed}
        server.faults([{"match": match, "what": {"kind": "text", "text": "fired"}}])
        runs.append([text_of(ask(server)) == "fired" for _ in range(12)])
    assert runs[0] == runs[1] != runs[2]
    assert {True, False} == set(runs[0])


def test_a_fault_can_be_about_counting(server: SimulatorServer) -> None:
    server.faults([{"match": {"endpoint": "count_tokens"}, "what": {"kind": "status", "status": 429}}])
    with pytest.raises(anthropic.RateLimitError):
        client_of(server).messages.count_tokens(model="claude-haiku-5-5", messages=REQUEST["messages"])
    assert ask(server).type == "message"


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({}, "list of rules"),
        ([{"match": {}}], "`what`"),
        ([{"what": {"kind": "nonsense"}}], "unknown kind"),
        ([{"what": {"kind": "delay", "seconds": 3}}], "unknown seconds"),
        ([{"match": {"agents": "x"}, "what": {"kind": "delay"}}], "unknown agents"),
        ([{"what": {"kind": "drop", "how": "gently"}}], "how must be one of close, reset"),
        ([{"match": {"first": "many"}, "what": {"kind": "delay"}}], "first"),
        ([{"match": {"endpoint": "batches"}, "what": {"kind": "delay"}}], "endpoint"),
    ],
)
def test_a_rule_that_is_not_understood_is_refused(rules: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Script(rules)


def test_a_client_that_leaves_is_abandoned_in_the_books(server: SimulatorServer) -> None:
    server.faults(fault("silence", after_deltas=5, seconds=60))
    with client_of(server).messages.create(**REQUEST, stream=True) as events:
        next(iter(events))
    deadline = time.monotonic() + _WAIT_SECONDS
    while not server.calls() and time.monotonic() < deadline:
        time.sleep(0.01)
    call = server.calls()[0]
    assert call["outcome"] == "abandoned"
    assert call["usage"]["input_tokens"] > 0
    assert server.stats()["in_flight"] == 0


def test_what_is_not_http_gets_a_400(server: SimulatorServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"\x16\x03\x01\x00\x00\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
