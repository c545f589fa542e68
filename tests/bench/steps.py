"""What the benchmark does inside the database it measures: ``python -m tests.bench.steps VERB [ARG]``."""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db.models import Max, Min  # noqa: E402

from agents.models import Department  # noqa: E402
from runs.database import now as database_now  # noqa: E402
from runs.inputs import build_params, gather_inputs  # noqa: E402
from runs.models import AgentRun, Item, ModelCall, PipelineRun, ShiftSlot, Trigger  # noqa: E402
from runs.staff import load_staff  # noqa: E402

PATIENCE_SECONDS = 600


def prepare(leads: str, requests: str) -> dict[str, Any]:
    """An empty database with the department, its items (not due yet), and sample requests for the yardstick."""
    call_command("migrate", verbosity=0)
    call_command("sync_departments", stdout=io.StringIO())
    department = Department.objects.get(kind="bench")
    Item.objects.bulk_create(
        (Item(department=department, title=f"Bench number {n} in the park of Lindental") for n in range(int(leads))),
        batch_size=1_000,
    )
    items = list(Item.objects.order_by("pk"))
    Trigger.objects.bulk_create((Trigger(item=i, kind="created", due_at=database_now()) for i in items), batch_size=1_000)
    Path(requests).write_text(json.dumps(_requests(department, items[0])))
    return {"leads": len(items)}


def start() -> dict[str, Any]:
    """Make everything due."""
    return {"due": Item.objects.update(route_due_at=database_now())}


def wait_for_shifts(number: str) -> dict[str, Any]:
    """Until so many shifts hold their slots."""
    _until(lambda: ShiftSlot.objects.filter(started_at__isnull=False).count() >= int(number))
    return {}


def wait(runs: str) -> dict[str, Any]:
    """Until so many agent runs are done."""
    _until(lambda: AgentRun.objects.filter(status="done").count() >= int(runs), pause=0.5)
    return {}


def measure() -> dict[str, Any]:
    """Rate from the first claim to the last commit; what the engine added to each call."""
    span = AgentRun.objects.aggregate(first=Min("started_at"), last=Max("ended_at"))
    latency = dict(ModelCall.objects.values_list("agent_run_id", "latency_ms"))
    added = sorted(
        (run.ended_at - run.queued_at).total_seconds() * 1000 - latency[run.pk]
        for run in AgentRun.objects.exclude(why="").order_by("pk")[len(latency) // 3 :]
        if run.ended_at
    )
    held = sorted(
        (run.ended_at - run.started_at).total_seconds() * 1000 - latency[run.pk]
        for run in AgentRun.objects.order_by("pk")[len(latency) // 3 :]
        if run.ended_at and run.started_at
    )
    return {
        "calls": ModelCall.objects.count(),
        "seconds": (span["last"] - span["first"]).total_seconds(),
        "added_ms_p50": round(statistics.median(held), 1),
        "added_ms_p95": round(held[int(len(held) * 0.95)], 1),
        "queued_and_added_ms_p50": round(statistics.median(added), 1),
    }


def _requests(department: Department, item: Item) -> list[dict[str, Any]]:
    """One request of each agent, as the engine would build it."""
    staff = load_staff()
    desk = staff.desks[department.pk]
    pipeline = PipelineRun(item=item, started_at=database_now())
    made = []
    for agent in desk.agents.values():
        run = AgentRun(pk=agent.pk, department=department, item=item, agent=agent, pipeline_run=pipeline)
        prepared = gather_inputs([run], staff)[agent.pk]
        made.append(build_params(run, agent, desk.souls[agent.pk], desk, prepared.data))
    return made


def _until(condition: Any, pause: float = 0.1) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > until:
            sys.exit("The benchmark did not come to an end in time.")
        time.sleep(pause)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
