"""How states are shown: label, colour, and of what waits: for what, since when, what happens next.

``colour`` is one of the design's status colours: neutral, progress, good, warning, bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agents.models import Department
from agents.spec import DepartmentSpec
from runs.allowed import state_of
from runs.models import AgentRun, Item, ModelCall, PipelineRun
from runs.switches import describe_state


@dataclass(frozen=True, slots=True)
class Shown:
    """A state as a page shows it. ``note``: a sentence on what it waits for, ``since`` when; ``then``: what is next."""

    label: str
    colour: str
    icon: str
    note: str = ""
    since: datetime | None = None
    then: str = ""
    then_at: datetime | None = None
    is_live: bool = False
    """Whether it changes by itself, so that the page looks again soon."""


_RUN = {
    AgentRun.Status.DONE: Shown("done", "good", "circle-check"),
    AgentRun.Status.FAILED: Shown("failed", "bad", "circle-x"),
    AgentRun.Status.CANCELLED: Shown("cancelled", "neutral", "ban"),
    AgentRun.Status.SUPERSEDED: Shown("superseded", "neutral", "corner-up-left"),
}
_PIPELINE = {
    PipelineRun.Status.ACTIVE: Shown("active", "progress", "loader-2", is_live=True),
    PipelineRun.Status.COMPLETED: Shown("completed", "good", "circle-check"),
    PipelineRun.Status.DEGRADED: Shown("degraded", "bad", "alert-triangle"),
    PipelineRun.Status.CANCELLED: Shown("cancelled", "neutral", "ban"),
}
_CALL = {
    ModelCall.Status.STARTED: Shown("under way", "progress", "loader-2", is_live=True),
    ModelCall.Status.FINISHED: Shown("finished", "good", "circle-check"),
    ModelCall.Status.UNSEEN: Shown("end not seen", "warning", "alert-triangle"),
}


def show_agent_run(run: AgentRun, now: datetime, halt: str = "") -> Shown:
    """The true state of an agent run: ``running`` only while somebody holds its lease.

    ``halt``: why nothing starts in the whole installation, from ``runs.switches``.
    """
    if run.status == AgentRun.Status.QUEUED:
        return _queued(run, now, halt)
    if run.is_lost(now):
        return Shown(
            "lost, being recovered",
            "warning",
            "alert-triangle",
            note="Its worker has not been heard of.",
            since=run.lease_expires_at,
            then="The next worker that looks queues it again",
            is_live=True,
        )
    if run.status == AgentRun.Status.RUNNING:
        return Shown("running", "progress", "loader-2", since=run.started_at, is_live=True)
    return _RUN[AgentRun.Status(run.status)]


def _queued(run: AgentRun, now: datetime, halt: str) -> Shown:
    since = run.waiting_since or run.queued_at
    if run.item.automation != Item.Automation.ACTIVE:
        note = state_of(run.item)
        then = "Goes on by itself" if run.item.automation_until else "Nothing starts until a person says so"
        return Shown("waiting", "neutral", "hourglass", note, since, then, run.item.automation_until, is_live=True)
    if run.department.state not in Department.WORKING:
        note = describe_state(run.department)
        then = "Nothing starts until the department runs again"
        return Shown("waiting", "neutral", "hourglass", note, since, then, is_live=True)
    if halt:
        then = "Nothing starts until it runs again"
        return Shown("waiting", "neutral", "hourglass", halt, since, then, is_live=True)
    if run.waiting_for:
        note = f"{run.waiting_for[0].upper()}{run.waiting_for[1:].rstrip('.')}."
    elif run.due_at > now:
        note = "Its next try is not due yet."
    else:
        note = "No worker has taken it yet."
    if run.due_at > now:
        return Shown("waiting", "neutral", "hourglass", note, since, "Tried again", run.due_at, is_live=True)
    return Shown("queued", "neutral", "clock", note, since, "The next free place takes it", is_live=True)


def show_pipeline_run(run: PipelineRun) -> Shown:
    """The state of a pipeline run."""
    return _PIPELINE[PipelineRun.Status(run.status)]


def show_model_call(call: ModelCall) -> Shown:
    """The state of a model call; a finished one with a cause has failed."""
    if call.status == ModelCall.Status.FINISHED and call.cause:
        return Shown(call.get_cause_display(), "bad", "circle-x")
    return _CALL[ModelCall.Status(call.status)]


def show_item(item: Item, spec: DepartmentSpec) -> Shown:
    """The item's status as its kind names and colours it. Of one that was closed on its way it is where it was left."""
    status = spec.status_spec(item.status)
    if item.automation == Item.Automation.CLOSED and not (status.is_closing or status.is_resting):
        return Shown(f"was: {status.label}", "neutral", "circle")
    return Shown(status.label, status.colour, "circle")


def show_automation(item: Item) -> Shown | None:
    """What a person has switched on the item, None while the department works on it by itself."""
    if item.automation == Item.Automation.ACTIVE:
        return None
    if item.is_erased:
        return Shown("person erased", "neutral", "ban")
    return Shown(
        item.get_automation_display(),
        "neutral" if item.automation == Item.Automation.CLOSED else "warning",
        "ban",
        note=state_of(item),
        then="Goes on by itself" if item.automation_until else "Nothing starts until a person says so",
        then_at=item.automation_until,
    )
