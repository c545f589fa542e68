"""The system page: who works, what waits, what is broken and what healed by itself; and what a restore has held."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import BigIntegerField, DateTimeField, Q, QuerySet, prefetch_related_objects
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Department, Member, ModelState
from agents.statements import Among, Given, Statement, count_each
from runs import departures, restore
from runs.access import Access, access_of, get_visible, may_see_system, require, signed_in
from runs.health import SILENT, due_items
from runs.models import AgentRun, Alert, LogEntry, OutboxMessage, ShiftSlot
from runs.signs import read_rows
from runs.views.alerts import ShownAlert, show_alerts
from runs.views.answers import answer
from runs.views.shown import Shown, show_agent_run
from runs.views.verdicts import read_verdict

ROWS = 12
RECENT_LINES = 50_000
"""So many lines of the log are searched at the most: it may have millions."""
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
    rows = read_rows(access.shown, now=now)
    counts = count_each(_COUNTED, now=now, soon=_soon(now))
    return {
        "access": access,
        "now": now,
        "verdict": read_verdict(access, now=now, rows=rows),
        "slots": _slots(rows.slots, now),
        "queue": rows.queue,
        "counts": counts,
        "endangered": _endangered(access, now) if counts["expiring"] or counts["lost"] else [],
        "models": [(state, _show_model(state, now)) for state in _MODELS.objects()],
        "alerts": _alerts(access, rows.alerts),
        **_lines(access),
        "schedules": [department for department in access.shown if department.schedule],
        "held": restore.held_departments(access.shown),
    }


def _restore_context(request: HttpRequest) -> dict[str, Any]:
    if not may_see_system(request):
        raise Http404("This takes another role.")
    access = access_of(request)
    held = restore.held_departments(access.shown)
    return {"access": access, "held": [(each, access.can(each.department.pk, Role.ADMINISTRATOR)) for each in held]}


def _slots(slots: Sequence[ShiftSlot], now: datetime) -> list[tuple[ShiftSlot, Shown]]:
    """The places of shifts. One is at work while its holder is heard of, whatever its row says."""
    return [(slot, _SLOTS[_slot_state(slot, now)]) for slot in slots if slot.number <= settings.SHIFTS]


def _slot_state(slot: ShiftSlot, now: datetime) -> str:
    if slot.token is None or slot.heartbeat_at is None or slot.heartbeat_at < now - SILENT:
        return "empty"
    return "at work" if slot.started_at is not None else "handing over"


def _soon(now: datetime) -> datetime:
    """A lease that ends before was not renewed in time."""
    return now + timedelta(seconds=settings.LEASE_SECONDS / 3)


def _held() -> QuerySet[AgentRun]:
    return AgentRun.objects.filter(status=AgentRun.Status.RUNNING).order_by()


_NOW, _SOON = Given("now", DateTimeField()), Given("soon", DateTimeField())
_COUNTED: dict[str, Statement[Any]] = {
    "due_items": Statement(lambda: due_items(_NOW).order_by().values_list("pk")),
    "running": Statement(lambda: _held().filter(lease_expires_at__gte=_NOW).values_list("pk")),
    "expiring": Statement(
        lambda: _held().filter(lease_expires_at__gte=_NOW, lease_expires_at__lt=_SOON).values_list("pk")
    ),
    "lost": Statement(lambda: _held().filter(lease_expires_at__lt=_NOW).values_list("pk")),
}
"""Of the whole installation: items to decide on, and agent runs that are held, are held but were not renewed in time,
and are lost."""
_MODELS = Statement(lambda: ModelState.objects.order_by("model", "api_key_env"))


def _endangered(access: Access, now: datetime) -> list[tuple[AgentRun, Shown]]:
    """The runs behind those numbers that somebody might have to look at."""
    runs = AgentRun.objects.filter(
        department__in=access.ids, status=AgentRun.Status.RUNNING, lease_expires_at__lt=_soon(now)
    ).select_related("agent", "item")
    return [(run, show_agent_run(run, now)) for run in runs.order_by("lease_expires_at")[:ROWS]]


def _show_model(state: ModelState, now: datetime) -> Shown:
    if state.breaker == ModelState.Breaker.CLOSED and state.closed_until is not None and state.closed_until > now:
        return Shown("takes no calls", "warning", "hourglass", is_live=True)
    return _BREAKERS[ModelState.Breaker(state.breaker)]


def _alerts(access: Access, alerts: Sequence[Alert]) -> list[ShownAlert]:
    """Of the open alerts the latest, each with whom it was told."""
    latest = sorted(alerts, key=lambda alert: alert.last_at, reverse=True)[:ROWS]
    access.give_departments(latest)
    return show_alerts(latest, sees_system=True)


def _lines(access: Access) -> dict[str, list[LogEntry]]:
    """The newest lines of some kinds of the departments shown, and those that belong to the whole installation."""
    newest = next((pk for (pk,) in _NEWEST.rows(limit=1)), 0)
    whose: dict[str, Any] = {"departments": access.ids, "behind": newest - RECENT_LINES}
    breakers = _OF_KINDS.objects(limit=ROWS, kinds=["breaker"], **whose)
    healings = _OF_KINDS.objects(limit=ROWS, kinds=HEALED, **whose)
    prefetch_related_objects(healings, "item")
    return {"breaker_history": breakers, "healings": healings}


_NEWEST = Statement(lambda: LogEntry.objects.order_by("-pk").values_list("pk"))
_OF_KINDS = Statement(
    lambda: LogEntry.objects.filter(
        Q(department=None) | Q(Among("department_id", "departments")),
        Among("kind", "kinds"),
        pk__gt=Given("behind", BigIntegerField()),
    ).order_by("-pk")
)
