"""What the simulated model answers: an answer book of the department's kind, or a generic answer by schema.

A kind registers a book for a schema by the schema's ``title``; the simulator hands it the data of the request
and fits what it returns to the schema of the request, so an answer never breaks its contract by accident.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.prompts import read_data
from agents.simulator.values import Filler, fit

_DATA_KINDS = frozenset({"item", "output", "conversation", "trigger", "notes", "sent_back"})


@dataclass(frozen=True, slots=True)
class Question:
    """The data of one request, as the answer books see it.

    ``outputs`` maps a key to its payload, ``trigger`` is ``{"kind", "payload"}``, ``conversation`` is
    ``{"summary", "messages"}``, ``notes`` are those of people, also of reviewers who sent it back,
    ``tool_results`` are the texts tools have returned so far, ``system`` is the whole system prompt. ``rng`` is
    seeded by the server's seed and the data, so the same data always gets the same answer.
    """

    item: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    trigger: dict[str, Any] | None = None
    conversation: dict[str, Any] | None = None
    notes: list[Any] = field(default_factory=list)
    tool_results: list[str] = field(default_factory=list)
    system: str = ""
    model: str = ""
    rng: random.Random = field(default_factory=lambda: random.Random(0))


AnswerBook = Callable[[Question], dict[str, Any]]

_books: dict[str, AnswerBook] = {}


class AnswerBookError(RuntimeError):
    """A registered answer book raised; the message names the book and the cause."""


def register_answers(title: str, fn: AnswerBook) -> None:
    """Answer requests whose schema has this ``title`` with ``fn``; registering again replaces the book."""
    _books[title] = fn


def read_question(body: Mapping[str, Any], seed: int) -> Question:
    """The data of a request: the blocks of the last user message that bears any, and all tool results."""
    data_text, blocks = _last_data(body["messages"])
    values: dict[str, Any] = {kind: value for kind, _, value in blocks if kind != "output"}
    item, notes = values.get("item"), [*_list(values.get("notes")), *_notes_of(values.get("sent_back"))]
    return Question(
        item=item if isinstance(item, dict) else {},
        outputs={key: value for kind, key, value in blocks if kind == "output" and isinstance(value, dict)},
        trigger=_object_or_none(values.get("trigger")),
        conversation=_object_or_none(values.get("conversation")),
        notes=notes,
        tool_results=tool_results(body["messages"]),
        system=plain_text(body.get("system") or ""),
        model=str(body["model"]),
        rng=random.Random(zlib.crc32(data_text.encode(), seed & 0xFFFFFFFF) * 2_654_435_761 + seed),
    )


def answer(question: Question, schema: dict[str, Any]) -> Any:
    """A value that satisfies ``schema``: from the book of its title, else generic.

    AnswerBookError where the book itself raised.
    """
    book = _books.get(schema_title(schema))
    filler = Filler(question.item, question.rng)
    if book is None:
        return filler.value(schema, schema)
    try:
        given = book(question)
    except Exception as error:
        name = schema_title(schema)
        raise AnswerBookError(f"The answer book {name!r} failed: {type(error).__name__}: {error}") from error
    return fit(given, schema, filler)


def schema_title(schema: Mapping[str, Any]) -> str:
    """The ``title`` of a schema, looking through a root ``$ref``; empty if it has none."""
    if "title" in schema:
        return str(schema["title"])
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    definition = schema.get("$defs", {}).get(name, {})
    return str(definition.get("title", name))


def plain_text(content: Any) -> str:
    """The text of a ``content`` or ``system`` value: a string, or a list of blocks of which text counts."""
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")


def tool_results(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of every ``tool_result`` block of a conversation, in order, out of their delimiters."""
    blocks = (block for message in messages if isinstance(message["content"], list) for block in message["content"])
    return [_bare(plain_text(block.get("content") or "")) for block in blocks if block.get("type") == "tool_result"]


def _bare(text: str) -> str:
    """What a delimited text says; a text without delimiters as it is."""
    try:
        return "\n".join(str(value) for _, _, value in read_data(text)) or text
    except ValueError:
        return text


def _last_data(messages: list[dict[str, Any]]) -> tuple[str, list[tuple[str, str, Any]]]:
    last = ""
    for message in reversed(messages):
        if message["role"] != "user":
            continue
        text = plain_text(message["content"])
        last = last or text
        try:
            blocks = [block for block in read_data(text) if block[0] in _DATA_KINDS]
        except ValueError:
            continue
        if blocks:
            return text, blocks
    return last, []


def _object_or_none(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _notes_of(rounds: Any) -> list[Any]:
    """What reviewers wrote when they sent something back."""
    return [entry.get("note", "") for entry in _list(rounds) if isinstance(entry, dict)]
