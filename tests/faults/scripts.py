"""Fault scripts for the simulator: every fault it can make, once each and as a random mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SILENT_SECONDS = 3_600
RUBBISH = (
    *("html", "null", "empty_object", "error_body", "text", "bad_json", "no_events", "unnamed_events", "bad_event"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as a rule of the simulator. ``heals``: what it strikes once gets well by itself.

    One that does not is struck every time, and its agent fails. ``is_slow``: that takes minutes of backoff.
    """

    name: str
    what: dict[str, Any]
    heals: bool = True
    is_slow: bool = False

    def rule(self, marker: str) -> dict[str, Any]:
        """The rule for the lead whose company is ``marker``."""
        match: dict[str, Any] = {"contains": marker, "agent": "intake"}
        return {"match": match | ({"times": 1} if self.heals else {}), "what": self.what}


def _status(status: int, **more: Any) -> dict[str, Any]:
    return {"kind": "status", "status": status, **more}


def _soon(status: int) -> dict[str, Any]:
    return _status(status, headers={"retry-after": "2"})


ONCE = (
    *(Fault(f"{status} once", _status(status)) for status in (408, 409, 500, 502, 503, 504)),
    Fault("502 with a page of HTML", _status(502, body="<html>Bad gateway</html>")),
    Fault("429 with retry-after", _soon(429)),
    Fault("529 with retry-after", _soon(529)),
    Fault("529 without retry-after", _status(529)),
    Fault("429, retry-after two hours (capped)", _status(429, headers={"retry-after": "7200"})),
    *(
        Fault(f"connection {how} {where or 'in the middle'}", {"kind": "drop", "where": where, "how": how})
        for where in ("before", "headers", "")
        for how in ("close", "reset")
    ),
    Fault("body ends early", {"kind": "end", "after_deltas": 2}),
    Fault("no message_delta", {"kind": "end", "without": "message_delta"}),
    Fault("stream error: overloaded", {"kind": "stream_error", "type": "overloaded_error", "message": "busy"}),
    Fault("stream error: api_error", {"kind": "stream_error", "type": "api_error", "message": "broken"}),
    Fault("stream error: no JSON", {"kind": "stream_error", "body": "nonsense"}),
    Fault("cut by max_tokens", {"kind": "truncate"}),
    *(Fault(f"schema broken: {v}", {"kind": "schema", "violation": v}) for v in ("type", "missing", "enum")),
    Fault("keys outside the role", {"kind": "extra_keys", "keys": {"draft": "Buy now"}}),
    *(Fault(f"rubbish: {kind}", {"kind": "rubbish", "rubbish": kind}) for kind in RUBBISH),
    Fault("no usage", {"kind": "no_usage"}),
    *(
        Fault(f"silence {where or 'in the middle'}", {"kind": "silence", "where": where, "seconds": SILENT_SECONDS})
        for where in ("before", "headers", "")
    ),
    Fault("pings for 2 s", {"kind": "pings", "seconds": 2, "interval_ms": 200}),
    Fault("answer late by 2 s", {"kind": "delay", "delay_ms": 2_000}),
    Fault("another JSON than asked for", {"kind": "answer", "answer": {"hello": "world"}}),
    Fault("JSON null as the answer", {"kind": "answer", "answer": None}),
    Fault("prose as the answer", {"kind": "text", "text": "I would rather talk about it."}),
    Fault("a tool that is not there", {"kind": "tools", "calls": [{"name": "send_mail", "input": {"to": "all"}}]}),
)
FOR_GOOD = (
    *(Fault(f"{status} always", _status(status), heals=False) for status in (400, 404, 413)),
    Fault("refusal without text", {"kind": "refusal", "category": "cyber"}, heals=False),
    Fault("refusal in words", {"kind": "refusal", "text": "I cannot help with that."}, heals=False),
    Fault("schema broken always", {"kind": "schema"}, heals=False),
    Fault("cut by max_tokens always", {"kind": "truncate"}, heals=False),
    Fault("500 always", _status(500), heals=False, is_slow=True),
    Fault("connection reset always", {"kind": "drop", "where": "before", "how": "reset"}, heals=False, is_slow=True),
)
SLOW_CONNECT = {"what": {"kind": "slow_connect", "seconds": 2}, "match": {"times": 3}}
MIX_SHARE = 0.15
_MIXED = (
    _status(500),
    _status(529, headers={"retry-after": "1"}),
    _status(429, headers={"retry-after": "1"}),
    {"kind": "drop", "where": "before", "how": "reset"},
    {"kind": "drop", "where": "headers"},
    {"kind": "drop"},
    {"kind": "end", "after_deltas": 1},
    {"kind": "stream_error", "type": "overloaded_error", "message": "busy"},
    {"kind": "truncate"},
    {"kind": "schema"},
    {"kind": "extra_keys"},
    {"kind": "refusal"},
    {"kind": "rubbish", "rubbish": "html"},
    {"kind": "no_usage"},
    {"kind": "silence", "where": "", "seconds": SILENT_SECONDS},
)


def mix(seed: int) -> list[dict[str, Any]]:
    """Rules that strike 15 % of all requests, each kind as often as the others."""
    share = MIX_SHARE / len(_MIXED)
    return [
        # Earlier rules leave a little less to later ones; at 1 % each that does not matter.
        {"match": {"probability": share, "seed": seed + number}, "what": what}
        for number, what in enumerate(_MIXED)
    ]
