"""The engine's part of an item's page: every kind of department shows it beside what only the kind knows.

The head and the pipeline are always there; of the tabs one is read at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from agents.models import Agent
from agents.spec import Facts
from runs.access import Access, access_of
from runs.allowed import can_run, state_of
from runs.facts import load_facts, load_router
from runs.models import AgentRun, Item, Output, Trigger
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
    rows = item.outputs.filter(is_current=True).order_by("pk")
    outputs = list(rows.select_related("author", "trigger", "agent_run__agent", "agent_run__soul"))
    triggers = list(item.triggers.order_by("-pk")[:TRIGGERS])
    agents, halt = list(item.department.agents.order_by("pk")), describe_halt(access.installation)
    runs = _read_steps(item, agents)
    facts = load_facts([item], now=now)[item.pk]
    decision = load_router(item.department, agents).decide(facts)
    occasions = build_occasions(Desk(agents, outputs, runs, triggers, decision.trace, now, halt))
    # The newest occasion is what is going on; the item's own comes last where there are others.
    ordered = [*occasions[1:], occasions[0]]
    part = _read_tab(tab, request, item, outputs, occasions, why=(decision, facts))
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
        "pipelines": [(run, show_pipeline_run(run)) for run in item.pipeline_runs.order_by("-pk")[:RUN_ROWS]],
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
    why: tuple[Decision, Facts],
) -> dict[str, Any]:
    if tab == "summary":
        return summary_context(request, item, outputs, occasions)
    if tab == "conversation":
        return conversation_context(request, item, outputs)
    if tab == "timeline":
        return timeline_context(request, item)
    return why_context(item, *why) if tab == "why" else cost_context(request, item)


def _read_steps(item: Item, agents: Sequence[Agent]) -> list[AgentRun]:
    """The newest agent runs, oldest first. What all have in common is not read anew with each."""
    known = {agent.pk: agent for agent in agents}
    runs = list(item.agent_runs.order_by("-pk")[:STEPS])[::-1]
    for run in runs:
        run.item, run.department, run.agent = item, item.department, known[run.agent_id]
    return runs


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
    if halt or department.state not in department.WORKING:
        return Shown(f"Nothing new starts. {halt or describe_state(department)}", "warning", "ban")
    if department.stopped_by_error:
        return Shown(f"Nothing new starts in {department}: its line stands still.", "warning", "ban")
    if item.automation != Item.Automation.ACTIVE:
        return Shown(f"{state_of(item)} Nothing starts before it goes on.", "warning", "ban")
    if queued := [run for run in runs if run.status == AgentRun.Status.QUEUED]:
        why = show_agent_run(next((run for run in queued if run.waiting_for), queued[0]), now, halt)
        text = f"Waits to begin: {_titles(queued)}. {why.note}"
        return Shown(text, why.colour, why.icon, since=why.since, is_live=True)
    if item.route_due_at is not None and item.route_due_at <= now:
        return Shown("A worker decides next what is wanted.", "neutral", "clock", since=item.route_due_at, is_live=True)
    if item.route_due_at is not None:
        coming = [t for t in triggers if t.status == Trigger.Status.OPEN and t.due_at == item.route_due_at]
        what = coming[0].get_kind_display() if coming else "look"
        return Shown(f"The next {what} is due", "neutral", "clock", then_at=item.route_due_at)
    if questions:
        asked = "a question is open" if questions == 1 else f"{questions} questions are open"
        return Shown(f"It waits for a person: {asked}.", "warning", "help-circle")
    return Shown("Nothing is wanted now.", "neutral", "circle-check")


def _titles(runs: Sequence[AgentRun]) -> str:
    return ", ".join(dict.fromkeys(run.agent.title for run in runs))
