"""run_pipeline and doctor: what they do, what they print, and with which code they end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone
from django_q.models import OrmQ

from agents.models import Department, ModelPrice
from runs import slots
from runs.management.commands.run_pipeline import Command
from runs.models import AgentRun, Item, ModelCall, ShiftSlot, Trigger
from tests.engine import assert_accounts_agree, at_work, begin, make_office, outcome_of, take_slot
from tests.factories import make_agent_run, make_item, make_lead
from tests.simulator_fixture import SimulatorServer

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call a command: its exit code and what it printed on standard output."""

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            call_command(*arguments)
        except SystemExit as ended:
            return int(ended.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    return call


@pytest.fixture
def office() -> Department:
    return make_office()


# --- run_pipeline ------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_it_marks_the_leads_it_is_given(office: Department, run: Run) -> None:
    wanted, other = make_lead().item, make_lead().item
    code, out = run("run_pipeline", "--lead", str(wanted.pk))
    assert (code, out) == (0, "1 leads marked due in Sales.\n")
    wanted.refresh_from_db()
    other.refresh_from_db()
    assert wanted.route_due_at is not None
    assert other.route_due_at is None
    assert Trigger.objects.get().payload == {"reason": "run_pipeline"}


@pytest.mark.django_db
def test_it_marks_every_lead_of_its_department_and_of_no_other(office: Department, run: Run) -> None:
    north = make_office("north")
    ours = [make_lead(office).item for _ in range(3)]
    theirs = make_lead(north).item
    paused = make_lead(office, automation="paused").item
    code, out = run("run_pipeline", "--all", "--json")
    report = json.loads(out)
    assert (code, report["department"], report["marked"], report["settled"]) == (0, "sales", 3, None)
    assert set(Item.objects.filter(route_due_at__isnull=False)) == set(ours)
    assert theirs.pk not in {item.pk for item in ours}
    assert not Trigger.objects.filter(item=paused).exists()
    run("run_pipeline", "--all", "--department", "north")
    assert Trigger.objects.filter(item=theirs).count() == 1


@pytest.mark.django_db(transaction=True)
def test_with_wait_it_reports_when_all_is_done(simulator: SimulatorServer, office: Department, run: Run) -> None:
    for _ in range(3):
        make_lead()
    with at_work():
        code, out = run("run_pipeline", "--all", "--wait", "20", "--json")
        again = json.loads(run("run_pipeline", "--all", "--wait", "20", "--json")[1])
    report = json.loads(out)
    assert out.count("\n") == 1
    assert code == 0
    assert (report["marked"], report["settled"], report["leads"]) == (3, True, {"drafted": 3})
    assert set(report["agent_runs"]) == {"done"}
    served = simulator.calls()
    assert report["calls"] == len(served) == ModelCall.objects.count()
    assert report["failed_calls"] == 0
    assert report["input_tokens"] == sum(call["usage"]["input_tokens"] for call in served)
    assert report["output_tokens"] == sum(call["usage"]["output_tokens"] for call in served)
    assert float(report["cost_usd"]) > 0
    assert (again["calls"], again["cost_usd"]) == (0, "0.00000000")


@pytest.mark.django_db(transaction=True)
def test_a_result_that_comes_between_two_looks_is_not_the_end(office: Department) -> None:
    step = make_agent_run(make_lead(office).item, "intake", status="running")
    struck = threading.Event()

    def finish() -> None:
        with transaction.atomic():
            AgentRun.objects.filter(pk=step.pk).update(status="done")
            Item.objects.filter(pk=step.item_id).update(route_due_at=timezone.now())

    def between(execute: Any, sql: str, *rest: Any) -> Any:
        found = execute(sql, *rest)
        if "route_due_at" in sql and not struck.is_set():
            struck.set()
            outcome_of(begin(finish))
        return found

    with connection.execute_wrapper(between):
        assert not Command()._wait(office, time.monotonic() + 0.4), "its item is due again"
    assert struck.is_set()


@pytest.mark.django_db(transaction=True)
def test_the_same_in_words(simulator: SimulatorServer, office: Department, run: Run) -> None:
    make_lead()
    with at_work():
        _, out = run("run_pipeline", "--all", "--wait", "20")
    marked, leads, runs, used = out.splitlines()
    assert marked == "1 leads marked due in Sales."
    assert leads == "Leads: 1 drafted."
    assert runs.startswith("Agent runs: ")
    assert " tokens in, " in used


@pytest.mark.django_db
def test_when_the_time_is_up_it_says_so_and_fails(
    office: Department, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    make_lead()
    with pytest.raises(SystemExit) as ended:
        call_command("run_pipeline", "--all", "--wait", "0.3")
    assert ended.value.code == 1
    assert "Is a worker running?" in capsys.readouterr().err
    code, out = run("run_pipeline", "--all", "--wait", "0.3", "--json")
    assert (code, json.loads(out)["settled"]) == (1, False)


@pytest.mark.django_db
def test_an_unknown_department_or_lead_is_named(office: Department) -> None:
    stranger = make_item(make_office("north"))
    with pytest.raises(CommandError, match=r"There is no department 'south'\. There are: .*sales"):
        call_command("run_pipeline", "--all", "--department", "south")
    with pytest.raises(CommandError, match=f"has no item {stranger.pk}"):
        call_command("run_pipeline", "--lead", str(stranger.pk))
    assert not Trigger.objects.exists()


# --- doctor --------------------------------------------------------------------------------------------------------


def findings(out: str) -> dict[str, tuple[bool, str]]:
    """What a doctor's JSON says, by check."""
    return {row["check"]: (row["ok"], row["text"]) for row in json.loads(out)["checks"]}


@pytest.fixture
def healthy(office: Department, simulator: SimulatorServer) -> SimulatorServer:
    """An installation with a shift alive."""
    take_slot()
    OrmQ.objects.all().delete()
    return simulator


@pytest.mark.django_db
def test_all_is_well(healthy: SimulatorServer, run: Run) -> None:
    code, out = run("doctor", "--json")
    assert out.count("\n") == 1
    assert (code, json.loads(out)["healthy"]) == (0, True), out
    assert set(findings(out)) == {"database", "clock", "departments", "queue", "shifts", "due work", "model endpoint"}
    code, out = run("doctor")
    assert code == 0
    assert all(line.startswith("ok  ") for line in out.splitlines())


def no_shift() -> None:
    ShiftSlot.objects.update(
        token=None,
        lease_expires_at=timezone.now() - timedelta(hours=1),
        heartbeat_at=timezone.now() - timedelta(hours=1),
    )


def old_task() -> None:
    no_shift()
    slots.ensure_shifts()
    OrmQ.objects.update(lock=timezone.now() - timedelta(minutes=5))


def late_item() -> None:
    make_item(route_due_at=timezone.now() - timedelta(minutes=10))


def lost_run() -> None:
    ended = timezone.now() - timedelta(minutes=10)
    make_agent_run(make_item(), status="running", lease_expires_at=ended)


def halted_line() -> None:
    Department.objects.update(stopped_by_error="invalid x-api-key")


def no_department() -> None:
    Department.objects.all().delete()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("break_it", "check", "words"),
    [
        (no_shift, "shifts", "manage.py worker"),
        (old_task, "queue", "manage.py worker"),
        (late_item, "due work", "waited"),
        (lost_run, "due work", "lost"),
        (halted_line, "departments", "invalid x-api-key"),
        (no_department, "departments", "sync_departments"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(
    healthy: SimulatorServer, run: Run, break_it: Callable[[], None], check: str, words: str
) -> None:
    break_it()
    code, out = run("doctor", "--json")
    assert (code, json.loads(out)["healthy"]) == (1, False)
    is_well, text = findings(out)[check]
    assert not is_well
    assert words in text
    code, out = run("doctor")
    assert code == 1
    assert f"BAD {check}: " in out


@pytest.mark.django_db
def test_an_endpoint_that_does_not_answer_is_named(healthy: SimulatorServer, run: Run, settings: Any) -> None:
    settings.ANTHROPIC_BASE_URL = "http://127.0.0.1:9"
    code, out = run("doctor", "--json")
    assert code == 1
    assert "ANTHROPIC_BASE_URL" in findings(out)["model endpoint"][1]


@pytest.mark.django_db
def test_live_makes_one_small_call_per_agent_with_its_schema(healthy: SimulatorServer, run: Run) -> None:
    code, out = run("doctor", "--live", "--json")
    assert code == 0, out
    asked = {call["agent"] for call in healthy.calls()}
    assert len(healthy.calls()) == len(asked) == 10
    assert {f"sales/{slug}" for slug in asked} <= set(findings(out))
    for request in healthy.requests():
        if request["path"] == "/v1/messages":
            body = json.loads(request["body"])
            assert body["output_config"]["format"]["type"] == "json_schema"
            assert body["max_tokens"] <= 1_024
    calls = list(ModelCall.objects.all())
    assert {(call.item_id, call.agent_run_id, call.try_out_id) for call in calls} == {(None, None, None)}
    assert len({call.agent_id for call in calls}) == len(calls) == 10
    assert_accounts_agree()


@pytest.mark.django_db
def test_live_names_a_model_that_the_api_does_not_know_and_one_without_a_price(
    healthy: SimulatorServer, run: Run, office: Department
) -> None:
    office.agents.filter(slug="writer").update(model="claude-nothing-9")
    ModelPrice.objects.filter(model=office.agents.get(slug="intake").model).delete()
    code, out = run("doctor", "--live", "--json")
    assert code == 1
    found = findings(out)
    assert "claude-nothing-9" in found["sales/writer"][1]
    assert "has no price" in found["sales/intake"][1]
    assert found["sales/followup_writer"][0]


@pytest.mark.django_db
def test_live_names_a_key_that_is_missing(healthy: SimulatorServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    code, out = run("doctor", "--live", "--json")
    assert code == 1
    assert "ANTHROPIC_API_KEY" in findings(out)["sales/intake"][1]
