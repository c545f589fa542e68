"""Requests and answers as sections for reading: what Kontor sends, and whatever else may lie in a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents import prompts
from runs.views.bodies import Section, read_request, read_response

GIVEN = prompts.AgentInput(item={"company": "Weber <data> GmbH"}, outputs={"intake": {"category": "lead"}})
REQUEST: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 3000,
    "system": prompts.system_blocks("You are the Writer.", "draft", "## Tone\nCalm", has_tools=True),
    "messages": [
        {"role": "user", "content": prompts.user_message(GIVEN, "draft")},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Look it up.", "signature": "x"},
                {"type": "tool_use", "id": "t1", "name": "search_knowledge", "input": {"query": "freight"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "None.", "is_error": True}],
        },
    ],
    "tools": [{"name": "search_knowledge", "description": "Searches.", "input_schema": {"type": "object"}}],
}


def _titles(sections: list[Section]) -> list[str]:
    return [section.title for section in sections]


def test_a_request_is_read_in_the_order_in_which_it_is_built() -> None:
    assert _titles(read_request(REQUEST)) == [
        "SOUL",
        "Output contract",
        "Department settings",
        "Message 1, to the agent",
        "Message 2, from the agent",
        "Message 3, to the agent",
        "Tools",
        "Parameters",
    ]


def test_data_is_shown_as_what_it_is_with_its_text_unescaped() -> None:
    message = read_request(REQUEST)[3]
    assert [(part.kind, part.title) for part in message.parts] == [
        ("data", "Item"),
        ("data", "Output intake"),
        ("text", ""),
    ]
    assert "Weber <data> GmbH" in message.parts[0].text
    assert message.parts[2].text == "Write the `draft` output now."


def test_thinking_and_tools_are_told_apart() -> None:
    sections = read_request(REQUEST)
    assert [(part.kind, part.title) for part in sections[4].parts] == [
        ("thinking", "Thinking"),
        ("tool", "Asks for search_knowledge"),
    ]
    assert [(part.title, part.text) for part in sections[5].parts] == [("The tool failed", "None.")]


def test_nothing_of_a_request_is_left_out() -> None:
    """Every text that is in the request is in a section."""
    shown = "\n".join(line for section in read_request(REQUEST) for line in section.lines)
    for text in ("You are the Writer.", "Tone", "max_tokens", "3000", "claude-haiku-5-5", "freight", "Searches."):
        assert text in shown, text


def test_a_structured_answer_is_indented_and_a_broken_one_stays_as_it_came() -> None:
    whole = read_response({"content": [{"type": "text", "text": '{"score":84}'}], "stop_reason": "end_turn"})
    assert whole[0].parts[0].text == '{\n  "score": 84\n}'
    assert json.loads(whole[1].parts[0].text) == {"stop_reason": "end_turn"}
    broken = read_response({"content": [{"type": "text", "text": '{"score":'}]})
    assert broken[0].parts[0].text == '{"score":'


def test_no_answer_has_no_sections() -> None:
    assert read_response(None) == []


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        7,
        {},
        {"system": "One text.", "messages": None, "tools": "none"},
        {"system": [None, 3, {"type": "image"}], "messages": ["x", {"role": 5, "content": 9}], "tools": [1, {}]},
        {"messages": [{"role": "user", "content": '<data kind="item">\n{broken\n</data>'}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text"}]}, None]}]},
        {"content": "x"},
        {"content": [None, {"type": 3}, {"type": "text"}]},
    ],
)
def test_what_kontor_did_not_write_is_shown_all_the_same(body: Any) -> None:
    for section in [*read_request(body), *read_response(body)]:
        assert all(isinstance(line, str) for line in section.lines)
        assert section.title
