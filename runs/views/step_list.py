"""The list of steps: agent runs by what became of them, and the way from one failure to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import DateTimeField, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.causes import Cause
from agents.models import Agent
from agents.pricing import load_price_book
from agents.statements import Among, Given, Statement
from runs.access import Access, access_of, signed_in
from runs.models import AgentRun, ModelCall, StatusCount
from runs.status_counts import Counted, count_up_to, read_counts
from runs.switches import describe_halt
from runs.views.answers import show
from runs.views.forms import read_number
from runs.views.paging import read_page
from runs.views.shown import Shown, show_agent_run
from runs.views.step_filters import (
    LOST,
    PERIOD_LABELS,
    STATUSES,
    StepFilters,
    begins,
    filter_steps,
    read_step_filters,
    steps_of,
    with_status,
)
from runs.views.windows import Window, read_window

_LIVE = (AgentRun.Status.QUEUED, AgentRun.Status.RUNNING, LOST, AgentRun.Status.FAILED)
"""Counted by the page itself, as they are now: they are few, or it says that they are many."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One line of the list of steps. ``model`` is that of its latest call, empty before the first."""

    run: AgentRun
    shown: Shown
    model: str
    took_seconds: float


@dataclass(frozen=True, slots=True)
class Chip:
    """A status to filter by, with how many there are; None where that was never counted."""

    value: str
    label: str
    counted: Counted | None
    is_of_now: bool = False
    """Whether it was counted for this page."""


@signed_in
@require_safe
def step_list(request: HttpRequest) -> HttpResponse:
    """Agent runs, newest first; filters in the address: status, agent, model, cause, text, since."""
    access, now = access_of(request), timezone.now()
    filters = read_step_filters(request.GET.dict())
    window = _read(request, filters, access, now)
    agents = {agent.pk: agent for agent in Agent.objects.filter(department__in=access.ids).order_by("pk")}
    access.give_departments([*window.page.rows, *agents.values()])
    for run in window.page.rows:
        run.agent = agents[run.agent_id]
    context = {
        "access": access,
        "filters": filters,
        "page": window.page,
        "looked_to": window.looked_to,
        "rows": _rows(window.page.rows, now, describe_halt(access.installation)),
        # Nobody has counted how many steps of a status fit other filters too; any figure would be of other steps.
        "chips": [Chip(*each, None) for each in STATUSES] if filters.is_any else count_steps(access, now),
        "agents": list({agent.slug: agent.title for agent in agents.values()}.items()),
        "models": sorted(load_price_book().models),
        "causes": [(value, label) for value, label in Cause.choices if value],
        "periods": PERIOD_LABELS.items(),
    }
    return show(request, "runs/steps.html", "runs/_step_list.html", context)


@signed_in
@require_safe
def next_failure(request: HttpRequest) -> HttpResponse:
    """On to the failed step that was queued before ``?from=``, within the filters that ``?in=`` has; newest first."""
    access = access_of(request)
    within = request.GET.get("in", "")[:1_000]
    filters = replace(read_step_filters(QueryDict(within).dict()), status=AgentRun.Status.FAILED.value)
    before = read_number(request.GET.get("from", ""))
    rows = filter_steps(filters, access, timezone.now()).order_by("-pk")
    found = (rows.filter(pk__lt=before) if before is not None else rows).first()
    if found is not None:
        query = urlencode({"step": found.pk, "tab": "error", **({"in": within} if within else {})})
        return redirect(f"{reverse('runs:detail', args=[found.pipeline_run_id])}?{query}")
    chosen = " that the filters let through" if filters.is_any else ""
    text = f"This was the last failed step{chosen}." if before is not None else f"No step has failed{chosen}."
    messages.info(request, text)
    return redirect(f"{reverse('runs:steps')}?{filters.query}")


def count_steps(access: Access, now: datetime) -> list[Chip]:
    """Every status with its count."""
    kept = read_counts(StatusCount.Rows.AGENT_RUNS, access.ids)
    none = Counted(0) if kept else None
    live = count_up_to(_COUNTED, departments=access.ids, now=now)
    return [
        Chip(value, label, live.get(value) or kept.get(value, none), is_of_now=value in live)
        for value, label in STATUSES
    ]


def _in_status(value: str) -> Statement[Any]:
    everything = AgentRun.objects.filter(Among("department_id", "departments"))
    return Statement(lambda: with_status(everything, value, Given("now", DateTimeField())).order_by().values_list("pk"))


_COUNTED = {value: _in_status(value) for value in _LIVE}


def _read(request: HttpRequest, filters: StepFilters, access: Access, now: datetime) -> Window[AgentRun]:
    rows = _selected(filter_steps(filters, access, now))
    if not filters.is_slow:
        return Window(read_page(request, rows), 0)
    since = begins(filters, now) if filters.since else None
    return read_window(request, rows, steps_of(access), ends=lambda run: since is not None and run.queued_at < since)


def _selected(rows: QuerySet[AgentRun]) -> QuerySet[AgentRun]:
    return rows.select_related("item__automation_by")


def _rows(runs: Sequence[AgentRun], now: datetime, halt: str) -> list[StepRow]:
    calls = ModelCall.objects.filter(agent_run__in=[run.pk for run in runs]).order_by("attempt", "number")
    names = calls.values_list("agent_run", "model_used", "model_asked")
    models = {run_id: used or asked for run_id, used, asked in names}
    return [
        StepRow(
            run=run,
            shown=show_agent_run(run, now, halt),
            model=models.get(run.pk, ""),
            took_seconds=((run.ended_at or now) - run.queued_at).total_seconds(),
        )
        for run in runs
    ]
