"""The simulated model's use of tools: each useful one once, in the API's loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from agents.prompts import AgentInput, user_message
from tests.simulator_fixture import SimulatorServer


class Research(BaseModel):
    finding: str


def tool(name: str, parameter: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": [parameter],
        "additionalProperties": False,
    }
    return {"name": name, "description": "Reads.", "input_schema": schema, "strict": True}


TOOLS = [tool("search_knowledge", "query"), tool("read_website", "url")]


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer() as running:
        yield running


@pytest.fixture
def client(server: SimulatorServer) -> anthropic.Anthropic:
    server.reset()
    options: dict[str, Any] = {"_strict_response_validation": True}
    return anthropic.Anthropic(api_key="key", base_url=server.base_url, max_retries=0, **options)


def request(website: str = "https://acme.example", **changes: Any) -> dict[str, Any]:
    item = {"company": "Acme", "website": website, "message": "We need ergonomic chairs for offices"}
    schema = {"type": "json_schema", "schema": anthropic.transform_schema(Research)}
    return {
        "model": "claude-sonnet-5-5",
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": user_message(AgentInput(item=item), "research")}],
        "tools": TOOLS,
        "output_config": {"format": schema},
        **changes,
    }


def uses(message: anthropic.types.Message) -> dict[str, anthropic.types.ToolUseBlock]:
    return {block.name: block for block in message.content if block.type == "tool_use"}


def turns_after(message: anthropic.types.Message, results: list[dict[str, Any]]) -> list[Any]:
    """The conversation with the assistant's turn and the results of its tools."""
    assistant = {"role": "assistant", "content": [block.to_dict() for block in message.content]}
    return [*request()["messages"], assistant, {"role": "user", "content": results}]


def result(tool_use_id: str, content: str = "They make chairs.") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": tool_use_id, "content": content}


def test_it_thinks_asks_for_the_useful_tools_and_then_answers(client: anthropic.Anthropic) -> None:
    asked = client.messages.create(**request())
    assert asked.stop_reason == "tool_use"
    assert asked.content[0].type == "thinking"
    assert uses(asked)["read_website"].input == {"url": "https://acme.example"}
    assert "chairs" in str(uses(asked)["search_knowledge"].input["query"])
    results = [result(block.id) for block in uses(asked).values()]
    answered = client.messages.create(**request(messages=turns_after(asked, results)))
    assert answered.stop_reason == "end_turn"
    last = answered.content[-1]
    assert last.type == "text"
    Research.model_validate_json(last.text)
    assert answered.usage.input_tokens > asked.usage.input_tokens


def test_it_searches_for_what_is_wanted_before_names(client: anthropic.Anthropic) -> None:
    data = AgentInput(
        item={"company": "Nordkant Kitchens", "title": "VP Supply Chain", "attributes": {"Industry": "Furniture"}},
        outputs={"intake": {"summary": "Asks for an audit of freight invoices."}},
    )
    messages = [{"role": "user", "content": user_message(data, "research")}]
    query = uses(client.messages.create(**request(messages=messages)))["search_knowledge"].input["query"]
    assert query == "audit freight invoices furniture supply chain nordkant kitchens"


def test_a_streamed_tool_call_is_the_same(client: anthropic.Anthropic) -> None:
    plain = client.messages.create(**request())
    with client.messages.stream(**request()) as stream:
        streamed = stream.get_final_message()
    assert streamed.stop_reason == "tool_use"
    assert {n: b.input for n, b in uses(streamed).items()} == {n: b.input for n, b in uses(plain).items()}


def test_without_a_website_the_website_is_not_read(client: anthropic.Anthropic) -> None:
    assert set(uses(client.messages.create(**request(website="")))) == {"search_knowledge"}


def test_one_tool_at_a_time_where_that_is_asked_for(client: anthropic.Anthropic) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    first = client.messages.create(**request(tool_choice=choice))
    assert len(uses(first)) == 1
    results = [result(block.id) for block in uses(first).values()]
    second = client.messages.create(**request(tool_choice=choice, messages=turns_after(first, results)))
    assert set(uses(first)) | set(uses(second)) == {"search_knowledge", "read_website"}


def test_tool_choice_none_answers_at_once(client: anthropic.Anthropic) -> None:
    assert client.messages.create(**request(tool_choice={"type": "none"})).stop_reason == "end_turn"


def test_a_forced_tool_is_used(client: anthropic.Anthropic) -> None:
    choice = {"type": "tool", "name": "read_website"}
    message = client.messages.create(**request(model="claude-haiku-5-5", tool_choice=choice))
    assert set(uses(message)) == {"read_website"}


def test_an_unknown_tool_gets_an_input_that_fits_its_schema(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**request(tools=[tool("weigh", "company"), tool("guess", "colour")]))
    assert uses(message)["weigh"].input == {"company": "Acme"}
    assert isinstance(uses(message)["guess"].input["colour"], str)


def test_a_result_for_another_call_is_refused(client: anthropic.Anthropic) -> None:
    asked = client.messages.create(**request())
    results = [result(block.id) for block in uses(asked).values()]
    with pytest.raises(anthropic.BadRequestError, match="unexpected `tool_use_id`"):
        client.messages.create(**request(messages=turns_after(asked, [*results, result("toolu_none")])))


def test_a_missing_result_is_refused(client: anthropic.Anthropic) -> None:
    asked = client.messages.create(**request())
    first = next(iter(uses(asked).values()))
    with pytest.raises(anthropic.BadRequestError, match="without `tool_result` blocks immediately after"):
        client.messages.create(**request(messages=turns_after(asked, [result(first.id)])))
    without_user = turns_after(asked, [])[:-1] + [{"role": "user", "content": "Go on"}]
    with pytest.raises(anthropic.BadRequestError, match="without `tool_result` blocks immediately after"):
        client.messages.create(**request(messages=without_user))


def test_two_results_for_one_call_are_refused(client: anthropic.Anthropic) -> None:
    asked = client.messages.create(**request())
    results = [result(block.id) for block in uses(asked).values()]
    with pytest.raises(anthropic.BadRequestError, match="single result"):
        client.messages.create(**request(messages=turns_after(asked, [*results, results[0]])))
