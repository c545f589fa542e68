"""Pipeline runs: the list, and the page of one with its waterfall, its steps and its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.models import Member
from agents.statements import Among, Statement
from runs.access import Access, access_of, get_visible, signed_in
from runs.models import AgentRun, ModelCall, PipelineRun, StatusCount, ToolCall
from runs.money import dollars, in_units
from runs.status_counts import Counted, count_up_to, read_counts
from runs.switches import describe_halt
from runs.views.answers import show
from runs.views.forms import read_number
from runs.views.paging import read_page
from runs.views.run_rows import load_calls, load_log, load_steps, load_tools, load_waits
from runs.views.shown import Shown, show_pipeline_run
from runs.views.step_filters import PERIOD_LABELS, PERIODS, found_items, unknown_among
from runs.views.step_list import Chip, count_steps
from runs.views.stepview import TABS, Material, StepView, build_step_view
from runs.views.verbs import item_verbs
from runs.views.waterfall import build_waterfall
from runs.views.windows import Window, read_window

LOG_ROWS = 200


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of the list of pipeline runs."""

    run: PipelineRun
    shown: Shown
    done: int
    failed: int
    active: int
    took_seconds: float
    cost_usd: Decimal


@signed_in
@require_safe
def run_list(request: HttpRequest) -> HttpResponse:
    """Pipeline runs, newest first; filters in the address: status, text of the item's title, since."""
    access, now = access_of(request), timezone.now()
    status, text = request.GET.get("status", ""), request.GET.get("text", "").strip()[:100]
    since = request.GET.get("since", "")
    known = {"status": PipelineRun.Status.values, "since": list(PERIODS)}
    problems = unknown_among({"status": status, "since": since}, known)
    everything = PipelineRun.objects.filter(item__department__in=access.ids)
    runs = everything.select_related("item")
    if status in PipelineRun.Status.values:
        runs = runs.filter(status=status)
    if text:
        runs = runs.filter(item__in=found_items(text, access))
    begin = now - PERIODS[since] if since in PERIODS else None
    if begin is not None:
        runs = runs.filter(started_at__gte=begin)
    is_filtered = bool(text or begin)
    if begin is None or text:
        window = Window(read_page(request, runs), 0)
    else:
        window = read_window(request, runs, everything, ends=lambda run: run.started_at < begin)
    access.give_departments(run.item for run in window.page.rows)
    context = {
        "access": access,
        "page": window.page,
        "looked_to": window.looked_to,
        "rows": _rows(window.page.rows),
        "problems": problems,
        "status": status,
        "text": text,
        "since": since,
        "is_filtered": is_filtered,
        "periods": PERIOD_LABELS.items(),
        "chips": run_chips(access, counted=not is_filtered),
        "step_chips": [
            chip for chip in count_steps(access, now) if chip.is_of_now and chip.counted and chip.counted.number
        ],
    }
    return show(request, "runs/list.html", "runs/_list.html", context)


def run_chips(access: Access, *, counted: bool) -> list[Chip]:
    """Every status of pipeline runs; ``counted``: with how many there are, those under way as they are now."""
    if not counted:
        return [Chip(status.value, status.label.capitalize(), None) for status in PipelineRun.Status]
    kept = read_counts(StatusCount.Rows.PIPELINE_RUNS, access.ids)
    none = Counted(0) if kept else None
    counts = {**kept, **count_up_to(_ACTIVE, departments=access.ids)}
    return [
        Chip(status.value, status.label.capitalize(), counts.get(status.value, none)) for status in PipelineRun.Status
    ]


_ACTIVE: dict[str, Statement[Any]] = {
    PipelineRun.Status.ACTIVE.value: Statement(
        lambda: (
            PipelineRun.objects.filter(Among("item__department_id", "departments"), status=PipelineRun.Status.ACTIVE)
            .order_by()
            .values_list("pk")
        )
    )
}


def _rows(runs: list[PipelineRun]) -> list[RunRow]:
    states = AgentRun.Status
    counted = AgentRun.objects.filter(pipeline_run__in=runs).values("pipeline_run")
    found: dict[int, Mapping[str, Any]] = {
        row["pipeline_run"]: row
        for row in counted.annotate(
            done=Count("pk", filter=Q(status=states.DONE)),
            failed=Count("pk", filter=Q(status=states.FAILED)),
            active=Count("pk", filter=Q(status__in=AgentRun.ACTIVE)),
            # Kept in step with its calls: no need to read those.
            units=Sum(in_units("cost_usd")),
        ).order_by()
    }
    nothing = {"done": 0, "failed": 0, "active": 0, "units": 0}
    rows = []
    for run in runs:
        sums = found.get(run.pk, nothing)
        counts = (sums["done"], sums["failed"], sums["active"])
        rows.append(RunRow(run, show_pipeline_run(run), *counts, took_seconds(run), dollars(int(sums["units"]))))
    return rows


def took_seconds(run: PipelineRun) -> float:
    """How long it took, or has taken so far."""
    return ((run.ended_at or timezone.now()) - run.started_at).total_seconds()


@signed_in
@require_safe
def run_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """The page of one pipeline run; ``?step=<agent run>&tab=`` choose what the right side shows."""
    return render(request, "runs/detail.html", run_context(request, pk))


@signed_in
@require_safe
def run_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The changing part of the run page, which is all of it."""
    return render(request, "runs/_run.html", run_context(request, pk))


def run_context(request: HttpRequest, pk: int) -> dict[str, Any]:
    """Everything the run page shows, in a fixed number of queries."""
    pipelines = PipelineRun.objects.select_related("item")
    run = get_visible(request, pipelines, path="item__department_id", pk=pk)
    access, now = access_of(request), timezone.now()
    access.give_departments([run.item])
    halt = describe_halt(access.installation)
    steps = load_steps(run)
    calls, tools = load_calls(steps), load_tools(steps)
    verbs_first, verbs_more = item_verbs(run.item, access)
    within = request.GET.get("in", "")[:1_000]
    return {
        "access": access,
        "run": run,
        "item": run.item,
        "spec": run.item.department.spec,
        "shown": show_pipeline_run(run),
        "can_export": access.can(run.item.department_id, Member.Role.OPERATOR),
        "verbs_first": verbs_first,
        "verbs_more": verbs_more,
        "fall": build_waterfall(run, steps, calls, now, halt, tools=tools, entries=load_waits(run)),
        "took_seconds": took_seconds(run),
        "cost_usd": sum((call.cost_usd for call in calls), Decimal(0)),
        "has_estimates": any(call.is_estimate for call in calls),
        "call_count": len(calls),
        "tokens": sum(_tokens(call) for call in calls),
        "failed": sum(step.status == AgentRun.Status.FAILED for step in steps),
        "step": _step(request, steps, calls, tools, halt),
        "within": within,
        "keep": f"&{urlencode({'in': within})}" if within else "",
        "log": load_log(run, LOG_ROWS),
    }


def _tokens(call: ModelCall) -> int:
    kinds = (call.cache_write_5m_tokens, call.cache_write_1h_tokens, call.cache_read_tokens)
    return call.input_tokens + sum(kinds) + call.output_tokens


def _step(
    request: HttpRequest, steps: list[AgentRun], calls: list[ModelCall], tools: list[ToolCall], halt: str
) -> StepView | None:
    """The chosen step; else the first that failed, else the first under way, else the last."""
    if not steps:
        return None
    chosen, tab = request.GET.get("step", ""), request.GET.get("tab", "")
    step = next((step for step in steps if str(step.pk) == chosen), None)
    is_chosen = step is not None
    if step is None:
        # Also for a step that this run has no longer: a page that is open must not stand still over it.
        by_urgency = (AgentRun.Status.FAILED, AgentRun.Status.RUNNING, AgentRun.Status.QUEUED)
        urgent = (step for status in by_urgency for step in steps if step.status == status)
        step = next(urgent, steps[-1])
    material = Material(
        calls=[call for call in calls if call.agent_run_id == step.pk],
        tools=[tool for tool in tools if tool.agent_run_id == step.pk],
    )
    return build_step_view(
        step,
        material,
        tab=tab if tab in [name for name, _ in TABS] else "",
        attempt=read_number(request.GET.get("attempt", "")),
        access=access_of(request),
        is_chosen=is_chosen,
        halt=halt,
    )
