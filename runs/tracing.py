"""What the engine says about itself while it works: ids in every log line, and spans around its steps.

A step that many items share (routing, claiming, committing) is one span; an agent run is one span too, and the
SDK's spans of its calls are its children. Where nobody has asked for spans, none are made.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from structlog.contextvars import bind_contextvars

from runs.work import Work

_tracer = trace.get_tracer("kontor")
_NOTHING = nullcontext()


def step(name: str, **attributes: int | str) -> AbstractContextManager[Any]:
    """A span around a step of the engine; what raises inside marks it as failed."""
    # Asked each time, because a provider may be set after this import. A span that goes nowhere costs 10 µs.
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _NOTHING
    return _tracer.start_as_current_span(name, attributes=attributes)


def attempt(work: Work) -> AbstractContextManager[Any]:
    """The span of one attempt. To be called in a task of its own: all it logs from now on names these ids."""
    ids = ids_of(work)
    bind_contextvars(**ids)
    return step(f"agent run {work.agent.slug}", **{f"kontor.{name}": value for name, value in ids.items()})


def ids_of(work: Work) -> dict[str, int | str]:
    """What names an attempt in a log line; for lines that are written outside of its task, as their ``extra``."""
    return {
        "item": work.item_id,
        "pipeline_run": work.pipeline_run_id,
        "agent_run": work.run_id,
        "attempt": work.attempt,
        "agent": work.agent.slug,
    }
