"""Whole shifts: an event loop, a database thread and the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as configured
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from django_q.models import OrmQ

from agents.models import Department
from agents.tools import tool
from leads.models import Lead
from runs import leases, shift
from runs.commits import commit
from runs.models import AgentRun, Item, LogEntry, ModelCall, Output, PipelineRun, Rule, ShiftSlot
from runs.shift import Shift
from tests.engine import (
    assert_accounts_agree,
    drain,
    is_settled,
    keys_of,
    make_due,
    make_office,
    make_queued,
    take_slot,
    wait_for,
)
from tests.factories import make_lead
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
SAMPLES = Path(configured.BASE_DIR) / "leads" / "samples" / "leads.csv"
OUTREACH = {"intake", "qualification", "research", "strategy", "draft", "fact_check", "email"}
SLOW = [{"what": {"kind": "delay", "delay_ms": 60_000}}]


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def only_what_is_queued(office: Department) -> None:
    """Nothing is wanted by itself."""
    Rule.objects.update(is_enabled=False)


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set it, and the worker is being stopped. Its grace is half a second."""
    told = threading.Event()
    monkeypatch.setattr(shift, "is_stopping", told.is_set)
    monkeypatch.setattr(shift, "GRACE_SECONDS", 0.5)
    return told


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shift does every few seconds it does several times a second."""
    monkeypatch.setattr(shift, "KEEP_UP_SECONDS", 0.2)
    monkeypatch.setattr(shift, "LOOK_AFTER_SECONDS", 0.2)


Meanwhile = Callable[[Shift], Awaitable[None]]


def run_shift(meanwhile: Meanwhile, *, token: UUID | None = None, number: int = 1, **options: Any) -> Shift:
    """Run a shift to its own end while something happens to it."""
    token = token or take_slot(number)

    async def run() -> Shift:
        one = Shift(number, token, **{"seconds": 600, "concurrency": 20, **options})
        working = asyncio.create_task(one.run())
        try:
            await meanwhile(one)
            await asyncio.wait_for(working, 20)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        return one

    return asyncio.run(run())


async def until(one: Shift, condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that is looked at on the shift's own thread."""
    for _ in range(1_000):
        with contextlib.suppress(OperationalError):  # a test may have cut the connection
            if await one.in_database(condition):
                return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within 20 s")


async def in_flight(simulator: SimulatorServer, count: int) -> None:
    """Wait until so many calls are in flight, as the other side counts them."""
    await asyncio.to_thread(wait_for, lambda: simulator.stats()["in_flight"] == count, f"{count} in flight")


# --- All the work there is -------------------------------------------------------------------------------------


def test_all_sample_leads_are_worked_on_and_a_second_round_does_nothing(
    simulator: SimulatorServer, office: Department
) -> None:
    call_command("import_leads", SAMPLES, source="samples", verbosity=0)
    drain(limit_seconds=60)
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    assert set(PipelineRun.objects.values_list("status", flat=True)) == {"completed"}
    statuses = Counter(Item.objects.values_list("status", flat=True))
    assert set(statuses) == {"drafted", "nurturing", "rejected"}
    for item in Item.objects.all():
        keys = {key for key, _ in keys_of(item)}
        wanted = {"drafted": OUTREACH, "nurturing": {"intake", "qualification"}, "rejected": {"intake"}}
        assert keys == wanted[item.status], item.title
        assert LogEntry.objects.filter(item=item, kind="finished").count() == 1
    assert_accounts_agree()
    ours = {str(call.call_id): (call.input_tokens, call.output_tokens) for call in ModelCall.objects.all()}
    theirs = {
        call["call_id"]: (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) for call in simulator.calls()
    }
    assert ours == theirs

    before = list(Output.objects.order_by("pk").values())
    make_due(*Item.objects.all())
    drain()
    assert len(simulator.calls()) == len(ours)
    assert list(Output.objects.order_by("pk").values()) == before


def test_two_shifts_share_the_work_and_do_nothing_twice(
    simulator: SimulatorServer, office: Department, settings: Any
) -> None:
    settings.SHIFTS = 2
    for _ in range(12):
        make_due(make_lead().item)
    simulator.set_latency(30)
    tokens = {number: take_slot(number) for number in (1, 2)}

    async def run() -> None:
        both = [Shift(number, token, seconds=600, concurrency=8) for number, token in tokens.items()]
        working = [asyncio.create_task(one.run()) for one in both]
        try:
            await until(both[0], is_settled, "settled")
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    asyncio.run(run())
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    assert set(AgentRun.objects.values_list("attempt", flat=True)) == {1}
    assert ModelCall.objects.count() == len(simulator.calls())
    assert all({key for key, _ in keys_of(item)} == OUTREACH for item in Item.objects.all())
    assert_accounts_agree()


def test_no_row_of_one_department_crosses_to_another(
    simulator: SimulatorServer, office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORTH_KEY", "key-of-north")
    north = make_office("north", api_key_env="NORTH_KEY", settings={"tone": "Tone-Of-North"})
    Department.objects.filter(pk=office.pk).update(settings={"tone": "Tone-Of-Sales"})
    theirs = [make_lead(north, company=f"North-Company {n}", email=f"same{n}@example.com").item for n in range(4)]
    ours = [make_lead(office, company=f"Sales-Company {n}", email=f"same{n}@example.com").item for n in range(4)]
    make_due(*theirs, *ours)
    drain()
    assert_accounts_agree()
    for item in (*ours, *theirs):
        assert {key for key, _ in keys_of(item)} == OUTREACH
    for run in AgentRun.objects.select_related("agent", "item", "soul"):
        assert run.agent.department_id == run.department_id == run.item.department_id
        assert run.soul is not None
        assert run.soul.agent_id == run.agent_id
    for call in ModelCall.objects.select_related("agent", "agent_run", "item"):
        assert call.agent_run is not None
        assert call.item is not None
        assert {call.agent.department_id, call.agent_run.department_id, call.item.department_id} == {call.department_id}
    for entry in LogEntry.objects.select_related("item").exclude(item=None):
        assert entry.item is not None
        assert entry.item.department_id == entry.department_id
    for request in simulator.requests():
        is_north = request["headers"]["authorization"] == "Bearer key-of-north"
        assert ("North-Company" in request["body"]) == is_north
        assert ("Sales-Company" in request["body"]) != is_north
        assert "Tone-Of-Sales" not in request["body"] if is_north else "Tone-Of-North" not in request["body"]


# --- The end of a shift ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_what_is_queued")
def test_a_worker_that_stops_gives_back_what_it_holds(simulator: SimulatorServer, stopping: threading.Event) -> None:
    run = make_queued("intake")
    simulator.faults(SLOW)

    async def stop(one: Shift) -> None:
        await in_flight(simulator, 1)
        stopping.set()

    run_shift(stop)
    run.refresh_from_db()
    assert (run.status, run.lost_leases, run.failures, run.lease_token) == ("queued", 0, 0, None)
    call = ModelCall.objects.get()
    assert (call.status, call.cause, call.is_estimate) == ("finished", "cut_off", True)
    slot = ShiftSlot.objects.get()
    assert (slot.token, slot.in_flight) == (None, 0)
    assert simulator.stats()["in_flight"] == 0
    assert_accounts_agree()
    simulator.faults([])
    stopping.clear()
    drain()
    run.refresh_from_db()
    assert (run.status, run.attempt) == ("done", 2)


@pytest.mark.usefixtures("only_what_is_queued")
def test_what_comes_back_within_the_grace_is_kept(simulator: SimulatorServer, stopping: threading.Event) -> None:
    run, late = make_queued("intake", priority=1), make_queued("intake")
    simulator.set_latency(250)

    async def stop(one: Shift) -> None:
        await in_flight(simulator, 1)
        stopping.set()

    run_shift(stop, concurrency=1)
    run.refresh_from_db()
    late.refresh_from_db()
    assert run.status == "done"
    assert (late.status, late.attempt) == ("queued", 0), "nothing new is claimed"
    assert_accounts_agree()


@pytest.mark.usefixtures("only_what_is_queued")
def test_a_shift_whose_time_is_over_hands_its_slot_over_and_drains(simulator: SimulatorServer) -> None:
    run, late = make_queued("intake", priority=1), make_queued("intake")
    simulator.set_latency(800)
    token = take_slot()
    OrmQ.objects.all().delete()

    async def wait(one: Shift) -> None:
        await until(one, lambda: ShiftSlot.objects.get().token != token, "handed over")
        assert await one.in_database(lambda: AgentRun.objects.get(pk=run.pk).status) == "running"

    run_shift(wait, token=token, seconds=0.3, concurrency=1)
    run.refresh_from_db()
    late.refresh_from_db()
    assert run.status == "done"
    assert late.attempt == 0, "that is for the successor"
    slot = ShiftSlot.objects.get()
    assert slot.token not in (None, token)
    assert slot.started_at is None
    assert OrmQ.objects.count() == 1
    assert_accounts_agree()


@pytest.mark.usefixtures("only_what_is_queued", "looks_often")
def test_a_shift_that_lost_its_slot_claims_nothing_more(simulator: SimulatorServer) -> None:
    async def take_away(one: Shift) -> None:
        await until(one, lambda: ShiftSlot.objects.update(token=None) > 0, "taken away")

    run_shift(take_away)
    assert not AgentRun.objects.exists()


@pytest.mark.usefixtures("only_what_is_queued")
def test_a_shift_whose_database_is_ahead_claims_nothing_ends_and_leaves_its_slot(simulator: SimulatorServer) -> None:
    run, token = make_queued("intake"), take_slot()
    newer = MigrationRecorder.Migration.objects.create(app="runs", name="9999_of_the_next_release")

    async def wait(one: Shift) -> None:
        """It ends by itself, long before its time is over."""

    try:
        run_shift(wait, token=token)
    finally:
        newer.delete()
    run.refresh_from_db()
    assert (run.status, run.attempt) == ("queued", 0)
    slot = ShiftSlot.objects.get(number=1)
    assert (slot.token, slot.lease_expires_at) == (None, None)
    assert OrmQ.objects.count() == 1, "only the task that began this shift: it queued no successor"


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.usefixtures("only_what_is_queued")
def test_a_shift_that_is_cancelled_together_with_news_ends(simulator: SimulatorServer, turns: int) -> None:
    token = take_slot()

    async def cancel() -> bool:
        one = Shift(1, token, seconds=600)
        working = asyncio.create_task(one.run())
        while not one._news._waiters:  # until it waits for news and nothing else
            assert not working.done()
            await asyncio.sleep(0)
        one._news.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        _, pending = await asyncio.wait([working], timeout=5)
        one._ends_at = 0  # should it have swallowed it, it ends nevertheless
        return not pending

    assert asyncio.run(cancel())


@pytest.mark.usefixtures("only_what_is_queued")
def test_a_shift_that_breaks_loses_nothing_that_came_back(
    simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_queued("intake")
    broken = threading.Event()

    def fragile(finished: list[Any], staff: Any) -> None:
        if finished and not broken.is_set():
            broken.set()
            raise RuntimeError("a mistake in Kontor")
        commit(finished, staff)

    monkeypatch.setattr(shift, "commit", fragile)

    async def wait(one: Shift) -> None:
        await asyncio.to_thread(broken.wait, 10)

    with pytest.raises(RuntimeError, match="a mistake in Kontor"):
        run_shift(wait)
    run.refresh_from_db()
    assert (run.status, run.attempt) == ("done", 1)
    assert_accounts_agree()


# --- Leases while calls are in the air -------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_what_is_queued")
def test_a_next_call_whose_commit_was_not_confirmed_is_opened_once(
    simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_queued("intake")
    simulator.faults([{"match": {"agent": "intake", "times": 1}, "what": {"kind": "truncate"}}])
    real, opened = Shift._next_call, []

    def unconfirmed(self: Shift, *args: Any) -> Any:
        opened.append(real(self, *args))
        if len(opened) == 1:
            raise OperationalError("the connection was lost after the commit")
        return opened[-1]

    monkeypatch.setattr(Shift, "_next_call", unconfirmed)
    drain()
    run.refresh_from_db()
    assert (run.status, run.failures, len(opened)) == ("done", 0, 2)
    assert opened[0] == opened[1]
    assert ModelCall.objects.count() == len(simulator.calls()) == 2
    assert_accounts_agree()


@pytest.mark.usefixtures("only_what_is_queued", "looks_often")
def test_taking_the_token_away_breaks_off_the_call(simulator: SimulatorServer) -> None:
    run, kept = make_queued("intake"), make_queued("qualifier")
    simulator.faults([{"match": {"agent": "intake"}, "what": {"kind": "delay", "delay_ms": 60_000}}])

    async def cancel(one: Shift) -> None:
        await in_flight(simulator, 1)
        taken = AgentRun.objects.filter(pk=run.pk)
        await one.in_database(partial(taken.update, status="cancelled", lease_token=None, lease_expires_at=None))
        await in_flight(simulator, 0)
        one._ends_at = 0

    run_shift(cancel)
    run.refresh_from_db()
    kept.refresh_from_db()
    assert run.status == "cancelled"
    assert kept.status == "done"
    assert not Output.objects.filter(key="intake").exists()


@pytest.mark.usefixtures("only_what_is_queued", "looks_often")
def test_a_call_that_shows_signs_of_life_keeps_its_lease(simulator: SimulatorServer, settings: Any) -> None:
    settings.LEASE_SECONDS = 1
    run = make_queued("intake")
    simulator.faults([{"what": {"kind": "pings", "seconds": 2.5, "interval_ms": 100, "after_deltas": 3}}])
    drain()
    run.refresh_from_db()
    assert (run.status, run.attempt, run.lost_leases) == ("done", 1, 0)


@pytest.mark.usefixtures("only_what_is_queued", "looks_often")
def test_a_call_that_is_silent_is_cut_before_its_lease_runs_out(
    simulator: SimulatorServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LEASE_SECONDS = 3
    monkeypatch.setattr(shift, "SILENCE_SECONDS", 1.0)
    run = make_queued("intake")
    simulator.faults([{"match": {"times": 1}, "what": {"kind": "silence", "seconds": 60}}])
    drain()
    run.refresh_from_db()
    assert (run.status, run.attempt, run.failures, run.lost_leases) == ("done", 2, 1, 0)
    first, second = ModelCall.objects.order_by("attempt")
    assert (first.cause, first.is_estimate, second.status) == ("timeout", True, "finished")
    assert first.error == "Nothing was heard for 2.5 seconds."
    assert_accounts_agree()


@pytest.mark.usefixtures("only_what_is_queued")
def test_nothing_flies_beside_a_poison_run(simulator: SimulatorServer) -> None:
    poison = make_queued("intake", lost_leases=leases.MAX_LOST_BEFORE_ALONE)
    for _ in range(3):
        make_queued("intake")
    simulator.set_latency(200)
    drain()
    calls = list(ModelCall.objects.order_by("started_at"))
    own = next(call for call in calls if call.agent_run_id == poison.pk)
    assert own.ended_at is not None
    for call in calls:
        assert call.ended_at is not None
        if call != own:
            assert call.ended_at <= own.started_at or call.started_at >= own.ended_at
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}


@pytest.mark.usefixtures("only_what_is_queued", "looks_often")
def test_a_shift_that_is_always_busy_makes_room_for_a_poison_run(
    simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "STARVED", timedelta(seconds=0.5))
    now = timezone.now()
    poison = make_queued(
        "intake", lost_leases=leases.MAX_LOST_BEFORE_ALONE, priority=99, due_at=now + timedelta(hours=1)
    )
    for _ in range(40):
        make_queued("intake")
    simulator.set_latency(200)

    def is_over() -> bool:
        if ModelCall.objects.count() >= 4:  # it is busy: now the other one has been due for long
            AgentRun.objects.filter(pk=poison.pk, due_at__gt=now).update(due_at=now)
        return is_settled()

    drain(until=is_over, concurrency=4)
    own = ModelCall.objects.get(agent_run=poison)
    others = ModelCall.objects.exclude(pk=own.pk)
    assert others.filter(started_at__lt=own.started_at).exists(), "it was never busy"
    assert others.filter(started_at__gte=own.ended_at).exists(), "it waited until nothing else was left"
    assert not others.filter(started_at__lt=own.ended_at, ended_at__gt=own.started_at).exists()


def test_no_more_calls_are_in_flight_than_allowed(simulator: SimulatorServer, office: Department) -> None:
    for _ in range(5):
        make_due(make_lead().item)
    simulator.set_latency(40)
    drain(concurrency=3)
    assert simulator.stats()["max_in_flight"] == 3


# --- A database that goes away ---------------------------------------------------------------------------------------


@pytest.fixture
def impatient_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite gives up on a lock after a tenth of a second, so that a shift sees the error."""
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.1)
        connection.close()
    yield
    connection.close()


@pytest.mark.usefixtures("impatient_database", "looks_often")
def test_a_database_that_goes_away_for_a_moment_loses_nothing(simulator: SimulatorServer, office: Department) -> None:
    for _ in range(8):
        make_due(make_lead().item)
    simulator.set_latency(60)

    async def interrupt(one: Shift) -> None:
        for count in (3, 12, 25):
            await asyncio.to_thread(wait_for, partial(_has_served, simulator, count), f"{count} calls")
            await asyncio.to_thread(_interrupt)
        await until(one, is_settled, "settled")
        one._ends_at = 0

    run_shift(interrupt)
    connection.close()  # this thread's own was cut as well
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    assert AgentRun.objects.filter(failures__gt=0).count() == 0
    assert all({key for key, _ in keys_of(item)} == OUTREACH for item in Item.objects.all())
    assert_accounts_agree()
    assert ModelCall.objects.filter(status="finished").count() == len(simulator.calls())


def _has_served(simulator: SimulatorServer, count: int) -> bool:
    return len(simulator.calls()) >= count


def _interrupt() -> None:
    """Cut every connection (PostgreSQL) or hold the one lock for a second and a half (SQLite)."""
    if connection.vendor == "sqlite":
        with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=20)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            threading.Event().wait(1.5)
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    finally:
        connection.close()


# --- Tools -----------------------------------------------------------------------------------------------------------


def test_what_a_tool_found_reaches_the_research(simulator: SimulatorServer, office: Department) -> None:
    assert tool("search_knowledge").kind == "database"
    make_due(make_lead().item)
    drain()
    uses = AgentRun.objects.get(agent__slug="researcher").tool_calls.all()
    assert {use.name for use in uses} == {"read_website", "search_knowledge"}
    off = next(use for use in uses if use.name == "read_website")
    assert "network access is off" in off.result
    research = Output.objects.get(key="research").payload
    assert any("website" in json.dumps(unknown).lower() for unknown in research["unknowns"])
    assert Lead.objects.count() == 1
