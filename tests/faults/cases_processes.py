"""Processes that hold no call die: idle workers, the queue's own, the whole cluster, the web server."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

import psutil
from standardwebhooks.webhooks import Webhook

from leads.models import Lead
from runs.models import Trigger
from tests.faults.case import FLOW_SECONDS, SUITE, Bench, audited
from tests.faults.site import SECRET, Program, Site, Worker, shift_pids, wait_for
from tests.faults.table import Row
from tests.faults.work import add_items, healed_at, wait_in_flight, wait_settled

ITEMS = 3
WEB_KILLS = 3


def _kill(process: psutil.Process) -> None:
    process.kill()


def _cluster(worker: Worker) -> None:
    for process in psutil.Process(worker.pid).children(recursive=True):
        process.kill()


TARGETS: dict[str, Callable[[Worker], None]] = {
    "an idle worker": lambda worker: _kill(worker.idle()),
    "the queue's monitor": lambda worker: _kill(worker.role("monitor")),
    "the queue's pusher": lambda worker: _kill(worker.role("pusher")),
    "the sentinel": lambda worker: _kill(worker.sentinel()),
    "the whole cluster": _cluster,
}


@SUITE.add()
def idle_processes_killed(bench: Bench) -> list[Row]:
    """Each is killed while nothing is under way; how long until new work is done."""
    rows = [Row(f"SIGKILL {name}", limit_seconds=FLOW_SECONDS) for name in TARGETS]
    everything = Row("all of these: database and accounts")
    with bench.site(latency_ms=50) as place:
        worker = place.start_worker()
        with audited(everything, place):
            for _ in range(bench.form.tries):
                for row, kill in zip(rows, TARGETS.values(), strict=True):
                    row.heal_seconds.append(_flow(worker, kill))
                    row.tried += 1
                    everything.tried += 1
    return [*rows, everything]


def _flow(worker: Worker, kill: Callable[[Worker], None]) -> float:
    kill(worker)
    killed_at = time.time()
    settled_at = wait_settled(add_items(ITEMS))
    # Calm again before the next one is struck.
    wait_for(lambda: len(worker.shifts()) >= 2 and (worker.folder / "pid-monitor").exists(), "the cluster is whole")
    wait_for(lambda: worker.role("monitor").is_running() and worker.role("pusher").is_running(), "its own are back")
    return settled_at - killed_at


@SUITE.add()
def cluster_killed_under_load(bench: Bench) -> list[Row]:
    """The whole cluster at once with calls in flight, and the worker command with it."""
    row = Row("SIGKILL the whole cluster under load", limit_seconds=bench.form.heal_seconds)
    command = Row("SIGKILL manage.py worker, started again", limit_seconds=bench.form.heal_seconds)
    tries = max(1, bench.form.tries // 4)
    with bench.site(latency_ms=1_000) as place:
        worker = place.start_worker()
        with audited(row, place):
            for _ in range(tries):
                ids = _under_way()
                _cluster(worker)
                killed_at = time.time()
                wait_settled(ids)
                row.heal_seconds.append(healed_at(ids, killed_at) - killed_at)
                row.tried += 1
            for _ in range(tries):
                ids = _under_way()
                worker.kill()
                worker = _start_another(place)
                started_at = time.time()
                wait_settled(ids)
                command.heal_seconds.append(max(0.0, healed_at(ids, started_at) - started_at))
                command.tried += 1
    return [row, command]


def _start_another(place: Site) -> Worker:
    """What a supervisor does. Returns when it is at work: how long Python takes to start is not the engine's."""
    worker = place.start_worker(shifts=0)
    wait_for(lambda: "is at work" in worker.text(), "the new worker is at work")
    return worker


def _under_way() -> list[int]:
    wait_for(lambda: len(shift_pids()) >= 2, "two shifts are at work")
    ids = add_items(10)
    wait_in_flight(ids, 5)
    return ids


@SUITE.add()
def web_killed(bench: Bench) -> list[Row]:
    """The web server dies while webhooks come in; the sender repeats what was not answered with 200."""
    row = Row("SIGKILL the web server", limit_seconds=FLOW_SECONDS)
    deliveries = 10 * (WEB_KILLS + 1) * (3 if bench.form.is_full else 1)
    with bench.site(latency_ms=20) as place:
        place.start_worker()
        web = place.start_web()
        with audited(row, place):
            sent: list[float] = []
            sender = threading.Thread(target=_deliver, args=(place, deliveries, sent), daemon=True)
            sender.start()
            for number in range(1, WEB_KILLS + 1):
                web = _replace(place, web, sent, number * deliveries // (WEB_KILLS + 1), row)
            sender.join(120)
            wait_settled()
            _check_deliveries(row, deliveries)
    return [row]


def _replace(place: Site, web: Program, sent: list[float], after: int, row: Row) -> Program:
    wait_for(lambda: len(sent) >= after, "deliveries come in")
    os.kill(web.pid, signal.SIGKILL)
    before = len(sent)
    web.process.wait()
    web = place.start_web()
    wait_for(lambda: _listens(place.port), "the new web server listens")
    listens_at = time.time()  # how long Python takes to start is not ours: 3 s of a processor, on a busy machine 13
    wait_for(lambda: len(sent) > before + 1, "deliveries come in again")
    row.heal_seconds.append(max(0.0, sent[before + 1] - listens_at))
    row.tried += 1
    return web


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _deliver(place: Site, count: int, sent: list[float]) -> None:
    for number in range(count):
        while not _post(place.port, f"delivery-{number}", number):
            time.sleep(0.05)
        if number % 3 == 0:
            _post(place.port, f"delivery-{number}", number)  # senders repeat themselves
        sent.append(time.time())


def _post(port: int, delivery_id: str, number: int) -> bool:
    body = json.dumps({"email": f"person{number}@example.com", "company": f"Company {number}", "message": "A quote?"})
    at = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(delivery_id, at, body),
    }
    request = urllib.request.Request(f"http://127.0.0.1:{port}/hooks/sales/leads/", body.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _check_deliveries(row: Row, deliveries: int) -> None:
    recorded, leads = Trigger.objects.exclude(delivery_id="").count(), Lead.objects.count()
    if min(recorded, leads) < deliveries:
        row.findings.lost.append(f"{deliveries} deliveries, {recorded} triggers, {leads} leads")
    if max(recorded, leads) > deliveries:
        row.findings.duplicated.append(f"{deliveries} deliveries, {recorded} triggers, {leads} leads")
