"""Queue rows that come twice or never, several workers on one database, and writers who meet at one item."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone
from django_q.models import OrmQ
from django_q.tasks import async_task

from agents.models import Department
from runs import commits, dispatch, leases, log, slots
from runs.models import AgentRun, Item, Output, ShiftSlot, Trigger
from runs.shift import worker_name
from runs.staff import load_staff
from runs.triggers import record_reply
from tests.engine import answered, in_threads
from tests.factories import make_agent_run, make_lead, make_message
from tests.faults.case import SUITE, Bench, audited
from tests.faults.site import shift_pids, wait_for
from tests.faults.table import Row
from tests.faults.work import add_items, add_lead, healed_at, wait_in_flight, wait_settled

ROWS_AGAIN = 5
LOST_ROWS = 2
LIMIT_SECONDS = 20.0


@SUITE.add()
def queue_rows(bench: Bench) -> list[Row]:
    """Rows of the queue are delivered twice, before and after they were picked up, and are lost."""
    twice, lost = Row("queue rows delivered twice"), Row("queue rows lost", limit_seconds=bench.form.heal_seconds)
    with bench.site(latency_ms=50) as place:
        with audited(twice, place):
            slots.ensure_shifts()
            for row in list(OrmQ.objects.all()):
                for _ in range(ROWS_AGAIN):
                    OrmQ.objects.create(key=row.key, payload=row.payload, lock=row.lock)
            worker = place.start_worker()
            for _ in range(bench.form.tries):
                _present_again(twice)
                wait_settled(add_items(3))
                twice.tried += 1
        with audited(lost, place):
            for _ in range(max(1, bench.form.tries // 2)):
                wait_for(lambda: len(worker.shifts()) >= 2, "shifts are at work")
                _lose(lost)
    return [twice, lost]


def _present_again(row: Row) -> None:
    """The tasks of the shifts that are at work, once more: their tokens are used."""
    before = dict(ShiftSlot.objects.values_list("number", "worker"))
    # The rows of the shifts themselves stay until those end.
    newest = OrmQ.objects.aggregate(pk=Max("pk"))["pk"] or 0
    for slot in ShiftSlot.objects.filter(started_at__isnull=False, token__isnull=False):
        for _ in range(ROWS_AGAIN):
            async_task(slots.HOLD_SHIFT, slot.number, str(slot.token))
    wait_for(lambda: not OrmQ.objects.filter(pk__gt=newest).exists(), "the rows are worked off")
    after = dict(ShiftSlot.objects.values_list("number", "worker"))
    if before != after:
        row.findings.duplicated.append(f"a shift was begun twice: {before} became {after}")


def _lose(row: Row) -> None:
    """The holders die, and the rows that were to replace them are deleted as soon as they appear."""
    ids = add_items(3)
    for pid in shift_pids():
        os.kill(pid, signal.SIGKILL)
    killed_at = timezone.now().timestamp()
    deleted: int = 0

    def has_deleted_enough() -> bool:
        nonlocal deleted
        deleted += int(OrmQ.objects.all().delete()[0])
        return deleted >= LOST_ROWS

    wait_for(has_deleted_enough, "rows to lose")
    wait_settled(ids)
    row.heal_seconds.append(healed_at(ids, killed_at) - killed_at)
    row.tried += 1


@SUITE.add()
def two_workers(bench: Bench) -> list[Row]:
    """A second worker on the same database; one of them dies under load, and a third takes its place."""
    row = Row("two workers, one SIGKILLed under load", limit_seconds=bench.form.heal_seconds)
    with bench.site(latency_ms=500, SHIFTS="3") as place:
        workers = [place.start_worker(), place.start_worker()]
        with audited(row, place):
            for _ in range(max(1, bench.form.tries // 4)):
                ids = add_items(20)
                wait_in_flight(ids, 10)
                killed_at = timezone.now().timestamp()
                workers.pop(0).kill()
                workers.append(place.start_worker(shifts=0))
                wait_settled(ids)
                row.heal_seconds.append(healed_at(ids, killed_at) - killed_at)
                row.tried += 1
    return [row]


# --- Interleavings that barriers force ------------------------------------------------------------------------


@SUITE.add()
def races(bench: Bench) -> list[Row]:
    """Two shifts and one run, router and webhook, two group commits in opposite order: threads that start together."""
    rows = []
    for name, race in RACES.items():
        row = Row(name)
        with bench.databases.fresh(), audited(row, is_watched=False):
            for _ in range(bench.form.tries):
                race(row)
                row.tried += 1
            _finish_by_hand()
        rows.append(row)
    return rows


def _race_for_one_run(row: Row) -> None:
    run = make_agent_run(_quiet_lead(), "intake")
    taken = in_threads(lambda n: _claim(f"host:{n}"), 4)
    works = [work for found in taken for work in found if work.run_id == run.pk]
    if len(works) != 1:
        row.findings.duplicated.append(f"agent run {run.pk} was claimed {len(works)} times at once")
    commits.commit([answered(work) for found in taken for work in found], load_staff())


def _race_for_one_item(row: Row) -> None:
    """Routers of several shifts look at one due item."""
    lead = add_lead("Race GmbH")
    in_threads(lambda n: dispatch.route_due(10, staff=load_staff()), 4)
    count = AgentRun.objects.filter(item=lead.item).count()
    if count != 1:
        row.findings.duplicated.append(f"item {lead.pk} was routed into {count} agent runs")
    _work_off()


def _reply_while_routing(row: Row) -> None:
    """The webhook's reply comes after the router has read the facts and before it has written its decision."""
    item = _contacted("Reply AG")
    Item.objects.filter(pk=item.pk).update(route_due_at=timezone.now())
    has_read, may_write = threading.Event(), threading.Event()
    look = dispatch._look

    def looking(items: Any, now: Any) -> Any:
        facts = look(items, now)
        has_read.set()
        # On SQLite and under row locks the webhook cannot finish before we do: it only has to have begun.
        may_write.wait(0.5)
        return facts

    def reply() -> None:
        has_read.wait(LIMIT_SECONDS)
        try:
            record_reply(item=item, body="Yes, please.", source="race", delivery_id=f"race-{item.pk}")
        finally:
            may_write.set()
            connection.close()

    sender = threading.Thread(target=reply, daemon=True)
    sender.start()
    with _patched("_look", looking):
        dispatch.route_due(10, staff=load_staff())
    sender.join(LIMIT_SECONDS)
    item.refresh_from_db()
    trigger = Trigger.objects.get(item=item, kind=Trigger.Kind.REPLY)
    has_run = AgentRun.objects.filter(trigger=trigger).exists()
    if not has_run and item.route_due_at is None:
        row.findings.lost.append(f"reply {trigger.pk} came in and item {item.pk} is not due")
    _work_off()


def _reply_before_routing(row: Row) -> None:
    """The webhook holds the item while the router comes by: it must come again."""
    item = _contacted("Before SE")
    has_written, may_commit = threading.Event(), threading.Event()

    def reply() -> None:
        try:
            with transaction.atomic():
                record_reply(item=item, body="Yes.", source="race", delivery_id=f"before-{item.pk}")
                has_written.set()
                may_commit.wait(0.5)
        finally:
            has_written.set()
            connection.close()

    sender = threading.Thread(target=reply, daemon=True)
    sender.start()
    has_written.wait(LIMIT_SECONDS)
    dispatch.route_due(10, staff=load_staff())
    may_commit.set()
    sender.join(LIMIT_SECONDS)
    dispatch.route_due(10, staff=load_staff())
    if not AgentRun.objects.filter(item=item, trigger__kind=Trigger.Kind.REPLY).exists():
        row.findings.lost.append(f"nobody works on the reply to item {item.pk}")
    _work_off()


def _opposite_commits(row: Row) -> None:
    """Two groups with results on the same two items, in opposite order, are written at the same moment."""
    first, second = _quiet_lead(), _quiet_lead()
    for item in (first, second):
        make_agent_run(item, "intake")
        make_agent_run(item, "qualifier")
    works = {(work.item_id, work.agent.slug): work for work in _claim("host:1", limit=10)}
    groups = [
        [works[first.pk, "intake"], works[second.pk, "qualifier"]],
        [works[second.pk, "intake"], works[first.pk, "qualifier"]],
    ]
    in_threads(lambda n: commits.commit([answered(work) for work in groups[n]], load_staff()), 2)
    for item in (first, second):
        keys = sorted(Output.objects.filter(item=item, is_current=True).values_list("key", flat=True))
        if keys != ["intake", "qualification"]:
            row.findings.lost.append(f"item {item.pk} has {keys}")
    _work_off()


RACES: dict[str, Callable[[Row], None]] = {
    "four shifts race for one agent run": _race_for_one_run,
    "four routers race for one item": _race_for_one_item,
    "reply between the router's look and its decision": _reply_while_routing,
    "router between the reply and its commit": _reply_before_routing,
    "two group commits on two items in opposite order": _opposite_commits,
}


def _contacted(company: str) -> Item:
    """A lead that was written to, with nothing left to do: a reply is taken up at once, and by nothing else."""
    item = add_lead(company).item
    _work_off()
    make_message(item, "out", subject="Your freight invoices", body="May we show you how?")
    Item.objects.filter(pk=item.pk).update(route_due_at=timezone.now())
    _work_off()
    return item


def _patched(name: str, new: Any) -> AbstractContextManager[Any]:
    return patch.object(dispatch, name, new)


def _quiet_lead() -> Item:
    """A lead of sales that is not due: its agent runs are made by the case."""
    return make_lead(Department.objects.get(slug="sales")).item


def _claim(worker: str, limit: int = 10) -> list[Any]:
    return leases.claim(limit, staff=load_staff(), worker=worker, is_alone=True)


def _work_off() -> None:
    """Do by hand what a shift would do, with good answers, until nothing is due."""
    for _ in range(50):
        routed = dispatch.route_due(50, staff=load_staff())
        works = _claim(worker_name(), 50)
        commits.commit([answered(work, PAYLOAD_OF.get(work.agent.slug)) for work in works], load_staff())
        if not routed and not works:
            return


def _finish_by_hand() -> None:
    """Whatever is left, and the log lines of it."""
    _work_off()
    log.write([])


PAYLOAD_OF: dict[str, dict[str, Any]] = {
    "reply_handler": {
        "reasoning_summary": "They agree.",
        "intent": "interested",
        "urgency": "normal",
        "opt_out": False,
        "answer_needed": False,
        "subject": "Re: Your freight invoices",
        "body": "Thank you.",
        "claims": [],
        "confidence": "high",
    }
}
