"""What a pipeline run consists of: its steps, their calls and tools, its log. Each table is asked once, without joins,
by queries that are compiled once; what several rows share is one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import IntegerField

from agents.models import Agent, ModelPrice, Soul
from agents.statements import Among, Given, Statement
from runs.models import AgentRun, LogEntry, ModelCall, PipelineRun, ToolCall, Trigger
from runs.views.waterfall import WAIT_KINDS


def load_steps(run: PipelineRun) -> list[AgentRun]:
    """The steps of a run (with its item and department) in their order, each with what its page names."""
    steps = _STEPS.objects(run=run.pk)
    steps = _give(steps, "agent", _AGENTS)  # those without one were erased since
    _give(steps, "soul", _SOULS)
    _give(steps, "trigger", _TRIGGERS)
    for step in steps:
        step.pipeline_run, step.item, step.department = run, run.item, run.item.department
    return steps


def load_calls(steps: Sequence[AgentRun]) -> list[ModelCall]:
    """The calls of these steps in their order, each with its price and its SOUL."""
    calls = _CALLS.objects(runs=[step.pk for step in steps]) if steps else []
    _give(calls, "price", _PRICES)
    known = {step.soul_id: step.soul for step in steps if step.soul is not None}
    _give(calls, "soul", _SOULS, known)
    return calls


def load_tools(steps: Sequence[AgentRun]) -> list[ToolCall]:
    """Their tool calls in their order."""
    return _TOOLS.objects(runs=[step.pk for step in steps]) if steps else []


def load_waits(run: PipelineRun) -> list[LogEntry]:
    """The log entries that say for what its steps waited, the oldest first."""
    return _WAITS.objects(item=run.item_id, run=run.pk)


def load_log(run: PipelineRun, limit: int) -> list[LogEntry]:
    """Its latest log entries, the latest first."""
    return _LOG.objects(limit=limit, item=run.item_id, run=run.pk)


def _give(rows: Sequence[Any], name: str, statement: Statement[Any], known: dict[Any, Any] | None = None) -> list[Any]:
    """Give rows what they refer to, and return those that got it; only what is not known yet is asked for."""
    found = dict(known or {})
    if missing := {getattr(row, f"{name}_id") for row in rows} - {None, *found}:
        found |= {one.pk: one for one in statement.objects(ids=sorted(missing))}
    for row in rows:
        setattr(row, name, found.get(getattr(row, f"{name}_id")))
    return [row for row in rows if getattr(row, f"{name}_id") is not None]


_STEPS = Statement(
    lambda: AgentRun.objects.filter(pipeline_run=Given("run", IntegerField())).order_by("queued_at", "pk")
)
_AGENTS = Statement(lambda: Agent.objects.filter(Among("pk", "ids")).order_by())
_SOULS = Statement(lambda: Soul.objects.filter(Among("pk", "ids")).order_by())
_TRIGGERS = Statement(lambda: Trigger.objects.filter(Among("pk", "ids")).order_by())
_PRICES = Statement(lambda: ModelPrice.objects.filter(Among("pk", "ids")).order_by())
_CALLS = Statement(lambda: ModelCall.objects.filter(Among("agent_run_id", "runs")).order_by("pk"))
_TOOLS = Statement(lambda: ToolCall.objects.filter(Among("agent_run_id", "runs")).order_by("pk"))


def _entries() -> Any:
    # By item first: it is the indexed column, and an item has few runs.
    return LogEntry.objects.filter(item=Given("item", IntegerField()), pipeline_run=Given("run", IntegerField()))


_LOG: Statement[LogEntry] = Statement(lambda: _entries().order_by("-pk"))
_WAITS: Statement[LogEntry] = Statement(lambda: _entries().filter(kind__in=WAIT_KINDS).order_by("pk"))
