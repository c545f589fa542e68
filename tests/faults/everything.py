"""All cases, and how a run of them goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import (  # noqa: F401 - each registers its cases
    cases_budget,
    cases_database,
    cases_kills,
    cases_long,
    cases_model,
    cases_outbox,
    cases_processes,
    cases_queue,
)
from tests.faults.case import FULL, SHORT, SUITE, Bench
from tests.faults.databases import Databases
from tests.faults.table import Row, render

CORE = (
    "killed_at_a_point",
    "frozen_beyond_its_lease",
    "idle_processes_killed",
    "races",
    "model_faults",
    "connections_cut",
    "writer_locked",
)
"""What CI runs in the short form: each guarantee once, in the cheapest case that strikes it."""


def run_cases(database: str, folder: Path, server: str, *, is_short: bool, only: Sequence[str]) -> list[Row]:
    """The rows of all cases, or of those named, on one database. LookupError for a name that is unknown."""
    if unknown := set(only) - set(SUITE.cases):
        raise LookupError(f"No such case: {', '.join(sorted(unknown))}. Known: {', '.join(SUITE.cases)}.")
    databases = Databases(database, folder, server)
    databases.prepare()
    bench = Bench(databases, SHORT if is_short else FULL)
    rows: list[Row] = []
    try:
        for name, (case, about) in SUITE.cases.items():
            if database not in about or (only and name not in only):
                continue
            began = time.monotonic()
            found = case(bench)
            rows += found
            verdict = "ok" if all(row.is_good for row in found) else "FAILED"
            print(f"-- {name} on {database}: {verdict}, {time.monotonic() - began:.0f} s", flush=True)
            if verdict != "ok":
                print(render(found), flush=True)
    finally:
        databases.clean()
    return rows


__all__ = ["CORE", "SUITE", "run_cases"]
