"""The engine's part of an item's page: every kind of department shows it beside what only the kind knows.

The head and the pipeline are always there; of the tabs one is read at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import BigIntegerField, prefetch_related_objects
from django.http import HttpRequest
from django.utils import timezone

from agents.models import Agent, Soul
from agents.spec import Facts
from agents.statements import Among, Given, Statement
from runs.access import Access, access_of
from runs.allowed import can_run, why_at_rest
from runs.facts import AGENTS, load_facts, load_router
from runs.models import AgentRun, Item, Output, PipelineRun, Trigger
from runs.router import Decision
from runs.switches import describe_halt, describe_state
from runs.views.conversation import conversation_context
from runs.views.item_costs import cost_context
from runs.views.item_summary import count_questions, summary_context
from runs.views.shown import Shown, show_agent_run, show_automation, show_item, show_pipeline_run
from runs.views.steps import Desk, Occasion, build_occasions
from runs.views.timeline import timeline_context
from runs.views.verbs import item_verbs
from runs.views.why import why_context

TABS = {
    "summary": "Summary",
    "conversation": "Conversation",
    "timeline": "Timeline",
    "why": "Why",
    "cost": "Cost",
}
RUN_ROWS = 5
TRIGGERS = 100
STEPS = 500
"""The newest triggers and agent runs that the page looks at."""


def item_context(request: HttpRequest, item: Item) -> dict[str, Any]:
    """What the engine knows of an item (with ``department`` selected), in a fixed number of queries: ``?tab=`` one."""
    access, now, spec = access_of(request), timezone.now(), item.department.spec
    tab = request.GET.get("tab", "")
    tab = tab if tab in TABS else "summary"
    triggers = _TRIGGERS.objects(limit=TRIGGERS, item=item.pk)
    agents, halt = AGENTS.objects(departments=[item.department_id]), describe_halt(access.installation)
    pipelines = _PIPELINES.objects(limit=RUN_ROWS, item=item.pk)
    runs = _read_steps(item, agents, pipelines)
    outputs = _read_outputs(item, runs, triggers)
    facts = load_facts([item], now=now)[item.pk]
    decision = load_router(item.department, agents).decide(facts)
    occasions = build_occasions(Desk(agents, outputs, runs, triggers, decision.trace, now, halt))
    # The newest occasion is what is going on; the item's own comes last where there are others.
    ordered = [*occasions[1:], occasions[0]]
    part = _read_tab(tab, request, item, outputs, occasions, runs=runs, why=(decision, facts))
    questions = len(part["questions"]) if "questions" in part else count_questions(item)
    return {
        "access": access,
        "now": now,
        "item": item,
        "spec": spec,
        "shown": show_item(item, spec),
        "automation": show_automation(item),
        "occasions": occasions,
        "occasions_now": ordered[:1],
        "occasions_before": ordered[1:],
        "tab": tab,
        "tabs": list(TABS.items()),
        "open_questions": questions,
        "pipelines": [(run, show_pipeline_run(run)) for run in pipelines],
        "next": _next(item, runs, triggers, halt, questions),
        "can_operate": access.can(item.department_id, "operator"),
        **_verbs(item, access),
        **part,
    }


def _read_tab(
    tab: str,
    request: HttpRequest,
    item: Item,
    outputs: Sequence[Output],
    occasions: Sequence[Occasion],
    *,
    runs: Sequence[AgentRun],
    why: tuple[Decision, Facts],
) -> dict[str, Any]:
    if tab == "summary":
        return summary_context(request, item, outputs, occasions, runs)
    if tab == "conversation":
        return conversation_context(request, item, outputs)
    if tab == "timeline":
        return timeline_context(request, item)
    return why_context(item, *why) if tab == "why" else cost_context(request, item)


def _read_steps(item: Item, agents: Sequence[Agent], pipelines: Sequence[PipelineRun]) -> list[AgentRun]:
    """The newest agent runs, oldest first. What all have in common is not read anew with each."""
    known, newest = {agent.pk: agent for agent in agents}, {pipeline.pk: pipeline for pipeline in pipelines}
    runs = _STEPS.objects(limit=STEPS, item=item.pk)[::-1]
    for run in runs:
        run.item, run.department, run.agent = item, item.department, known[run.agent_id]
        if run.pipeline_run_id in newest:
            run.pipeline_run = newest[run.pipeline_run_id]
    return runs


def _read_outputs(item: Item, runs: Sequence[AgentRun], triggers: Sequence[Trigger]) -> list[Output]:
    """The current outputs, the oldest first, with what of them was read already."""
    outputs, known_runs = _OUTPUTS.objects(item=item.pk), {run.pk: run for run in runs}
    known_triggers = {trigger.pk: trigger for trigger in triggers}
    for output in outputs:
        output.item = item
        if output.agent_run_id in known_runs:
            output.agent_run = known_runs[output.agent_run_id]
        if output.trigger_id in known_triggers:
            output.trigger = known_triggers[output.trigger_id]
    # What is older than those is read here; where all are known it would still take its time to find that out.
    prefetch_related_objects([output for output in outputs if output.author_id], "author")
    prefetch_related_objects([o for o in outputs if o.trigger_id not in (None, *known_triggers)], "trigger")
    prefetch_related_objects([o for o in outputs if o.agent_run_id not in (None, *known_runs)], "agent_run__agent")
    made_by = [output.agent_run for output in outputs if output.agent_run and output.agent_run.soul_id]
    souls: dict[int | None, Soul] = {}
    if made_by:
        souls = {soul.pk: soul for soul in _SOULS.objects(souls={run.soul_id for run in made_by})}
    for run in made_by:
        run.soul = souls[run.soul_id]
    return outputs


_ITEM = Given("item", BigIntegerField())
_TRIGGERS = Statement(lambda: Trigger.objects.filter(item_id=_ITEM).order_by("-pk"))
_STEPS = Statement(lambda: AgentRun.objects.filter(item_id=_ITEM).order_by("-pk"))
_SOULS = Statement(lambda: Soul.objects.filter(Among("pk", "souls")))
_OUTPUTS = Statement(lambda: Output.objects.filter(item_id=_ITEM, is_current=True).order_by("pk"))
_PIPELINES = Statement(lambda: PipelineRun.objects.filter(item_id=_ITEM).order_by("-pk"))


def _verbs(item: Item, access: Access) -> dict[str, Any]:
    first, more = item_verbs(item, access)
    return {"verbs_first": first, "verbs_more": more, "can_run": can_run(item, access)}


def _next(item: Item, runs: Sequence[AgentRun], triggers: Sequence[Trigger], halt: str, questions: int) -> Shown:
    """One sentence: what happens next to this item, or why nothing does."""
    now = timezone.now()
    running = [run for run in runs if run.status == AgentRun.Status.RUNNING]
    if held := [run for run in running if not run.is_lost(now)]:
        return Shown(f"Being worked on by {_titles(held)}.", "progress", "loader-2", is_live=True)
    if running:
        why = show_agent_run(running[0], now, halt)
        return Shown(
            f"{_titles(running)}: {why.label}. {why.note}", why.colour, why.icon, since=why.since, is_live=True
        )
    department = item.department
    if item.is_erased:
        return Shown("The person was erased. Nothing more happens.", "neutral", "ban")
    if halt or department.state not in department.WORKING:
        return Shown(f"Nothing new starts. {halt or describe_state(department)}", "warning", "ban")
    if department.stopped_by_error:
        return Shown(f"Nothing new starts in {department}: its line stands still.", "warning", "ban")
    if item.automation != Item.Automation.ACTIVE:
        return Shown(why_at_rest(item), "warning", "ban")
    if queued := [run for run in runs if run.status == AgentRun.Status.QUEUED]:
        why = show_agent_run(next((run for run in queued if run.waiting_for), queued[0]), now, halt)
        text = f"Waits to begin: {_titles(queued)}. {why.note}"
        return Shown(text, why.colour, why.icon, since=why.since, is_live=True)
    if item.route_due_at is not None and item.route_due_at <= now:
        return Shown("A worker decides next what is wanted.", "neutral", "clock", since=item.route_due_at, is_live=True)
    if item.route_due_at is not None:
        coming = [t for t in triggers if t.status == Trigger.Status.OPEN and t.due_at == item.route_due_at]
        if coming and coming[0].kind == Trigger.Kind.DECISION:
            return Shown("What was decided takes effect", "neutral", "clock", then_at=item.route_due_at)
        what = coming[0].get_kind_display() if coming else "look"
        return Shown(f"The next {what} is due", "neutral", "clock", then_at=item.route_due_at)
    if questions:
        asked = "a question is open" if questions == 1 else f"{questions} questions are open"
        return Shown(f"It waits for a person: {asked}.", "warning", "help-circle")
    return Shown("Nothing is wanted now.", "neutral", "circle-check")


def _titles(runs: Sequence[AgentRun]) -> str:
    return ", ".join(dict.fromkeys(run.agent.title for run in runs))
