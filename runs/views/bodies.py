"""A request to the model API and its answer as sections that a person can read, and compare. Pure.

The sections of two requests have the same keys where they mean the same: the SOUL of one is compared with the SOUL
of the other. A body that is not what Kontor sends (an older release, another client) is shown as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.text import capfirst

from agents.prompts import DataPiece, split_message
from runs.wording import in_words

_SYSTEM = ("SOUL", "Output contract", "Department settings")
_APART = ("system", "messages", "tools")


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a section. ``kind``: text, data, json, thinking, tool or result."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """A piece of a request or an answer under a heading."""

    key: str
    title: str
    parts: tuple[Part, ...]

    @property
    def is_open(self) -> bool:
        """Whether it is shown unfolded: what was said this time, and not what is the same in every request."""
        return self.key.startswith("message-") or self.key in ("answer", "response", "request")

    @property
    def lines(self) -> list[str]:
        """All of it as lines, titles of parts included."""
        found: list[str] = []
        for part in self.parts:
            found += [f"{part.title}:"] if part.title else []
            found += part.text.splitlines()
        return found


def read_request(body: Any) -> list[Section]:
    """The sections of a request: SOUL, contract, settings, each message, tools, parameters."""
    if not isinstance(body, dict):
        return [Section("request", "Request", (_json_part("", body),))]
    sections = [*_system(body.get("system")), *_messages(body.get("messages"))]
    tools = body.get("tools")
    if isinstance(tools, list) and tools:
        sections.append(Section("tools", "Tools", tuple(_tool(tool) for tool in tools)))
    rest = {name: value for name, value in sorted(body.items()) if name not in _APART}
    return [*sections, Section("parameters", "Parameters", (_json_part("", rest),))]


def read_response(body: Any) -> list[Section]:
    """The sections of an answer: its blocks, and how it ended. Empty where there was none."""
    if body is None:
        return []
    if not isinstance(body, dict):
        return [Section("response", "Answer", (_json_part("", body),))]
    blocks = body.get("content")
    parts = tuple(_blocks(blocks)) if isinstance(blocks, list) else ()
    rest = {name: value for name, value in body.items() if name not in ("content", "id") and value is not None}
    sections = [Section("answer", "Answer", parts)] if parts else []
    return [*sections, Section("end", "How it ended", (_json_part("", rest),))]


def _system(system: Any) -> list[Section]:
    if isinstance(system, str):
        return [Section("system", "System", (Part("text", "", system),))]
    blocks = system if isinstance(system, list) else []
    sections = []
    for number, block in enumerate(blocks):
        title = _SYSTEM[number] if number < len(_SYSTEM) else f"System {number + 1}"
        text = block.get("text") if isinstance(block, dict) else None
        part = Part("text", "", text) if isinstance(text, str) else _json_part("", block)
        sections.append(Section(f"system-{number}", title, (part,)))
    return sections


def _messages(messages: Any) -> list[Section]:
    sections = []
    for number, message in enumerate(messages if isinstance(messages, list) else [], start=1):
        role = message.get("role", "") if isinstance(message, dict) else ""
        content = message.get("content") if isinstance(message, dict) else message
        who = {"user": "to the agent", "assistant": "from the agent"}.get(role, str(role))
        sections.append(Section(f"message-{number}", f"Message {number}, {who}", tuple(_blocks(content))))
    return sections


def _blocks(content: Any) -> Iterable[Part]:
    if isinstance(content, str):
        return _text_parts(content)
    found: list[Part] = []
    for block in content if isinstance(content, list) else [content]:
        found += _block(block)
    return found


def _block(block: Any) -> Iterable[Part]:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text":
        return _text_parts(str(block.get("text", "")))
    if kind == "thinking":
        return [Part("thinking", "Thinking", str(block.get("thinking", "")))]
    if kind == "tool_use":
        return [Part("tool", f"Asks for {block.get('name', 'a tool')}", pretty(block.get("input")))]
    if kind == "tool_result":
        title = "The tool failed" if block.get("is_error") else "The tool answers"
        result = block.get("content")
        return [Part("result", title, result if isinstance(result, str) else pretty(result))]
    return [_json_part(str(kind or ""), block)]


def _text_parts(text: str) -> list[Part]:
    try:
        pieces = split_message(text)
    except ValueError:  # between the delimiters stands no JSON: not written by Kontor
        pieces = [text]
    return [_data_part(piece) if isinstance(piece, DataPiece) else _plain_part(piece) for piece in pieces]


def _plain_part(text: str) -> Part:
    """A text; one that is a JSON object, as a structured answer is, as indented JSON."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return Part("json", "", pretty(json.loads(text)))
        except ValueError:
            pass
    return Part("text", "", text)


def _data_part(piece: DataPiece) -> Part:
    return Part("data", f"Output {piece.key}" if piece.key else capfirst(in_words(piece.kind)), pretty(piece.value))


def _tool(tool: Any) -> Part:
    name = tool.get("name") if isinstance(tool, dict) else None
    return _json_part(str(name or "Tool"), tool)


def _json_part(title: str, value: Any) -> Part:
    return Part("json", title, pretty(value))


def pretty(value: Any) -> str:
    """JSON for reading: indented by two, every character as it is."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)
