"""Whether this installation is healthy: the one place for the rules that doctor, /healthz/ready and the ping share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import BooleanField, Count, DateTimeField, ExpressionWrapper, Min, Q, QuerySet
from django.utils import timezone
from django_q.models import OrmQ

from agents.models import Department
from agents.statements import Given, Statement
from runs import slots
from runs.database import now as database_now
from runs.models import AgentRun, Item, ShiftSlot
from runs.releases import applied_migrations, missing_migrations, newer_migrations

STALE = timedelta(seconds=30)
"""What should be done at once and has waited longer than this is a fault."""
BACKLOG = timedelta(minutes=2)
"""A large import is routed for a while: only an item that waits longer than this stands still."""
SILENT = timedelta(seconds=slots.LEASE_SECONDS + slots.PICK_UP_SECONDS)
"""A slot that nobody spoke for in this time is empty; shorter, and it is being handed over."""
MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, whether it is well, and a sentence that anybody may read.

    ``detail`` is for whoever administers the machine: the text of an error may name hosts and users.
    """

    check: str
    is_well: bool
    text: str
    detail: str = ""


Check = Callable[[], Finding]


@dataclass(frozen=True, slots=True)
class QueueState:
    """The tasks of the queue: how many nobody has fetched, how many are carried out, since when the oldest waits."""

    waiting: int
    taken: int
    oldest_at: datetime | None


def check_database() -> Finding:
    """The database answers, has all migrations of this release and none of a newer one."""
    applied = applied_migrations()
    if missing := missing_migrations(applied):
        are = "migration is" if len(missing) == 1 else "migrations are"
        text = f"{len(missing)} {are} missing. Run `python manage.py migrate`."
        return Finding("database", False, text)
    if newer := newer_migrations(applied):
        count = f"{len(newer)} migration{'' if len(newer) == 1 else 's'}"
        text = f"it is {count} ahead of this release, whose shifts therefore take up no work. Start the newer release."
        return Finding("database", False, text, ", ".join(".".join(name) for name in sorted(newer)))
    return Finding("database", True, f"{connection.vendor} answers; all migrations are there.")


def check_clock() -> Finding:
    """This machine and the database agree on the time."""
    difference = abs(database_now() - timezone.now())
    if difference > MAX_CLOCK_DIFFERENCE:
        text = f"This machine and the database differ by {difference.total_seconds():.0f} s. Set the time."
        return Finding("clock", False, text)
    return Finding("clock", True, "this machine and the database agree.")


def check_departments() -> Finding:
    """There is a department, and no line stands still."""
    names = list(Department.objects.values_list("slug", flat=True))
    stopped = list(Department.objects.exclude(stopped_by_error="").values_list("slug", "stopped_by_error"))
    if not names:
        return Finding("departments", False, "there is none. Run `python manage.py sync_departments`.")
    if stopped:
        text = "; ".join(f"{slug} stands still: {why}" for slug, why in stopped)
        return Finding("departments", False, text)
    return Finding("departments", True, ", ".join(names))


def check_queue() -> Finding:
    """No task waits for a worker that does not come."""
    state = read_queue(timezone.now())
    if state is None:
        return Finding("queue", True, "Redis is the broker.")
    if state.oldest_at is not None and timezone.now() - state.oldest_at > STALE:
        text = f"a task has waited since {state.oldest_at:%H:%M:%S} UTC. Start `python manage.py worker`."
        return Finding("queue", False, text)
    return Finding("queue", True, "nothing waits too long.")


def check_shifts() -> Finding:
    """Every place has a shift that lives."""
    alive = ShiftSlot.objects.filter(token__isnull=False, heartbeat_at__gt=database_now() - SILENT)
    count = alive.filter(number__lte=settings.SHIFTS).count()
    if count < settings.SHIFTS:
        text = f"{count} of {settings.SHIFTS} are alive. Start `python manage.py worker`."
        return Finding("shifts", False, text)
    workers = sorted(set(alive.exclude(worker="").values_list("worker", flat=True)))
    return Finding("shifts", True, f"{count} alive.", f"On {', '.join(workers)}." if workers else "")


def check_due_work() -> Finding:
    """No item waits for a decision, and no lost agent run for its recovery, longer than a shift takes to look."""
    now = database_now()
    item = due_items(now - BACKLOG).order_by("route_due_at").first()
    if item is not None:
        text = f"item {item.pk} has waited for a decision since {item.route_due_at:%H:%M:%S} UTC."
        return Finding("due work", False, text)
    lost = AgentRun.objects.filter(status=AgentRun.Status.RUNNING, lease_expires_at__lt=now - STALE).count()
    if lost:
        return Finding("due work", False, f"{lost} agent runs are lost and nobody recovers them.")
    return Finding("due work", True, "nothing waits too long.")


READY: Sequence[Check] = (check_database, check_queue, check_shifts, check_due_work)
"""What must hold for work to flow here."""
EVERYTHING: Sequence[Check] = (
    check_database,
    check_clock,
    check_departments,
    check_queue,
    check_shifts,
    check_due_work,
)


def look(checks: Sequence[Check]) -> list[Finding]:
    """What the checks found. A check that fails itself is a finding; without a database no other is asked."""
    findings: list[Finding] = []
    for check in checks:
        findings.append(_guarded(check))
        if check is check_database and not findings[-1].is_well:
            break
    return findings


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Whether all is well."""
    return all(finding.is_well for finding in findings)


def read_queue(now: datetime) -> QueueState | None:
    """The queue's tasks; None with Redis as the broker. ``lock`` is when a task may be fetched, again or at all."""
    if "orm" not in settings.Q_CLUSTER:
        return None
    found = {is_waiting: (count, oldest_at) for is_waiting, count, oldest_at in _QUEUE.rows(now=now)}
    waiting, oldest_at = found.pop(True, (0, None))
    return QueueState(waiting, sum(count for count, _ in found.values()), oldest_at)


_QUEUE = Statement(
    lambda: (
        OrmQ.objects.annotate(is_waiting=ExpressionWrapper(Q(lock__lte=Given("now", DateTimeField())), BooleanField()))
        .order_by()
        .values_list("is_waiting")
        .annotate(count=Count("pk"), oldest_at=Min("lock"))
    )
)


def due_items(now: datetime | Given) -> QuerySet[Item]:
    """Items that a shift should look at now: their department works and nobody has paused them."""
    return Item.objects.filter(
        route_due_at__lte=now,
        automation=Item.Automation.ACTIVE,
        department__state__in=Department.WORKING,
    )


def _guarded(check: Check) -> Finding:
    try:
        return check()
    except Exception as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return Finding(name, False, f"could not be looked at ({type(error).__name__}).", str(error).strip())
