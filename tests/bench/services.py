"""What a measurement runs on: a scratch database, a simulator, and the processes whose cost is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = os.environ.get("BENCH_POSTGRES", "postgres://postgres@127.0.0.1:5432")
READY_SECONDS = 60
STOP_SECONDS = 30
Row = dict[str, Any]


@contextmanager
def scratch_database(kind: str, folder: str, label: str = "engine") -> Iterator[str]:
    """The URL of an empty database, ``sqlite`` or ``postgres``; gone afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/bench.sqlite3"
        return
    name = f"kontor_bench_{label}_{uuid4().hex[:12]}"
    with psycopg.connect(f"{POSTGRES}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{POSTGRES}/{name}"
        finally:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def has_postgres() -> bool:
    """Whether a PostgreSQL server answers."""
    try:
        psycopg.connect(f"{POSTGRES}/postgres", connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def running_simulator(folder: str, latency_ms: int) -> Iterator[str]:
    """The simulator as a process of its own, as a server would be; gives its base URL."""
    ready = Path(folder) / "simulator.log"
    env = {**os.environ, "DATABASE_URL": f"sqlite:///{folder}/none.sqlite3", "PYTHONUNBUFFERED": "1"}
    env["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
    command = [sys.executable, "manage.py", "simulator", "--port", "0", "--latency-ms", str(latency_ms), "--no-record"]
    with ready.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log)
    try:
        until = time.monotonic() + READY_SECONDS
        while "http://" not in (text := ready.read_text()):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"The simulator did not start: {text}")
            time.sleep(0.05)
        yield "http://" + text.split("http://")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


@contextmanager
def running_worker(env: dict[str, str], shifts: int) -> Iterator[list[psutil.Process]]:
    """The real worker, as an installation runs it, once all its shifts are at work; gives its processes."""
    command = [sys.executable, "manage.py", "worker"]
    worker = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        step(env, "wait_for_shifts", str(shifts))
        process = psutil.Process(worker.pid)
        yield [process, *process.children(recursive=True)]
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(STOP_SECONDS)


def step(env: dict[str, str], verb: str, *args: str) -> Row:
    """Carry out one of the steps inside the database that is measured; what it found."""
    return run_json([sys.executable, "-m", "tests.bench.steps", verb, *args], env)


def manage(env: dict[str, str], *args: str) -> None:
    """Run a command of the product."""
    command = [sys.executable, "manage.py", *args]
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def run_json(command: Sequence[str], env: dict[str, str]) -> Row:
    """Run a command whose last line of output is a JSON object."""
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True, text=True)
    answer: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def cpu_seconds(tree: Sequence[psutil.Process]) -> float:
    """Processor time that the processes have used so far."""
    total = 0.0
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def memory_mb(tree: Sequence[psutil.Process]) -> int:
    """Memory of the processes together; what they share is counted once."""
    total = 0
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return round(total / 1e6)
