"""``make bench``: measure, print a table with the aims, write ``var/bench.json``.

``make bench ARGS="--only engine --in-flight 32 --databases sqlite --repeat 3"``
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tests.bench import durability, durable, engine, events, importing, rival, router, tokens
from tests.bench.report import lines_of, table
from tests.bench.services import ROOT, Row, has_postgres

MEASURES = ("router", "tokens", "import", "events", "langgraph", "engine", "durability")
RIVAL_IN_FLIGHT = (64, 128)
IMPORT_ROWS = 100_000
PACKAGES = ("Django", "django-q2", "anthropic", "psycopg", "aiohttp", "uvloop", "pydantic")
NOTES = """\
The model is the simulator with a fixed answer time of 500 ms, streamed; it shares the machine with what is measured.
The engine runs as an installation does (worker, 2 shifts, 6 calls a lead, leads = 4 x calls in flight); rates are
those after the first wave of calls. SQLite runs with synchronous=NORMAL. Processor time and memory are those of all
processes of the worker, without the server of PostgreSQL. Other work on the machine makes every figure worse."""


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for; 1 if an aim was missed."""
    options = _options(arguments)
    began, load = datetime.now(UTC), os.getloadavg()
    databases = [name for name in options.databases if name != "postgres" or has_postgres()]
    if len(databases) < len(options.databases):
        print("PostgreSQL does not answer (BENCH_POSTGRES names another server): its rows are left out.\n")
    results: dict[str, list[Row]] = {}
    for name in options.only:
        for part, measure in _measures(name, options, databases).items():
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            results[part] = measure()
    lines = [line for part, rows in results.items() for line in lines_of(part, rows)]
    print(f"{_machine(load)}\n\n{table(lines)}\n\n{NOTES}")
    report = {
        "date": began.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - began).total_seconds()),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load_at_start": load},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "options": vars(options),
        "results": results,
        "missed": [line.measure for line in lines if line.is_reached is False],
    }
    (ROOT / "var" / "bench.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if report["missed"] else 0


def _measures(name: str, options: Any, databases: list[str]) -> dict[str, Callable[[], list[Row]]]:
    """What one name on the command line stands for, each part with its measurement."""
    leads = 2 if options.quick else engine.LEADS_PER_CALL_IN_FLIGHT
    match name:
        case "router":
            items = 1_000 if options.quick else durable.ITEMS
            return {
                "router": lambda: [router.bench()],
                "durable": lambda: [durable.bench(database, items) for database in databases],
            }
        case "import":
            rows = IMPORT_ROWS // 10 if options.quick else IMPORT_ROWS
            return {"import": lambda: [importing.bench(rows, database) for database in databases]}
        case "durability":
            return {
                "durability": lambda: [
                    row
                    for database in databases
                    for row in durability.bench(database, leads=leads * durability.IN_FLIGHT, repeat=options.repeat)
                ]
            }
        case "events":
            lines = events.LINES // 5 if options.quick else events.LINES
            return {"events": lambda: [events.bench(database, lines=lines) for database in databases]}
        case "tokens":
            return {"tokens": lambda: [tokens.bench()]}
        case "langgraph":
            numbers = RIVAL_IN_FLIGHT[: 1 if options.quick else 2] if "postgres" in databases else ()
            return {"langgraph": lambda: [_beside(number) for number in numbers]}
        case _:
            return {
                "engine": lambda: [
                    engine.bench(number, database, leads=leads * number, repeat=options.repeat)
                    for database in databases
                    for number in options.in_flight
                ]
            }


def _beside(in_flight: int) -> Row:
    """The rival and the engine one after the other, with as many calls in flight."""
    return {**rival.bench(in_flight), "ours": engine.bench(in_flight, "postgres")}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure, print a table, write var/bench.json.")
    parser.add_argument("--only", type=_names(MEASURES), default=list(MEASURES), help=",".join(MEASURES))
    parser.add_argument("--in-flight", type=_numbers, default=None, help="calls in flight (default: 32,200,800)")
    parser.add_argument("--databases", type=_names(("sqlite", "postgres")), default=["sqlite", "postgres"])
    parser.add_argument("--repeat", type=int, default=1, help="measure the engine so often, report medians")
    parser.add_argument("--quick", action="store_true", help="fewer leads and rows: a look, not a measurement")
    options = parser.parse_args(arguments)
    options.in_flight = options.in_flight or ([32, 200] if options.quick else [32, 200, 800])
    return options


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not one of {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if any(number < engine.SHIFTS or number % engine.SHIFTS for number in numbers):
        raise argparse.ArgumentTypeError(f"calls in flight are shared by {engine.SHIFTS} shifts: give even numbers")
    return numbers


def _machine(load: tuple[float, float, float]) -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, load average at the start {load[0]:.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
