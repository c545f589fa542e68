"""Reads what ``runs.verdict`` judges: shifts, the queue, models, calls, mail and the database, as plain values.

A fixed number of queries, each of them over an index that holds only what is in question, or over the last rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import Count, Min, OuterRef, Q, Subquery

from agents.causes import Cause
from agents.models import Department, Installation, ModelState
from runs import runbook
from runs.health import BACKLOG, SILENT, STALE, Finding, check_clock, check_database, due_items, look, read_queue
from runs.models import AgentRun, Alert, Channel, ModelCall, OutboxMessage, ShiftSlot
from runs.switches import describe_state
from runs.verdict import FRESH, CallSigns, DatabaseSigns, MailSigns, Part, Problem, Signs, State, WorkSigns

RECENT_CALLS = 200
OVERDUE = timedelta(minutes=2)
Found = tuple[Part, Problem]


class Rows(NamedTuple):
    """What a page shows besides the verdict that rests on it: the slots of shifts, the open alerts of the departments
    and of the installation, the models of the departments' keys that are closed or take fewer calls."""

    slots: Sequence[ShiftSlot]
    alerts: Sequence[Alert]
    models: Sequence[ModelState]


def read_rows(departments: Sequence[Department], *, now: datetime) -> Rows:
    """Three queries. The alerts come without their departments."""
    concerned = Q(department__in=[department.pk for department in departments]) | Q(department=None)
    troubled = ~Q(breaker=ModelState.Breaker.CLOSED) | Q(closed_until__gt=now)
    keys = {department.api_key_env for department in departments}
    return Rows(
        slots=list(ShiftSlot.objects.all()),
        alerts=list(Alert.objects.filter(concerned, state=Alert.State.OPEN)),
        models=list(ModelState.objects.filter(troubled, api_key_env__in=keys).order_by("model")),
    )


def read_signs(
    departments: Sequence[Department], installation: Installation, *, now: datetime, rows: Rows | None = None
) -> Signs:
    """What is known of the installation, and of the models, the mail and the alerts of these departments.

    ``rows``: of the same departments, where the page has read them.
    """
    slots, alerts, models = rows or read_rows(departments, now=now)
    base, findings = _database(slots)
    ids = [department.pk for department in departments]
    halted = _halted([installation, *departments])
    problems = [*findings, *halted, *_lines(departments, alerts), *_models(models, alerts)]
    return Signs(
        now=now,
        work=_work(slots, now),
        calls=_calls(ids, now),
        mail=_mail(ids, now),
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


def _work(every: Iterable[ShiftSlot], now: datetime) -> WorkSigns:
    slots = [slot for slot in every if slot.number <= settings.SHIFTS]
    alive = [slot for slot in slots if slot.token and slot.heartbeat_at and slot.heartbeat_at > now - SILENT]
    heard = [slot.heartbeat_at for slot in slots if slot.heartbeat_at is not None]
    empty = [slot.heartbeat_at for slot in slots if slot not in alive and slot.heartbeat_at is not None]
    queue = read_queue(now)
    task_at = queue.oldest_at if queue is not None else None
    item_at = due_items(now - BACKLOG).aggregate(at=Min("route_due_at"))["at"]
    lost = AgentRun.objects.filter(status=AgentRun.Status.RUNNING, lease_expires_at__lt=now - STALE)
    lost_found = lost.aggregate(count=Count("pk"), at=Min("lease_expires_at"))
    return WorkSigns(
        wanted=settings.SHIFTS,
        alive=len(alive),
        heard_at=max(heard, default=None),
        empty_since=min(empty, default=None),
        task_waits_since=task_at if task_at is not None and now - task_at > STALE else None,
        item_waits_since=item_at,
        lost=lost_found["count"],
        lost_since=lost_found["at"],
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


def _models(models: Iterable[ModelState], alerts: Sequence[Alert]) -> list[Found]:
    since = {alert.key: alert.first_at for alert in alerts if alert.kind == Alert.Kind.BREAKER}
    return [("model", _model(state, since.get(f"breaker:{state.model}"))) for state in models]


def _model(state: ModelState, since: datetime | None) -> Problem:
    if state.breaker == ModelState.Breaker.CLOSED:
        return Problem(
            section="the-model-is-busy",
            says=f"{state.model} takes no calls for a moment. {state.reason}".strip(),
            next_step="Calls start again by themselves, fewer at once.",
            will_heal=True,
            state="warning",
            since=state.changed_at,
            next_at=state.closed_until,
        )
    is_probing = state.breaker == ModelState.Breaker.PROBING
    return Problem(
        section="the-breaker-is-open",
        says=f"{state.model} is not working. {state.reason}".strip(),
        next_step="One call is trying it now; it works again as soon as that is answered."
        if is_probing
        else "One call tries it; fallback models stand in where there are any, other runs wait and lose nothing.",
        will_heal=True,
        since=since or state.changed_at,
        next_at=None if is_probing else state.closed_until,
    )


def _calls(ids: Sequence[int], now: datetime) -> CallSigns:
    rows = ModelCall.objects.order_by("-pk").values_list("department_id", "status", "cause", "error", "ended_at")
    mine = set(ids)
    latest = [row[1:] for row in rows[: 2 * RECENT_CALLS] if row[0] in mine][:RECENT_CALLS]
    ended = [(cause, error, at) for status, cause, error, at in latest if status == ModelCall.Status.FINISHED and at]
    recent = [row for row in ended if row[2] > now - FRESH]
    failed = [row for row in recent if row[0] or row[1]]
    good = [at for cause, error, at in ended if not cause and not error]
    last_good_at = max(good, default=None)
    since = [at for _, _, at in failed if last_good_at is None or at > last_good_at]
    # The API has answered, so the call names no cause; what is wrong with the answer stands beside it.
    causes = Counter(Cause(cause or Cause.INVALID).label for cause, _, _ in failed)
    return CallSigns(
        last_at=max((at for _, _, at in ended), default=None) or _last_call(ids),
        last_good_at=last_good_at,
        ended=len(recent),
        failed=len(failed),
        cause=causes.most_common(1)[0][0] if causes else "",
        failing_since=min(since or [at for _, _, at in failed], default=None),
    )


def _last_call(ids: Sequence[int]) -> datetime | None:
    """When the newest call of these departments began: others may have made thousands since."""
    calls = ModelCall.objects.filter(department=OuterRef("pk")).order_by("-started_at")
    rows = Department.objects.filter(pk__in=ids).values_list(Subquery(calls.values("started_at")[:1]), flat=True)
    return max((at for at in rows if at is not None), default=None)


# --- The mail -------------------------------------------------------------------------------------------------


def _mail(ids: Sequence[int], now: datetime) -> MailSigns:
    status = OutboxMessage.Status
    mine = OutboxMessage.objects.filter(department__in=ids)
    latest = OutboxMessage.objects.filter(
        department=OuterRef("department"), channel=OuterRef("kind"), sent_at__isnull=False
    ).order_by("-sent_at")
    channels = Channel.objects.filter(department__in=ids, is_enabled=True)
    sent = list(channels.values_list(Subquery(latest.values("sent_at")[:1]), flat=True))
    waiting = Q(status=status.PENDING)
    overdue = waiting & Q(release_at__lt=now - OVERDUE, waiting_for="", error="")
    counted = mine.filter(status__in=[status.PENDING, status.UNKNOWN]).aggregate(
        refused=Count("pk", filter=waiting & ~Q(error="")),
        unsure=Count("pk", filter=Q(status=status.UNKNOWN)),
        overdue=Count("pk", filter=overdue),
        overdue_since=Min("release_at", filter=overdue),
    )
    refused = mine.filter(waiting).exclude(error="").order_by("release_at").values_list("error", "release_at")
    first = refused.first() if counted["refused"] else None
    return MailSigns(
        channels=len(sent),
        last_sent_at=max((at for at in sent if at is not None), default=None),
        **counted,
        refusal=first[0] if first else "",
        refused_next_at=first[1] if first else None,
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
