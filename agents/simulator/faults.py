"""The fault script: which requests go wrong, and how. The package's docstring lists what can be scripted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

_STATUS = {"status", "type", "message", "error_code", "headers", "body"}
_PARAMETERS: dict[str, set[str]] = {
    "status": _STATUS,
    "delay": set(),
    "silence": {"seconds", "after_deltas", "where"},
    "pings": {"seconds", "interval_ms", "after_deltas"},
    "drop": {"after_deltas", "where", "how"},
    "end": {"after_deltas", "without"},
    "stream_error": {"after_deltas", "type", "message", "error_code", "body"},
    "truncate": set(),
    "schema": {"violation"},
    "extra_keys": {"keys"},
    "refusal": {"category", "text"},
    "rubbish": {"rubbish"},
    "no_usage": set(),
    "answer": {"answer"},
    "text": {"text"},
    "tools": {"calls"},
    "slow_connect": {"seconds"},
}
_ALWAYS = {"kind", "delay_ms"}
_CHOICES: dict[str, tuple[str, ...]] = {
    "where": ("before", "headers", ""),
    "how": ("close", "reset"),
    "violation": ("type", "missing", "enum"),
    "without": ("message_stop", "message_delta"),
    "rubbish": (
        "html", "null", "empty_object", "error_body", "text", "bad_json", "no_events", "unnamed_events",
        "bad_event",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. Which fields count depends on ``kind``; times in seconds or ms."""

    kind: str
    delay_ms: int = 0
    status: int = 529
    type: str = ""
    message: str = ""
    error_code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    seconds: float = 3600.0
    interval_ms: int = 500
    after_deltas: int = 5
    where: str = ""
    how: str = "close"
    without: str = "message_delta"
    violation: str = "type"
    keys: Mapping[str, Any] = field(default_factory=lambda: {"unexpected": "value"})
    category: str | None = None
    text: str = ""
    rubbish: str = "html"
    answer: Any = None
    calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is about. ``nth``, ``every``, ``first`` and ``after`` count the requests that fit
    all the rest, for each agent on its own; ``times`` limits how often the rule fires in total."""

    agent: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    endpoint: Literal["messages", "count_tokens", "models", "any", "connection"] = "messages"
    contains: str = ""
    stream: bool | None = None
    max_tokens_below: int | None = None
    nth: tuple[int, ...] = ()
    every: int | None = None
    first: int | None = None
    after: int | None = None
    probability: float | None = None
    seed: int = 0
    times: int | None = None


_MATCHES, _FAULTS = TypeAdapter(Match), TypeAdapter(Fault)


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules may look at in a request."""

    agent: str
    model: str
    endpoint: str
    stream: bool
    max_tokens: int
    text: bytes


class Rule:
    """One rule of the script with its own counters."""

    def __init__(self, match: Match, fault: Fault) -> None:
        self.match, self.fault = match, fault
        self.fired = 0
        self._seen: Counter[str] = Counter()
        self._rng = random.Random(match.seed)

    def applies(self, facts: Facts) -> bool:
        """Whether the rule is about this request; counts it if it fits."""
        match = self.match
        if not self._fits(facts):
            return False
        self._seen[facts.agent] += 1
        number = self._seen[facts.agent]
        return not (
            (match.nth and number not in match.nth)
            or (match.every is not None and number % match.every)
            or (match.first is not None and number > match.first)
            or (match.after is not None and number <= match.after)
            or (match.times is not None and self.fired >= match.times)
            or (match.probability is not None and self._rng.random() >= match.probability)
        )

    def _fits(self, facts: Facts) -> bool:
        match = self.match
        return (
            match.endpoint in (facts.endpoint, "any")
            and (not match.agent or facts.agent in match.agent)
            and (not match.model or facts.model in match.model)
            and (match.stream is None or facts.stream == match.stream)
            and (match.max_tokens_below is None or facts.max_tokens < match.max_tokens_below)
            and (not match.contains or match.contains.encode() in facts.text)
        )


class Script:
    """An ordered list of rules; the first that fires decides."""

    def __init__(self, rules: Any = None) -> None:
        self.rules = [] if rules is None else parse_rules(rules)

    def pick(self, facts: Facts) -> Fault | None:
        """The fault for a request, None where it is to be served well. Every rule counts every request."""
        return self._first(facts, [rule for rule in self.rules if rule.fault.kind != "slow_connect"])

    def connection_delay(self) -> float:
        """Seconds to wait before a new connection is read; connections know no agent and no model yet."""
        slow = [rule for rule in self.rules if rule.fault.kind == "slow_connect"]
        fault = self._first(Facts("", "", "connection", False, 0, b""), slow)
        return fault.seconds if fault else 0.0

    @staticmethod
    def _first(facts: Facts, rules: list[Rule]) -> Fault | None:
        applicable = [rule for rule in rules if rule.applies(facts)]
        if not applicable:
            return None
        applicable[0].fired += 1
        return applicable[0].fault

    def as_json(self) -> list[dict[str, Any]]:
        """The rules by kind with how often each has fired."""
        return [{"kind": rule.fault.kind, "fired": rule.fired} for rule in self.rules]


def parse_rules(rules: Any) -> list[Rule]:
    """Rules from their JSON form; ValueError says which rule is wrong and what is known."""
    if not isinstance(rules, list):
        raise ValueError("The fault script must be a list of rules.")
    return [_parse_rule(number, rule) for number, rule in enumerate(rules)]


def _parse_rule(number: int, rule: Any) -> Rule:
    where = f"Rule {number}"
    if not isinstance(rule, dict) or not isinstance(rule.get("what"), dict) or set(rule) - {"match", "what"}:
        raise ValueError(f"{where}: a rule is an object with `what` and, if it is not about all, `match`.")
    what, match = dict(rule["what"]), dict(rule.get("match") or {})
    kind = what.get("kind")
    if kind not in _PARAMETERS:
        raise ValueError(f"{where}: unknown kind {kind!r}. Known: {', '.join(_PARAMETERS)}.")
    _refuse_unknown(f"{where}, what", what, _ALWAYS | _PARAMETERS[kind])
    _refuse_unknown(f"{where}, match", match, {f.name for f in fields(Match)})
    for name, choices in _CHOICES.items():
        if name in what and what[name] not in choices:
            raise ValueError(f"{where}: {name} must be one of {', '.join(filter(None, choices))}.")
    for name in ("agent", "model", "nth"):
        if name in match:
            match[name] = tuple(match[name]) if isinstance(match[name], list) else (match[name],)
    if "calls" in what:
        what["calls"] = tuple(what["calls"])
    if kind == "slow_connect":
        match["endpoint"] = "connection"
    try:
        return Rule(_MATCHES.validate_python(match), _FAULTS.validate_python(what))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {name}: {first['msg']}.") from None


def _refuse_unknown(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}. Known: {', '.join(sorted(known))}.")
