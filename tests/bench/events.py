"""The live stream: 200 browsers on one web process, and how long a line of the log takes to reach them.

Opens the event streams on loopback, looks at the process while nothing happens, writes lines at 1,000 a minute, and
compares when each browser read each line with when its transaction began (before the commit: an upper bound).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil

from tests.bench.services import ROOT, STOP_SECONDS, Row, cpu_seconds, memory_mb, run_json, scratch_database
from tests.bench.web import free_port

BROWSERS, LINES, PER_SECOND, IDLE_SECONDS = 200, 500, 1_000 / 60, 10.0
PATIENCE_SECONDS = 60.0


def bench(database: str, *, lines: int = LINES) -> Row:
    """Milliseconds from the beginning of a transaction to a browser, and what the web process uses meanwhile."""
    with (
        tempfile.TemporaryDirectory(prefix="kontor-bench-") as folder,
        scratch_database(database, folder, "events") as url,
    ):
        env = {**os.environ, "DATABASE_URL": url, "BENCH_FOLDER": folder, "KONTOR_SIMULATED": "1"}
        env["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
        cookie = _step(env, "prepare")["cookie"]
        with _serving(env) as (site, process):
            return {"database": database, **asyncio.run(_measure(env, site, process, cookie, lines))}


async def _measure(env: dict[str, str], site: str, process: psutil.Process, cookie: str, lines: int) -> Row:
    alone = memory_mb([process])
    browsers = [Browser(site, cookie) for _ in range(BROWSERS)]
    reading = [asyncio.create_task(browser.read()) for browser in browsers]
    await _until(lambda: all(browser.is_open for browser in browsers))
    idle = await _processor_share(process, IDLE_SECONDS)
    writing = asyncio.create_task(asyncio.to_thread(_step, env, "write", str(lines), str(PER_SECOND)))
    await _until(lambda: any(browser.seen for browser in browsers))
    busy = await _processor_share(process, lines / PER_SECOND * 0.8)
    written = {int(number): at for number, at in (await writing)["written"].items()}
    await _until(lambda: all(written.keys() <= browser.seen.keys() for browser in browsers))
    for task in reading:
        task.cancel()
    late = sorted((browser.seen[number] - at) * 1000 for browser in browsers for number, at in written.items())
    return {
        "browsers": BROWSERS,
        "lines": lines,
        "ms_p50": statistics.median(late),
        "ms_p95": late[int(len(late) * 0.95)],
        "ms_most": late[-1],
        "processor_idle": idle,
        "processor_busy": busy,
        "memory_mb": memory_mb([process]),
        "memory_mb_alone": alone,
    }


class Browser:
    """One event stream, as an EventSource reads it; ``seen`` has the time at which each line arrived."""

    def __init__(self, site: str, cookie: str) -> None:
        self.address, self.cookie = urlsplit(site), cookie
        self.seen: dict[int, float] = {}
        self.is_open = False

    async def read(self) -> None:
        """Read until cancelled; a stream that ends is opened again where it was, after 2 s, as browsers do."""
        while True:
            reader, writer = await asyncio.open_connection(self.address.hostname, self.address.port)
            head = f"GET /events/ HTTP/1.1\r\nHost: {self.address.netloc}\r\nCookie: sessionid={self.cookie}\r\n"
            last = f"Last-Event-ID: {max(self.seen)}\r\n" if self.seen else ""
            writer.write(f"{head}{last}\r\n".encode())
            try:
                while line := await reader.readline():
                    self.is_open = self.is_open or line.startswith(b"event: beat")
                    if line.startswith(b"id: "):
                        self.seen.setdefault(int(line[4:]), time.time())
            finally:
                writer.close()
            await asyncio.sleep(2)


async def _until(is_so) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.05)


async def _processor_share(process: psutil.Process, seconds: float) -> float:
    """Share of one core that the process uses over so many seconds."""
    before, began = cpu_seconds([process]), time.monotonic()
    await asyncio.sleep(seconds)
    return (cpu_seconds([process]) - before) / (time.monotonic() - began)


def _step(env: dict[str, str], *arguments: str) -> Row:
    return run_json([sys.executable, "-m", "tests.bench.event_steps", *arguments], env)


@contextmanager
def _serving(env: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """The web server as an installation runs it, in one process: its address, and the process."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1", "--port", str(port)]
    quiet = ["--no-access-log", "--log-level", "warning", "--lifespan", "off", "--timeout-graceful-shutdown", "1"]
    server = subprocess.Popen([*command, *quiet], cwd=ROOT, env=env)
    try:
        asyncio.run(_until_open(port))
        yield f"http://127.0.0.1:{port}", psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(STOP_SECONDS)


async def _until_open(port: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            return
