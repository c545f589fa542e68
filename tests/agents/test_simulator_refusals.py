"""What the simulator refuses, with the errors of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.simulator_fixture import SimulatorServer

HELLO = [{"role": "user", "content": "Hello"}]
OBJECT = {"type": "object", "additionalProperties": False}
TOOL = {"name": "look_up", "description": "Looks up", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer() as running:
        yield running


def client_of(server: SimulatorServer, key: str = "key", **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=key, base_url=server.base_url, max_retries=0, **options)


def send(server: SimulatorServer, **changes: Any) -> anthropic.types.Message:
    """One raw request, so that the SDK lets everything through; None leaves a field out."""
    request = {"model": "claude-haiku-5-5", "max_tokens": 1000, "messages": HELLO, **changes}
    body = {name: value for name, value in request.items() if value is not None}
    return client_of(server).post("/v1/messages", body=body, cast_to=anthropic.types.Message)


def schema(**properties: Any) -> dict[str, Any]:
    """A request's ``output_config`` for an object with these properties, all required."""
    body = {**OBJECT, "properties": properties, "required": list(properties)}
    return {"format": {"type": "json_schema", "schema": body}}


def refused(server: SimulatorServer, **changes: Any) -> str:
    """The message of the 400 that a request gets."""
    with pytest.raises(anthropic.BadRequestError) as caught:
        send(server, **changes)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    return str(caught.value.api_message)


def test_a_good_request_passes(server: SimulatorServer) -> None:
    assert send(server).type == "message"


def test_a_key_that_is_invalid_is_refused(server: SimulatorServer) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client_of(server, "invalid").messages.create(
            model="claude-haiku-5-5",
            max_tokens=10,
            messages=[{"role": "user", "content": "Hello"}],
        )
    assert caught.value.type == "authentication_error"


def test_a_key_in_the_old_header_is_accepted(server: SimulatorServer) -> None:
    headers: Any = {"authorization": anthropic.Omit(), "x-api-key": "key"}
    assert client_of(server, default_headers=headers).models.list().data


def test_an_unknown_version_is_refused(server: SimulatorServer) -> None:
    with pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
        client_of(server, default_headers={"anthropic-version": "2020-01-01"}).models.list()


def test_an_unknown_model_is_not_found(server: SimulatorServer) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        send(server, model="claude-nobody")
    assert caught.value.type == "not_found_error"
    assert caught.value.api_message == "model: claude-nobody"
    with pytest.raises(anthropic.NotFoundError):
        client_of(server).models.retrieve("claude-nobody")


def test_an_unknown_path_is_not_found(server: SimulatorServer) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client_of(server).get("/v1/nothing", cast_to=object)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_parameters_are_refused(server: SimulatorServer, name: str) -> None:
    assert name in refused(server, **{name: 1})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 128_001}, "128001 > 128000"),
        ({"max_tokens": "many"}, "valid integer"),
        ({"messages": []}, "at least one message"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "non-whitespace"),
        ({"messages": [{"role": "robot", "content": "Hello"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "Hello"}, *HELLO]}, "first message"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "{"}]}, "prefill"),
        ({"system": [{"type": "text", "text": ""}]}, "system: text content blocks"),
        ({"surprise": True}, "surprise: Extra inputs are not permitted"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"style": "short"}}, "output_config.style"),
        ({"model": "claude-haiku-4-5", "output_config": {"effort": "low"}}, "is not supported"),
        ({"model": "claude-sonnet-4-6", "output_config": {"effort": "xhigh"}}, "is not supported"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.type.enabled"),
        ({"model": "claude-opus-5-5", "thinking": {"type": "disabled"}}, "thinking.type.disabled"),
        ({"model": "claude-sonnet-5-5", "thinking": {"type": "disabled"}}, "thinking.type.disabled"),
        (
            {
                "model": "claude-sonnet-5-5",
                "thinking": {"type": "between_tools"},
                "output_config": {"effort": "max"},
            },
            "at effort `max`",
        ),
        (
            {"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 1000}},
            "greater than or equal to 1024",
        ),
        (
            {"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 1024}},
            "`max_tokens` must be greater",
        ),
        (
            {"model": "claude-sonnet-5-5", "tools": [TOOL], "tool_choice": {"type": "any"}},
            "tool_choice",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "not found in provided tools"),
        ({"tool_choice": {"type": "auto"}}, "while providing `tools`"),
        ({"tools": [TOOL, TOOL]}, "must be unique"),
        ({"tools": [{**TOOL, "name": "no spaces"}]}, "tools.0.custom.name"),
        ({"tools": [{**TOOL, "strict": True}]}, "additionalProperties"),
        ({"tools": [{**TOOL, "input_schema": {"type": "string"}}]}, "input_schema.type"),
        ({"service_tier": "fast"}, "service_tier"),
    ],
)
def test_a_request_the_api_refuses_is_refused(server: SimulatorServer, changes: dict[str, Any], words: str) -> None:
    assert words in refused(server, **changes)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (schema(a={"type": "integer", "minimum": 1}), "minimum are not supported"),
        (schema(a={"type": "string", "maxLength": 9}), "maxLength are not supported"),
        (schema(a={"type": "object", "properties": {}}), "additionalProperties"),
        (schema(a={"type": "array", "items": {"type": "string"}, "minItems": 2}), "minItems"),
        (schema(a={"oneOf": [{"type": "string"}, {"type": "null"}]}), "oneOf"),
        (schema(a={"type": "string", "format": "color"}), "format 'color'"),
        (schema(a={"$ref": "https://example.org/a.json"}), "$ref"),
        (schema(a={"$ref": "#/$defs/gone"}), "$ref"),
        (schema(a={"$ref": "#"}), "Recursive"),
        (schema(a={}), "supported 'type'"),
        ({"format": {"type": "json_schema", "schema": {"type": "array"}}}, "root of the schema"),
        ({"format": {"type": "json_schema"}}, "schema: Field required"),
        ({"format": {"type": "xml"}}, "format.type"),
        (
            schema(**{f"a{n}": {"anyOf": [{"type": "string"}, {"type": "null"}]} for n in range(17)}),
            "limit: 16",
        ),
    ],
)
def test_a_schema_the_api_refuses_is_refused(server: SimulatorServer, config: dict[str, Any], words: str) -> None:
    assert words in refused(server, output_config=config)
    assert words in refused(server, output_config=config)


def test_a_recursive_definition_is_refused(server: SimulatorServer) -> None:
    node = {**OBJECT, "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}
    config = schema(first={"$ref": "#/$defs/node"})
    config["format"]["schema"]["$defs"] = {"node": node}
    assert "Recursive" in refused(server, output_config=config)


def test_twenty_five_optional_parameters_are_too_many(server: SimulatorServer) -> None:
    config = schema(**{f"a{number}": {"type": "string"} for number in range(25)})
    config["format"]["schema"]["required"] = []
    assert "limit: 24" in refused(server, output_config=config)
    config["format"]["schema"]["required"] = ["a0"]
    assert send(server, output_config=config).type == "message"


def test_a_body_that_is_no_json_is_refused(server: SimulatorServer) -> None:
    with pytest.raises(anthropic.BadRequestError, match="not valid JSON"):
        client_of(server).post("/v1/messages", content=b"{", cast_to=object)


def test_an_edited_thinking_block_is_refused(server: SimulatorServer) -> None:
    message = send(server)
    block = message.content[0].to_dict()
    assert block["type"] == "thinking"
    turns = [*HELLO, {"role": "assistant", "content": [block, {"type": "text", "text": "Hi"}]}, *HELLO]
    assert send(server, messages=turns).type == "message"
    block["thinking"] = "Something else"
    assert "signature" in refused(server, messages=turns)


def test_a_thinking_block_of_another_model_is_refused(server: SimulatorServer) -> None:
    block = send(server, model="claude-opus-5-5").content[0].to_dict()
    turns = [*HELLO, {"role": "assistant", "content": [block, {"type": "text", "text": "Hi"}]}, *HELLO]
    assert "claude-opus-5-5" in refused(server, messages=turns)


def test_refusals_are_in_the_books(server: SimulatorServer) -> None:
    server.reset()
    refused(server, max_tokens=None)
    assert server.stats()["outcomes"] == {"refused": 1}
    assert server.calls()[0]["usage"] is None
