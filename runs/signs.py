"""Reads what ``runs.verdict`` judges: shifts, the queue, models, calls, mail and the database, as plain values.

A fixed number of queries, each of them over an index that holds only what is in question, or over the last rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import Count, DateTimeField, Min, Q
from django.utils.text import capfirst

from agents.models import Department, Installation, ModelState
from agents.statements import Among, Given, Statement
from runs import runbook
from runs.health import (
    BACKLOG,
    SILENT,
    STALE,
    Finding,
    QueueState,
    check_clock,
    check_database,
    due_items,
    look,
    read_queue,
)
from runs.models import AgentRun, Alert, ShiftSlot
from runs.switches import describe_state
from runs.traffic_signs import read_calls, read_mail
from runs.verdict import DatabaseSigns, Part, Problem, Signs, State, WorkSigns

Found = tuple[Part, Problem]


class Rows(NamedTuple):
    """What a page shows besides the verdict that rests on it: the slots of shifts, the open alerts of the departments
    and of the installation, the models of the departments' keys that are closed or take fewer calls, the queue (None
    with Redis)."""

    slots: Sequence[ShiftSlot]
    alerts: Sequence[Alert]
    models: Sequence[ModelState]
    queue: QueueState | None


def read_rows(departments: Sequence[Department], *, now: datetime) -> Rows:
    """Four queries. The alerts come without their departments."""
    return Rows(
        slots=_SLOTS.objects(),
        alerts=_ALERTS.objects(departments=[department.pk for department in departments]),
        models=_TROUBLED.objects(keys={department.api_key_env for department in departments}, now=now),
        queue=read_queue(now),
    )


_SLOTS = Statement(lambda: ShiftSlot.objects.all())
_ALERTS = Statement(
    lambda: Alert.objects.filter(Q(Among("department_id", "departments")) | Q(department=None), state=Alert.State.OPEN)
)
_TROUBLED = Statement(
    lambda: ModelState.objects.filter(
        ~Q(breaker=ModelState.Breaker.CLOSED) | Q(closed_until__gt=Given("now", DateTimeField())),
        Among("api_key_env", "keys"),
    ).order_by("model")
)


def read_signs(
    departments: Sequence[Department], installation: Installation, *, now: datetime, rows: Rows | None = None
) -> Signs:
    """What is known of the installation, and of the models, the mail and the alerts of these departments.

    ``rows``: of the same departments, where the page has read them.
    """
    slots, alerts, models, queue = rows or read_rows(departments, now=now)
    base, findings = _database(slots)
    ids = [department.pk for department in departments]
    halted = _halted([installation, *departments])
    problems = [*findings, *halted, *_lines(departments, alerts), *_models(models, alerts, now)]
    return Signs(
        now=now,
        work=_work(slots, queue, now),
        calls=read_calls(ids, now=now),
        mail=read_mail(ids, now=now),
        database=base,
        problems=(*problems, *_told(alerts)),
    )


# --- The database ---------------------------------------------------------------------------------------------


def _database(slots: Iterable[ShiftSlot]) -> tuple[DatabaseSigns, list[Found]]:
    findings = look((check_database, check_clock))
    problems: list[Found] = [("database", _finding(finding)) for finding in findings if not finding.is_well]
    beats = (slot.heartbeat_at for slot in slots if slot.heartbeat_at is not None)
    return DatabaseSigns(connection.vendor, max(beats, default=None)), problems


def _finding(finding: Finding) -> Problem:
    steps = {
        "database": "Shifts take up nothing until this is done; nothing is lost.",
        "clock": "Leases and due times are given by the database's clock, so work goes on; pages may show odd times.",
    }
    return Problem(
        section=runbook.CHECKS.get(finding.check, runbook.HOME),
        says=finding.text,
        next_step=steps.get(finding.check, ""),
        will_heal=False,
        state="warning" if finding.check == "clock" else "bad",
    )


# --- Us -------------------------------------------------------------------------------------------------------


def _work(every: Iterable[ShiftSlot], queue: QueueState | None, now: datetime) -> WorkSigns:
    slots = [slot for slot in every if slot.number <= settings.SHIFTS]
    alive = [slot for slot in slots if slot.token and slot.heartbeat_at and slot.heartbeat_at > now - SILENT]
    heard = [slot.heartbeat_at for slot in slots if slot.heartbeat_at is not None]
    empty = [slot.heartbeat_at for slot in slots if slot not in alive and slot.heartbeat_at is not None]
    task_at = queue.oldest_at if queue is not None else None
    item_at = min((at for (at,) in _DUE.rows(limit=1, now=now - BACKLOG)), default=None)
    lost, lost_since = next(iter(_LOST.rows(before=now - STALE)), (0, None))
    return WorkSigns(
        wanted=settings.SHIFTS,
        alive=len(alive),
        heard_at=max(heard, default=None),
        empty_since=min(empty, default=None),
        task_waits_since=task_at if task_at is not None and now - task_at > STALE else None,
        item_waits_since=item_at,
        lost=lost,
        lost_since=lost_since,
    )


_DUE = Statement(lambda: due_items(Given("now", DateTimeField())).order_by("route_due_at").values_list("route_due_at"))
_LOST = Statement(
    lambda: (
        AgentRun.objects.filter(status=AgentRun.Status.RUNNING, lease_expires_at__lt=Given("before", DateTimeField()))
        .order_by()
        .values_list("status")
        .annotate(count=Count("pk"), at=Min("lease_expires_at"))
        .values_list("count", "at")
    )
)


def _halted(switches: Iterable[Department | Installation]) -> list[Found]:
    """What a person has switched off: work, or only what leaves."""
    found: list[Found] = []
    for row in switches:
        if row.state == Department.State.RUNNING:
            continue
        is_mail = row.state == Department.State.HOLDING_SENDS
        says = f"{_lower(describe_state(row))}"
        problem = Problem(
            section="sending-is-held" if is_mail else "somebody-has-switched-it-off",
            says=says,
            next_step="It stays so until an administrator switches it on. Nothing is lost.",
            will_heal=False,
            state="warning",
            since=row.state_since,
            link="switches",
        )
        found.append(("mail" if is_mail else "us", problem))
    return found


# --- The model ------------------------------------------------------------------------------------------------


def _lines(departments: Iterable[Department], alerts: Sequence[Alert]) -> list[Found]:
    since = {alert.department_id: alert.first_at for alert in alerts if alert.kind == Alert.Kind.STOP_THE_LINE}
    return [
        (
            "model",
            Problem(
                section="the-line-stands-still",
                says=f"the API does not accept the key of {department}. {department.stopped_by_error}",
                next_step=f"The API is asked once a minute. Look at {department.api_key_env} and at its credit.",
                will_heal=False,
                since=since.get(department.pk),
                next_at=department.next_probe_at,
            ),
        )
        for department in departments
        if department.stopped_by_error
    ]


def _models(models: Iterable[ModelState], alerts: Sequence[Alert], now: datetime) -> list[Found]:
    since = {alert.key: alert.first_at for alert in alerts if alert.kind == Alert.Kind.BREAKER}
    return [("model", _model(state, since.get(f"breaker:{state.model}"), now)) for state in models]


def _model(state: ModelState, since: datetime | None, now: datetime) -> Problem:
    if state.breaker == ModelState.Breaker.CLOSED:
        return Problem(
            section="the-model-is-busy",
            says=f"{state.model} takes no calls for a moment. {capfirst(state.reason)}".strip(),
            next_step="Calls start again by themselves, fewer at once.",
            will_heal=True,
            state="warning",
            since=state.changed_at,
            next_at=state.closed_until,
        )
    is_probing = state.breaker == ModelState.Breaker.PROBING
    if not is_probing and state.closed_until is not None and state.closed_until < now - STALE:
        # A step that waited for it would have tried it by now.
        return Problem(
            section="the-breaker-is-open",
            says=f"{state.model} was not working when it was tried last. {capfirst(state.reason)}".strip(),
            next_step="No step has asked for it since. The next one that does tries it.",
            will_heal=True,
            state="warning",
            since=since or state.changed_at,
        )
    return Problem(
        section="the-breaker-is-open",
        says=f"{state.model} is not working. {capfirst(state.reason)}".strip(),
        next_step="One call is trying it now; it works again as soon as that is answered."
        if is_probing
        else "One call tries it; fallback models stand in where there are any, other runs wait and lose nothing.",
        will_heal=True,
        since=since or state.changed_at,
        next_at=None if is_probing else state.closed_until,
    )


# --- What was written down ------------------------------------------------------------------------------------


def _told(alerts: Iterable[Alert]) -> list[Found]:
    """Alerts about us and the mail that no other sign shows."""
    found: list[Found] = []
    for alert in alerts:
        section = runbook.section_of(alert)
        if alert.key.startswith("undecided:"):
            found.append(("us", _alert(alert, section, "warning")))
        elif alert.key.startswith("channel:"):
            found.append(("mail", _alert(alert, section, "bad")))
        elif alert.key == "unusual_sends":
            found.append(("mail", _alert(alert, section, "warning")))
    return found


def _alert(alert: Alert, section: str, state: State) -> Problem:
    return Problem(
        section=section,
        says=_lower(alert.text),
        next_step=alert.next_step,
        will_heal=False,
        state=state,
        since=alert.first_at,
    )


def _lower(text: str) -> str:
    return f"the{text[3:]}" if text.startswith("The ") else text
