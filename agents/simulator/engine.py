"""From a valid request to the reply of the simulated model: what it thinks, asks for, says and uses."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count as counter
from typing import Any

from agents.simulator import tokens
from agents.simulator.answers import Question, answer, read_question
from agents.simulator.catalogue import Model
from agents.simulator.distort import CONTENT_KINDS, distorted
from agents.simulator.faults import Fault
from agents.simulator.prompt import PromptCache, PromptUsage
from agents.simulator.tooling import wanted_tools
from agents.simulator.turns import blocks, signature
from agents.simulator.values import Filler

_EFFORT_FACTOR = {"low": 0.4, "medium": 0.8, "high": 1.2, "xhigh": 2.0, "max": 3.0}
_TOOL_USE_OVERHEAD = 12
_THOUGHT = "Weighing what the data says against what the output asks for."


@dataclass(slots=True)
class Reply:
    """One message of the model. ``output_tokens`` includes ``thinking_tokens``; latency in seconds."""

    id: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    prompt: PromptUsage
    output_tokens: int = 0
    thinking_tokens: int = 0
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    latency: float = 0.0

    def usage(self, output_tokens: int | None = None) -> dict[str, Any]:
        """The ``usage`` object, with another number of output tokens where the answer is under way."""
        prompt = self.prompt
        return {
            "input_tokens": prompt.input_tokens,
            "cache_creation_input_tokens": prompt.created,
            "cache_read_input_tokens": prompt.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": prompt.created_5m,
                "ephemeral_1h_input_tokens": prompt.created_1h,
            },
            "output_tokens": self.output_tokens if output_tokens is None else output_tokens,
            "output_tokens_details": {"thinking_tokens": self.thinking_tokens},
            "service_tier": "standard",
        }

    def as_json(self) -> dict[str, Any]:
        """The message body of a request that does not stream."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": self.content,
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "stop_details": self.stop_details,
            "usage": self.usage(),
        }


@dataclass(slots=True)
class Engine:
    """Replies to requests. ``latency_ms`` fixes how long an answer takes; None means by model."""

    seed: int = 0
    latency_ms: int | None = None
    cache: PromptCache = field(default_factory=PromptCache)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: Any = field(default_factory=lambda: counter(1))

    def new_id(self, kind: str) -> str:
        """An id of the API's look, unique across restarts: ``req_…``, ``msg_…``, ``toolu_…``."""
        return f"{kind}_{self._prefix}{next(self._numbers):012d}"

    def reply(self, body: Mapping[str, Any], model: Model, fault: Fault | None, now: float) -> Reply:
        """The reply to a valid request; ``fault`` counts here if it is about what is said."""
        question = read_question(body, self.seed)
        reply = Reply(
            id=self.new_id("msg"),
            model=model.id,
            content=[],
            stop_reason="end_turn",
            prompt=self.cache.usage(body, model, now),
            latency=self.latency(model, question),
        )
        if fault is not None and fault.kind == "refusal":
            _refuse(reply, fault, model)
            return reply
        self._think(reply, body, model, question)
        calls = _scripted_calls(fault) or ([] if _is_said(fault) else wanted_tools(body, question))
        if calls:
            self._call_tools(reply, calls, model)
        else:
            _say(reply, body, model, _text(body, question, fault))
        _cut(reply, body, model, fault)
        return reply

    def latency(self, model: Model, question: Question) -> float:
        """Seconds an answer takes: the fixed ones, or the model's with a mild variation by the data."""
        if self.latency_ms is not None:
            return self.latency_ms / 1000
        return model.latency_seconds * question.rng.uniform(0.8, 1.25)

    def _think(self, reply: Reply, body: Mapping[str, Any], model: Model, question: Question) -> None:
        thinking = body.get("thinking")
        kind = thinking["type"] if thinking else "adaptive" if model.thinks_by_default else "disabled"
        if kind in ("disabled", "between_tools"):
            return
        effort = (body.get("output_config") or {}).get("effort") or model.effort_default
        reply.thinking_tokens = round(question.rng.randint(40, 120) * _EFFORT_FACTOR[effort])
        reply.output_tokens = reply.thinking_tokens
        # The 5.x models omit the text of their thinking unless asked; older ones show a summary.
        display = (thinking or {}).get("display") or ("omitted" if model.thinks_by_default else "summarized")
        text = _THOUGHT if display == "summarized" else ""
        mark = signature(model.id, next(self._numbers), text, reply.thinking_tokens)
        reply.content.append({"type": "thinking", "thinking": text, "signature": mark})

    def _call_tools(self, reply: Reply, calls: list[tuple[str, dict[str, Any]]], model: Model) -> None:
        for name, arguments in calls:
            block = {"type": "tool_use", "id": self.new_id("toolu"), "name": name, "input": arguments}
            reply.content.append(block)
            size = tokens.count(name + tokens.compact(arguments), model.token_factor)
            reply.output_tokens += size + _TOOL_USE_OVERHEAD
        reply.stop_reason = "tool_use"


def _is_said(fault: Fault | None) -> bool:
    """Whether the fault is about the text of an answer, so that the model must answer now."""
    return fault is not None and fault.kind in CONTENT_KINDS | {"truncate"}


def _scripted_calls(fault: Fault | None) -> list[tuple[str, dict[str, Any]]]:
    if fault is None or fault.kind != "tools":
        return []
    return [(str(call["name"]), dict(call.get("input", {}))) for call in fault.calls]


def _text(body: Mapping[str, Any], question: Question, fault: Fault | None) -> str:
    if fault is not None and fault.kind == "text":
        return fault.text
    form = (body.get("output_config") or {}).get("format")
    if form:
        schema = form["schema"]
        value = answer(question, schema)
    else:
        schema = None
        value = Filler(question.item, question.rng).sentences(4)
    if fault is not None and fault.kind in CONTENT_KINDS:
        value = distorted(value, fault, schema)
    text = value if isinstance(value, str) and not form else json.dumps(value, ensure_ascii=False)
    last = body["messages"][-1]
    if last["role"] != "assistant":
        return text
    prefill = "".join(block.get("text", "") for block in blocks(last["content"]))
    return text.removeprefix(prefill.rstrip())


def _say(reply: Reply, body: Mapping[str, Any], model: Model, text: str) -> None:
    for stop in body.get("stop_sequences") or ():
        if stop and stop in text:
            text = text[: text.index(stop)]
            reply.stop_reason, reply.stop_sequence = "stop_sequence", stop
    reply.content.append({"type": "text", "text": text})
    reply.output_tokens += tokens.count(text, model.token_factor)


def _cut(reply: Reply, body: Mapping[str, Any], model: Model, fault: Fault | None) -> None:
    """Stop at ``max_tokens``, or in the middle of the text where the fault says so."""
    room = int(body["max_tokens"])
    last = reply.content[-1] if reply.content else {"type": ""}
    if fault is not None and fault.kind == "truncate" and last["type"] == "text":
        room = min(room, (reply.output_tokens + reply.thinking_tokens) // 2)
    if reply.output_tokens <= room:
        return
    reply.stop_reason, reply.stop_sequence = "max_tokens", None
    said = [block for block in reply.content if block["type"] == "thinking"]
    left = room - reply.thinking_tokens
    if last["type"] == "text" and left > 0:
        share = left / (reply.output_tokens - reply.thinking_tokens)
        said.append({"type": "text", "text": last["text"][: int(len(last["text"]) * share)]})
    reply.content = said if room else []
    reply.output_tokens = room
    reply.thinking_tokens = min(reply.thinking_tokens, room)


def _refuse(reply: Reply, fault: Fault, model: Model) -> None:
    reply.stop_reason = "refusal"
    reply.stop_details = {"type": "refusal", "category": fault.category, "explanation": None}
    if fault.text:
        reply.content.append({"type": "text", "text": fault.text})
        reply.output_tokens = tokens.count(fault.text, model.token_factor)
