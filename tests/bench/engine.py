"""Throughput of the engine as a share of what the SDK alone does against the same server in the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = os.environ.get("BENCH_POSTGRES", "postgres://postgres@127.0.0.1:5432")
SHIFTS = 2
STEPS = 6
LATENCY_MS = 500
READY_SECONDS = 60
Row = dict[str, Any]


def bench(in_flight: int, database: str, *, leads: int | None = None) -> Row:
    """One measurement: ``database`` is ``sqlite`` or ``postgres``; rates are calls a second."""
    leads = leads or 4 * in_flight
    with tempfile.TemporaryDirectory() as folder, _database(database, folder) as url, _simulator(folder) as base_url:
        env = _environment(url, base_url, in_flight)
        requests = Path(folder) / "requests.json"
        _manage(env, "prepare", str(leads), str(requests))
        yardstick = _sdk_only(env, base_url, in_flight, leads * STEPS, requests)
        ours = _engine(env, leads)
    rate = yardstick["calls"] / yardstick["seconds"]
    return {
        "database": database,
        "in_flight": in_flight,
        "calls": ours["calls"],
        "calls_per_second": round(ours["calls"] / ours["seconds"], 1),
        "sdk_calls_per_second": round(rate, 1),
        "share_of_sdk": round(ours["calls"] / ours["seconds"] / rate, 3),
        "cpu_ms_per_call": round(1000 * ours["cpu_seconds"] / ours["calls"], 2),
        "sdk_cpu_ms_per_call": round(1000 * yardstick["cpu_seconds"] / yardstick["calls"], 2),
        "added_ms_p50": ours["added_ms_p50"],
        "added_ms_p95": ours["added_ms_p95"],
        "memory_mb": ours["memory_mb"],
    }


def _engine(env: dict[str, str], leads: int) -> Row:
    """Run the real worker until every lead is done; CPU and memory are those of all its processes."""
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "worker"], cwd=ROOT, env=env, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        # All processes are up and idle before the clock starts: start-up is not what is measured.
        _manage(env, "wait_for_shifts", str(SHIFTS))
        tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        cpu = _cpu(tree)
        _manage(env, "start")
        _manage(env, "wait", str(leads * STEPS))
        used, memory = _cpu(tree) - cpu, sum(_memory(process) for process in tree) / 1e6
        return {"cpu_seconds": used, "memory_mb": round(memory), **_manage(env, "measure")}
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)


def _sdk_only(env: dict[str, str], base_url: str, in_flight: int, calls: int, requests: Path) -> Row:
    """As many processes as there are shifts share the calls."""
    command = [sys.executable, "-m", "tests.bench.sdk_only", base_url]
    share = [str(in_flight // SHIFTS), str(calls // SHIFTS), str(requests)]
    running = [
        subprocess.Popen([*command, *share], cwd=ROOT, env=env, stdout=subprocess.PIPE) for _ in range(SHIFTS)
    ]
    rows = [json.loads(process.communicate()[0]) for process in running]
    return {
        "calls": sum(row["calls"] for row in rows),
        "seconds": max(row["seconds"] for row in rows),
        "cpu_seconds": sum(row["cpu_seconds"] for row in rows),
    }


def _manage(env: dict[str, str], verb: str, *args: str) -> Row:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.steps", verb, *args],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    answer: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _environment(url: str, base_url: str, in_flight: int) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
        "DATABASE_URL": url,
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": "bench",
        "SQLITE_SYNCHRONOUS": "NORMAL",
        "SHIFTS": str(SHIFTS),
        "SHIFT_CONCURRENCY": str(in_flight // SHIFTS),
    }


@contextmanager
def _simulator(folder: str) -> Iterator[str]:
    """The simulator as a process of its own, as a server would be."""
    ready = Path(folder) / "simulator.log"
    env = {**os.environ, "DATABASE_URL": f"sqlite:///{folder}/none.sqlite3", "PYTHONUNBUFFERED": "1"}
    env["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
    command = [sys.executable, "manage.py", "simulator", "--port", "0", "--latency-ms", str(LATENCY_MS), "--no-record"]
    with ready.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log)
    try:
        until = time.monotonic() + READY_SECONDS
        while "http://" not in (text := ready.read_text()):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"The simulator did not start: {text}")
            time.sleep(0.05)
        yield text.split("http://")[1].split(" ")[0].strip().join(["http://", ""])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def _database(kind: str, folder: str) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/bench.sqlite3"
        return
    name = f"kontor_bench_{os.getpid()}"
    with psycopg.connect(f"{POSTGRES}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{POSTGRES}/{name}"
        finally:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _cpu(tree: list[psutil.Process]) -> float:
    total = 0.0
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _memory(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        return float(process.memory_full_info().pss)
    return 0.0
