"""Importing a file of leads: rows a second and memory, beside what reading the same file costs without storing it.

``python -m tests.bench.importing [ROWS]`` prints one JSON object with a measurement a database.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.services import ROOT, manage, scratch_database

SMALL_ROWS = 2_000
COLUMNS = [
    "Record ID",
    "First Name",
    "Last Name",
    "Email",
    "Company name",
    "Job Title",
    "Phone Number",
    "Website URL",
    "Country/Region",
    "Message",
    "Number of Employees",
    "Industry",
]
# Run in a process of its own, so that the memory is the import's and nobody else's.
_MEASURED = """
import io, json, resource, sys, time
import django
django.setup()
from django.core.management import call_command
out, began = io.StringIO(), time.monotonic()
call_command("import_leads", sys.argv[1], json=True, stdout=out)
used = resource.getrusage(resource.RUSAGE_SELF)
report = json.loads(out.getvalue())
print(json.dumps({
    "imported": report["imported"], "unchanged": report["unchanged"], "seconds": time.monotonic() - began,
    "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024,
}))
"""


def bench(rows: int = 100_000, database: str = "sqlite") -> dict[str, Any]:
    """One measurement on ``sqlite`` or ``postgres``.

    ``growth_mb`` is the peak memory less that of an import of 2,000 rows: what the length of the file costs.
    ``share_of_reading`` is the rate as a share of ``csv.reader`` and ``json.dumps`` on the same file.
    """
    with tempfile.TemporaryDirectory() as folder, scratch_database(database, folder, "import") as url:
        env = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "DATABASE_URL": url, "LOG_LEVEL": "WARNING"}
        small, large = Path(folder) / "small.csv", Path(folder) / "large.csv"
        _write(small, range(rows, rows + SMALL_ROWS))
        _write(large, range(rows))
        for command in ("migrate", "sync_departments"):
            manage(env, command)
        first = _import(env, small)
        reading = _read(large)
        fresh = _import(env, large)
        again = _import(env, large)
    if (fresh["imported"], again["unchanged"]) != (rows, rows):
        raise RuntimeError(f"Imported {fresh['imported']} of {rows}, then {again['unchanged']} unchanged.")
    return {
        "database": database,
        "rows": rows,
        "rows_per_second": round(rows / fresh["seconds"]),
        "rows_per_second_again": round(rows / again["seconds"]),
        "share_of_reading": round(reading / fresh["seconds"], 4),
        "cpu_ms_per_row": round(1000 * fresh["cpu_seconds"] / rows, 3),
        "peak_mb": round(fresh["peak_mb"], 1),
        "growth_mb": round(fresh["peak_mb"] - first["peak_mb"], 1),
    }


def _read(path: Path) -> float:
    """Seconds that ``csv.reader`` and ``json.dumps`` need for the file."""
    began = time.monotonic()
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader)
        for row in reader:
            json.dumps(dict(zip(header, row, strict=True)))
    return time.monotonic() - began


def _import(env: dict[str, str], path: Path) -> dict[str, float]:
    command = [sys.executable, "-c", _MEASURED, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _write(path: Path, numbers: range) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_row(n) for n in numbers)


def _row(n: int) -> tuple[object, ...]:
    firm = n % 5_000
    return (
        n,
        f"Jürgen{n}",
        "Weiß",
        f"J.Weiss{n}@firm{firm}.example",
        f"Firm {firm} GmbH",
        "Head of Logistics",
        f"+49 30 555 {n:06}",
        f"https://firm{firm}.example",
        "Germany",
        f"We ship {n} pallets a month, and the invoices of our carriers, all six of them, are rarely right.",
        n % 900,
        "Furniture",
    )


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(json.dumps([bench(number, database) for database in ("sqlite", "postgres")], indent=2))
