"""The switch of a department and that of the installation: run, drain, hold sends, stop now.

A stop loses nothing: what runs loses its token, its stream is closed, and it is queued again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from agents.models import Department, Installation, Member
from agents.statements import Among, Statement, count_each
from runs import log
from runs.access import Access
from runs.alerts import close_alert
from runs.allowed import YES, Allowed, no
from runs.calls import abandon_calls
from runs.closing import wind_up_closed
from runs.commits import lock_items
from runs.database import now as database_now
from runs.models import Action, AgentRun, LogEntry, OutboxMessage
from runs.send_rates import KEY as UNUSUAL_SENDS

State = Department.State
BATCH = 50
NEEDS_SUPERUSER = "This takes a superuser, because it concerns every department."
VERBS = {State.RUNNING: "run", State.DRAINING: "drain", State.HOLDING_SENDS: "hold_sends", State.STOPPED: "stop"}
TOLD = {
    State.RUNNING: "lets {what} run",
    State.DRAINING: "drains {what}: what is under way is finished, nothing new starts",
    State.HOLDING_SENDS: "holds the sends of {what}: agents work on, nothing leaves the house",
    State.STOPPED: "stopped {what}",
}


@dataclass(frozen=True, slots=True)
class Consequence:
    """What switching to a state means now, in numbers."""

    running: int
    queued: int
    unsent: int


def can_switch(department: Department, state: str, access: Access | None = None) -> Allowed:
    """Switch a department to a state."""
    if department.state == state:
        return no(f"It is {department.get_state_display()} already.")
    if access is not None and not access.can(department.pk, Member.Role.ADMINISTRATOR):
        return no("This takes the role of an administrator.")
    return YES


def can_switch_all(installation: Installation, state: str, user: User | None = None) -> Allowed:
    """Switch the installation. It concerns every department, so it takes a superuser."""
    if installation.state == state:
        return no(f"It is {installation.get_state_display()} already.")
    if user is not None and not user.is_superuser:
        return no(NEEDS_SUPERUSER)
    return YES


def describe_halt(installation: Installation) -> str:
    """Why nothing starts in the whole installation, as a sentence; empty if it may."""
    return "" if installation.state in Department.WORKING else f"The installation {_is(installation)}."


def foresee(departments: Collection[int]) -> Consequence:
    """What is under way, waits, and waits to be sent in these departments; one query."""
    return Consequence(**count_each(_FORESEEN, departments=departments))


def _of(rows: QuerySet[Any], status: str) -> Statement[Any]:
    return Statement(lambda: rows.filter(Among("department_id", "departments"), status=status).values_list("pk"))


_FORESEEN: dict[str, Statement[Any]] = {
    "running": _of(AgentRun.objects.all(), AgentRun.Status.RUNNING),
    "queued": _of(AgentRun.objects.all(), AgentRun.Status.QUEUED),
    "unsent": _of(OutboxMessage.objects.all(), OutboxMessage.Status.PENDING),
}


def switch_department(*, department: Department, user: User, state: str, reason: str = "") -> Allowed:
    """Switch one department. Stopping takes back what runs before this returns."""
    with transaction.atomic():
        now = database_now()
        held = Department.objects.select_for_update(no_key=True).get(pk=department.pk)
        if not (answer := can_switch(held, state)):
            return answer
        _write(held, user, state, reason, now)
        held.save(update_fields=["state", "state_reason", "state_by", "state_since"])
        if state == State.RUNNING:
            close_alert(department=held, key=UNUSUAL_SENDS)
    _take_back_all()
    return YES


def switch_installation(*, user: User, state: str, reason: str = "") -> Allowed:
    """Switch every department at once; each keeps the state it has of its own beside that."""
    with transaction.atomic():
        now = database_now()
        Installation.objects.get_or_create(pk=1)
        held = Installation.objects.select_for_update(no_key=True).get(pk=1)
        if not (answer := can_switch_all(held, state)):
            return answer
        _write(held, user, state, reason, now)
        held.save()
    _take_back_all()
    return YES


def take_back_stopped() -> int:
    """Queue again what still runs where all is stopped; how many. Called by every shift, every few seconds.

    A shift that read the switch a moment too early may have claimed after the stop.
    """
    stopped = Department.objects.filter(state=State.STOPPED)
    if Installation.read().state == State.STOPPED:
        stopped = Department.objects.all()
    ids = list(stopped.values_list("pk", flat=True))
    rows = (
        AgentRun.objects.filter(department__in=ids, status=AgentRun.Status.RUNNING) if ids else AgentRun.objects.none()
    )
    found = dict(rows.order_by("pk").values_list("pk", "item_id")[:BATCH])
    if not found:
        return 0
    with transaction.atomic():
        now = database_now()
        items = lock_items(set(found.values()))
        held = AgentRun.objects.filter(pk__in=found, status=AgentRun.Status.RUNNING).select_related("agent")
        runs = list(held.select_for_update(of=("self",)).order_by("pk"))
        abandon_calls([run.pk for run in runs], now=now, error="All was stopped before the answer was seen.")
        AgentRun.objects.filter(pk__in=[run.pk for run in runs]).update(
            status=AgentRun.Status.QUEUED,
            due_at=now,
            lease_token=None,
            lease_expires_at=None,
            waiting_for="",
            waiting_since=None,
        )
        text = "{} was stopped with its department and is queued again."
        entries = [log.run_entry(run, "stopped", text.format(run.agent.title), at=now) for run in runs]
        log.write(entries + wind_up_closed(items.values(), now))
    return len(runs)


def _take_back_all() -> None:
    while take_back_stopped():
        pass


def _write(held: Department | Installation, user: User, state: str, reason: str, now: datetime) -> None:
    before = {"state": held.state, "reason": held.state_reason}
    is_one = isinstance(held, Department)
    held.state, held.state_reason, held.state_by, held.state_since = state, reason[:300], user, now
    Action.objects.create(
        department=held if isinstance(held, Department) else None,
        user=user,
        verb=VERBS[State(state)],
        target=f"department:{held.pk}" if is_one else "installation",
        before=before,
        after={"state": state},
        reason=reason[:300],
    )
    what = str(held) if is_one else "the installation"
    text = f"{user} {TOLD[State(state)].format(what=what)}{f': {reason}' if reason else '.'}"
    level = LogEntry.Level.INFO if state == State.RUNNING else LogEntry.Level.WARNING
    department = held if isinstance(held, Department) else None
    LogEntry.objects.create(department=department, kind="switch", text=text, level=level, at=now)


def _is(held: Department | Installation) -> str:
    """``is stopped, as olga decided: why``, without a full stop."""
    who = f", as {held.state_by} decided" if held.state_by else ""
    why = f": {held.state_reason.rstrip('.')}" if held.state_reason else ""
    return f"is {State(held.state).label}{who}{why}"


def describe_state(held: Department | Installation) -> str:
    """Who switched it to what and why, as a sentence."""
    what = held.name if isinstance(held, Department) else "The installation"
    return f"{what} {_is(held)}."
