"""The waterfall of a pipeline run: one lane an agent run, one bar an attempt, grey where it waited. Pure.

A wait says for what: a queued run says it itself; of a wait that is over, the log entry of the claim that ended it
tells (``data.waited_for``), else the entry of the failure, or loss, that began it.

Positions and widths are percentages of the time shown, 0 to 100.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from agents.causes import Cause
from runs.models import AgentRun, LogEntry, ModelCall, PipelineRun, ToolCall
from runs.views.shown import Shown, show_agent_run

MIN_WIDTH = 0.35
_WIDE = 10.0
_ROOM_AFTER_NOW = 1.03
"""A run under way is drawn with a little room on the right, so that the line that says now can be seen."""
_NEAR = timedelta(seconds=2)
"""An entry is written in the transaction of what it tells, whose clock is the database's."""
WAIT_KINDS = ("started", "waiting", "lost")
"""The log entries that say for what a step waited."""
_TICK_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400)
_MANY_TICKS = 6
_SOFT_CAUSES = (Cause.RATE_LIMITED, Cause.OVERLOADED, Cause.LOST)
RowT = TypeVar("RowT", ModelCall, ToolCall, LogEntry)


@dataclass(frozen=True, slots=True)
class Bar:
    """One stretch of time in a lane; ``colour`` is a status colour, empty while it waited."""

    x: float
    width: float
    colour: str
    title: str
    reason: str = ""
    """For what it waited, where that is known."""

    @property
    def is_wide(self) -> bool:
        """Whether there is room for a few words in it."""
        return self.width >= _WIDE


@dataclass(frozen=True, slots=True)
class Mark:
    """One tool call inside an attempt."""

    x: float
    width: float
    title: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Lane:
    """One agent run."""

    run: AgentRun
    shown: Shown
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]
    waited_seconds: float
    worked_seconds: float
    cost_usd: Decimal

    @property
    def summary(self) -> str:
        """What bars and marks show, for somebody who does not see them."""
        return "; ".join([bar.title for bar in self.bars] + [f"tool {mark.title}" for mark in self.marks])


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the time axis."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Waterfall:
    """All lanes on one time axis of ``seconds`` that begins at ``starts_at``. ``now`` is where now is while something
    goes on, else None."""

    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    seconds: float
    starts_at: datetime
    now: float | None = None
    began_at: datetime | None = None
    """When the first attempt of any step began."""


@dataclass(slots=True)
class _Attempt:
    number: int
    starts: datetime
    ends: datetime
    worker: str
    colour: str
    outcome: str


@dataclass(frozen=True, slots=True)
class _Axis:
    starts: datetime
    seconds: float

    def place(self, starts: datetime, ends: datetime) -> tuple[float, float]:
        """Where a stretch of time lies, and how wide it is: always on the axis, and never too narrow to be seen."""
        x = 100 * (starts - self.starts).total_seconds() / self.seconds
        width = 100 * (ends - starts).total_seconds() / self.seconds
        x = min(max(x, 0.0), 100 - MIN_WIDTH)
        return round(x, 3), round(min(max(width, MIN_WIDTH), 100 - x), 3)


@dataclass(slots=True)
class _Lane:
    run: AgentRun
    shown: Shown
    attempts: list[_Attempt]
    ends: datetime
    cost_usd: Decimal
    tools: Sequence[ToolCall]
    waits: list[tuple[datetime, datetime, str]] = field(default_factory=list)


def build_waterfall(
    pipeline: PipelineRun,
    runs: Sequence[AgentRun],
    calls: Iterable[ModelCall],
    now: datetime,
    halt: str = "",
    *,
    tools: Iterable[ToolCall] = (),
    entries: Iterable[LogEntry] = (),
) -> Waterfall:
    """The waterfall of ``runs`` (with ``agent`` selected), all their ``calls`` and ``tools``.

    ``entries`` are their log entries of ``WAIT_KINDS``.
    """
    own_calls, own_tools, own_entries = _by_run(calls), _by_run(tools), _by_run(entries)
    lanes = []
    for run in runs:
        lane = _lane(run, own_calls.get(run.pk, []), now, halt, own_entries.get(run.pk, []))
        lane.tools = own_tools.get(run.pk, [])
        lanes.append(lane)
    starts = min([pipeline.started_at, *(run.queued_at for run in runs)])
    ends = max([pipeline.ended_at or starts, *(lane.ends for lane in lanes)])
    is_live = any(run.status in AgentRun.ACTIVE for run in runs)
    seconds = max((ends - starts).total_seconds(), 0.001) * (_ROOM_AFTER_NOW if is_live else 1)
    axis = _Axis(starts, seconds)
    return Waterfall(
        lanes=tuple(_draw(lane, axis) for lane in lanes),
        # The last mark would lie under the line that says now.
        ticks=tuple(tick for tick in _ticks(axis.seconds) if not is_live or tick.x < 90),
        seconds=axis.seconds,
        starts_at=axis.starts,
        now=axis.place(now, now)[0] if is_live else None,
        began_at=min((attempt.starts for lane in lanes for attempt in lane.attempts), default=None),
    )


def _by_run(rows: Iterable[RowT]) -> dict[int, list[RowT]]:
    found: dict[int, list[RowT]] = {}
    for row in rows:
        if row.agent_run_id is not None:
            found.setdefault(row.agent_run_id, []).append(row)
    return found


def _lane(run: AgentRun, calls: list[ModelCall], now: datetime, halt: str, entries: Sequence[LogEntry]) -> _Lane:
    shown = show_agent_run(run, now, halt)
    attempts = _attempts(run, calls, shown, now)
    ended = run.ended_at or (attempts[-1].ends if attempts else run.queued_at)
    ends = now if run.status in AgentRun.ACTIVE else ended
    lane = _Lane(run, shown, attempts, ends, sum((call.cost_usd for call in calls), Decimal(0)), ())
    moment = run.queued_at
    for attempt in attempts:
        lane.waits.append((moment, attempt.starts, _waited_for(entries, moment, attempt.starts)))
        moment = attempt.ends
    if run.status == AgentRun.Status.QUEUED:
        lane.waits.append((moment, ends, shown.note))
    elif not attempts:
        lane.waits.append((moment, ends, ""))
    lane.waits = [(a, b, why) for a, b, why in lane.waits if b - a > timedelta(milliseconds=1)]
    return lane


def _waited_for(entries: Sequence[LogEntry], starts: datetime, ends: datetime) -> str:
    """What the claim that ended a wait says it was for; else what began it: the entry of the failure, or the loss."""
    claims = [entry for entry in entries if entry.kind == "started" and abs(entry.at - ends) <= _NEAR]
    told = [str(entry.data["waited_for"]) for entry in claims if entry.data.get("waited_for")]
    told += [e.text for e in entries if e.kind != "started" and abs(e.at - starts) <= _NEAR]
    return told[0] if told else ""


def _attempts(run: AgentRun, calls: list[ModelCall], shown: Shown, now: datetime) -> list[_Attempt]:
    """From the calls; the latest one also from the run itself, which is claimed before its first call."""
    grouped: dict[int, list[ModelCall]] = {}
    for call in sorted(calls, key=lambda call: (call.attempt, call.number)):
        grouped.setdefault(call.attempt, []).append(call)
    if run.attempt and run.started_at is not None:
        grouped.setdefault(run.attempt, [])
    found = []
    for number in sorted(grouped):
        attempt = _attempt(run, number, grouped[number], now)
        is_latest = number == run.attempt
        if is_latest and run.status != AgentRun.Status.QUEUED:
            attempt.colour, attempt.outcome = shown.colour, shown.label
            if run.status == AgentRun.Status.FAILED and run.cause:
                attempt.outcome = f"failed: {run.get_cause_display()}"
        found.append(attempt)
    return found


def _attempt(run: AgentRun, number: int, calls: list[ModelCall], now: datetime) -> _Attempt:
    is_latest = number == run.attempt
    starts = min((call.started_at for call in calls), default=run.started_at or run.queued_at)
    if is_latest and run.started_at is not None:
        starts = min(starts, run.started_at) if run.started_at >= run.queued_at else starts
    ends = max((call.ended_at or call.started_at for call in calls), default=starts)
    if is_latest and run.status == AgentRun.Status.RUNNING:
        ends = now
    elif is_latest and run.ended_at is not None:
        ends = max(ends, run.ended_at)
    last = calls[-1] if calls else None
    colour, outcome = "neutral", "no call was made"
    if last is not None and last.cause:
        colour = "warning" if last.cause in _SOFT_CAUSES else "bad"
        outcome = last.get_cause_display()
    elif last is not None and last.status != ModelCall.Status.FINISHED:
        colour, outcome = "warning", "its end was not seen"
    elif last is not None:
        colour, outcome = "warning", "its answer was not used"
    return _Attempt(number, starts, ends, last.worker if last else run.worker, colour, outcome)


def _draw(lane: _Lane, axis: _Axis) -> Lane:
    pieces: list[tuple[datetime, Bar]] = []
    for starts, ends, why in lane.waits:
        title = f"waited {_seconds(starts, ends)}{f': {why}' if why else ''}"
        pieces.append((starts, Bar(*axis.place(starts, ends), "", title, why)))
    for attempt in lane.attempts:
        where = f" on {attempt.worker}" if attempt.worker else ""
        span = _seconds(attempt.starts, attempt.ends)
        title = f"attempt {attempt.number}{where}, {span}: {attempt.outcome}"
        pieces.append((attempt.starts, Bar(*axis.place(attempt.starts, attempt.ends), attempt.colour, title)))
    return Lane(
        run=lane.run,
        shown=lane.shown,
        bars=tuple(bar for _, bar in sorted(pieces, key=lambda piece: piece[0])),
        marks=tuple(_mark(tool, axis) for tool in lane.tools),
        waited_seconds=sum((ends - starts).total_seconds() for starts, ends, _ in lane.waits),
        worked_seconds=sum((a.ends - a.starts).total_seconds() for a in lane.attempts),
        cost_usd=lane.cost_usd,
    )


def _mark(tool: ToolCall, axis: _Axis) -> Mark:
    place = axis.place(tool.started_at, tool.started_at + timedelta(milliseconds=tool.latency_ms))
    title = f"{tool.name}, {tool.latency_ms} ms{', failed' if tool.is_error else ''}"
    return Mark(*place, title, tool.is_error)


def _seconds(starts: datetime, ends: datetime) -> str:
    return f"{(ends - starts).total_seconds():.1f} s"


def _ticks(seconds: float) -> tuple[Tick, ...]:
    """At most six marks at round distances."""
    step = next((step for step in _TICK_SECONDS if seconds / step <= _MANY_TICKS), float(_TICK_SECONDS[-1]))
    while seconds / step > _MANY_TICKS:
        step *= 2
    return tuple(
        Tick(round(100 * index * step / seconds, 3), _tick_label(index * step))
        for index in range(int(seconds // step) + 1)
    )


def _tick_label(seconds: float) -> str:
    if seconds >= 3_600:
        return f"{seconds / 3_600:g} h"
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{round(seconds, 3):g} s"
