"""The engine in tests: a shift that works until nothing is left, and attempts that end as a test wants them to."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection
from django.db.models import Sum
from django.utils import timezone

import leads.simulated  # noqa: F401 - registers what the simulator answers for sales
from agents.causes import Cause
from agents.models import Budget, BudgetPeriod, Department
from agents.pricing import Usage, sync_prices
from agents.replies import ModelReply
from runs import leases, slots
from runs.database import now as database_now
from runs.database import snapshot
from runs.models import AgentRun, Item, LogEntry, ModelCall, ShiftSlot
from runs.shift import Shift, worker_name
from runs.staff import load_staff
from runs.work import Finished, SeenCall, Work
from tests.factories import PAYLOADS, make_agent_run, make_department, make_lead

_T = TypeVar("_T")
LIMIT_SECONDS = 60.0
END_SECONDS = 60.0
"""For a thread to come to its end. One statement may wait 20 s for SQLite's only writer, or 60 s for a row."""
LOOK_SECONDS = 0.02
USED = Usage(input_tokens=900, output_tokens=200)


def make_office(slug: str = "sales", **fields: Any) -> Department:
    """A sales department whose models have prices and that may spend 100 dollars a day."""
    sync_prices()
    department = make_department("sales", slug, **fields)
    Budget.objects.create(department=department, period=Budget.Period.DAY, limit_usd=100)
    return department


def wait_for(condition: Callable[[], bool], what: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    """Return once the condition holds; fail after the limit."""
    until = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {limit_seconds} s"
        time.sleep(LOOK_SECONDS)


# --- Whole shifts ---------------------------------------------------------------------------------------------


def make_due(*items: Item) -> None:
    """Have the router look at the items."""
    Item.objects.filter(pk__in=[item.pk for item in items]).update(route_due_at=timezone.now())


def is_settled() -> bool:
    """Whether nothing is due for a decision and no agent run is queued or running."""
    with snapshot():  # or a run could end, and make its item due, between the two looks
        due = Item.objects.filter(route_due_at__lte=database_now(), automation=Item.Automation.ACTIVE)
        return not due.exists() and not AgentRun.objects.filter(status__in=AgentRun.ACTIVE).exists()


def take_slot(number: int = 1) -> UUID:
    """Fill an empty slot as the watchdog does and begin its shift; the token."""
    slots.ensure_shifts()
    token = ShiftSlot.objects.get(number=number).token
    assert token is not None
    assert slots.take(number, token, worker=worker_name())
    return token


def drain(
    *,
    until: Callable[[], bool] = is_settled,
    limit_seconds: float = LIMIT_SECONDS,
    concurrency: int = 20,
) -> None:
    """Run a shift in this process until the condition holds, by default until nothing is left to do."""
    token = take_slot()
    try:
        asyncio.run(_drain(Shift(1, token, seconds=600, concurrency=concurrency), until, limit_seconds))
    finally:
        slots.leave(1, token)


@contextmanager
def at_work() -> Iterator[None]:
    """A shift on a thread of its own for as long as the block lasts."""
    done = threading.Event()
    working = begin(lambda: drain(until=done.is_set, limit_seconds=4 * LIMIT_SECONDS))
    try:
        yield
    finally:
        done.set()
        outcome_of(working)


async def _drain(shift: Shift, until: Callable[[], bool], limit_seconds: float) -> None:
    working = asyncio.create_task(shift.run())
    limit = time.monotonic() + limit_seconds
    try:
        # On the shift's own thread, hence between two of its transactions.
        while working.done() or not await shift.in_database(until):
            assert not working.done(), f"the shift has ended: {working!r}"
            assert time.monotonic() < limit, f"not within {limit_seconds} s:\n{await shift.in_database(picture)}"
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        working.cancel()
        await asyncio.wait([working], timeout=END_SECONDS)
        assert working.done(), f"the shift does not end:\n{stacks()}"


def picture() -> str:
    """Where everything stands, for the message of a test that waited in vain."""
    runs = AgentRun.objects.select_related("agent").exclude(status=AgentRun.Status.DONE)[:20]
    lines = [f"{r.pk} {r.agent.slug} item {r.item_id} {r.status} {r.waiting_for} {r.error}" for r in runs]
    due = Item.objects.filter(route_due_at__isnull=False)[:20]
    lines += [f"item {item.pk} {item.status} due {item.route_due_at:%H:%M:%S} {item.flag}" for item in due]
    return "\n".join([*lines, *LogEntry.objects.order_by("-pk").values_list("text", flat=True)[:10]])


# --- Threads --------------------------------------------------------------------------------------------------


def begin(job: Callable[[], _T]) -> Future[_T]:
    """Start a job on a thread of its own, with a connection of its own; ``outcome_of`` says what became of it.

    Not in a pool, which waits for its threads without a limit: one that hangs is to fail its test and hold up no other.
    """
    outcome: Future[_T] = Future()

    def work() -> None:
        try:
            found = job()
        except BaseException as error:
            connection.close()
            outcome.set_exception(error)
        else:
            connection.close()
            outcome.set_result(found)

    threading.Thread(target=work, name=f"test {len(threading.enumerate())}", daemon=True).start()
    return outcome


def outcome_of(started: Future[_T], limit_seconds: float = END_SECONDS) -> _T:
    """What the job returned or raised; after the limit it fails and says where every thread is."""
    wait([started], limit_seconds)
    assert started.done(), f"a thread has not ended within {limit_seconds} s:\n{stacks()}"
    return started.result()


def in_threads(job: Callable[[int], _T], count: int) -> list[_T]:
    """Run ``job(number)`` in threads that start together, each with a connection of its own; what they return."""
    together = threading.Barrier(count)

    def run(number: int) -> _T:
        connection.ensure_connection()
        together.wait(LIMIT_SECONDS)
        return job(number)

    started = [begin(partial(run, number)) for number in range(count)]
    return [outcome_of(one) for one in started]


def stacks() -> str:
    """Where every thread is now, its last calls at the end."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames().items()
    return "\n".join(f"{names.get(number)}:\n{''.join(traceback.format_stack(frame)[-8:])}" for number, frame in frames)


# --- Single attempts ------------------------------------------------------------------------------------------


def make_queued(agent: str = "intake", department: Department | None = None, **fields: Any) -> AgentRun:
    """A queued agent run of a lead of its own."""
    lead = make_lead(department)
    return make_agent_run(lead.item, agent, **fields)


def claim(limit: int = 10, *, worker: str = "host:1", is_alone: bool = False) -> list[Work]:
    """Claim as a shift does."""
    return leases.claim(limit, staff=load_staff(), worker=worker, is_alone=is_alone)


def claim_one(agent: str = "intake", department: Department | None = None, **fields: Any) -> Work:
    """A running agent run of a lead of its own, as the shift that claimed it holds it."""
    run = make_queued(agent, department, **fields)
    return next(work for work in claim() if work.run_id == run.pk)


def answered(work: Work, payload: dict[str, Any] | None = None, **changes: Any) -> Finished:
    """An attempt that ended with a valid output after one call."""
    reply = ModelReply(
        model=work.agent.model,
        content=[{"type": "text", "text": "{}"}],
        stop_reason="end_turn",
        usage=USED,
        is_usage_final=True,
        request_id="req_1",
        latency_ms=480,
    )
    wanted = PAYLOADS[work.agent.writes] if payload is None else payload
    return Finished(work, payload=wanted, unsettled=[SeenCall(work.first_call, reply)], **changes)


def broken_off(work: Work, cause: Cause, error: str = "It went wrong.", **changes: Any) -> Finished:
    """An attempt whose one call ended with ``cause``, after its usage was reported."""
    reply = ModelReply(model=work.agent.model, cause=cause, error=error, usage=USED, is_usage_final=True)
    return Finished(work, cause=cause, error=error, unsettled=[SeenCall(work.first_call, reply)], **changes)


def run_of(work: Work) -> AgentRun:
    """The agent run as it is stored now."""
    return AgentRun.objects.get(pk=work.run_id)


# --- Accounts -------------------------------------------------------------------------------------------------


def assert_accounts_agree() -> None:
    """Nothing is reserved any more, and calls, agent runs and budget periods tell the same sums."""
    assert not ModelCall.objects.filter(status=ModelCall.Status.STARTED).exists()
    for run in AgentRun.objects.all():
        assert run.cost_usd == _cost(ModelCall.objects.filter(agent_run=run)), f"agent run {run.pk}"
    for period in BudgetPeriod.objects.select_related("budget"):
        assert period.reserved_usd == 0
        assert period.reserved_tokens == 0
        assert period.spent_usd == _cost(ModelCall.objects.filter(department=period.budget.department_id))


def _cost(calls: Any) -> Any:
    # Rounded to the places of the column: SQLite adds up floating point numbers.
    return round(calls.aggregate(total=Sum("cost_usd", default=0))["total"], 8)


def keys_of(item: Item) -> set[tuple[str, str]]:
    """Every current output: ``(key, kind of occasion)``."""
    found: Iterable[Any] = item.outputs.filter(is_current=True).select_related("trigger")
    return {(output.key, output.trigger.kind if output.trigger else "item") for output in found}
