"""A worker process dies at a named point, or is frozen and wakes up as a zombie."""

from __future__ import annotations

import os
import signal
import time

import psutil
from django.db.models import Max

from runs.models import AgentRun, Item, ModelCall, Output
from tests.faults.case import SUITE, Bench, audited
from tests.faults.points import POINTS
from tests.faults.site import Site, TooLate, Worker, shift_pids, wait_for
from tests.faults.table import Row
from tests.faults.work import add_items, healed_at, wait_in_flight, wait_settled

ITEMS = 4
SHIFTS = 3


@SUITE.add()
def killed_at_a_point(bench: Bench) -> list[Row]:
    """SIGKILL of the process that runs a shift, at each point in turn; all points share one installation."""
    rows = [Row(f"SIGKILL {point.replace('_', ' ')}", limit_seconds=bench.form.heal_seconds) for point in POINTS]
    everything = Row("all points together: database and accounts")
    with bench.site(SHIFTS=str(SHIFTS)) as place:
        worker = place.start_worker()
        with audited(everything, place):
            kills: list[tuple[Row, float, list[int]]] = []
            for _ in range(bench.form.tries):
                for row, point in zip(rows, POINTS, strict=True):
                    kills.append((row, *_kill(worker, point)))
                    # The next trap waits for a shift that lives; what was held heals meanwhile.
                    wait_for(lambda: len(worker.shifts()) >= 2, "two shifts are at work")
            wait_settled()
            for row, killed_at, ids in kills:
                row.tried += 1
                row.heal_seconds.append(healed_at(ids, killed_at) - killed_at)
        everything.tried = sum(row.tried for row in rows)
    return [*rows, everything]


def _kill(worker: Worker, point: str) -> tuple[float, list[int]]:
    newest = Item.objects.aggregate(pk=Max("pk"))["pk"] or 0
    worker.trap.arm(point, newest + 1)
    ids = add_items(ITEMS)
    for _ in range(10):
        try:
            killed_at, pid = wait_for(lambda: worker.trap.fired(point), f"somebody dies: {point}", 5)
            break
        except TooLate:
            ids += add_items(ITEMS)  # every shift held something older; there is more to come by with
    else:
        raise TooLate(f"nobody came by: {point}")
    wait_for(lambda: not psutil.pid_exists(pid), "the kernel has buried it")
    return killed_at, ids


@SUITE.add()
def frozen_beyond_its_lease(bench: Bench) -> list[Row]:
    """SIGSTOP of a shift for longer than its lease, then SIGCONT: it must not commit, and its calls are priced."""
    row = Row("SIGSTOP beyond the lease, SIGCONT", limit_seconds=bench.form.heal_seconds)
    tries = max(1, bench.form.tries // 4)
    with bench.site(latency_ms=bench.form.frozen_latency_ms, SHIFTS="2") as place:
        worker = place.start_worker()
        with audited(row, place):
            for _ in range(tries):
                row.heal_seconds.append(_freeze(place, worker))
                row.tried += 1
    return [row]


def _freeze(place: Site, worker: Worker) -> float:
    ids = add_items(ITEMS)
    wait_in_flight(ids, ITEMS)
    running = AgentRun.objects.filter(item_id__in=ids, status=AgentRun.Status.RUNNING).exclude(worker="")
    held = running.order_by("pk").first()
    assert held is not None
    name, pid = held.worker, int(held.worker.rpartition(":")[2])
    mine = list(ModelCall.objects.filter(worker=name, status=ModelCall.Status.STARTED).values_list("pk", flat=True))
    os.kill(pid, signal.SIGSTOP)
    frozen_at = time.time()
    try:
        unseen = ModelCall.objects.filter(pk__in=mine, status=ModelCall.Status.UNSEEN)
        wait_for(lambda: unseen.count() == len(mine), "its calls were given up", 90)
        taken_over_at = time.time()
        outputs = Output.objects.filter(agent_run__model_calls__in=mine).distinct()
        wait_for(lambda: outputs.count() == len(mine), "somebody else has written its outputs", 90)
    finally:
        os.kill(pid, signal.SIGCONT)
    # Its answers lie in its sockets. It reads them or hangs up, and finds its tokens gone; the audit compares.
    port = int(place.simulator.url.rpartition(":")[2])
    wait_for(lambda: not _talks_to(pid, port), "the zombie has let go of its calls", 90)
    wait_settled(ids)
    wait_for(lambda: len(shift_pids()) >= 2, "two shifts are at work")
    return taken_over_at - frozen_at


def _talks_to(pid: int, port: int) -> bool:
    try:
        return any(link.raddr and link.raddr.port == port for link in psutil.Process(pid).net_connections("tcp"))
    except psutil.NoSuchProcess:
        return False
