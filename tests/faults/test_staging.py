"""The faults of a staging installation, in their smallest form, on a worker of the test's own; and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings
from django.db import connection

from runs.models import AgentRun
from tests.engine import make_office, wait_for
from tests.engine_size import ROOT
from tests.faults.staging import MARK, Refused, Staged, check
from tests.simulator_fixture import SimulatorServer
from tests.test_end_to_end import Worker, database_url, worker

LIMIT_SECONDS = 240
NAME = "kontor_staging"
LOCAL = {"NAME": NAME, "HOST": "127.0.0.1"}
MARKED = {MARK: NAME, "DATABASE_URL": "postgres://here"}


def rehearse(name: str, worker_pid: int, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What an engineer types."""
    command = [sys.executable, "-m", "tests.faults", "--staging", name, "--worker", str(worker_pid), "--leads", "1"]
    return subprocess.run(
        command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_a_marked_worker_is_struck_heals_and_the_database_is_looked_through(
    simulator: SimulatorServer, tmp_path: Path
) -> None:
    make_office()
    name = Path(str(settings.DATABASES["default"]["NAME"])).name
    mark = {MARK: name, "DATABASE_URL": database_url()}
    with worker(simulator, tmp_path / "log", **mark) as one:
        _wait_until_at_work(one)
        done = rehearse(name, one.process.pid, {**os.environ, **mark})
        connection.close()  # ours was cut, too
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SIGKILL idle workers, monitor and pusher" in done.stdout
        assert ("all connections terminated" in done.stdout) is not settings.IS_SQLITE
        assert AgentRun.objects.filter(status="done").exists(), "its leads were worked on"

        # The same worker under another name, and one that nobody has marked.
        other = rehearse("kontor", one.process.pid, {**os.environ, **mark, MARK: "kontor"})
        assert (other.returncode, other.stdout) == (2, "")
        assert f"leads to {name!r}, and 'kontor' was typed" in other.stderr
        assert one.process.poll() is None


def _wait_until_at_work(one: Worker) -> None:
    staged = Staged(pid=one.process.pid)

    def has_shifts() -> bool:
        # Which children a process has just after its start changes from one look to the next.
        with suppress(IndexError, psutil.NoSuchProcess):
            return len(staged.shifts()) == 2
        return False

    wait_for(has_shifts, "two shifts are at work", 60)


@pytest.mark.parametrize(
    ("database", "environment", "why"),
    [
        (LOCAL, {}, f"{MARK} is not"),
        (LOCAL, {**MARKED, MARK: "another"}, f"{MARK} is not"),
        ({**LOCAL, "NAME": "kontor"}, MARKED, "leads to 'kontor'"),
        ({**LOCAL, "HOST": "db.example.com"}, MARKED, "The database is on db.example.com"),
        (LOCAL, MARKED, "is no `manage.py worker`"),
    ],
)
def test_what_is_not_marked_or_not_here_is_refused(
    database: dict[str, Any], environment: dict[str, str], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        check(NAME, database, environment, Staged(pid=os.getpid()))


@pytest.mark.parametrize("theirs", [{}, {MARK: NAME}, {MARK: NAME, "DATABASE_URL": "postgres://production"}])
def test_a_worker_that_was_not_started_as_the_staging_is_refused(theirs: dict[str, str]) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)", "worker"]
    process = subprocess.Popen(command, env=theirs)
    try:
        with pytest.raises(Refused, match="was not started with"):
            check(NAME, LOCAL, MARKED, Staged(pid=process.pid))
    finally:
        process.kill()
        process.wait(10)


def test_a_unit_is_asked_for_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\n[ "$4" = kontor-worker ] && echo 4711\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert Staged(unit="kontor-worker").pid == 4711
