"""Reads the stream of an answer as it comes, and says what became of it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents.causes import Cause
from agents.pricing import Usage
from agents.reading import storable
from agents.replies import ModelReply

MOST_TOKENS = 100_000_000
"""More than any model reads or writes in one call: a server that reports more, or less than none, is not believed."""


class StreamError(Exception):
    """The server gave up in the middle of a stream that began with 200."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message", "The server broke off the answer."))
        self.type = str(error.get("type", ""))


class UnpricedFees(Exception):
    """The server has searched the web or the like, which no agent asks for and no price knows the fee of."""


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The events of a Messages API stream as plain dicts. Raises ValueError for data that is no JSON object.

    The SDK's own iteration builds a typed object for every event, which takes twice the processor time of all the
    rest of a call. The API writes the data of an event on one line and repeats the event's name in it.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                event = _read_json(line[5:].decode())
                if not isinstance(event, dict):
                    raise ValueError("An event of the stream is no JSON object.")
                yield event


async def gather(
    events: AsyncIterator[dict[str, Any]], reply: ModelReply, started: float, on_event: Callable[[], None] | None
) -> None:
    """Fill the reply from the stream's events; usage counts as soon as it is reported."""
    async for event in events:
        if on_event is not None:
            on_event()
        match event.get("type"):
            case "content_block_delta":
                if reply.first_token_ms is None:
                    reply.first_token_ms = round((time.monotonic() - started) * 1000)
                index = event["index"]
                _add_delta(reply.content[index], event["delta"], reply.parts.setdefault(index, []))
            case "content_block_start":
                reply.content.append({k: v for k, v in event["content_block"].items() if v is not None})
            case "content_block_stop":
                _finish_block(reply.content[event["index"]], reply.parts.get(event["index"], []))
            case "message_start":
                message = event["message"]
                reply.model, reply.message_id = read_name(message["model"], 64), message["id"]
                reply.usage = _usage(message.get("usage"), reply.usage)
                _refuse_fees(message.get("usage"), reply)
            case "message_delta":
                _refuse_fees(event.get("usage"), reply)
                reply.stop_reason = read_name(event["delta"].get("stop_reason") or "", 40)
                reply.usage = _usage(event.get("usage"), reply.usage)
                # Before it stops a server may report how far it is.
                reply.is_usage_final = event.get("usage") is not None and bool(reply.stop_reason)
            case "error":
                raise StreamError(event.get("error") or {})


def _refuse_fees(reported: dict[str, Any] | None, reply: ModelReply) -> None:
    """Never price a fee at zero unnoticed: such a call fails, without a price, and a person hears of it."""
    used = {name: count for name, count in ((reported or {}).get("server_tool_use") or {}).items() if count}
    if used:
        reply.usage, reply.has_unpriced_fees = _usage(reported, reply.usage), True
        what = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in used.items())
        raise UnpricedFees(f"The server used tools of its own ({what}), for which Kontor knows no fee.")


def _add_delta(block: dict[str, Any], delta: dict[str, Any], parts: list[str]) -> None:
    match delta["type"]:
        case "text_delta":
            parts.append(delta["text"])
        case "input_json_delta":
            parts.append(delta["partial_json"])
        case "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]


def _finish_block(block: dict[str, Any], parts: list[str]) -> None:
    if block["type"] == "text":
        block["text"] = block.get("text", "") + "".join(parts)
    elif block["type"] == "tool_use":
        block["input"] = _read_json("".join(parts) or "{}")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON, and a database refuses it.")


_read_json = json.JSONDecoder(parse_constant=_refuse).decode


def read_name(value: Any, longest: int) -> str:
    """What a server calls something, within what a column holds. Raises ValueError for what is no text."""
    if not isinstance(value, str):
        raise ValueError(f"A name in the stream is no text but {type(value).__name__}.")
    return storable(value)[:longest]


def _usage(reported: dict[str, Any] | None, before: Usage) -> Usage:
    """The totals after this report: later figures overwrite earlier ones, what is not reported stays.

    The end of a stream says again how much went into the cache, but not for how long: that was said at its beginning.
    """
    if not reported:
        return before
    created = reported.get("cache_creation") or {}
    details = reported.get("output_tokens_details") or {}

    def pick(value: Any, old: int) -> int:
        count = old if value is None else int(value)
        if not 0 <= count <= MOST_TOKENS:
            raise ValueError(f"The server reports {count} tokens.")
        return count

    written, short = reported.get("cache_creation_input_tokens"), created.get("ephemeral_5m_input_tokens")
    long = pick(created.get("ephemeral_1h_input_tokens"), before.cache_write_1h_tokens)
    if short is None and written is not None:
        short = max(pick(written, 0) - long, 0)
    return Usage(
        input_tokens=pick(reported.get("input_tokens"), before.input_tokens),
        cache_write_5m_tokens=pick(short, before.cache_write_5m_tokens),
        cache_write_1h_tokens=long,
        cache_read_tokens=pick(reported.get("cache_read_input_tokens"), before.cache_read_tokens),
        output_tokens=pick(reported.get("output_tokens"), before.output_tokens),
        thinking_tokens=pick(details.get("thinking_tokens"), before.thinking_tokens),
    )


def judge_stop(reply: ModelReply) -> None:
    """A stream that ended without an exception may still be no answer."""
    match reply.stop_reason:
        case "end_turn" | "tool_use" | "stop_sequence":
            return
        case "refusal":
            reply.cause, reply.error = Cause.REFUSAL, reply.text or "The model refused to answer."
        case "max_tokens":
            reply.cause, reply.error = Cause.TRUNCATED, "The answer reached max_tokens before it ended."
        case "":
            reply.cause, reply.error = Cause.TRANSIENT, "The answer broke off before it ended."
        case other:
            reply.cause, reply.error = Cause.REQUEST, f"The model stopped for {other}."
