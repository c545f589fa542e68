"""Bytes on the wire: response heads, JSON bodies and server-sent events, ready to be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from agents.simulator.engine import Reply

LEAST_DELTAS, MOST_DELTAS, DELTA_CHARACTERS = 20, 40, 48
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
LAST_CHUNK = b"0\r\n\r\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_REQUESTS_LIMIT, _TOKENS_LIMIT = 4_000, 2_000_000
_REASONS = {529: "Overloaded", 520: "Unknown Error", 499: "Client Closed Request"}


class Event(NamedTuple):
    """One server-sent event and whether it carries a piece of the answer's text or tool input."""

    data: bytes
    is_delta: bool = False


class Clock:
    """The head lines that change once a second: ``date`` and the rate limits."""

    def __init__(self) -> None:
        self._second, self._lines = -1.0, b""

    def lines(self, now: float) -> bytes:
        """The lines for a moment ``now`` of a monotonic clock, in seconds."""
        if now - self._second >= 1:
            self._second, self._lines = now, _limit_lines(datetime.now(UTC))
        return self._lines


def _limit_lines(moment: datetime) -> bytes:
    reset = (moment + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"date: {moment:%a, %d %b %Y %H:%M:%S} GMT", "anthropic-organization-id: simulated"]
    for name, limit in (
        ("requests", _REQUESTS_LIMIT),
        ("tokens", _TOKENS_LIMIT),
        ("input-tokens", _TOKENS_LIMIT),
        ("output-tokens", _TOKENS_LIMIT),
    ):
        lines.append(f"anthropic-ratelimit-{name}-limit: {limit}")
        lines.append(f"anthropic-ratelimit-{name}-remaining: {limit - 1}")
        lines.append(f"anthropic-ratelimit-{name}-reset: {reset}")
    return "".join(line + "\r\n" for line in lines).encode()


def head(
    status: int,
    request_id: str,
    common: bytes,
    *,
    content_type: str = "application/json",
    length: int | None = None,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """The status line and headers; without ``length`` the body is chunked. ``common`` are ready lines."""
    reason = _REASONS.get(status) or _reason(status)
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n{framing}\r\n"
    lines += f"request-id: {request_id}\r\n"
    for name, value in (extra or {}).items():
        lines += f"{name}: {value}\r\n"
    return lines.encode("latin-1", "replace") + common + b"\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def packed(value: Any) -> bytes:
    """A JSON value as UTF-8."""
    return _encode(value).encode()


def event(name: str, value: Mapping[str, Any]) -> bytes:
    """A server-sent event whose data is ``{"type": name, **value}``."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), packed({"type": name, **value}))


def stream_events(reply: Reply) -> list[Event]:
    """All events of a streamed reply, in the API's order; at least 20 deltas where the text allows it."""
    start = reply.as_json() | {"content": [], "stop_reason": None, "stop_details": None}
    start |= {"stop_sequence": None, "usage": reply.usage(1) | {"output_tokens_details": None}}
    events = [Event(event("message_start", {"message": start}))]
    for index, block in enumerate(reply.content):
        events += _block_events(index, block)
        if index == 0:
            events.insert(2, Event(PING))
    delta = {
        "stop_reason": reply.stop_reason,
        "stop_sequence": reply.stop_sequence,
        "stop_details": reply.stop_details,
    }
    usage = reply.usage()
    for name in ("cache_creation", "service_tier"):
        del usage[name]
    events.append(Event(event("message_delta", {"delta": delta, "usage": usage})))
    events.append(Event(event("message_stop", {})))
    return events


def _block_events(index: int, block: Mapping[str, Any]) -> Iterable[Event]:
    kind = block["type"]
    empty: dict[str, Any]
    if kind == "thinking":
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [Event(e) for e in _deltas(index, "thinking_delta", "thinking", block["thinking"], 5)]
        deltas += [Event(e) for e in _deltas(index, "signature_delta", "signature", block["signature"], 1)]
    elif kind == "tool_use":
        empty = {**block, "input": {}}
        text = json.dumps(block["input"], ensure_ascii=False)
        deltas = [Event(e, True) for e in _deltas(index, "input_json_delta", "partial_json", text)]
    else:
        empty = {"type": "text", "text": ""}
        deltas = [Event(e, True) for e in _deltas(index, "text_delta", "text", block["text"])]
    start = event("content_block_start", {"index": index, "content_block": empty})
    return [Event(start), *deltas, Event(event("content_block_stop", {"index": index}))]


def _deltas(index: int, kind: str, field: str, text: str, pieces: int = 0) -> Iterable[bytes]:
    size = len(text)
    pieces = min(size, pieces or min(MOST_DELTAS, max(LEAST_DELTAS, size // DELTA_CHARACTERS)))
    before = (
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":'
        f'{index},"delta":{{"type":"{kind}","{field}":'
    )
    cuts = [number * size // pieces for number in range(pieces + 1)] if pieces else []
    return [
        f"{before}{encode_basestring(text[start:end])}}}}}\n\n".encode()
        for start, end in zip(cuts, cuts[1:], strict=False)
    ]


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
