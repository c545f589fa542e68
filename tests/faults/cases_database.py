"""The database goes away under load: connections cut, server restarted, writer locked out."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time

import psycopg
from django.conf import settings
from django.db import connections

from runs.models import AgentRun
from tests.faults.case import SUITE, Bench, audited
from tests.faults.databases import Databases, PrivateServer, private_server
from tests.faults.site import free_port, site, wait_for
from tests.faults.table import Row
from tests.faults.work import add_items, healed_at, wait_in_flight, wait_settled

ITEMS = 20
LOCKED_SECONDS = 10.0
GRACE_SECONDS = 10.0
"""A worker that is told to stop waits 5 s for calls in flight; its processes need a moment to end."""


@SUITE.add("postgres")
def connections_cut(bench: Bench) -> list[Row]:
    """pg_terminate_backend of every connection to the database while calls are in flight."""
    row = Row("PostgreSQL: all connections terminated under load", limit_seconds=bench.form.heal_seconds)
    with bench.site(latency_ms=200) as place:
        place.start_worker()
        with audited(row, place):
            for _ in range(bench.form.tries):
                ids = add_items(ITEMS)
                wait_in_flight(ids, ITEMS // 2)
                name = str(settings.DATABASES["default"]["NAME"])
                cut_at = _terminate(bench.databases.server, name)
                wait_settled(ids)
                row.heal_seconds.append(healed_at(ids, cut_at) - cut_at)
                row.tried += 1
            _check_failures(row)
    return [row]


def _terminate(server: str, name: str) -> float:
    connections.close_all()
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    return time.time()


def _check_failures(row: Row) -> None:
    """No run may fail, and none be charged with a failure, because the database was away."""
    blamed = AgentRun.objects.exclude(failures=0, status=AgentRun.Status.DONE)
    row.findings.untrue += [f"agent run {run.pk} is {run.status} with {run.failures} failures" for run in blamed]


@SUITE.add("postgres")
def server_restarted(bench: Bench) -> list[Row]:
    """A server of our own is restarted while calls are in flight; the shared one is never touched."""
    row = Row("PostgreSQL: restarted under load", limit_seconds=bench.form.heal_seconds)
    if not PrivateServer.is_possible():
        return []
    with private_server(free_port()) as server:
        databases = Databases("postgres", bench.databases.folder, server.url)
        databases.prepare()
        env = {"LEASE_SECONDS": str(bench.form.lease_seconds)}
        with databases.fresh() as url, site(url, latency_ms=200, more=env) as place:
            place.start_worker()
            with audited(row, place):
                for _ in range(max(1, bench.form.tries // 4)):
                    ids = add_items(ITEMS)
                    wait_in_flight(ids, ITEMS // 2)
                    connections.close_all()
                    restarted_at = time.time()
                    server.restart()
                    wait_settled(ids)
                    row.heal_seconds.append(healed_at(ids, restarted_at) - restarted_at)
                    row.tried += 1
                _check_failures(row)
            place.stop()
        databases.clean()
    return [row]


@SUITE.add("sqlite")
def writer_locked(bench: Bench) -> list[Row]:
    """Another process holds SQLite's only write lock for ten seconds while calls are in flight."""
    row = Row("SQLite: writer lock held for 10 s under load", limit_seconds=LOCKED_SECONDS + bench.form.heal_seconds)
    with bench.site(latency_ms=200) as place:
        place.start_worker()
        with audited(row, place, is_watched=False):
            for _ in range(max(1, bench.form.tries // 4)):
                ids = add_items(ITEMS)
                wait_in_flight(ids, ITEMS // 2)
                locked_at = time.time()
                _lock(str(settings.DATABASES["default"]["NAME"]))
                wait_settled(ids)
                row.heal_seconds.append(healed_at(ids, locked_at) - locked_at)
                row.tried += 1
            _check_failures(row)
    return [row]


@SUITE.add("sqlite")
def stopped_while_locked(bench: Bench) -> list[Row]:
    """SIGTERM with calls in flight while somebody else holds the writer lock: it gives back what it holds and ends."""
    row = Row("SQLite: SIGTERM while the writer lock is held", limit_seconds=LOCKED_SECONDS + GRACE_SECONDS)
    with bench.site(latency_ms=50, LEASE_SECONDS="30") as place:
        slow = {"kind": "delay", "delay_ms": 4_000 * GRACE_SECONDS}
        place.simulator.faults([{"match": {"times": ITEMS}, "what": slow}])
        worker = place.start_worker()
        with audited(row, place, is_watched=False):
            ids = add_items(ITEMS)
            wait_in_flight(ids, ITEMS)
            locking = threading.Thread(target=_lock, args=(str(settings.DATABASES["default"]["NAME"]),), daemon=True)
            locking.start()
            stopped_at = time.time()
            worker.process.send_signal(signal.SIGTERM)
            code = worker.process.wait(6 * LOCKED_SECONDS)
            row.heal_seconds.append(time.time() - stopped_at)
            locking.join(6 * LOCKED_SECONDS)
            held = AgentRun.objects.filter(status=AgentRun.Status.RUNNING).count()
            if code or held:
                row.findings.lost.append(f"it ended with {code} and kept {held} agent runs for the length of a lease")
            place.start_worker()
            wait_settled(ids)
            row.tried += 1
            _check_failures(row)
    return [row]


def _lock(path: str) -> None:
    until = time.monotonic() + LOCKED_SECONDS
    with sqlite3.connect(path, timeout=60, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_for(lambda: time.monotonic() > until, "the lock was held", LOCKED_SECONDS + 1)
        other.execute("ROLLBACK")
    other.close()
