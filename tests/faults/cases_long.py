"""What takes long: a long call, a silent one, a clock that jumps, memory over many agent runs."""

from __future__ import annotations

import time

import psutil

from agents.models import Agent
from runs.models import AgentRun, ModelCall
from tests.faults.case import SUITE, Bench, audited
from tests.faults.site import Worker, wait_for
from tests.faults.table import Row
from tests.faults.work import add_items, add_lead, wait_in_flight, wait_settled

CUT_WITHIN_SECONDS = 6.0
HOUR = 3_600.0
WARM_SHARE = 0.3
GROWTH_MB = 8.0
BATCH_ITEMS = 250


@SUITE.add()
def long_call(bench: Bench) -> list[Row]:
    """A call that sends a sign of life now and then completes, however long it takes, and keeps its lease."""
    seconds = bench.form.long_call_seconds
    row = Row(f"a call of {seconds} s completes")
    with bench.site(latency_ms=20) as place:
        Agent.objects.update(timeout_seconds=seconds + 60)
        what = {"kind": "pings", "seconds": seconds, "interval_ms": 1_000}
        place.simulator.faults([{"match": {"contains": "Patience", "agent": "intake", "times": 1}, "what": what}])
        place.start_worker()
        with audited(row, place):
            lead = add_lead("Patience SE")
            wait_settled([lead.item_id], seconds + 60)
            row.tried = 1
            run = AgentRun.objects.get(item=lead.item, agent__slug="intake")
            latency = run.model_calls.get().latency_ms or 0
            if (run.attempt, run.lost_leases) != (1, 0) or latency < seconds * 1_000:
                row.findings.lost.append(f"{run.attempt} attempts, {run.lost_leases} leases lost, {latency} ms")
    return [row]


@SUITE.add()
def silent_call(bench: Bench) -> list[Row]:
    """A call that goes silent, before or in the middle of its answer, is cut at the agent's time-out."""
    timeout = bench.form.agent_timeout_seconds
    row = Row(f"silent calls are cut at {timeout} s", limit_seconds=CUT_WITHIN_SECONDS)
    with bench.site(latency_ms=20) as place:
        Agent.objects.update(timeout_seconds=timeout)
        places = ("before", "headers", "")
        place.simulator.faults(
            [
                {
                    "match": {"contains": f"Silent {number}", "agent": "intake", "times": 1},
                    "what": {"kind": "silence", "where": where, "seconds": HOUR},
                }
                for number, where in enumerate(places)
            ]
        )
        place.start_worker()
        with audited(row, place):
            for number, _ in enumerate(places):
                add_lead(f"Silent {number} KG")
            wait_settled(limit_seconds=timeout + 90)
            cut = ModelCall.objects.filter(cause="timeout")
            row.tried = cut.count()
            row.heal_seconds = [(call.latency_ms or 0) / 1_000 - timeout for call in cut]
            if row.tried != len(places):
                row.findings.untrue.append(f"{row.tried} of {len(places)} silent calls were cut")
    return [row]


@SUITE.add("sqlite")
def clock_moved(bench: Bench) -> list[Row]:
    """The engine's clock jumps an hour ahead, back, and an hour behind, each time with calls in flight."""
    rows = [Row(f"clock moved {name}") for name in ("one hour ahead", "back again", "one hour behind")]
    everything = Row("clock moved: database and accounts")
    with bench.site(latency_ms=500) as place:
        worker = place.start_worker()
        with audited(everything, place, is_watched=False):
            for row, offset in zip(rows, (HOUR, 0.0, -HOUR), strict=True):
                row.heal_seconds.append(_move(worker, offset))
                row.tried += 1
                everything.tried += 1
            worker.move_clock(0.0)
            wait_settled(add_items(1))
    for row in rows:
        row.limit_seconds = bench.form.heal_seconds
    return [*rows, everything]


def _move(worker: Worker, offset: float) -> float:
    ids = add_items(6)
    wait_in_flight(ids, 3)
    worker.move_clock(offset)
    moved_at = time.time()
    ids += add_items(3)
    wait_for(lambda: _are_done(ids), "everything is done after the jump", 120)
    return time.time() - moved_at


def _are_done(ids: list[int]) -> bool:
    runs = AgentRun.objects.filter(item_id__in=ids, agent__writes="sixth", status=AgentRun.Status.DONE)
    return runs.count() == len(ids)


@SUITE.add()
def memory_stays(bench: Bench) -> list[Row]:
    """The memory of the processes that run shifts, after a third of the agent runs and at their end."""
    row = Row(f"memory over {bench.form.many_runs} agent runs (growth in MB as p95)", limit_seconds=GROWTH_MB)
    with bench.site(latency_ms=0, SHIFT_SECONDS="3600", SHIFT_CONCURRENCY="50", LOG_LEVEL="WARNING") as place:
        worker = place.start_worker()
        with audited(row, place):
            done = 0
            marks = [(0, _memory(worker))]
            while done < bench.form.many_runs:
                done += 6 * len(add_items(BATCH_ITEMS if bench.form.is_full else 40))
                wait_settled(limit_seconds=300)
                marks.append((done, _memory(worker)))
            row.tried = AgentRun.objects.filter(status=AgentRun.Status.DONE).count()
            before = next(memory for count, memory in marks if count >= WARM_SHARE * bench.form.many_runs)
            after = marks[-1][1]
            # A shift that was replaced meanwhile has no figure to compare with; none should have been.
            row.heal_seconds = [max(0.0, after[pid] - before[pid]) for pid in after if pid in before]
            _tell(marks)
            if not row.heal_seconds:
                row.findings.untrue.append("no shift lived from the first measurement to the last")
    return [row]


def _memory(worker: Worker) -> dict[int, float]:
    """What each process that runs a shift has for itself, in MB."""
    return {pid: psutil.Process(pid).memory_full_info().uss / 1e6 for pid in worker.shifts()}


def _tell(marks: list[tuple[int, dict[int, float]]]) -> None:
    """Say how much it was at the start, at each fifth and at the end, for the shifts of the end."""
    shown = [marks[round(share * (len(marks) - 1) / 5)] for share in range(6)]
    for pid in marks[-1][1]:
        figures = ", ".join(f"{memory[pid]:.1f} MB after {count}" for count, memory in shown if pid in memory)
        print(f"   shift {pid}: {figures}", flush=True)
