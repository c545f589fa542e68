"""What the simulator has served, so that our accounts can be compared with the other side's."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

CALLS_KEPT = 100_000
REQUESTS_KEPT = 1_000
TOKEN_KINDS = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)


@dataclass(slots=True)
class Call:
    """One request for a message. ``outcome`` is the stop reason of a good answer, else ``refused`` (our
    4xx), ``fault`` (scripted, ``fault`` says which) or ``abandoned`` (the client left). ``usage`` is what a
    provider would bill, None where no answer was begun. ``seconds`` is the time it was open."""

    call_id: str
    agent: str
    model: str
    status: int
    outcome: str
    fault: str
    usage: dict[str, int] | None
    stream: bool
    request_id: str
    seconds: float


@dataclass(slots=True)
class RecordedRequest:
    """One request as it came off the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def as_json(self) -> dict[str, Any]:
        """The request with its body as text."""
        text = self.body.decode("utf-8", "replace")
        return {"method": self.method, "path": self.path, "headers": self.headers, "body": text}


@dataclass(slots=True)
class Ledger:
    """Totals since the start or the last reset, the last calls and, if ``record``, the last raw requests."""

    record: bool = True
    requests: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    max_in_flight: int = 0
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))
    recorded: deque[RecordedRequest] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))

    def begin(self) -> None:
        """A request for a message has come."""
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def finish(self, call: Call) -> None:
        """A request for a message is over, however it ended."""
        self.in_flight -= 1
        self.calls.append(call)
        self.outcomes[call.outcome] += 1
        self.statuses[str(call.status)] += 1
        self.models[call.model] += 1
        self.agents[call.agent] += 1
        if call.usage is not None:
            self.tokens.update(call.usage)

    def reset(self) -> None:
        """Forget everything but what is in flight."""
        for counts in (self.requests, self.outcomes, self.statuses, self.models, self.agents, self.tokens):
            counts.clear()
        self.calls.clear()
        self.recorded.clear()
        self.max_in_flight = self.in_flight

    def as_json(self, *, calls: bool = False) -> dict[str, Any]:
        """The totals; with ``calls`` also one object a call, oldest first, the last 100,000 at most."""
        totals: dict[str, Any] = {
            "requests": dict(self.requests),
            "outcomes": dict(self.outcomes),
            "statuses": dict(self.statuses),
            "models": dict(self.models),
            "agents": dict(self.agents),
            "tokens": {kind: self.tokens[kind] for kind in TOKEN_KINDS},
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
        }
        if calls:
            totals["calls"] = [asdict(call) for call in self.calls]
        return totals
