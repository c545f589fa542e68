"""``python -m tests.bench.pages``: every page and fragment of the installation, with an example of each from a large
database, asked one by one inside this process: its time, its queries, its weight.

``--slow 100`` shows the slowest statement of every page that takes longer than so many milliseconds of processors.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import django
import psutil

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.urls import reverse  # noqa: E402

from agents.models import Agent, Budget, Department  # noqa: E402
from leads.models import ImportJob, Lead  # noqa: E402
from runs.models import (  # noqa: E402
    Absence,
    AgentRun,
    AutoApproval,
    BulkAction,
    Channel,
    DraftGroup,
    ModelCall,
    OutboxMessage,
    Output,
    PipelineRun,
    Review,
    RiskRule,
    Rule,
    SavedView,
    Suppression,
    TryOut,
)
from runs.settings_editing import sections_of  # noqa: E402
from tests.test_access_walk import ELSEWHERE, OPEN, PERSONAL, QUERY, STREAMS, Route, find_routes  # noqa: E402

LOOKS = 6
LEFT_OUT = OPEN | PERSONAL | STREAMS | ELSEWHERE
"""Not pages, or not there."""
EXPORTS = ("csv", "json", "export", "remarks")
"""How the names of streams of whole tables end: nobody waits for them in front of a page."""


def _one(model: Any, **lookup: Any) -> Callable[[], Any]:
    """The newest row that fits; None if there is none."""
    return lambda: model.objects.filter(**lookup).order_by("-pk").values_list("pk", flat=True).first()


def _worked() -> Any:
    """A lead on which as much was done as on any: written to, followed up, answered."""
    return Lead.objects.filter(item__status="answered").order_by("-pk").values_list("pk", flat=True).first()


def _settings() -> str | None:
    department = Department.objects.order_by("pk").first()
    if department is None:
        return None
    return reverse("runs:department_settings", args=[department.slug, sections_of(department.spec)[0].slug])


def _department() -> Any:
    return Department.objects.order_by("pk").values_list("pk", flat=True).first()


EXAMPLES: dict[str, Callable[[], Any]] = {
    "account/away/": _one(Absence),
    "agents/": _one(Agent, slug="writer"),
    "budgets/": _one(Budget),
    "bulk/": _one(BulkAction),
    "calls/": _one(ModelCall, status="finished", cause="", body__isnull=False),
    "channels/": _one(Channel),
    "departments/": lambda: Department.objects.order_by("pk").values_list("slug", flat=True).first(),
    "incidents/": _one(Review, kind="incident", status="open"),
    "items/": _worked,
    "leads/": _worked,
    "leads/import/": _one(ImportJob),
    "outbox/": _one(OutboxMessage, status="unknown"),
    "outputs/": _one(Output, key="email", trigger=None),
    "reviews/": _one(Review, kind="draft", status="open"),
    "reviews/alike/": _one(DraftGroup),
    "rules/": _one(Rule),
    "rules/approvals/": _one(AutoApproval),
    "rules/risk/": _one(RiskRule),
    "runs/": _one(PipelineRun, status="completed"),
    "steps/": _one(AgentRun, status="failed"),
    "suppressions/": _one(Suppression),
    "switches/": _department,
    "system/restore/": _department,
    "system/unsure/": _one(OutboxMessage, status="unknown"),
    "tryouts/": _one(TryOut),
    "views/": _one(SavedView),
}
"""What stands for the first parameter after this beginning of an address: a row with much to show."""
SPECIAL: dict[str, Callable[[], str | None]] = {"runs:department_settings": lambda: _settings()}
"""By name: whole addresses of what takes more than one parameter."""
MORE: dict[str, tuple[str, ...]] = {
    "leads:list": ("?q=lindqvist", "?q=nobody@nowhere", "?status=contacted&tier=Hot", "?before=50000", "?tier=Warm"),
    "runs:list": ("?status=degraded", "?status=active", "?before=100000"),
    "runs:live": ("?level=error", "?kind=failed", "?before=1000000"),
    "runs:reviews": ("?kind=failure",),
    "runs:outbox": ("?status=failed", "?status=pending"),
    "runs:costs": tuple(f"?period=30d&by={by}" for by in ("model", "soul", "day", "item", "status", "source")),
    "runs:cost_calls": ("?period=30d&waste=1",),
}
"""The same page, asked for something else."""


@dataclass(frozen=True, slots=True)
class Look:
    """One page: milliseconds (the median of some looks), those of them on a processor here and in PostgreSQL, which
    other work on the machine does not change, queries, kilobytes compressed."""

    name: str
    path: str
    status: int
    ms: float
    cpu_ms: float
    database_cpu_ms: float
    queries: int
    kb: float
    slowest: str = ""


def find_addresses() -> Iterator[tuple[str, str]]:
    """Name and address of everything that may be a page. What the database has no example of is named on stderr."""
    for route in find_routes():
        if route.name in LEFT_OUT or route.name.rsplit("_", 1)[-1].rsplit(":", 1)[-1] in EXPORTS:
            continue
        path = address(route)
        if path is None:
            print(f"no example: {route.name} {route.pattern}", file=sys.stderr)
            continue
        yield route.name, path + QUERY.get(route.name, "").replace("amselwerk", "northwind")
        for query in MORE.get(route.name, ()):
            yield route.name, path + query


def address(route: Route) -> str | None:
    """The route with an example in it; None if there is none."""
    if route.name in SPECIAL:
        return SPECIAL[route.name]()
    if "<" not in route.pattern:
        return route.fill({})
    before, rest = route.pattern.split("<", 1)
    if before not in EXAMPLES or rest.count("<"):
        return None
    value, name = EXAMPLES[before](), rest.split(">", 1)[0].rpartition(":")[2]
    return None if value is None else route.fill({name: value})


def look(client: Client, name: str, path: str) -> Look | None:
    """Ask for a page some times; None if it is none (only posts are taken)."""
    response = client.get(path)
    if response.status_code == 405:
        return None
    times, backend = [], _backend()
    used, used_there = time.process_time(), sum(backend.cpu_times()[:2])
    for _ in range(LOOKS):
        began = time.perf_counter()
        response = client.get(path)
        body = b"".join(response) if response.streaming else response.content
        times.append((time.perf_counter() - began) * 1000)
    used, used_there = time.process_time() - used, sum(backend.cpu_times()[:2]) - used_there
    with CaptureQueriesContext(connection) as queries:
        client.get(path)
    spent = [(float(query["time"]) * 1000, str(query["sql"])) for query in queries]
    slowest = max(spent, default=(0.0, ""))
    return Look(
        name=name,
        path=path,
        status=response.status_code,
        ms=round(statistics.median(times), 1),
        cpu_ms=round(used * 1000 / LOOKS, 1),
        database_cpu_ms=round(used_there * 1000 / LOOKS, 1),
        queries=len(spent),
        kb=round(len(gzip.compress(body, 6)) / 1024, 1),
        slowest=f"{slowest[0]:.0f} ms: {slowest[1]}",
    )


def _backend() -> psutil.Process:
    """The process of PostgreSQL that serves our connection; the server must be on this machine."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return psutil.Process(cursor.fetchone()[0])


def main(arguments: Sequence[str]) -> int:
    """Print a line a page, slowest last; with ``--json`` one object a line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pages")
    parser.add_argument("--only", default="", help="names or addresses that contain this")
    parser.add_argument("--user", default="looker")
    parser.add_argument("--slow", type=float, default=1e9, help="show the slowest statement above so many ms of both")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.get(username=options.user))
    found = []
    for name, path in find_addresses():
        if options.only in name or options.only in path:
            seen = look(client, name, path)
            if seen is not None:
                found.append(seen)
    for one in sorted(found, key=lambda one: one.cpu_ms + one.database_cpu_ms):
        if options.json:
            print(json.dumps(asdict(one)))
            continue
        cost = f"{one.cpu_ms:6.1f} here, {one.database_cpu_ms:6.1f} there in {one.queries:2} queries"
        numbers = f"{one.ms:8.1f} ms, {cost}, {one.kb:5.1f} KB"
        print(f"{numbers}  {one.status}  {one.path}")
        if one.cpu_ms + one.database_cpu_ms > options.slow:
            print(f"           {one.slowest[:900]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
