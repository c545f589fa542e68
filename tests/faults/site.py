"""An installation for one case: simulator, workers and web server, each a real process on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from django.db import Error, connection
from django.utils import timezone

from runs.models import ShiftSlot
from tests.engine_size import ROOT
from tests.faults.apps import FOLDER
from tests.faults.points import OFFSET, Trap

LOOK_SECONDS = 0.05
READY_SECONDS = 60.0
LATENCY_MS = 300
EXPECTED_LOGGERS = ("kontor.alerts", "django-q")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class TooLate(AssertionError):
    """A condition did not come true within its limit."""


def wait_for(condition: Callable[[], Any], what: str, limit_seconds: float = READY_SECONDS) -> Any:
    """The first true value of the condition; ``TooLate`` after the limit. A database that is away is asked again."""
    until = time.monotonic() + limit_seconds
    while True:
        try:
            if found := condition():
                return found
        except Error:
            connection.close()
        if time.monotonic() > until:
            raise TooLate(f"{what}: not within {limit_seconds:.0f} s")
        time.sleep(LOOK_SECONDS)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A process of the installation, its output in a file."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and nothing is asked of it any more."""
        self.process.kill()
        self.process.wait()

    def stop(self, limit_seconds: float = 30) -> int:
        """SIGTERM; whoever does not end is killed with all that it has started. The exit code."""
        family = _family(self.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(limit_seconds)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return self.process.wait()


class Worker(Program):
    """``manage.py worker`` with its cluster, and a folder of traps."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        folder.mkdir()
        self.folder, self.trap = folder, Trap(folder)
        super().__init__([sys.executable, "manage.py", "worker"], {**env, FOLDER: str(folder)}, folder / "log")

    def sentinel(self) -> psutil.Process:
        """The process that looks after the cluster."""
        return next(iter(psutil.Process(self.pid).children()))

    def role(self, name: str) -> psutil.Process:
        """The queue's pusher or monitor."""
        return psutil.Process(int((self.folder / f"pid-{name}").read_text()))

    def workers(self) -> list[psutil.Process]:
        """The processes that carry out tasks."""
        named = {int(file.read_text()) for file in self.folder.glob("pid-*")}
        return [process for process in self.sentinel().children() if process.pid not in named]

    def shifts(self) -> list[int]:
        """Processes of ours that hold a slot now."""
        ours = {process.pid for process in self.workers()}
        return [pid for pid in shift_pids() if pid in ours]

    def idle(self) -> psutil.Process:
        """A process that waits for a task."""
        busy = set(shift_pids())
        return next(process for process in self.workers() if process.pid not in busy)

    def move_clock(self, seconds: float) -> None:
        """Move the engine's clock of this worker."""
        new = self.folder / f"{OFFSET}.new"
        new.write_text(str(seconds))
        new.rename(self.folder / OFFSET)


class Simulator(Program):
    """The model API."""

    def __init__(self, env: dict[str, str], folder: Path, latency_ms: int, seed: int) -> None:
        options = ["--port", "0", "--latency-ms", str(latency_ms), "--seed", str(seed), "--no-record"]
        command = [sys.executable, "manage.py", "simulator", *options]
        super().__init__(command, env, folder / "simulator.log")
        wait_for(lambda: "http://" in self.text(), "the simulator listens")
        self.url = "http://" + self.text().split("http://")[1].split()[0]

    def faults(self, rules: list[dict[str, Any]]) -> None:
        """Replace the fault script."""
        self._ask("faults", json.dumps(rules).encode())

    def fired(self) -> list[int]:
        """How often each rule of the script has fired."""
        return [rule["fired"] for rule in self._ask("faults")["rules"]]

    def in_flight(self) -> int:
        """Requests that are open now."""
        return int(self._ask("stats")["in_flight"])

    def calls(self) -> list[dict[str, Any]]:
        """One record a request that has ended."""
        return list(self._ask("stats?calls=1")["calls"])

    def _ask(self, what: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"{self.url}/_control/{what}", body, timeout=30) as answer:
            return json.load(answer)


class Site:
    """The processes of one case on one database."""

    def __init__(self, folder: Path, url: str, *, latency_ms: int, seed: int, more: dict[str, str]) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "DATABASE_URL": url,
            "ANTHROPIC_API_KEY": "key",
            "OTHER_API_KEY": "key",
            "KONTOR_WEBHOOK_SECRET": SECRET,
            "KONTOR_TOOLS_NETWORK": "false",
            "SQLITE_SYNCHRONOUS": "NORMAL",
            "PYTHONUNBUFFERED": "1",
            "LOG_FORMAT": "json",
            **more,
        }
        self.simulator = Simulator(self.env, folder, latency_ms, seed)
        self.env["ANTHROPIC_BASE_URL"] = self.simulator.url
        self.programs: list[Program] = [self.simulator]
        self.port = free_port()

    def start_worker(self, *, shifts: int | None = None) -> Worker:
        """Another worker; returns when ``shifts`` slots (the number set) are held by somebody who lives."""
        worker = Worker(self.env, self.folder / f"worker-{len(self.programs)}")
        self.programs.append(worker)
        wanted = int(self.env.get("SHIFTS", "2")) if shifts is None else shifts
        wait_for(lambda: len(shift_pids()) >= wanted or worker.process.poll() is not None, "shifts are at work")
        return worker

    def start_web(self) -> Program:
        """The web server on ``port``."""
        command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--no-access-log", "--log-level", "warning", "--lifespan", "off"]
        web = Program(command, self.env, self.folder / "web.log")
        self.programs.append(web)
        return web

    def stop(self) -> None:
        """End everything, the simulator last."""
        for program in reversed(self.programs):
            program.stop()

    def complaints(self) -> list[str]:
        """Lines of the workers' logs that only an error of the engine writes."""
        found = []
        for program in self.programs:
            if isinstance(program, Worker):
                found += [line for line in program.text().splitlines() if _is_complaint(line)]
        return found


@contextmanager
def site(
    url: str, *, latency_ms: int = LATENCY_MS, seed: int = 1, more: dict[str, str] | None = None
) -> Iterator[Site]:
    """An installation without workers yet."""
    with tempfile.TemporaryDirectory(prefix="kontor-faults-") as folder:
        place = Site(Path(folder), url, latency_ms=latency_ms, seed=seed, more=more or {})
        try:
            yield place
        finally:
            place.stop()


def shift_pids() -> list[int]:
    """Processes on this machine that hold a slot whose lease runs, and that live."""
    held = ShiftSlot.objects.filter(started_at__isnull=False, lease_expires_at__gt=timezone.now())
    pids = [int(worker.rpartition(":")[2]) for worker in held.values_list("worker", flat=True) if worker]
    return [pid for pid in pids if _lives(pid)]


def _is_complaint(line: str) -> bool:
    """Whether the engine logged an error of its own: neither an alert nor the queue's news of whom we have killed."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    is_expected = entry.get("logger", "").startswith(EXPECTED_LOGGERS)
    return entry.get("level") in ("error", "critical") and not is_expected


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED))
    except psutil.NoSuchProcess:
        return False


def _family(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []
