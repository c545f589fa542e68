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

from agents.models import Department  # noqa: E402
from agents.replies import ModelReply  # noqa: E402
from runs import dispatch, leases  # noqa: E402
from runs.commits import commit  # noqa: E402
from runs.database import now as database_now  # noqa: E402
from runs.models import AgentRun, Item, ModelCall, Output, ShiftSlot, Trigger  # noqa: E402
from runs.shift import BATCH  # noqa: E402
from runs.staff import load_staff  # noqa: E402
from runs.work import Finished, SeenCall  # noqa: E402
from tests.bench.kind import KEYS, MODEL  # noqa: E402

PATIENCE_SECONDS = 600
TITLE = "Bench number {} in the park of Lindental"
ANSWER = {
    "reasoning_summary": "The title names a bench and a park, and nothing in it speaks against them being real. " * 2,
    "finding": "The bench stands in the park of Lindental. It was measured in spring, and nothing was found wrong.",
    "score": 71,
}


def prepare(leads: str, requests: str) -> dict[str, Any]:
    """An empty database with the department, its items (not due yet), and sample requests for the yardstick."""
    call_command("migrate", verbosity=0)
    call_command("sync_departments", stdout=io.StringIO())
    department = Department.objects.get(kind="bench")
    sample = Item.objects.create(department=department, title=TITLE.format(0), route_due_at=database_now())
    Path(requests).write_text(json.dumps(_requests(sample)))
    sample.delete()
    titles = (TITLE.format(number) for number in range(1, int(leads) + 1))
    Item.objects.bulk_create((Item(department=department, title=title) for title in titles), batch_size=1_000)
    now = database_now()
    items = Item.objects.order_by("pk")
    Trigger.objects.bulk_create((Trigger(item=i, kind="created", due_at=now) for i in items), batch_size=1_000)
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


def measure(in_flight: str, calls: str) -> dict[str, Any]:
    """Rate after the first wave of calls, and what the engine added to each: its run's wall time less the model's.

    A run or a call too many or too few ends the benchmark: something failed, and the figures would mean nothing.
    """
    answered = ModelCall.objects.filter(status=ModelCall.Status.FINISHED, cause="")
    latency = dict(answered.values_list("agent_run_id", "latency_ms"))
    rows = AgentRun.objects.filter(status="done").order_by("ended_at").values_list("pk", "started_at", "ended_at")
    runs = [(pk, start, end) for pk, start, end in rows if start and end]
    if not len(runs) == len(latency) == ModelCall.objects.count() == int(calls):
        sys.exit(f"{len(runs)} runs done with {ModelCall.objects.count()} calls instead of {calls}.")
    steady = runs[int(in_flight) :]
    seconds = (steady[-1][2] - runs[int(in_flight) - 1][2]).total_seconds()
    added = sorted((end - start).total_seconds() * 1000 - (latency[pk] or 0) for pk, start, end in steady)
    return {
        "calls_per_second": len(steady) / seconds,
        "added_ms_p50": round(statistics.median(added), 1),
        "added_ms_p95": round(added[int(len(added) * 0.95)], 1),
    }


def route() -> dict[str, Any]:
    """Route everything that is due, in batches as a shift does, and count decisions that started an agent run."""
    staff, decided = load_staff(), 0
    began, cpu = time.monotonic(), time.process_time()
    while number := dispatch.route_due(BATCH, staff=staff):
        decided += number
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    if AgentRun.objects.count() != decided:
        sys.exit(f"{decided} items were routed, {AgentRun.objects.count()} agent runs are there.")
    return {"decisions": decided, "seconds": seconds, "cpu_seconds": cpu}


def count_tokens(tier: str) -> dict[str, Any]:
    """Input tokens of each call for items of the tier, by agent and over all."""
    hot = [
        item
        for item, facets in Output.objects.filter(key="qualification", is_current=True).values_list("item", "facets")
        if facets.get("tier") == tier
    ]
    by_agent: dict[str, list[int]] = {}
    for call in ModelCall.objects.filter(item__in=hot).select_related("agent"):
        tokens = call.input_tokens + call.cache_read_tokens + call.cache_write_5m_tokens + call.cache_write_1h_tokens
        by_agent.setdefault(call.agent.slug, []).append(tokens)
    everything = [tokens for found in by_agent.values() for tokens in found]
    return {
        "items": len(hot),
        "calls": len(everything),
        "average": round(statistics.mean(everything), 1),
        "most": max(everything),
        "by_agent": {slug: {"average": round(statistics.mean(n)), "most": max(n)} for slug, n in by_agent.items()},
    }


def _requests(item: Item) -> list[dict[str, Any]]:
    """The request of each agent as the engine builds it, from one item that is worked here with made-up answers."""
    made, finished, staff = [], [], load_staff()
    while len(made) < len(KEYS):
        commit(finished, staff)
        dispatch.route_due(BATCH, staff=staff)
        works = leases.claim(BATCH, staff=staff, worker="prepare", is_alone=True)
        if not works:
            sys.exit(f"Only {len(made)} of {len(KEYS)} agents could be claimed for {item.title}.")
        made += [work.first_call.request.params for work in works]
        finished = [Finished(work, payload=ANSWER, unsettled=[SeenCall(work.first_call, _reply())]) for work in works]
    commit(finished, staff)
    return made


def _reply() -> ModelReply:
    content = [{"type": "text", "text": json.dumps(ANSWER)}]
    return ModelReply(model=MODEL, content=content, stop_reason="end_turn", is_usage_final=True)


def _until(condition: Any, pause: float = 0.1) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > until:
            sys.exit("The benchmark did not come to an end in time.")
        time.sleep(pause)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
