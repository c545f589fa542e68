"""What is written on a connection, and when: every answer and every fault of the transport is such a plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agents.simulator import wire
from agents.simulator.engine import Reply
from agents.simulator.errors import ApiError
from agents.simulator.faults import Fault
from agents.simulator.wire import Event

TICK_SECONDS = 0.1
"""Deltas that fall into one tick are written together: each write costs both ends a system call."""
MOST_TICKS = 40

Head = Callable[..., bytes]
End = Literal["keep", "close", "reset"]


@dataclass(slots=True)
class Plan:
    """``steps`` are ``(seconds since the request, bytes)``; ``end`` is what becomes of the connection.

    The rest is for the accounts: what the request came to, and its reply if there was one. ``output_share``
    is the part of the answer's tokens that the steps contain."""

    steps: list[tuple[float, bytes]]
    outcome: str
    end: End = "keep"
    status: int = 200
    reply: Reply | None = None
    fault: str = ""
    output_share: float = 1.0


@dataclass(slots=True)
class Planner:
    """Makes plans. ``head`` renders a response head: ``head(status, content_type=…, length=…, extra=…)``."""

    head: Head
    request_id: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def json(self, value: Any, status: int = 200, delay: float = 0.0) -> Plan:
        """One JSON answer after ``delay`` seconds."""
        body = wire.packed(value)
        start = self.head(status, length=len(body), extra=self.extra)
        return Plan([(delay, start + body)], "answered", status=status)

    def error(self, error: ApiError, delay: float = 0.0) -> Plan:
        """The error body of the API."""
        plan = self.json(error.body(self.request_id), error.status, delay)
        plan.outcome = "refused"
        return plan

    def scripted_status(self, fault: Fault) -> Plan:
        """The HTTP error a fault asks for, with its headers, or with a body that is no JSON."""
        error = ApiError(fault.status, fault.message, type=fault.type, error_code=fault.error_code)
        body = wire.packed(error.body(self.request_id)) if fault.body is None else fault.body.encode()
        kind = "application/json" if fault.body is None else "text/html; charset=utf-8"
        start = self.head(fault.status, content_type=kind, length=len(body), extra=fault.headers)
        return Plan([(fault.delay_ms / 1000, start + body)], "fault", status=fault.status)

    def message(self, reply: Reply, fault: Fault | None) -> Plan:
        """A reply that does not stream: one body at the end of the latency, or what the fault makes of it."""
        value = reply.as_json()
        if fault is not None and fault.kind == "no_usage":
            del value["usage"]
        body = wire.packed(value)
        start = self.head(200, length=len(body))
        if fault is None or fault.kind not in _TRANSPORT:
            return Plan([(reply.latency, start + body)], reply.stop_reason, reply=reply)
        if fault.kind == "stream_error":
            error = ApiError(500, fault.message, type=fault.type, error_code=fault.error_code)
            return self.error(error, reply.latency)
        plan = Plan([], "fault", reply=reply)
        plan.steps = self._broken_message(start, body, reply.latency, fault)
        plan.end = _drop_end(fault) if fault.kind == "drop" else "keep"
        return plan

    def _broken_message(self, start: bytes, body: bytes, at: float, fault: Fault) -> list[tuple[float, bytes]]:
        half = body[: len(body) // 2]
        if fault.kind == "end":
            return [(at, self.head(200, length=len(half)) + half)]
        if fault.kind == "drop":
            sent = {"before": b"", "headers": start}.get(fault.where, start + half)
            return [(at, sent)]
        if fault.kind == "silence" and fault.where != "before":
            return [(0.0, start), (at + fault.seconds, body)]
        return [(at + fault.seconds, start + body)]

    def stream(self, reply: Reply, fault: Fault | None) -> Plan:
        """A streamed reply: its events spread over the latency, or what the fault makes of them."""
        events = wire.stream_events(reply)
        if fault is not None and fault.kind == "no_usage":
            events = [_without_usage(event) for event in events]
        start = self.head(200, content_type="text/event-stream; charset=utf-8")
        if fault is None or fault.kind not in _TRANSPORT:
            return Plan(spread(start, events, reply.latency), reply.stop_reason, reply=reply)
        if fault.kind in ("silence", "pings"):
            return _held(start, events, reply, fault)
        return self._broken(start, events, reply, fault)

    def _broken(self, start: bytes, events: list[Event], reply: Reply, fault: Fault) -> Plan:
        kept = events[: cut_after(events, fault.after_deltas)]
        plan = Plan([], "fault", reply=reply, output_share=_share(events, kept))
        if fault.kind == "drop":
            kept = [] if fault.where else kept
            plan.steps = [] if fault.where == "before" else spread(start, kept, reply.latency, last=b"")
            plan.end = _drop_end(fault)
            plan.output_share = _share(events, kept)
        elif fault.kind == "end":
            if fault.without == "message_stop":
                kept, plan.output_share = events[:-1], 1.0
            plan.steps = spread(start, kept, reply.latency)
        else:
            error = ApiError(529, fault.message, type=fault.type, error_code=fault.error_code)
            data = wire.packed(error.body(self.request_id)) if fault.body is None else fault.body.encode()
            plan.steps = spread(start, [*kept, Event(b"event: error\ndata: %b\n\n" % data)], reply.latency)
        return plan

    def rubbish(self, fault: Fault, reply: Reply, *, stream: bool) -> Plan:
        """A 200 that is no message; the tokens count all the same, as they would on the bill."""
        kind, body = _RUBBISH[fault.rubbish]
        if fault.rubbish in ("no_events", "unnamed_events", "bad_event") and not stream:
            kind, body = _RUBBISH["bad_json"]
        start = self.head(200, content_type=kind, length=len(body))
        return Plan([(reply.latency, start + body)], "fault", reply=reply)


_TRANSPORT = frozenset({"silence", "pings", "drop", "end", "stream_error"})
_SSE = "text/event-stream; charset=utf-8"
_RUBBISH: dict[str, tuple[str, bytes]] = {
    "html": ("text/html; charset=utf-8", b"<html><body><h1>Welcome to the proxy</h1></body></html>"),
    "null": ("application/json", b"null"),
    "empty_object": ("application/json", b"{}"),
    "error_body": (
        "application/json",
        b'{"type":"error","error":{"type":"api_error","message":"Internal server error"},"request_id":null}',
    ),
    "text": ("text/plain; charset=utf-8", b"I am a teapot"),
    "bad_json": ("application/json", b'{"id": "msg_1", "type": "mess'),
    "no_events": (_SSE, b""),
    "unnamed_events": (_SSE, b'data: {"type":"message_start"}\n\ndata: [DONE]\n\n'),
    "bad_event": (_SSE, b'event: message_start\ndata: {"type": "message_st\n\n'),
}


def spread(
    start: bytes, events: list[Event], latency: float, last: bytes = wire.LAST_CHUNK
) -> list[tuple[float, bytes]]:
    """Head and events in few writes over ``latency`` seconds, the first one early; ``last`` ends the body."""
    ticks = max(1, min(MOST_TICKS, len(events), round(latency / TICK_SECONDS)))
    steps = []
    for tick in range(ticks):
        part = events[tick * len(events) // ticks : (tick + 1) * len(events) // ticks]
        data = b"".join([event.data for event in part])
        written = (start if tick == 0 else b"") + (wire.chunk(data) if data else b"")
        steps.append((latency * (tick + 1) / ticks, written + (last if tick == ticks - 1 else b"")))
    return steps


def cut_after(events: list[Event], deltas: int) -> int:
    """How many events to keep so that ``deltas`` pieces of the answer are among them; 0 keeps the start only,
    more than there are keeps all but the last two, which say how the answer ended."""
    if deltas <= 0:
        return 1
    seen = 0
    for position, event in enumerate(events):
        if seen == deltas and event.is_delta:
            return position
        seen += event.is_delta
    return len(events) - 2


def _held(start: bytes, events: list[Event], reply: Reply, fault: Fault) -> Plan:
    """Part of the answer, then nothing or only pings for the fault's seconds, then the rest."""
    plan = Plan([], "fault", reply=reply)
    if fault.where == "before" and fault.kind == "silence":
        plan.steps = [(at + fault.seconds, data) for at, data in spread(start, events, reply.latency)]
        return plan
    cut = 0 if fault.where == "headers" else cut_after(events, fault.after_deltas)
    plan.steps = spread(start, events[:cut], 0.0, last=b"")
    if fault.kind == "pings":
        step = max(fault.interval_ms, 1) / 1000
        count = int(fault.seconds / step)
        plan.steps += [(step * (number + 1), wire.chunk(wire.PING)) for number in range(count)]
    rest = spread(b"", events[cut:], reply.latency)
    plan.steps += [(at + fault.seconds, data) for at, data in rest]
    return plan


def _share(events: list[Event], kept: list[Event]) -> float:
    total = sum(event.is_delta for event in events)
    return sum(event.is_delta for event in kept) / total if total else 1.0


def _drop_end(fault: Fault) -> End:
    return "reset" if fault.how == "reset" else "close"


def _without_usage(event: Event) -> Event:
    if b"message_start" not in event.data and b"message_delta" not in event.data:
        return event
    name, _, data = event.data.decode().strip().partition("\ndata: ")
    value = json.loads(data)
    value.pop("usage", None)
    value.get("message", {}).pop("usage", None)
    return Event(b"%b\ndata: %b\n\n" % (name.encode(), wire.packed(value)))
