"""Which tools the simulated model asks for: each useful one once, then it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agents.simulator.answers import Question
from agents.simulator.turns import tool_names_used
from agents.simulator.values import Filler, fit

_LONG_WORD = re.compile(r"[^\W\d_]{5,}")
_QUERY_WORDS = 8
_NEED_FIELDS = ("message", "need", "interest", "industry")
_NAME_FIELDS = ("title", "company")


def wanted_tools(body: Mapping[str, Any], question: Question) -> list[tuple[str, dict[str, Any]]]:
    """The calls to make now, ``[(tool name, input)]``; empty when the model answers instead.

    A tool that was asked for before in the conversation is not asked for again, so every loop ends. A tool
    that needs a web address is useful only where the item has one.
    """
    choice = body.get("tool_choice") or {"type": "auto"}
    if choice["type"] == "none" or not body.get("tools"):
        return []
    used = tool_names_used(body["messages"])
    calls = []
    for tool in body["tools"]:
        is_named = choice["type"] != "tool" or tool["name"] == choice["name"]
        if tool["name"] in used or not is_named:
            continue
        arguments = tool_input(tool, question)
        if arguments is not None or choice["type"] in ("any", "tool"):
            calls.append((str(tool["name"]), arguments or {}))
    only_one = choice.get("disable_parallel_tool_use") or choice["type"] == "tool"
    return calls[:1] if only_one else calls


def tool_input(tool: Mapping[str, Any], question: Question) -> dict[str, Any] | None:
    """An input that fits the tool's schema, or None where the item has nothing the tool could work on."""
    schema = tool["input_schema"]
    properties, required = schema.get("properties", {}), schema.get("required", [])
    website = question.item.get("website") or question.item.get("url")
    known: dict[str, Any] = {}
    for name in properties:
        if name in ("url", "website", "address"):
            if not website:
                return None
            known[name] = str(website)
        elif name in ("query", "q", "question", "search"):
            known[name] = search_query(question)
        elif name in question.item and name in required:
            known[name] = question.item[name]
    fitted = fit(known, schema, Filler(question.item, question.rng))
    return fitted if isinstance(fitted, dict) else {}


def search_query(question: Question) -> str:
    """A few words worth looking up: the first long words of what the item is about, and only then of its name.

    What it is about stands in its own fields, in its attributes, and in what agents before summed up.
    """
    item = question.item
    attributes = item.get("attributes")
    told = [item.get(name) for name in _NEED_FIELDS]
    told += [output.get("summary") for output in question.outputs.values()]
    told += attributes.values() if isinstance(attributes, dict) else []
    told += [item.get(name) for name in _NAME_FIELDS]
    words = dict.fromkeys(word.lower() for text in told if text for word in _LONG_WORD.findall(str(text)))
    return " ".join(list(words)[:_QUERY_WORDS]) or "products and references"
