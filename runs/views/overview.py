"""The overview: what needs a person, what is moving, what it costs, how healthy it is.

Everything leads to the list where it is. Sums come from counters and rollups; where they lag, the page says by how
much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.spec import DepartmentSpec, StatusSpec
from runs import agent_health
from runs.access import Access, access_of, may_see_system, signed_in
from runs.cost_sums import Cost, Period
from runs.costs import break_down
from runs.first_steps import read_steps
from runs.models import AgentRun, Item, ModelCall, PipelineRun, Review, ShiftSlot
from runs.money import dollars, in_units
from runs.review_queue import in_order
from runs.signs import read_rows
from runs.spending import load_fills
from runs.switches import describe_halt
from runs.views.kinds import kinds_of
from runs.views.menu import item_list_url
from runs.views.needs import find_needs
from runs.views.shown import Shown, show_agent_run, show_pipeline_run
from runs.views.verdicts import read_verdict

SHOWN_ROWS = 8
NEARLY_USED = 80
"""From so many percent on a budget of one agent or model is shown, too."""
LONGEST_CALL = timedelta(minutes=10)
"""No call takes longer than this, so no older one is under way."""
RECENT_RUNS = 20_000
"""So many of the newest pipeline runs are searched for those that have ended."""
MANY = 10_000
"""Steps and items that wait are counted no further than this."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How many items have one status; ``url`` lists them."""

    status: StatusSpec
    count: int
    url: str


@dataclass(frozen=True, slots=True)
class Flow:
    """The items of one kind: the stages they pass through in the kind's order, and where they have come to rest."""

    spec: DepartmentSpec
    stages: Sequence[Stage]
    ended: Sequence[Stage]


@dataclass(frozen=True, slots=True)
class Spend:
    """What today's (UTC) model calls cost, by agent, the dearest first. ``reserved`` is held for calls under way."""

    usd: Decimal
    estimated_usd: Decimal
    reserved_usd: Decimal
    calls: int
    by_agent: Sequence[Cost]


@signed_in
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """The page after signing in."""
    return render(request, "runs/overview.html", overview_context(request))


@signed_in
@require_safe
def overview_panel(request: HttpRequest) -> HttpResponse:
    """The changing part of the overview."""
    return render(request, "runs/_overview.html", overview_context(request))


def overview_context(request: HttpRequest) -> dict[str, Any]:
    """Everything the overview shows, in a fixed number of queries."""
    access, now = access_of(request), timezone.now()
    sees_system = may_see_system(request)
    hours, waiting = agent_health.load_hours(access.ids, now=now), _waiting(access, now)
    health = agent_health.load_agent_health(access.ids, now=now)
    access.give_departments(one.agent for one in health)
    rows = read_rows(access.shown, now=now)
    verdict = read_verdict(access, now=now, rows=rows)
    return {
        "access": access,
        "now": now,
        "may_see_system": sees_system,
        "verdict": verdict,
        "needs": find_needs(
            access, unsure=verdict.signs.mail.unsure, open_alerts=rows.alerts, may_see_system=sees_system
        ),
        "flows": read_flows(access),
        "reviews": _questions(access, now),
        "work": _work(access, now),
        "running": _running(access, now),
        "finished": _finished(access),
        "shifts": _shifts(rows.slots, now),
        "waiting_items": waiting,
        "staged_items": not waiting and _staged(access).exists(),
        "hours": hours,
        "hours_done": sum(hour.done for hour in hours),
        "hours_failed": sum(hour.failed for hour in hours),
        "hours_finished": sum(hour.finished for hour in hours),
        "counted_to": agent_health.counted_to(),
        "spend": _spend(access, now),
        **_budgets(access, now),
        "health": health,
        "breakers": rows.models,
        "open_steps": sum(not step.is_done for step in read_steps(access.current)) if access.current else 0,
        "schedules": [department for department in access.shown if department.schedule],
    }


def _questions(access: Access, now: datetime) -> list[Review]:
    """The next open questions in the order of the queue, those left out that somebody has snoozed."""
    mine = Review.objects.filter(department__in=access.ids, status=Review.Status.OPEN)
    # First which, then what they are about: joined at once, PostgreSQL reads all items to sort a few questions.
    ids = list(in_order(mine.exclude(snoozed_until__gt=now)).values_list("pk", flat=True)[:SHOWN_ROWS])
    return list(in_order(Review.objects.filter(pk__in=ids).select_related("item"))) if ids else []


# --- What is moving -------------------------------------------------------------------------------------------


def read_flows(access: Access) -> list[Flow]:
    """For each kind at work its statuses in the kind's order, each with how many items have it; one query."""
    rows = Item.objects.filter(department__in=access.ids).values_list("department_id", "status")
    counts: dict[tuple[str, str], int] = {}
    kinds = {department.pk: department.kind for department in access.shown}
    for department_id, status, count in rows.annotate(count=Count("*")).order_by():
        key = (kinds[department_id], status)
        counts[key] = counts.get(key, 0) + count
    return [_flow(spec, counts) for spec in kinds_of(access.shown)]


def _flow(spec: DepartmentSpec, counts: dict[tuple[str, str], int]) -> Flow:
    url = item_list_url(spec)
    known = [status.slug for status in spec.statuses]
    slugs = known + sorted(slug for kind, slug in counts if kind == spec.kind and slug not in known)
    stages = [
        Stage(spec.status_spec(slug), counts.get((spec.kind, slug), 0), f"{url}?{urlencode({'status': slug})}")
        for slug in slugs
    ]
    return Flow(
        spec,
        stages=[stage for stage in stages if not (stage.status.is_closing or stage.status.is_resting)],
        ended=[stage for stage in stages if stage.status.is_closing or stage.status.is_resting],
    )


def _work(access: Access, now: datetime) -> dict[str, int]:
    """Agent runs that are queued (no further than ``MANY``), running under a live lease, or lost."""
    mine = AgentRun.objects.filter(department__in=access.ids)
    queued = mine.filter(status=AgentRun.Status.QUEUED).order_by().values("pk")[: MANY + 1].count()
    running = mine.filter(status=AgentRun.Status.RUNNING).aggregate(
        running=Count("pk", filter=Q(lease_expires_at__gte=now)),
        lost=Count("pk", filter=Q(lease_expires_at__lt=now)),
    )
    return {"queued": queued, "is_many": queued > MANY, **running}


def _running(access: Access, now: datetime) -> list[tuple[AgentRun, Shown]]:
    """Steps under way, and behind them those that are next, as the shifts take them."""
    mine = AgentRun.objects.filter(department__in=access.ids).select_related("agent", "item__automation_by")
    runs = list(mine.filter(status=AgentRun.Status.RUNNING).order_by("-started_at", "pk")[:SHOWN_ROWS])
    queued = mine.filter(status=AgentRun.Status.QUEUED).order_by("priority", "due_at", "pk")
    runs += queued[: SHOWN_ROWS - len(runs)]
    access.give_departments(runs)
    halt = describe_halt(access.installation)
    return [(run, show_agent_run(run, now, halt)) for run in runs]


def _finished(access: Access) -> list[tuple[PipelineRun, Shown]]:
    newest = Subquery(PipelineRun.objects.order_by("-pk").values("pk")[:1])
    runs = PipelineRun.objects.filter(item__department__in=access.ids, pk__gt=newest - RECENT_RUNS)
    ended = runs.exclude(status=PipelineRun.Status.ACTIVE).select_related("item")
    return [(run, show_pipeline_run(run)) for run in ended.order_by("-pk")[:SHOWN_ROWS]]


def _shifts(slots: Sequence[ShiftSlot], now: datetime) -> dict[str, Any]:
    """The places of the event loops that do the work: how many there are, are held, and carry how many calls."""
    held = [slot for slot in slots if slot.lease_expires_at is not None and slot.lease_expires_at > now]
    return {"places": len(slots), "held": len(held), "in_flight": sum(slot.in_flight for slot in held)}


def _waiting(access: Access, now: datetime) -> int:
    """Items that a shift should look at, counted no further than ``MANY``."""
    due = Item.objects.filter(
        department__in=access.ids, automation=Item.Automation.ACTIVE, route_due_at__lte=now
    ).order_by()
    return due.values("pk")[: MANY + 1].count()


def _staged(access: Access) -> QuerySet[Item]:
    """Items that nobody has looked at and that are not due: an import has them until it ends."""
    return Item.objects.filter(
        ~Exists(PipelineRun.objects.filter(item=OuterRef("pk"))),
        department__in=access.ids,
        status="new",
        automation=Item.Automation.ACTIVE,
        route_due_at=None,
    )


# --- What it costs --------------------------------------------------------------------------------------------


def _spend(access: Access, now: datetime) -> Spend:
    today = now.astimezone(UTC).date()
    by_agent = break_down(access.shown, Period(today, today), "agent")
    under_way = ModelCall.objects.filter(
        department__in=access.ids, status=ModelCall.Status.STARTED, started_at__gte=now - LONGEST_CALL
    )
    return Spend(
        usd=sum((cost.usd for cost in by_agent), Decimal(0)),
        estimated_usd=sum((cost.estimated_usd for cost in by_agent), Decimal(0)),
        reserved_usd=dollars(int(under_way.aggregate(units=Sum(in_units("reserved_usd"), default=0))["units"])),
        calls=sum(cost.calls for cost in by_agent),
        by_agent=by_agent,
    )


def _budgets(access: Access, now: datetime) -> dict[str, Any]:
    """The budgets of whole departments and whichever are nearly used up or waited for, the fullest first."""
    fills = load_fills(access.shown, now=now)
    urgent = [
        fill
        for fill in fills
        if fill.waiting or fill.percent >= NEARLY_USED or (fill.budget.agent_id is None and not fill.budget.model)
    ]
    return {"budgets": urgent[:SHOWN_ROWS], "has_budgets": bool(fills)}
