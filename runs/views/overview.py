"""The overview: what is on the desks, who has to do something, what it costs today, what is running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.models import BudgetPeriod, Department, ModelState
from agents.spec import DepartmentSpec, StatusSpec
from runs.access import Access, access_of, signed_in
from runs.models import AgentRun, Item, ModelCall, PipelineRun, Review, ShiftSlot
from runs.releases import newer_migrations
from runs.views.menu import item_list_url
from runs.views.shown import Shown, show_agent_run, show_pipeline_run

SHOWN_ROWS = 12


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many items have one status; ``url`` lists them."""

    status: StatusSpec
    count: int
    url: str


@dataclass(frozen=True, slots=True)
class Spend:
    """What model calls cost since the day began. ``reserved`` is held for calls under way."""

    usd: Decimal
    estimated_usd: Decimal
    reserved_usd: Decimal
    calls: int
    by_model: Sequence[Mapping[str, Any]]


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
    reviews = Review.objects.filter(department__in=access.ids, status=Review.Status.OPEN)
    by_kind = _reviews_by_kind(access)
    open_reviews = sum(count for _, count in by_kind)
    return {
        "access": access,
        "now": now,
        "desks": count_statuses(access),
        "reviews": reviews.select_related("item", "item__department").order_by("-risk", "deadline", "pk")[:SHOWN_ROWS],
        "reviews_by_kind": by_kind,
        "open_reviews": open_reviews,
        "more_reviews": max(open_reviews - SHOWN_ROWS, 0),
        "drafted": _drafted(access),
        "spend": _spend(access, day_start(access, now)),
        "budgets": _budgets(access, now),
        "work": _work(access, now),
        "running": _running(access, now),
        "finished": _finished(access),
        "shifts": _shifts(now),
        "newer_migrations": len(newer_migrations()),
        "schedules": [department for department in access.shown if department.schedule],
        "models": ModelState.objects.filter(_troubled(now)).order_by("model"),
        "staged_items": _staged(access).exists(),
        "waiting_items": Item.objects.filter(
            department__in=access.ids, automation=Item.Automation.ACTIVE, route_due_at__lte=now
        ).count(),
    }


def day_start(access: Access, now: datetime) -> datetime:
    """When today began: in the time zone of the department if one is shown, else in UTC."""
    zone = ZoneInfo(access.current.time_zone if access.current else "UTC")
    return now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)


def count_statuses(access: Access) -> list[tuple[DepartmentSpec, list[StatusCount]]]:
    """For each kind at work its statuses in the kind's order, each with how many items have it; one query."""
    rows = Item.objects.filter(department__in=access.ids).values_list("department_id", "status")
    counts: dict[tuple[str, str], int] = {}
    kinds = {department.pk: department.kind for department in access.shown}
    for department_id, status, count in rows.annotate(count=Count("pk")).order_by():
        key = (kinds[department_id], status)
        counts[key] = counts.get(key, 0) + count
    return [(spec, _status_counts(spec, counts)) for spec in _specs(access.shown)]


def _specs(departments: tuple[Department, ...]) -> list[DepartmentSpec]:
    found: dict[str, DepartmentSpec] = {}
    for department in departments:
        try:
            found[department.kind] = department.spec
        except LookupError:
            continue
    return [found[kind] for kind in sorted(found)]


def _drafted(access: Access) -> list[tuple[DepartmentSpec, str]]:
    """Of each kind that has the status: where its items with a draft to approve are listed."""
    kinds = [spec for spec in _specs(access.shown) if any(status.slug == "drafted" for status in spec.statuses)]
    return [(spec, f"{item_list_url(spec)}?{urlencode({'status': 'drafted'})}") for spec in kinds]


def _status_counts(spec: DepartmentSpec, counts: dict[tuple[str, str], int]) -> list[StatusCount]:
    url = item_list_url(spec)
    known = [status.slug for status in spec.statuses]
    slugs = known + sorted(slug for kind, slug in counts if kind == spec.kind and slug not in known)
    return [
        StatusCount(spec.status_spec(slug), counts[spec.kind, slug], f"{url}?{urlencode({'status': slug})}")
        for slug in slugs
        if (spec.kind, slug) in counts
    ]


def _staged(access: Access) -> QuerySet[Item]:
    """Items that nobody has looked at and that are not due: an import has them until it ends."""
    return Item.objects.filter(
        ~Exists(PipelineRun.objects.filter(item=OuterRef("pk"))),
        department__in=access.ids,
        status="new",
        automation=Item.Automation.ACTIVE,
        route_due_at=None,
    )


def _reviews_by_kind(access: Access) -> list[tuple[str, int]]:
    rows = Review.objects.filter(department__in=access.ids, status=Review.Status.OPEN).values_list("kind")
    counts = rows.annotate(count=Count("pk")).order_by("-count")
    return [(Review.Kind(kind).label, count) for kind, count in counts]


def _spend(access: Access, since: datetime) -> Spend:
    calls = ModelCall.objects.filter(department__in=access.ids, started_at__gte=since)
    rows = list(
        calls.values("model_asked")
        .annotate(
            usd=Sum("cost_usd"),
            estimated=Sum("cost_usd", filter=Q(is_estimate=True)),
            reserved=Sum("reserved_usd", filter=Q(status=ModelCall.Status.STARTED)),
            calls=Count("pk"),
        )
        .order_by("-usd")
    )
    return Spend(
        usd=sum((row["usd"] for row in rows), Decimal(0)),
        estimated_usd=sum((row["estimated"] or Decimal(0) for row in rows), Decimal(0)),
        reserved_usd=sum((row["reserved"] or Decimal(0) for row in rows), Decimal(0)),
        calls=sum(row["calls"] for row in rows),
        by_model=rows,
    )


def _budgets(access: Access, now: datetime) -> list[BudgetPeriod]:
    """The budgets of whole departments that run now, the fullest first."""
    periods = BudgetPeriod.objects.filter(
        budget__department__in=access.ids,
        budget__agent=None,
        budget__model="",
        budget__is_enabled=True,
        budget__limit_usd__isnull=False,
        starts_at__lte=now,
        ends_at__gt=now,
    )
    return list(periods.select_related("budget", "budget__department").order_by("ends_at")[:SHOWN_ROWS])


def _work(access: Access, now: datetime) -> dict[str, int]:
    """Agent runs that are queued, running under a live lease, or lost."""
    runs = AgentRun.objects.filter(department__in=access.ids, status__in=AgentRun.ACTIVE)
    return runs.aggregate(
        queued=Count("pk", filter=Q(status=AgentRun.Status.QUEUED)),
        running=Count("pk", filter=Q(status=AgentRun.Status.RUNNING, lease_expires_at__gte=now)),
        lost=Count("pk", filter=Q(status=AgentRun.Status.RUNNING, lease_expires_at__lt=now)),
    )


def _running(access: Access, now: datetime) -> list[tuple[AgentRun, Shown]]:
    runs = (
        AgentRun.objects.filter(department__in=access.ids, status__in=AgentRun.ACTIVE)
        .select_related("agent", "item", "department")
        # "running" before "queued", then as the shifts take them.
        .order_by(F("status").desc(), "priority", "due_at", "pk")
    )
    return [(run, show_agent_run(run, now)) for run in runs[:SHOWN_ROWS]]


def _finished(access: Access) -> list[tuple[PipelineRun, Shown]]:
    runs = PipelineRun.objects.filter(item__department__in=access.ids).exclude(status=PipelineRun.Status.ACTIVE)
    return [(run, show_pipeline_run(run)) for run in runs.select_related("item").order_by("-pk")[:SHOWN_ROWS]]


def _shifts(now: datetime) -> dict[str, Any]:
    """The places of the event loops that do the work: how many there are, are held, and carry how many calls."""
    slots = list(ShiftSlot.objects.all())
    held = [slot for slot in slots if slot.lease_expires_at is not None and slot.lease_expires_at > now]
    return {"places": len(slots), "held": len(held), "in_flight": sum(slot.in_flight for slot in held)}


def _troubled(now: datetime) -> Q:
    return ~Q(breaker=ModelState.Breaker.CLOSED) | Q(closed_until__gt=now)
