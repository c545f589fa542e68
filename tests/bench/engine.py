"""Throughput of the engine as a share of what the SDK alone does against the same server in the same run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.services import (
    ROOT,
    Row,
    cpu_seconds,
    memory_mb,
    running_simulator,
    running_worker,
    scratch_database,
    step,
)

SHIFTS = 2
STEPS = 6
LATENCY_MS = 500
LEADS_PER_CALL_IN_FLIGHT = 4


def bench(in_flight: int, database: str, *, leads: int | None = None, repeat: int = 1) -> Row:
    """Medians of ``repeat`` measurements on ``sqlite`` or ``postgres``; rates are calls a second.

    ``share_of_sdk`` compares with the SDK as it is used commonly, iterating over typed events, half of it measured
    before the engine and half after. ``share_of_reader`` compares with the SDK when its stream is read as the engine
    reads it. Processor time and memory are those of all processes of the worker; a database server is not counted.
    """
    rows = [_measure(in_flight, database, leads or LEADS_PER_CALL_IN_FLIGHT * in_flight) for _ in range(repeat)]
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {"database": database, "in_flight": in_flight, **medians}


def _measure(in_flight: int, database: str, leads: int) -> Row:
    calls = leads * STEPS
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database(database, folder) as url,
        running_simulator(folder, LATENCY_MS) as base_url,
    ):
        env = environment(folder, url, base_url, in_flight)
        requests = Path(folder) / "requests.json"
        step(env, "prepare", str(leads), str(requests))
        before = _sdk_only(env, in_flight, calls // 2, requests)
        ours = run_worker(env, in_flight, calls)
        after = _sdk_only(env, in_flight, calls // 2, requests)
        reader = _sdk_only(env, in_flight, calls // 2, requests, "read")
    sdk = (before["calls_per_second"] + after["calls_per_second"]) / 2
    return {
        "calls": calls,
        "calls_per_second": round(ours["calls_per_second"], 1),
        "sdk_calls_per_second": round(sdk, 1),
        "share_of_sdk": round(ours["calls_per_second"] / sdk, 3),
        "share_of_reader": round(ours["calls_per_second"] / reader["calls_per_second"], 3),
        "cpu_ms_per_call": round(1000 * ours["cpu_seconds"] / calls, 2),
        "sdk_cpu_ms_per_call": round((before["cpu_ms_per_call"] + after["cpu_ms_per_call"]) / 2, 2),
        "reader_cpu_ms_per_call": round(reader["cpu_ms_per_call"], 2),
        "added_ms_p50": ours["added_ms_p50"],
        "added_ms_p95": ours["added_ms_p95"],
        "memory_mb": ours["memory_mb"],
    }


def run_worker(env: dict[str, str], in_flight: int, calls: int) -> Row:
    """Run the real worker until every lead is done; its start is not part of what is measured."""
    with running_worker(env, SHIFTS) as tree:
        used = cpu_seconds(tree)
        step(env, "start")
        step(env, "wait", str(calls))
        used = cpu_seconds(tree) - used
        memory = memory_mb(tree)
        return {"cpu_seconds": used, "memory_mb": memory, **step(env, "measure", str(in_flight), str(calls))}


def _sdk_only(env: dict[str, str], in_flight: int, calls: int, requests: Path, how: str = "iterate") -> Row:
    """As many processes as there are shifts share the calls."""
    command = [sys.executable, "-m", "tests.bench.sdk_only", env["ANTHROPIC_BASE_URL"], str(in_flight // SHIFTS)]
    command += [str(calls // SHIFTS), str(requests), how]
    running = [subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE) for _ in range(SHIFTS)]
    rows = [json.loads(process.communicate()[0]) for process in running]
    return {
        "calls_per_second": sum(row["calls_per_second"] for row in rows),
        "cpu_ms_per_call": sum(row["cpu_ms_per_call"] for row in rows) / SHIFTS,
    }


def environment(folder: str, url: str, base_url: str, in_flight: int) -> dict[str, str]:
    """What the processes of one measurement are told."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
        "BENCH_FOLDER": folder,
        "DATABASE_URL": url,
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": "bench",
        "SQLITE_SYNCHRONOUS": "NORMAL",
        "SHIFTS": str(SHIFTS),
        "SHIFT_CONCURRENCY": str(in_flight // SHIFTS),
    }
