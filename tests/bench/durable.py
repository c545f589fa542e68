"""Durable decisions: items routed in batches, facts loaded and agent runs written, on a real database."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.bench.services import Row, scratch_database, step

ITEMS = 4_000


def bench(database: str, items: int = ITEMS) -> Row:
    """Decisions a second on ``sqlite`` or ``postgres`` in one process; each of them starts an agent run."""
    with tempfile.TemporaryDirectory() as folder, scratch_database(database, folder, "durable") as url:
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
            "BENCH_FOLDER": folder,
            "DATABASE_URL": url,
            "SQLITE_SYNCHRONOUS": "NORMAL",
        }
        step(env, "prepare", str(items), str(Path(folder) / "requests.json"))
        step(env, "start")
        found = step(env, "route")
    return {
        "database": database,
        "decisions": found["decisions"],
        "decisions_per_second": round(found["decisions"] / found["seconds"]),
        "cpu_ms_per_decision": round(1000 * found["cpu_seconds"] / found["decisions"], 3),
    }
