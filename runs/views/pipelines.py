"""Pipeline runs: the list, and the page of one with its waterfall, its steps and its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from runs.access import access_of, get_visible, signed_in
from runs.models import AgentRun, LogEntry, ModelCall, PipelineRun
from runs.views.answers import show
from runs.views.paging import read_page
from runs.views.shown import Shown, show_pipeline_run
from runs.views.stepview import TABS, StepView, build_step_view
from runs.views.waterfall import build_waterfall

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
    """Pipeline runs, newest first; ``?status=`` filters."""
    access = access_of(request)
    runs = PipelineRun.objects.filter(item__department__in=access.ids).select_related("item")
    status = request.GET.get("status", "")
    if status in PipelineRun.Status.values:
        runs = runs.filter(status=status)
    page = read_page(request, runs)
    context = {
        "access": access,
        "page": page,
        "rows": _rows(page.rows),
        "status": status,
        "statuses": [(s.value, s.label) for s in PipelineRun.Status],
    }
    return show(request, "runs/list.html", "runs/_list.html", context)


def _rows(runs: list[PipelineRun]) -> list[RunRow]:
    states = AgentRun.Status
    counted = AgentRun.objects.filter(pipeline_run__in=runs).values("pipeline_run")
    found: dict[int, Mapping[str, Any]] = {
        row["pipeline_run"]: row
        for row in counted.annotate(
            done=Count("pk", filter=Q(status=states.DONE)),
            failed=Count("pk", filter=Q(status=states.FAILED)),
            active=Count("pk", filter=Q(status__in=AgentRun.ACTIVE)),
        ).order_by()
    }
    calls = ModelCall.objects.filter(agent_run__pipeline_run__in=runs).values("agent_run__pipeline_run")
    costs = dict(calls.annotate(usd=Sum("cost_usd")).values_list("agent_run__pipeline_run", "usd").order_by())
    rows = []
    for run in runs:
        counts = found.get(run.pk, {"done": 0, "failed": 0, "active": 0})
        cost = costs.get(run.pk) or Decimal(0)
        counted_runs = (counts["done"], counts["failed"], counts["active"])
        rows.append(RunRow(run, show_pipeline_run(run), *counted_runs, took_seconds(run), cost))
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
    pipelines = PipelineRun.objects.select_related("item", "item__department")
    run = get_visible(request, pipelines, path="item__department_id", pk=pk)
    steps = list(
        run.agent_runs.select_related("agent", "item", "soul", "trigger", "department").order_by("queued_at", "pk")
    )
    calls = list(ModelCall.objects.filter(agent_run__in=steps).select_related("price").order_by("attempt", "number"))
    fall = build_waterfall(run, steps, calls, timezone.now())
    return {
        "access": access_of(request),
        "run": run,
        "shown": show_pipeline_run(run),
        "fall": fall,
        "took_seconds": took_seconds(run),
        "cost_usd": sum((call.cost_usd for call in calls), Decimal(0)),
        "has_estimates": any(call.is_estimate for call in calls),
        "call_count": len(calls),
        "tokens": sum(_tokens(call) for call in calls),
        "step": _step(request, steps, calls),
        # By item first: it is the indexed column, and an item has few runs.
        "log": LogEntry.objects.filter(item=run.item, pipeline_run=run)
        .select_related("agent_run__agent")
        .order_by("-pk")[:LOG_ROWS],
    }


def _tokens(call: ModelCall) -> int:
    kinds = (call.cache_write_5m_tokens, call.cache_write_1h_tokens, call.cache_read_tokens)
    return call.input_tokens + sum(kinds) + call.output_tokens


def _step(request: HttpRequest, steps: list[AgentRun], calls: list[ModelCall]) -> StepView | None:
    """The chosen step; else the first that failed, else the first under way, else the last."""
    chosen, tab = request.GET.get("step", ""), request.GET.get("tab", "")
    if not steps:
        return None
    step = next((step for step in steps if str(step.pk) == chosen), None)
    is_chosen = step is not None
    if step is None:
        # Also for a step that this run has no longer: a page that is open must not stand still over it.
        by_urgency = (AgentRun.Status.FAILED, AgentRun.Status.RUNNING, AgentRun.Status.QUEUED)
        urgent = (step for status in by_urgency for step in steps if step.status == status)
        step = next(urgent, steps[-1])
    is_known = tab in [name for name, _ in TABS]
    own = [call for call in calls if call.agent_run_id == step.pk]
    can_operate = access_of(request).can(step.department_id, "operator")
    return build_step_view(step, own, tab if is_known else "", can_operate=can_operate, is_chosen=is_chosen)
