"""What a pipeline run that ended degraded leaves out, in words, and that somebody is asked about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agents.causes import Cause
from agents.spec import Facts
from runs.models import AgentRun, Item, Output, PipelineRun, Review
from runs.router import Skipped
from runs.staff import Desk, Staff
from runs.wording import in_words

DEADLINE = timedelta(days=1)
_ENDED = (AgentRun.Status.DONE, AgentRun.Status.FAILED)


def close_degraded(
    runs: Iterable[PipelineRun], items: Mapping[int, Item], facts: Mapping[int, Facts], staff: Staff, now: datetime
) -> dict[int, str]:
    """For each run that ends degraded what is missing and what was done without it: ``{run id: sentences}``.

    The items must be locked. Where no question about the failures is open any more, one about the run is.
    """
    found = {}
    for run in runs:
        item = items[run.item_id]
        desk = staff.desks[item.department_id]
        steps = AgentRun.objects.filter(pipeline_run=run, status__in=_ENDED).select_related("agent", "incident")
        ended = list(steps.order_by("ended_at", "pk"))
        # The router says what was left out: as the facts were before this routing settled the last trigger.
        skipped = desk.router.decide(replace(facts[item.pk], status=item.status)).skipped
        found[run.pk] = describe(ended, skipped, {agent.slug: agent.title for agent in desk.agents.values()})
        _ensure_question(run, item, ended, desk, now)
    return found


def describe(ended: Sequence[AgentRun], skipped: Iterable[Skipped], titles: Mapping[str, str]) -> str:
    """Up to three sentences: what is missing and why, who worked without it, who was left out. Pure.

    ``ended`` are the done and failed agent runs in the order of their ends, with ``agent``.
    """
    failed = [run for run in ended if run.status == AgentRun.Status.FAILED]
    missing = [f"{in_words(run.agent.writes)} ({run.agent.title}: {Cause(run.cause).label})" for run in failed]
    sentences = [f"Missing: {_listed(missing)}."]
    without = [entry for run in ended if (entry := _without(run, failed))]
    if without:
        sentences.append(f"Done all the same: {_listed(without)}.")
    left_out = [f"{titles.get(one.agent, one.agent)} (no {_listed(map(in_words, one.missing))})" for one in skipped]
    if left_out:
        sentences.append(f"Left out: {_listed(dict.fromkeys(left_out))}.")
    return " ".join(sentences)


def _without(run: AgentRun, failed: Iterable[AgentRun]) -> str:
    """What a step wrote, and what it would have used; empty where it lacked nothing."""
    if run.status != AgentRun.Status.DONE:
        return ""
    inputs = {*run.agent.needs, *run.agent.uses}
    lacked = [f.agent.writes for f in failed if f.agent.writes in inputs and f.trigger_id in (None, run.trigger_id)]
    if not lacked:
        return ""
    return f"{in_words(run.agent.writes)} ({run.agent.title}, without {_listed(map(in_words, dict.fromkeys(lacked)))})"


def _ensure_question(run: PipelineRun, item: Item, ended: Sequence[AgentRun], desk: Desk, now: datetime) -> None:
    """A run never ends degraded unasked: where the failures' own questions were answered meanwhile, ask about it."""
    failed = [step for step in ended if step.status == AgentRun.Status.FAILED]
    if any(step.incident is not None and step.incident.status == Review.Status.OPEN for step in failed):
        return
    open_ones = Review.objects.filter(item=item, status=Review.Status.OPEN)
    if open_ones.filter(kind=Review.Kind.DEGRADED).exists():
        return
    final = Output.objects.filter(item=item, key=desk.spec.final_key, is_current=True, agent_run__pipeline_run=run)
    lacks = _listed(dict.fromkeys(in_words(step.agent.writes) for step in failed))
    Review.objects.create(
        department_id=item.department_id,
        item=item,
        output=final.order_by("-pk").first(),
        agent_run=failed[0] if failed else None,
        kind=Review.Kind.DEGRADED,
        ask=f"The work on {item.title} has ended without {lacks}. Is it good enough?"[:500],
        risk=2,
        deadline=now + DEADLINE,
    )


def _listed(entries: Iterable[str]) -> str:
    *first, last = list(entries) or [""]
    return f"{', '.join(first)} and {last}" if first else last
