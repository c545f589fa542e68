"""What durability costs: the engine as it is, and with parts of it left out, one after the other in the same run."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.apps import WITHOUT
from tests.bench.engine import LATENCY_MS, LEADS_PER_CALL_IN_FLIGHT, STEPS, environment, run_worker
from tests.bench.services import Row, running_simulator, scratch_database, step

IN_FLIGHT = 200
VARIANTS: dict[str, dict[str, str]] = {
    "as it is": {},
    "without heartbeats": {WITHOUT: "heartbeats"},
    "without log lines": {WITHOUT: "log"},
    "without both": {WITHOUT: "heartbeats,log"},
}
FLUSHED = {"every commit flushed to the disk": {"SQLITE_SYNCHRONOUS": "FULL"}}
"""On SQLite, which otherwise runs with NORMAL here; a PostgreSQL server has its own setting."""


def bench(database: str, *, leads: int | None = None, repeat: int = 1) -> list[Row]:
    """One row a variant on ``sqlite`` or ``postgres``: medians of calls a second and of processor time a call.

    The variants take turns, and there and back, so that other work on the machine strikes all of them.
    """
    variants = VARIANTS | (FLUSHED if database == "sqlite" else {})
    there = list(variants)
    turns = (there + there[::-1]) * repeat
    found: dict[str, list[Row]] = {name: [] for name in there}
    for name in turns:
        found[name].append(_measure(database, leads or LEADS_PER_CALL_IN_FLIGHT * IN_FLIGHT, variants[name]))
    whole = _median(found["as it is"], "calls_per_second")
    return [
        {
            "database": database,
            "in_flight": IN_FLIGHT,
            "variant": name,
            "calls_per_second": round(_median(rows, "calls_per_second"), 1),
            "rates": [round(row["calls_per_second"], 1) for row in rows],
            "compared": round(_median(rows, "calls_per_second") / whole - 1, 3),
            "cpu_ms_per_call": round(_median(rows, "cpu_ms_per_call"), 2),
        }
        for name, rows in found.items()
    ]


def _measure(database: str, leads: int, more: dict[str, str]) -> Row:
    calls = leads * STEPS
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database(database, folder) as url,
        running_simulator(folder, LATENCY_MS) as base_url,
    ):
        env = environment(folder, url, base_url, IN_FLIGHT) | more
        step(env, "prepare", str(leads), str(Path(folder) / "requests.json"))
        found = run_worker(env, IN_FLIGHT, calls)
    return {**found, "cpu_ms_per_call": 1000 * found["cpu_seconds"] / calls}


def _median(rows: Sequence[Row], key: str) -> float:
    return statistics.median(row[key] for row in rows)
