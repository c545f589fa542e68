"""The pipeline of an item as a stepper: for each occasion the agents that have to do with it, in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agents.models import Agent
from agents.spec import ITEM
from runs.models import AgentRun, Output, Trigger
from runs.views.shown import Shown, show_agent_run
from runs.wording import in_words

_PLANNED = {
    "starts": Shown("starts next", "neutral", "clock", is_live=True),
    "failed": Shown("failed", "bad", "circle-x"),
    "disabled": Shown("switched off", "neutral", "ban"),
}
_NOT_WANTED = Shown("not wanted", "neutral", "circle-dashed")


@dataclass(frozen=True, slots=True)
class Step:
    """One agent for one occasion: its state, and where to look for more."""

    agent: Agent
    shown: Shown
    run: AgentRun | None = None
    output: Output | None = None


@dataclass(frozen=True, slots=True)
class Occasion:
    """What outputs are made for: the item (``trigger`` None), or one trigger."""

    title: str
    trigger: Trigger | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Desk:
    """The rows of one item from which its stepper is built; ``runs`` oldest first."""

    agents: Sequence[Agent]
    outputs: Sequence[Output]
    runs: Sequence[AgentRun]
    triggers: Sequence[Trigger]
    trace: Mapping[str, Any]
    now: datetime
    halt: str = ""


def build_occasions(desk: Desk) -> list[Occasion]:
    """The item itself first, then every trigger that somebody worked for or will, newest first."""
    touched = {run.trigger_id for run in desk.runs} | {output.trigger_id for output in desk.outputs}
    touched |= {entry["occasion"] for entry in desk.trace.get("wanted", ())}
    occasions = [Occasion("", None, _steps(desk, None, ITEM))]
    for trigger in sorted(desk.triggers, key=lambda trigger: -trigger.pk):
        if trigger.pk in touched:
            steps = _steps(desk, trigger.pk, trigger.kind)
            occasions.append(Occasion(trigger.get_kind_display().capitalize(), trigger, steps))
    return occasions


def _steps(desk: Desk, occasion: int | None, kind: str) -> tuple[Step, ...]:
    runs = {run.agent_id: run for run in desk.runs if run.trigger_id == occasion}
    outputs = {output.key: output for output in desk.outputs if output.trigger_id == occasion}
    planned = {entry["agent"]: entry for entry in desk.trace.get("agents", ()) if entry["occasion"] == occasion}
    steps = [
        _step(agent, runs.get(agent.pk), outputs.get(agent.writes), planned.get(agent.slug, {}), desk)
        for agent in _serving(desk.agents, occasion, kind)
    ]
    extra = [step for step in steps if step.run or step.output or step.shown is not _NOT_WANTED]
    return tuple(steps if occasion is None else extra)


def _serving(agents: Sequence[Agent], occasion: int | None, kind: str) -> list[Agent]:
    """Who may work for this kind of occasion: whoever needs a key that nobody writes for it may not."""
    serving = [
        agent for agent in agents if agent.works_for(kind) and (occasion is None or agent.scope != Agent.Scope.ITEM)
    ]
    while True:
        written = {agent.writes for agent in serving}
        able = [agent for agent in serving if written.issuperset(agent.needs)]
        if len(able) == len(serving):
            return serving
        serving = able


def _step(agent: Agent, run: AgentRun | None, output: Output | None, planned: Mapping[str, Any], desk: Desk) -> Step:
    if run is not None and run.status in AgentRun.ACTIVE:
        return Step(agent, show_agent_run(run, desk.now, desk.halt), run, output)
    if output is not None:
        return Step(agent, _show_output(output), run, output)
    if run is not None and run.status == AgentRun.Status.FAILED:
        return Step(agent, show_agent_run(run, desk.now, desk.halt), run)
    return Step(agent, _show_planned(planned), run)


def _show_output(output: Output) -> Shown:
    if output.verdict == Output.Verdict.REJECTED:
        return Shown("rejected", "bad", "x")
    if output.is_stale:
        return Shown("out of date", "warning", "alert-triangle")
    if output.verdict == Output.Verdict.APPROVED:
        return Shown("approved", "good", "circle-check")
    return Shown("by a person" if output.is_by_person else "done", "good", "circle-check")


def _show_planned(planned: Mapping[str, Any]) -> Shown:
    keys = _listed(planned.get("keys", ()))
    if planned.get("state") == "waits":
        return Shown(f"waits for {keys}", "neutral", "hourglass", is_live=True)
    if planned.get("state") == "skipped":
        return Shown(f"left out: no {keys}", "warning", "ban")
    return _PLANNED.get(str(planned.get("state")), _NOT_WANTED)


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(in_words(key) for key in keys)
