from __future__ import annotations

import gc
import os
import signal
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection, connections
from django.db.migrations.executor import MigrationExecutor
from django_q.cluster import Cluster

from agents import llm  # noqa: F401 - imported before the fork, so that all workers share its memory
from runs import schedules, slots
from runs.stopping import is_stopping, stop

WATCH_SECONDS = 2.0


class Command(BaseCommand):
    """Runs the queue's cluster, keeps the shifts' slots filled, and stops cleanly on SIGTERM."""

    help = "Work: run the queue and the shifts on it. Stop it with Ctrl-C or SIGTERM."
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        self._check_database()
        schedules.ensure_clock()
        connections.close_all()
        self._keep_signals_to_ourselves()
        # What is in memory now is shared by every process forked from here; the collector must not touch it.
        gc.freeze()
        cluster = Cluster()
        cluster.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop())
        self.stdout.write(f"Worker {os.getpid()} is at work.")
        self._watch(cluster)
        cluster.stop()
        self.stdout.write("Worker stopped.")

    def _watch(self, cluster: Cluster) -> None:
        """Fill empty slots until we are told to stop. A database that is away is waited for."""
        looked_at = 0.0
        while not is_stopping():
            if not cluster.sentinel.is_alive():
                raise CommandError("The queue's cluster has died. Start the worker again.")
            if time.monotonic() - looked_at > WATCH_SECONDS:
                looked_at = time.monotonic()
                try:
                    slots.ensure_shifts()
                except DatabaseError as error:
                    self.stderr.write(f"The database does not answer: {error}. Trying again.")
                    connection.close()
            time.sleep(0.1)

    def _keep_signals_to_ourselves(self) -> None:
        """Put the cluster into a process group of its own.

        Ctrl-C and process runners signal the whole group; the queue's processes would die in the middle of what
        they do. So only this process hears it and brings the others to an orderly end.
        """
        ours = os.getpid()

        def leave_group() -> None:
            if os.getppid() == ours:
                os.setpgid(0, 0)

        os.register_at_fork(after_in_child=leave_group)

    def _check_database(self) -> None:
        try:
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except DatabaseError as error:
            raise CommandError(f"The database does not answer: {error}. Check DATABASE_URL.") from error
        if missing:
            raise CommandError("The database lacks migrations. Run `python manage.py migrate` first.")
