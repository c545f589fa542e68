"""The whole demo, as somebody who has just cloned Kontor sees it: from the command to a finished lead to Ctrl-C."""

from __future__ import annotations

import http.cookiejar
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from django.conf import settings
from psycopg import sql

pytestmark = [pytest.mark.cluster, pytest.mark.database, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 180
DRIVER = "import sys; from pathlib import Path; from config.demo import main; sys.exit(main(Path(sys.argv[1])))"


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RunningDemo:
    """A demo with files, ports and database of its own, its output, and a browser that can log in."""

    def __init__(self, var: Path, database_url: str) -> None:
        given = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANTHROPIC_", "KONTOR_", "PYTEST_")) and name != "DATABASE_URL"
        }
        given |= {"WEB_PORT": str(free_port()), "SIMULATOR_PORT": str(free_port()), "PYTHONUNBUFFERED": "1"}
        if database_url:
            given["DATABASE_URL"] = database_url
        self.output = var.parent / f"{time.monotonic_ns()}.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(var)],
            cwd=ROOT,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=self.output.open("w"),
            stderr=subprocess.STDOUT,
        )
        cookies = http.cookiejar.CookieJar()
        self.browser = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(cookies)
        )
        self.cookies = cookies

    def text(self) -> str:
        """Everything printed until now."""
        return self.output.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return once the output matches; fail when the demo has ended or the limit is over."""
        limit = time.monotonic() + LIMIT_SECONDS
        while not (found := re.search(pattern, self.text())):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < limit, f"no {pattern!r} within {LIMIT_SECONDS} s:\n{self.text()}"
            time.sleep(0.1)
        return found

    def get(self, path: str) -> str:
        """The page at a path of the site, with the session of whoever logged in."""
        with self.browser.open(self.url + path, timeout=30) as answer:
            return str(answer.read().decode())

    def log_in(self) -> None:
        """Log in with what the demo printed."""
        self.url = self.wait_for(r"http://127\.0\.0\.1:\d+(?=/\n)")[0]
        found = self.wait_for(r"Log in as\s+(\S+)\s+password\s+(\S+)")
        self.get("/login/")
        token = next(cookie.value for cookie in self.cookies if cookie.name == "csrftoken")
        fields = {"username": found[1], "password": found[2], "csrfmiddlewaretoken": token, "next": "/leads/"}
        self.browser.open(self.url + "/login/", urllib.parse.urlencode(fields).encode(), timeout=30).close()

    def stop(self, signum: int = signal.SIGINT) -> int:
        """Stop it as a person does; the exit code, once no process of it is left."""
        members = psutil.Process(self.process.pid).children(recursive=True)
        assert len(members) > 3
        self.process.send_signal(signum)
        code = self.process.wait(60)
        assert not psutil.wait_procs(members, 10)[1], "a process outlived the demo"
        return code


@pytest.fixture
def database_url() -> Iterator[str]:
    """On PostgreSQL a fresh database for DATABASE_URL; on SQLite nothing, so that the demo uses its own file."""
    if settings.IS_SQLITE:
        yield ""
        return
    here = settings.DATABASES["default"]
    name = f"kontor_demo_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(
        host=here["HOST"],
        port=here["PORT"],
        user=here["USER"],
        password=here["PASSWORD"],
        dbname="postgres",
        autocommit=True,
    ) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        user = urllib.parse.quote(here["USER"]) + (
            ":" + urllib.parse.quote(here["PASSWORD"]) if here["PASSWORD"] else ""
        )
        yield f"postgres://{user}@{here['HOST']}:{here['PORT'] or 5432}/{name}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def start(database_url: str) -> Iterator[Callable[[Path], RunningDemo]]:
    """Start demos that end with the test, whatever happens in it."""
    started: list[RunningDemo] = []

    def begin(var: Path) -> RunningDemo:
        started.append(RunningDemo(var, database_url))
        return started[-1]

    yield begin
    for demo in started:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait(60)


def test_the_demo_works_the_sample_leads_and_can_be_stopped_at_any_time(
    start: Callable[[Path], RunningDemo], tmp_path: Path, database_url: str
) -> None:
    var = tmp_path / "var"
    demo = start(var)
    demo.log_in()
    assert 'href="/leads/1/"' in demo.get("/leads/")
    assert stat.S_IMODE((var / "demo.env").stat().st_mode) == 0o600
    assert (var / "demo.sqlite3").exists() is not bool(database_url)
    demo.wait_for(r"Worker \d+ is at work")
    # It holds the checkout until it has ended.
    second = start(var)
    assert second.process.wait(30) == 1
    assert "running already" in second.text()
    assert demo.stop() == 0
    assert "Traceback" not in demo.text()

    again = start(var)
    again.log_in()
    assert "The leads that are there stay" in again.text()
    again.wait_for(r"\d+ calls, [\d,]+ tokens in")
    assert re.search(r"Leads: .*\d+ drafted", again.text())
    assert re.search(r"Agent runs: \d+ done\.", again.text())
    assert again.stop(signal.SIGTERM) == 0
    assert "Traceback" not in again.text()
