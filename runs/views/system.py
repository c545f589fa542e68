"""The system page: who works, what waits, what is broken and what healed by itself; and what a restore has held."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Max, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Department, Member, ModelState
from runs import departures, restore
from runs.access import Access, access_of, get_visible, may_see_system, require, signed_in
from runs.health import SILENT, due_items, read_queue
from runs.models import AgentRun, LogEntry, OutboxMessage, ShiftSlot
from runs.views.alerts import ShownAlert, open_alerts, show_alerts
from runs.views.answers import answer
from runs.views.shown import Shown, show_agent_run
from runs.views.verdicts import read_verdict

ROWS = 12
RECENT_LINES = 50_000
"""So many lines of the log are searched at the most: it has no index by kind, and may have millions."""
HEALED = ("lost", "healed", "retry", "restored")
Role = Member.Role

_SLOTS = {
    "at work": Shown("at work", "good", "circle-check", is_live=True),
    "handing over": Shown("being taken over", "progress", "refresh", is_live=True),
    "empty": Shown("empty", "bad", "circle-x", is_live=True),
}
_BREAKERS = {
    ModelState.Breaker.CLOSED: Shown("working", "good", "circle-check"),
    ModelState.Breaker.OPEN: Shown("not working", "bad", "circle-x", is_live=True),
    ModelState.Breaker.PROBING: Shown("being tried", "progress", "refresh", is_live=True),
}


@signed_in
@require_safe
def system(request: HttpRequest) -> HttpResponse:
    """The page."""
    return render(request, "runs/system.html", _context(request))


@signed_in
@require_safe
def system_panel(request: HttpRequest) -> HttpResponse:
    """The changing part of the page."""
    return render(request, "runs/_system.html", _context(request))


@signed_in
@require_safe
def system_restore(request: HttpRequest) -> HttpResponse:
    """What to check after a backup was restored, department by department."""
    return render(request, "runs/system_restore.html", _restore_context(request))


@signed_in
@require_safe
def system_restore_panel(request: HttpRequest) -> HttpResponse:
    """The changing part of that page."""
    return render(request, "runs/_system_restore.html", _restore_context(request))


@signed_in
@require_POST
def restore_release(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a department send again after a restore."""
    department = get_visible(request, Department.objects.all(), path="pk", pk=pk)
    user = require(request, department.pk, Role.ADMINISTRATOR)
    changed = restore.release_department(department=department, user=user, reason=request.POST.get("reason", ""))
    department.refresh_from_db()
    state = department.get_state_display()
    text = (
        f"{department} was released: it is {state}."
        if changed
        else f"{department} was released already: it is {state}."
    )
    return answer(request, text, changed=changed, url=reverse("runs:system_restore"))


@signed_in
@require_POST
def unsure_settle(request: HttpRequest, pk: int) -> HttpResponse:
    """Say whether a message had been sent before the restore: ``sent`` is ``yes`` or ``no``."""
    message = get_visible(request, OutboxMessage.objects.select_related("item"), pk=pk)
    user = require(request, message.department_id, Role.ADMINISTRATOR)
    said = request.POST.get("sent")
    if said not in ("yes", "no"):
        text, changed = "Say whether it had been sent.", False
    else:
        changed = departures.settle_unknown(message=message, user=user, was_sent=said == "yes")
        done = "It counts as sent." if said == "yes" else "It waits to be sent."
        text = f"{message.address}: {done}" if changed else f"{message.address}: somebody has decided already."
    return answer(request, text, changed=changed, url=reverse("runs:system_restore"))


def _context(request: HttpRequest) -> dict[str, Any]:
    """Everything the page shows, in a fixed number of queries."""
    if not may_see_system(request):
        raise Http404("This takes another role.")
    access, now = access_of(request), timezone.now()
    return {
        "access": access,
        "now": now,
        "verdict": read_verdict(access, now=now),
        "slots": _slots(now),
        "queue": read_queue(now),
        "due_items": due_items(now).count(),
        "leases": _leases(now),
        "endangered": _endangered(access, now),
        "models": [(state, _show_model(state, now)) for state in ModelState.objects.order_by("model", "api_key_env")],
        "breaker_history": _lines(access, ["breaker"]),
        "alerts": _alerts(access),
        "healings": _lines(access, HEALED),
        "schedules": [department for department in access.shown if department.schedule],
        "held": restore.held_departments(Department.objects.filter(pk__in=access.ids)),
    }


def _restore_context(request: HttpRequest) -> dict[str, Any]:
    if not may_see_system(request):
        raise Http404("This takes another role.")
    access = access_of(request)
    held = restore.held_departments(Department.objects.filter(pk__in=access.ids))
    return {"access": access, "held": [(each, access.can(each.department.pk, Role.ADMINISTRATOR)) for each in held]}


def _slots(now: datetime) -> list[tuple[ShiftSlot, Shown]]:
    """The places of shifts. One is at work while its holder is heard of, whatever its row says."""
    return [(slot, _SLOTS[_slot_state(slot, now)]) for slot in ShiftSlot.objects.filter(number__lte=settings.SHIFTS)]


def _slot_state(slot: ShiftSlot, now: datetime) -> str:
    if slot.token is None or slot.heartbeat_at is None or slot.heartbeat_at < now - SILENT:
        return "empty"
    return "at work" if slot.started_at is not None else "handing over"


def _leases(now: datetime) -> dict[str, int]:
    """How many agent runs are held, are held but were not renewed in time, and are lost."""
    soon = now + timedelta(seconds=settings.LEASE_SECONDS / 3)
    return AgentRun.objects.filter(status=AgentRun.Status.RUNNING).aggregate(
        running=Count("pk", filter=Q(lease_expires_at__gte=now)),
        expiring=Count("pk", filter=Q(lease_expires_at__gte=now, lease_expires_at__lt=soon)),
        lost=Count("pk", filter=Q(lease_expires_at__lt=now)),
    )


def _endangered(access: Access, now: datetime) -> list[tuple[AgentRun, Shown]]:
    """The runs behind those numbers that somebody might have to look at."""
    soon = now + timedelta(seconds=settings.LEASE_SECONDS / 3)
    runs = AgentRun.objects.filter(
        department__in=access.ids, status=AgentRun.Status.RUNNING, lease_expires_at__lt=soon
    ).select_related("agent", "item")
    return [(run, show_agent_run(run, now)) for run in runs.order_by("lease_expires_at")[:ROWS]]


def _show_model(state: ModelState, now: datetime) -> Shown:
    if state.breaker == ModelState.Breaker.CLOSED and state.closed_until is not None and state.closed_until > now:
        return Shown("takes no calls", "warning", "hourglass", is_live=True)
    return _BREAKERS[ModelState.Breaker(state.breaker)]


def _alerts(access: Access) -> list[ShownAlert]:
    """Open alerts, the latest first, each with whom it was told."""
    rows = open_alerts(access, sees_system=True).order_by("-last_at")[:ROWS]
    return show_alerts(list(rows), sees_system=True)


def _lines(access: Access, kinds: Sequence[str]) -> list[LogEntry]:
    """The newest lines of these kinds of the departments shown, and those that belong to the whole installation."""
    newest = LogEntry.objects.aggregate(pk=Max("pk"))["pk"] or 0
    lines = LogEntry.objects.filter(
        Q(department=None) | Q(department__in=access.ids), kind__in=kinds, pk__gt=newest - RECENT_LINES
    )
    return list(lines.select_related("item").order_by("-pk")[:ROWS])
