"""``make faults ARGS="--staging NAME --worker PID"``: the faults that a running installation can stand, then an audit.

It kills processes and cuts connections, so it refuses whatever is not marked: ``KONTOR_STAGING`` must hold the name of
the database here and in the worker's own environment, the name must be typed, and everything must be on this machine.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from django.conf import settings
from django.db import connection, connections
from django_q.models import OrmQ
from django_q.tasks import async_task

from tests.faults.audit import Watch, audit
from tests.faults.case import FLOW_SECONDS
from tests.faults.site import TooLate, shift_pids, wait_for
from tests.faults.table import Row
from tests.faults.work import add_lead, wait_settled

MARK = "KONTOR_STAGING"
HERE = ("", "localhost", "127.0.0.1", "::1")
SETTLED_SECONDS = 900.0
UNIT_SECONDS = 60.0
"""The most that may pass until a supervisor has started the worker again and it is at work: Python starts, too."""
_CANARY = "time.time"


class Refused(Exception):
    """Nothing was touched; the text says why and what to do."""


class Staged:
    """The worker of a running installation, by its process or by its unit of systemd."""

    def __init__(self, *, pid: int = 0, unit: str = "") -> None:
        self._pid, self.unit = pid, unit

    @property
    def pid(self) -> int:
        """The process of ``manage.py worker``; 0 if its unit has none now."""
        if not self.unit:
            return self._pid
        command = ["systemctl", "show", "--property=MainPID", "--value", self.unit]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        return int(done.stdout.strip() or 0)

    def sentinel(self) -> psutil.Process:
        return psutil.Process(self.pid).children()[0]

    def shifts(self) -> list[psutil.Process]:
        """The processes of the queue that hold a slot."""
        held = set(shift_pids())
        return [process for process in self.sentinel().children() if process.pid in held]

    def others(self) -> list[psutil.Process]:
        """The other ones: idle workers, monitor and pusher, the oldest first."""
        held = set(shift_pids())
        found = [process for process in self.sentinel().children() if process.pid not in held]
        return sorted(found, key=lambda process: process.create_time())


def check(name: str, database: Mapping[str, Any], environment: Mapping[str, str], worker: Staged) -> None:
    """Raises Refused unless everything says that this is the staging installation ``name`` on this machine."""
    if environment.get(MARK) != name:
        raise Refused(f"{MARK} is not {name!r} here. Set it to the name of the staging's database, and type the same.")
    if name != Path(str(database["NAME"])).name:
        raise Refused(f"DATABASE_URL leads to {Path(str(database['NAME'])).name!r}, and {name!r} was typed.")
    if database.get("HOST", "") not in HERE and not str(database["HOST"]).startswith("/"):
        raise Refused(f"The database is on {database['HOST']}. Only what is on this machine is struck.")
    try:
        process = psutil.Process(worker.pid)
        theirs, command = process.environ(), process.cmdline()
    except (psutil.Error, ValueError) as error:
        raise Refused(f"The worker cannot be looked at ({error}). Name the process of `manage.py worker`.") from error
    if "worker" not in command[1:]:
        raise Refused(f"Process {process.pid} is no `manage.py worker` but {' '.join(command)[:80]!r}.")
    if theirs.get(MARK) != name or theirs.get("DATABASE_URL") != environment.get("DATABASE_URL"):
        raise Refused(f"The worker was not started with {MARK}={name} and this DATABASE_URL. Start it with both.")


def rehearse(worker: Staged, leads: int) -> list[Row]:
    """Strike one after the other, with so many new leads before each; the last row is what the audit found since."""
    before = audit()
    everything = Row("all of these: database and accounts")
    wanted = len(worker.shifts())
    watch = Watch()
    rows: list[Row] = []
    with _broken_off(everything), watch:
        for row, strike, times in _strikes(worker):
            rows.append(row)
            with _broken_off(row):
                for _ in range(times):
                    new = [add_lead(f"Rehearsal {uuid4().hex[:8]}", email=_address()).item_id for _ in range(leads)]
                    row.heal_seconds.append(_flow(worker, wanted, strike))
                    wait_settled(new, SETTLED_SECONDS)
                    row.tried += 1
                    everything.tried += 1
        wait_settled(limit_seconds=SETTLED_SECONDS)
    everything.findings += audit() - before
    everything.findings.untrue += watch.stop()
    return [*rows, everything]


def _strikes(worker: Staged) -> Iterator[tuple[Row, Callable[[], None], int]]:
    yield Row("SIGKILL a shift", limit_seconds=FLOW_SECONDS), lambda: worker.shifts()[0].kill(), 1
    others = len(worker.others())
    idle = "SIGKILL idle workers, monitor and pusher"
    yield Row(idle, limit_seconds=FLOW_SECONDS), lambda: worker.others()[0].kill(), others
    yield Row("SIGKILL the sentinel", limit_seconds=FLOW_SECONDS), lambda: worker.sentinel().kill(), 1
    yield Row("SIGKILL the whole cluster", limit_seconds=FLOW_SECONDS), lambda: _kill_cluster(worker), 1
    if connection.vendor == "postgresql":
        yield Row("all connections terminated", limit_seconds=FLOW_SECONDS), _cut_connections, 1
    if worker.unit:
        row = Row("SIGKILL manage.py worker, its unit starts it again", limit_seconds=UNIT_SECONDS)
        yield row, lambda: psutil.Process(worker.pid).kill(), 1


def _kill_cluster(worker: Staged) -> None:
    for process in psutil.Process(worker.pid).children(recursive=True):
        process.kill()


def _cut_connections() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def _flow(worker: Staged, wanted: int, strike: Callable[[], None]) -> float:
    """Seconds from the strike until the queue has carried out a new task and every shift is at work again."""
    strike()
    struck_at, canary = time.monotonic(), async_task(_CANARY)
    wait_for(lambda: all(row.task_id() != canary for row in OrmQ.objects.all()), "the queue has done a new task")
    wait_for(lambda: _has_shifts(worker, wanted), f"{wanted} shifts are at work again")
    return time.monotonic() - struck_at


def _has_shifts(worker: Staged, wanted: int) -> bool:
    try:
        return len(worker.shifts()) >= wanted
    except (psutil.NoSuchProcess, IndexError):
        return False  # the cluster, or the unit, is just being started


def _address() -> str:
    return f"rehearsal-{uuid4().hex[:12]}@example.com"


@contextmanager
def _broken_off(row: Row) -> Iterator[None]:
    """What does not come to its end is said in its row; the next strike is tried nevertheless."""
    try:
        yield
    except (TooLate, psutil.Error, IndexError) as error:
        row.broken = f"{type(error).__name__}: {error}"


def run(name: str, worker: Staged, leads: int) -> list[Row]:
    """Look whether it may be done, and do it. Raises Refused."""
    check(name, settings.DATABASES["default"], os.environ, worker)
    try:
        return rehearse(worker, leads)
    finally:
        connections.close_all()
