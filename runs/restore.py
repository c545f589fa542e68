"""After a backup was restored: the database no longer knows what was sent, answered and paid since it was taken.

Sends are held and what was unsent is unsure until a person releases it; what was running is queued again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, QuerySet, prefetch_related_objects

from agents.models import Department
from agents.statements import Among, Statement
from runs import log
from runs.alerts import close_alert, raise_alert
from runs.calls import abandon_calls
from runs.closing import wind_up_closed
from runs.commits import lock_items
from runs.database import now as database_now
from runs.database import update_rows
from runs.marker import is_older_than, read_marker, write_marker
from runs.models import Action, AgentRun, Alert, LogEntry, ModelCall, OutboxMessage, ShiftSlot

logger = logging.getLogger(__name__)
RESTORED, RELEASED = "after_restore", "release_restore"
"""Verbs of the Action rows that tell of it."""
PAGE = "/system/restore/"
BATCH = 500
UNSENT = (OutboxMessage.Status.PENDING, OutboxMessage.Status.SENDING)
REASON = "A backup was restored: it may have been sent since the backup was taken."
_HELD = {
    Department.State.RUNNING: Department.State.HOLDING_SENDS,
    # Its work had come to an end; to let agents start again would be news.
    Department.State.DRAINING: Department.State.STOPPED,
}


@dataclass(slots=True)
class Restored:
    """What was done, in numbers. ``backup_at`` is the newest line of the log: about when the backup was taken."""

    backup_at: datetime | None = None
    departments: list[str] = field(default_factory=list)
    unsure: int = 0
    agent_runs: int = 0
    calls: int = 0
    shifts: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A department that nobody has released yet, with what the restore found there."""

    department: Department
    action: Action
    """The latest of restore and release."""
    unsure: Sequence[OutboxMessage]

    @property
    def is_released(self) -> bool:
        """Whether only unsure messages are left."""
        return self.action.verb == RELEASED

    @property
    def backup_at(self) -> datetime | None:
        """About when the backup was taken."""
        text = self.action.after.get("backup_at")
        return datetime.fromisoformat(text) if text else None

    @property
    def before(self) -> str:
        """The state it goes back to, in words."""
        return str(Department.State(self.action.before["state"]).label)


def keep_marker() -> Restored | None:
    """Every minute and at a worker's start: see whether the database is an older one, then write the marker anew."""
    marker = read_marker()
    restored = None
    if marker is not None and is_older_than(marker):
        logger.warning("the database is older than the marker of %s: a backup was restored", marker.at)
        restored = after_restore(user=None, reason="The database is older than it was.", since=marker.at)
    try:
        write_marker()
    except OSError:
        # Without it work goes on; only the next restore is not noticed by itself.
        logger.exception("the marker cannot be written")
    return restored


def after_restore(*, user: User | None, reason: str, since: datetime | None = None) -> Restored | None:
    """Make a restored database safe to work on. Repeating it is harmless.

    ``since``: None is returned where this was done after that time already, by the worker of another machine.
    """
    restored = Restored()
    with transaction.atomic():
        departments = list(Department.objects.select_for_update(no_key=True).order_by("pk"))
        if since is not None and Action.objects.filter(verb=RESTORED, at__gt=since).exists():
            return None
        restored.backup_at = LogEntry.objects.order_by("-pk").values_list("at", flat=True).first()
        unsent = _make_unsure()
        restored.unsure = sum(unsent.values())
        for department in departments:
            _hold(department, unsent.get(department.pk, 0), restored.backup_at, user, reason)
            restored.departments.append(department.slug)
        restored.shifts = ShiftSlot.objects.exclude(token=None).count()
        ShiftSlot.objects.update(token=None, lease_expires_at=None, started_at=None, in_flight=0, worker="")
    _queue_running(restored)
    return restored


def held_departments(departments: Collection[Department]) -> list[Held]:
    """Those that a restore has held and nobody has released, with their unsure messages."""
    newest = {pk: action for pk, action in _newest_actions(departments) if pk is not None}
    if not newest:
        return []
    unsure: dict[int, list[OutboxMessage]] = {}
    for message in unsure_messages().filter(department__in=newest).select_related("item__department"):
        unsure.setdefault(message.department_id, []).append(message)
    return [
        Held(department, newest[department.pk], unsure.get(department.pk, []))
        for department in departments
        if department.pk in newest and (newest[department.pk].verb == RESTORED or department.pk in unsure)
    ]


def _newest_actions(departments: Collection[Department]) -> Iterable[tuple[int | None, Action]]:
    """The latest of restore and release, by department."""
    rows = _TOLD.objects(departments=[department.pk for department in departments])
    prefetch_related_objects(rows, "user")
    return ((action.department_id, action) for action in rows)


_TOLD = Statement(
    lambda: Action.objects.filter(Among("department_id", "departments"), verb__in=(RESTORED, RELEASED)).order_by("pk")
)


def unsure_messages() -> QuerySet[OutboxMessage]:
    """Messages that a restore made unsure and nobody has decided on, the oldest first."""
    return OutboxMessage.objects.filter(status=OutboxMessage.Status.UNKNOWN, reason=REASON).order_by("pk")


def release_department(*, department: Department, user: User, reason: str = "") -> bool:
    """Give a department back the state it had before the restore; False if there is nothing to release.

    What is unsure stays so until somebody decides on each message.
    """
    with transaction.atomic():
        department = Department.objects.select_for_update(no_key=True).get(pk=department.pk)
        verbs = Action.objects.filter(department=department, verb__in=(RESTORED, RELEASED))
        action = verbs.order_by("-pk").first()
        if action is None or action.verb == RELEASED:
            return False
        before = department.state
        if before == action.after.get("state"):  # else a person has switched it meanwhile, and that stands
            department.state, department.state_reason = action.before["state"], ""
            department.state_by, department.state_since = user, database_now()
            department.save(update_fields=["state", "state_reason", "state_by", "state_since"])
        _tell(department, RELEASED, user, {"state": before}, {"state": department.state}, reason)
        text = f"{department} was released after the restore by {user}: it is {department.get_state_display()}."
        _log(department, text, LogEntry.Level.INFO)
        close_alert(department=department, key=RESTORED)
    return True


def _make_unsure() -> dict[int, int]:
    """Everything unsent becomes unsure; how many by department."""
    rows = OutboxMessage.objects.filter(status__in=UNSENT)
    counts = rows.values_list("department_id").annotate(count=Count("pk")).order_by()
    unsent = dict(counts)
    rows.update(status=OutboxMessage.Status.UNKNOWN, reason=REASON, lease_token=None, lease_expires_at=None)
    return unsent


def _hold(department: Department, unsure: int, backup_at: datetime | None, user: User | None, reason: str) -> None:
    before = department.state
    state = _HELD.get(Department.State(before), before)
    last = Action.objects.filter(department=department, verb__in=(RESTORED, RELEASED)).order_by("-pk").first()
    if last is not None and last.verb == RESTORED and before == last.after.get("state"):
        before = last.before["state"]  # held by a restore already: what was before that one is given back
    department.state, department.state_reason = state, "A backup was restored"
    department.state_by, department.state_since = user, database_now()
    department.save(update_fields=["state", "state_reason", "state_by", "state_since"])
    facts = {"state": state, "unsure": unsure, "backup_at": backup_at.isoformat() if backup_at else ""}
    _tell(department, RESTORED, user, {"state": before}, facts, reason)
    text = (
        f"A backup was restored: {department} is {department.get_state_display()}, and "
        f"{unsure} unsent messages are unsure until a person has decided. See {PAGE}"
    )
    _log(department, text, LogEntry.Level.WARNING)
    raise_alert(
        kind=Alert.Kind.SYSTEM,
        department=department,
        text=text,
        key=RESTORED,
        link=PAGE,
        next_step="Nothing is sent until an administrator has checked and releases it.",
    )


def _queue_running(restored: Restored) -> None:
    """Take back every run that was running: its worker is not of this history. Items first, as everywhere."""
    last = 0
    while True:
        found = AgentRun.objects.filter(status=AgentRun.Status.RUNNING, pk__gt=last).order_by("pk")[:BATCH]
        ids = dict(found.values_list("pk", "item_id"))
        if not ids:
            return
        last = max(ids)
        with transaction.atomic():
            now = database_now()
            items = lock_items(set(ids.values()))
            held = AgentRun.objects.filter(pk__in=ids, status=AgentRun.Status.RUNNING)
            runs = list(held.select_for_update().order_by("pk"))
            started = ModelCall.objects.filter(agent_run__in=runs, status=ModelCall.Status.STARTED)
            restored.calls += started.count()
            abandon_calls([run.pk for run in runs], now=now)
            text = "A backup was restored; queued again."
            update_rows(
                AgentRun,
                ["status", "lease_token", "lease_expires_at", "due_at", "waiting_for"],
                [(run.pk, AgentRun.Status.QUEUED, None, None, now, text) for run in runs],
            )
            entries = [log.run_entry(run, "lost", text, at=now, level=LogEntry.Level.WARNING) for run in runs]
            log.write(entries + wind_up_closed(items.values(), now))
            restored.agent_runs += len(runs)


def _tell(
    department: Department, verb: str, user: User | None, before: dict[str, str], after: dict[str, object], reason: str
) -> None:
    Action.objects.create(
        department=department,
        user=user,
        verb=verb,
        target=f"department:{department.pk}",
        before=before,
        after=after,
        reason=reason[:300],
    )


def _log(department: Department, text: str, level: str) -> None:
    LogEntry.objects.create(department=department, kind="restored", text=text, level=level, at=database_now())
