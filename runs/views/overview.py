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

from django.db.models import DateTimeField, Exists, OuterRef, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.models import Agent, Department
from agents.spec import DepartmentSpec, StatusSpec
from agents.statements import Among, Given, Statement
from runs import agent_health
from runs.access import Access, access_of, may_see_system, signed_in
from runs.cost_sums import Cost, Period
from runs.costs import break_down
from runs.examples import REASON
from runs.facts import AGENTS
from runs.first_steps import read_steps
from runs.models import CostRollup, DepartmentHour, Item, ModelCall, ShiftSlot
from runs.money import dollars, in_units
from runs.signs import read_rows
from runs.spending import load_fills
from runs.status_counts import count_items
from runs.views.kinds import kinds_of
from runs.views.menu import item_list_url
from runs.views.moving import SHOWN_ROWS, count_work, read_moving
from runs.views.needs import find_needs
from runs.views.verdicts import read_verdict

SHOWN_BEGINNERS = 3
"""Of so many departments that begin it is said that first steps are open, where all departments are shown."""
NEARLY_USED = 80
"""From so many percent on a budget of one agent or model is shown, too."""
LONGEST_CALL = timedelta(minutes=10)
"""No call takes longer than this, so no older one is under way."""


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
    agents = AGENTS.objects(departments=access.ids)
    access.give_departments(agents)
    hours, health = agent_health.load_hours(access.ids, now=now), _health(agents, now)
    rows = read_rows(access.shown, now=now)
    verdict = read_verdict(access, now=now, rows=rows)
    moving = read_moving(access, agents, now)
    return {
        "access": access,
        "now": now,
        "may_see_system": sees_system,
        "verdict": verdict,
        "needs": find_needs(
            access, unsure=verdict.signs.mail.unsure, open_alerts=rows.alerts, may_see_system=sees_system
        ),
        "flows": read_flows(access),
        "reviews": moving.reviews,
        "work": count_work(access, now),
        "running": moving.running,
        "finished": moving.finished,
        "shifts": _shifts(rows.slots, now),
        "hours": hours,
        "hours_done": sum(hour.done for hour in hours),
        "hours_failed": sum(hour.failed for hour in hours),
        "hours_finished": sum(hour.finished for hour in hours),
        "counted_to": _counted_to(now),
        "spend": _spend(access, now),
        **_budgets(access, now),
        "health": health,
        "switched_off": [agent for agent in agents if not agent.is_enabled],
        "breakers": rows.models,
        "open_steps": _open_steps(access),
        "schedules": [department for department in access.shown if department.schedule],
    }


def _health(agents: Sequence[Agent], now: datetime) -> list[agent_health.AgentHealth]:
    return agent_health.health_of([agent for agent in agents if agent.is_enabled], now=now)


def _counted_to(now: datetime) -> datetime | None:
    """Until when the figures of the last 24 hours are counted; None if nothing of these hours is."""
    counted = agent_health.counted_to()
    return counted if counted is not None and counted > now - timedelta(hours=24) else None


def _open_steps(access: Access) -> list[tuple[Department, int]]:
    """How many first steps are open in the department that is chosen; where all are shown, in some that begin."""
    asked = access.shown
    if access.current is None:
        beginners = {pk for (pk,) in _BEGINNERS.rows(departments=access.ids)}
        asked = tuple(department for department in access.shown if department.pk in beginners)[:SHOWN_BEGINNERS]
    found = [(department, sum(not step.is_done for step in read_steps(department))) for department in asked]
    return [(department, count) for department, count in found if count]


def _beginners() -> QuerySet[Department, Any]:
    """Where no run has ended and no call was made, or items wait for a word on the first examples: few."""
    ended = DepartmentHour.objects.filter(department=OuterRef("pk"))
    paid = CostRollup.objects.filter(department=OuterRef("pk"))
    paused = Item.objects.filter(department=OuterRef("pk"), automation=Item.Automation.PAUSED)
    rows = Department.objects.filter(Among("pk", "departments"))
    return rows.filter(~(Exists(ended) | Exists(paid)) | Exists(paused.filter(automation_reason=REASON))).values_list(
        "pk"
    )


_BEGINNERS = Statement(_beginners)


# --- What is moving -------------------------------------------------------------------------------------------


def read_flows(access: Access) -> list[Flow]:
    """For each kind at work its statuses in the kind's order, each with how many items have it; one query."""
    counts: dict[tuple[str, str], int] = {}
    kinds = {department.pk: department.kind for department in access.shown}
    for (department_id, status), count in count_items(access.ids).items():
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


def _shifts(slots: Sequence[ShiftSlot], now: datetime) -> dict[str, Any]:
    """The places of the event loops that do the work: how many there are, are held, and carry how many calls."""
    held = [slot for slot in slots if slot.lease_expires_at is not None and slot.lease_expires_at > now]
    return {"places": len(slots), "held": len(held), "in_flight": sum(slot.in_flight for slot in held)}


# --- What it costs --------------------------------------------------------------------------------------------


def _spend(access: Access, now: datetime) -> Spend:
    today = now.astimezone(UTC).date()
    by_agent = break_down(access.shown, Period(today, today), "agent")
    units = sum(units for _, units in _RESERVED.rows(departments=access.ids, since=now - LONGEST_CALL))
    return Spend(
        usd=sum((cost.usd for cost in by_agent), Decimal(0)),
        estimated_usd=sum((cost.estimated_usd for cost in by_agent), Decimal(0)),
        reserved_usd=dollars(int(units)),
        calls=sum(cost.calls for cost in by_agent),
        by_agent=by_agent,
    )


_RESERVED = Statement(
    lambda: (
        ModelCall.objects.filter(
            Among("department_id", "departments"),
            status=ModelCall.Status.STARTED,
            started_at__gte=Given("since", DateTimeField()),
        )
        .order_by()
        .values_list("department_id")
        .annotate(units=Sum(in_units("reserved_usd")))
    )
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
