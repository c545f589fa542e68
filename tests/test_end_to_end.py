"""The real worker command as a process of its own: a file of leads goes in, drafts come out, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from agents.models import Department
from leads.models import Lead
from runs.models import AgentRun, Item, LogEntry, ModelCall, Output, PipelineRun, ShiftSlot
from tests.engine import assert_accounts_agree, is_settled, keys_of, make_office, wait_for
from tests.simulator_fixture import SimulatorServer

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True), pytest.mark.timeout(900)]
ROOT = Path(settings.BASE_DIR)
SAMPLES = ROOT / "leads" / "samples" / "leads.csv"
LIMIT_SECONDS = 150
WANTED = {
    "drafted": {"intake", "qualification", "research", "strategy", "draft", "fact_check", "email"},
    "nurturing": {"intake", "qualification"},
    "rejected": {"intake"},
}


def database_url() -> str:
    """The test database, as the environment names one."""
    own = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{own['NAME']}"
    password = f":{own['PASSWORD']}" if own["PASSWORD"] else ""
    return f"postgres://{own['USER']}{password}@{own['HOST']}:{own['PORT'] or 5432}/{own['NAME']}"


class Worker:
    """``manage.py worker`` in a session of its own."""

    def __init__(self, simulator: SimulatorServer, log: Path, **environment: str) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "worker"],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": database_url(),
                "ANTHROPIC_BASE_URL": simulator.base_url,
                "KONTOR_TOOLS_NETWORK": "0",
                "SHIFTS": "2",
                "LOG_LEVEL": "WARNING",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.seen: set[psutil.Process] = set()

    def children(self) -> set[psutil.Process]:
        """The processes it has now; they are remembered."""
        found = set(psutil.Process(self.process.pid).children(recursive=True))
        self.seen |= found
        return found

    def stop(self) -> int:
        """Ask it to stop, as a process manager does; its exit code."""
        self.children()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_SECONDS)

    def left_over(self) -> list[psutil.Process]:
        """Processes of it that are still there."""
        return [one for one in self.seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def worker(simulator: SimulatorServer, log: Path, **environment: str) -> Iterator[Worker]:
    """A worker that is gone when the block ends, whatever happened in it."""
    one = Worker(simulator, log, **environment)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.children()
            one.process.kill()
            one.process.wait(LIMIT_SECONDS)
        for child in one.left_over():
            child.kill()


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """What the worker prints; shown when the test fails."""
    path = tmp_path / "worker.log"
    path.touch()
    yield path
    print(path.read_text(errors="replace")[-20_000:])


def wait_until_settled() -> None:
    wait_for(is_settled, "all work done", LIMIT_SECONDS)


def assert_every_lead_is_finished() -> None:
    """Each lead has exactly the outputs of its status, and its log tells of each."""
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    assert set(PipelineRun.objects.values_list("status", flat=True)) == {"completed"}
    statuses = Counter(Item.objects.values_list("status", flat=True))
    assert set(statuses) == set(WANTED), statuses
    for item in Item.objects.all():
        outputs = list(item.outputs.values_list("key", "trigger_id", "is_current"))
        assert len(outputs) == len(set(outputs)), f"{item.title} has an output twice"
        assert {key for key, _ in keys_of(item)} == WANTED[item.status], item.title
        told = LogEntry.objects.filter(item=item, kind="output")
        assert told.count() == len(outputs), item.title


def assert_our_books_are_the_simulators(simulator: SimulatorServer) -> None:
    """Call by call: the tokens we paid for are those that were served."""
    ours = {str(call.call_id): (call.input_tokens, call.output_tokens) for call in ModelCall.objects.all()}
    theirs = {
        call["call_id"]: (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) for call in simulator.calls()
    }
    assert ours == theirs


def everything() -> list[Any]:
    """All outputs as they are stored."""
    return list(Output.objects.order_by("pk").values())


def test_a_file_goes_in_and_drafts_come_out_once(simulator: SimulatorServer, office: Department, log: Path) -> None:
    simulator.set_latency(50)
    with worker(simulator, log) as one:
        call_command("import_leads", SAMPLES, source="samples", verbosity=0)
        assert Lead.objects.count() > 30
        wait_until_settled()
        assert_every_lead_is_finished()
        assert_our_books_are_the_simulators(simulator)
        assert_accounts_agree()

        served, before = len(simulator.calls()), everything()
        report = _run_pipeline_again()
        assert (report["settled"], report["calls"], report["cost_usd"]) == (True, 0, "0.00000000")
        assert len(simulator.calls()) == served
        assert everything() == before

        assert one.stop() == 0
        wait_for(lambda: not one.left_over(), "no process is left")
    # One that was promised to a task which nobody had begun yet is filled anew by the next worker.
    assert not ShiftSlot.objects.exclude(started_at=None).exclude(token=None).exists(), "the slots are given back"
    assert "Worker stopped." in log.read_text()


def _run_pipeline_again() -> dict[str, Any]:
    """``manage.py run_pipeline`` from outside; it prints one JSON object and nothing else."""
    command = [sys.executable, "manage.py", "run_pipeline", "--all", "--wait", str(LIMIT_SECONDS), "--json"]
    environment = {**os.environ, "DATABASE_URL": database_url(), "LOG_LEVEL": "WARNING"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def test_a_killed_process_costs_an_estimate_and_nothing_else(
    simulator: SimulatorServer, office: Department, log: Path
) -> None:
    simulator.set_latency(400)
    with worker(simulator, log, LEASE_SECONDS="3") as one:
        call_command("import_leads", SAMPLES, source="samples", verbosity=0)
        wait_for(lambda: Output.objects.count() > 20 and _holders(one) != [], "work is under way", LIMIT_SECONDS)
        victim = _holders(one)[0]
        victim.kill()
        wait_until_settled()
        assert one.process.poll() is None, "the worker goes on"
        assert_every_lead_is_finished()
        lost = AgentRun.objects.filter(lost_leases__gt=0)
        assert lost.exists()
        assert set(lost.values_list("failures", flat=True)) == {0}
        unseen = ModelCall.objects.filter(status="unseen")
        assert {call.is_estimate for call in unseen} == {True}
        assert all(call.cost_usd == call.reserved_usd for call in unseen)
        assert_accounts_agree()
        served = {call["call_id"] for call in simulator.calls()}
        assert {str(call.call_id) for call in ModelCall.objects.filter(status="finished")} <= served
        assert one.stop() == 0
        wait_for(lambda: not one.left_over(), "no process is left")


def _holders(one: Worker) -> list[psutil.Process]:
    """The worker's processes that hold runs now, the busiest first."""
    held = Counter(AgentRun.objects.filter(status="running").values_list("worker", flat=True))
    pids = [int(name.rpartition(":")[2]) for name, _ in held.most_common()]
    by_pid = {child.pid: child for child in one.children()}
    return [by_pid[pid] for pid in pids if pid in by_pid]


def test_a_worker_that_is_stopped_in_the_middle_gives_back_and_another_goes_on(
    simulator: SimulatorServer, office: Department, log: Path
) -> None:
    simulator.set_latency(300)
    with worker(simulator, log) as first:
        call_command("import_leads", SAMPLES, source="samples", verbosity=0)
        wait_for(lambda: Output.objects.count() > 20, "work is under way", LIMIT_SECONDS)
        assert first.stop() == 0
        wait_for(lambda: not first.left_over(), "no process is left")
    assert not AgentRun.objects.filter(status="running").exists()
    assert not is_settled()
    with worker(simulator, log) as second:
        wait_until_settled()
        assert second.stop() == 0
    assert_every_lead_is_finished()
    assert not AgentRun.objects.filter(lost_leases__gt=0).exists()
    assert_accounts_agree()
