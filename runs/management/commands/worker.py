from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from agents import llm  # noqa: F401 - imported before the fork, so that all workers share its memory
from runs import cost_rollups, restore, schedules, slots
from runs.cluster import Cluster, guard_forks
from runs.housekeeping import do_each
from runs.models import LogEntry
from runs.releases import newer_migrations
from runs.stopping import is_stopping, stop

WATCH_SECONDS = 2.0
STANDSTILL_SECONDS = 15.0
BUSY_SECONDS = 60.0
"""How long tasks may keep every place taken: those that are no shifts end, or hand over, before that."""


class Command(BaseCommand):
    """Runs the queue's cluster, keeps the shifts' slots filled, and stops cleanly on SIGTERM."""

    help = "Work: run the queue and the shifts on it. Stop it with Ctrl-C or SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        self._check_database()
        if restore.keep_marker():
            self.stderr.write(f"A backup was restored: sends are held. Look at {restore.PAGE}")
        schedules.ensure_clock()
        guard_forks()
        # What is in memory now is shared by every process forked from here; the collector must not touch it.
        gc.freeze()
        self.cluster = Cluster()
        self.cluster.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop())
        self.stdout.write(f"Worker {os.getpid()} is at work.")
        self._watch()
        self.cluster.stop()
        self.stdout.write("Worker stopped.")

    def _watch(self) -> None:
        """Fill empty slots and restart a cluster that died or stands still, until we are told to stop."""
        looked_at, self._moved_at = 0.0, time.monotonic()
        while not is_stopping():
            time.sleep(0.1)
            has_died = not self.cluster.is_alive()
            if has_died:
                self._restart("The queue's cluster has died.")
            elif time.monotonic() - looked_at < WATCH_SECONDS:
                continue
            looked_at = time.monotonic()
            try:
                slots.leave_dead(socket.gethostname())
                slots.ensure_shifts()
                if seconds := self._stands_still_for(time.monotonic()):
                    self._restart(f"No shift has been at work for {seconds:.0f} seconds.")
                do_each((cost_rollups.keep_up,))
            except (DatabaseError, InterfaceError) as error:
                self.stderr.write(f"The database does not answer: {error}. Trying again.")
                self._moved_at = time.monotonic()  # the standstill is the database's
                connection.close()

    def _stands_still_for(self, now: float) -> float:
        """The seconds, by the monotonic clock, for which nothing has moved, once they are too many; else 0.

        The tasks that fill the slots are the canaries: while one of them is carried out, work flows. They may also
        wait for a place while other tasks are being finished. A worker that is out of date stands still on purpose:
        doctor and the overview say so.
        """
        if slots.count_alive() or newer_migrations():
            self._moved_at = now
        since = max(self._moved_at, self.cluster.board.ended_at)
        limit = BUSY_SECONDS if self.cluster.board.is_full() else STANDSTILL_SECONDS
        return now - since if now - since > limit else 0.0

    def _restart(self, why: str) -> None:
        text = f"{why} It is started again; what it held is taken up when its leases run out."
        self.stderr.write(text)
        self.cluster.kill()
        with contextlib.suppress(DatabaseError, InterfaceError):
            LogEntry.objects.create(kind="healed", level=LogEntry.Level.WARNING, text=text, at=timezone.now())
        self.cluster.start()
        self._moved_at = time.monotonic()

    def _check_database(self) -> None:
        try:
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except DatabaseError as error:
            raise CommandError(f"The database does not answer: {error}. Check DATABASE_URL.") from error
        if missing:
            raise CommandError("The database lacks migrations. Run `python manage.py migrate` first.")
