"""The attempts of an agent run: one claim each, with the calls and tools of it and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from runs.gates import STANDS_IN
from runs.models import AgentRun, ModelCall, ToolCall
from runs.views.shown import Shown, show_model_call


@dataclass(frozen=True, slots=True)
class CallRow:
    """One model call with the tools it asked for."""

    call: ModelCall
    shown: Shown
    tools: tuple[ToolCall, ...]

    @property
    def tokens_in(self) -> int:
        """All of the prompt, cached or not."""
        return self.call.input_tokens + self.cache_written + self.call.cache_read_tokens

    @property
    def cache_written(self) -> int:
        """What went into the cache, for five minutes or an hour."""
        return self.call.cache_write_5m_tokens + self.call.cache_write_1h_tokens

    @property
    def complaint(self) -> str:
        """Why an answer that did arrive was not taken: what did not fit the schema."""
        return self.call.error if not self.call.cause else ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of an agent run."""

    number: int
    shown: Shown
    rows: tuple[CallRow, ...]
    worker: str
    started_at: datetime | None
    ended_at: datetime | None
    """None while it is under way."""

    @property
    def name(self) -> str:
        """The number as a template puts it into an address."""
        return str(self.number)

    @property
    def first(self) -> ModelCall | None:
        """Its first call."""
        return self.rows[0].call if self.rows else None

    @property
    def cost_usd(self) -> Decimal:
        """What all its calls cost."""
        return sum((row.call.cost_usd for row in self.rows), Decimal(0))

    @property
    def took_seconds(self) -> float | None:
        """How long it took; None while it is under way."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


def build_attempts(run: AgentRun, rows: Sequence[CallRow], shown: Shown) -> list[Attempt]:
    """All attempts, the first one first. ``shown`` is the state of the run, which the latest attempt has.

    An attempt that was lost before its first call was written is known only if it is the latest.
    """
    grouped: dict[int, list[CallRow]] = {}
    for row in sorted(rows, key=lambda row: (row.call.attempt, row.call.number)):
        grouped.setdefault(row.call.attempt, []).append(row)
    if run.attempt:
        grouped.setdefault(run.attempt, [])
    return [_attempt(run, number, tuple(grouped[number]), shown) for number in sorted(grouped)]


def call_rows(calls: Sequence[ModelCall], tools: Mapping[int, Sequence[ToolCall]]) -> list[CallRow]:
    """The calls with their tools: ``{call id: tools}``."""
    return [CallRow(call, show_model_call(call), tuple(tools.get(call.pk, ()))) for call in calls]


def fallback_note(request: Any) -> str:
    """What a stand-in for another model was told in its prompt; empty for everybody else."""
    system = request.get("system") if isinstance(request, dict) else None
    blocks = system if isinstance(system, list) else [{"text": system}]
    texts = [str(block.get("text", "")) for block in blocks if isinstance(block, dict)]
    lines = (line for text in texts for line in text.splitlines())
    return next((line for line in lines if line.startswith(STANDS_IN)), "")


def _attempt(run: AgentRun, number: int, rows: tuple[CallRow, ...], shown: Shown) -> Attempt:
    is_latest = number == run.attempt
    is_over = not is_latest or run.status != AgentRun.Status.RUNNING
    last = rows[-1] if rows else None
    starts = min((row.call.started_at for row in rows), default=run.started_at if is_latest else None)
    ends = max((row.call.ended_at for row in rows if row.call.ended_at), default=None)
    if is_latest and run.status != AgentRun.Status.QUEUED:
        starts = min(filter(None, (starts, run.started_at)), default=None)
        ends = max(filter(None, (ends, run.ended_at)), default=None)
        state = shown
    else:
        state = _earlier(last)
    worker = (last.call.worker if last else "") or (run.worker if is_latest else "")
    return Attempt(number, state, rows, worker, starts, ends if is_over else None)


def _earlier(last: CallRow | None) -> Shown:
    """The state of an attempt after which the run was queued again."""
    if last is None:
        return Shown("no call was made", "neutral", "circle-dashed")
    if last.call.status == ModelCall.Status.FINISHED and not last.call.cause:
        return Shown("its answer was not used", "warning", "alert-triangle")
    return last.shown
