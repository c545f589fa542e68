"""Looks through a whole database once nothing moves any more: what was lost, done twice, or is not true."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import Error, connection
from django.db.models import Count, Exists, F, OuterRef
from django.utils import timezone

from runs.facts import load_facts
from runs.models import AgentRun, Item, LogEntry, ModelCall, Output, PipelineRun, Trigger
from runs.staff import load_staff
from tests.crossings import crossings
from tests.faults import accounts

SAMPLE_SECONDS = 0.25
REAPED_WITHIN = timedelta(seconds=30)
"""A lease that ran out is shown as "lost, being recovered" at once; by then somebody must have taken the run back."""


@dataclass(slots=True)
class Findings:
    """One line for each thing that is wrong."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)

    def __iadd__(self, other: Findings) -> Findings:
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.untrue += other.untrue
        self.accounts += other.accounts
        return self

    def __sub__(self, other: Findings) -> Findings:
        """What is found here and was not found there."""
        names = ("lost", "duplicated", "untrue", "accounts")
        return Findings(*([line for line in getattr(self, n) if line not in set(getattr(other, n))] for n in names))

    @property
    def lines(self) -> list[str]:
        """Everything, each line with its kind."""
        kinds = {"lost": self.lost, "twice": self.duplicated, "untrue": self.untrue, "accounts": self.accounts}
        return [f"{kind}: {line}" for kind, lines in kinds.items() for line in lines]


def audit(served: list[dict[str, Any]] | None = None) -> Findings:
    """Everything that is wrong in the database; ``served`` are the simulator's records, if it was asked."""
    found = Findings(lost=[*_lost()], duplicated=[*_duplicated()], untrue=[*_untrue()], accounts=accounts.add_up())
    found.untrue += [f"row of two departments: {line}" for line in crossings()]
    if served is not None:
        found.accounts += accounts.compare(served)
        found.duplicated += accounts.served_twice(served)
    return found


def _lost() -> Iterable[str]:
    now = timezone.now()
    for run in AgentRun.objects.filter(status__in=AgentRun.ACTIVE).select_related("agent"):
        yield f"agent run {run.pk} ({run.agent.slug}) is still {run.status}: {run.waiting_for}"
    for pk in Item.objects.filter(route_due_at__lte=now).values_list("pk", flat=True):
        yield f"item {pk} still waits for a decision"
    for pk in PipelineRun.objects.filter(status=PipelineRun.Status.ACTIVE).values_list("pk", flat=True):
        yield f"pipeline run {pk} has not ended"
    written = Output.objects.filter(agent_run=OuterRef("pk"))
    for pk in AgentRun.objects.filter(~Exists(written), status=AgentRun.Status.DONE).values_list("pk", flat=True):
        yield f"agent run {pk} is done and left no output"
    for pk, kind in Trigger.objects.filter(status=Trigger.Status.OPEN, due_at__lte=now).values_list("pk", "kind"):
        if kind != Trigger.Kind.CREATED:
            yield f"trigger {pk} ({kind}) is still open"
    yield from _wanted()


def _wanted() -> Iterable[str]:
    """Whether the router, asked about every item, still wants something."""
    staff = load_staff()
    items = list(Item.objects.all())
    for start in range(0, len(items), 500):
        batch = items[start : start + 500]
        facts = load_facts(batch, now=timezone.now())
        for item in batch:
            decision = staff.desks[item.department_id].router.decide(facts[item.pk])
            for one in decision.start:
                yield f"item {item.pk} lacks what {one.agent} writes"


def _duplicated() -> Iterable[str]:
    groups = {
        "current outputs": Output.objects.filter(is_current=True).values("item_id", "key", "trigger_id"),
        "outputs": Output.objects.values("agent_run_id").filter(agent_run__isnull=False),
        "finished agent runs": AgentRun.objects.filter(status=AgentRun.Status.DONE).values(
            "item_id", "agent_id", "trigger_id"
        ),
        "deliveries": Trigger.objects.exclude(delivery_id="").values("source", "delivery_id"),
    }
    for what, rows in groups.items():
        for row in rows.annotate(count=Count("pk")).filter(count__gt=1).order_by():
            yield f"{row.pop('count')} {what} of {row}"
    yield from _attempts()


def _attempts() -> Iterable[str]:
    """Attempts that nothing explains: each after the first follows a lost lease, a failure or a wait."""
    ended = ("lost", "waiting", "failed")
    told = dict(
        LogEntry.objects.filter(kind__in=ended, agent_run__isnull=False)
        .values_list("agent_run_id")
        .annotate(count=Count("pk"))
        .order_by()
    )
    for pk, attempt in AgentRun.objects.filter(attempt__gt=1).values_list("pk", "attempt"):
        if attempt > 1 + told.get(pk, 0):
            yield f"agent run {pk} was tried {attempt} times, and the log explains {told.get(pk, 0)} more than one"
    # A good answer that was in hand is followed by nothing, unless the lease was lost before it was written down.
    good = ModelCall.objects.filter(cause="", stop_reason="end_turn", error="", status=ModelCall.Status.FINISHED)
    again = ModelCall.objects.filter(agent_run=OuterRef("agent_run"), attempt__gt=OuterRef("attempt"))
    for pk in good.filter(Exists(again), agent_run__lost_leases=0).values_list("agent_run_id", flat=True):
        yield f"agent run {pk} was asked again after a good answer"


def _untrue() -> Iterable[str]:
    failed = AgentRun.objects.filter(pipeline_run=OuterRef("pk"), status=AgentRun.Status.FAILED)
    ended = PipelineRun.objects.annotate(has_failed=Exists(failed))
    for pk in ended.filter(status="completed", has_failed=True).values_list("pk", flat=True):
        yield f"pipeline run {pk} says completed, and something has failed"
    for pk in ended.filter(status="degraded", has_failed=False).values_list("pk", flat=True):
        yield f"pipeline run {pk} says degraded, and nothing has failed"
    unasked = AgentRun.objects.filter(status=AgentRun.Status.FAILED, incident=None)
    for pk in unasked.values_list("pk", flat=True):
        yield f"agent run {pk} has failed, and nobody is asked"
    flagless = Item.objects.filter(agent_runs__status=AgentRun.Status.FAILED, flag="").distinct()
    for pk in flagless.values_list("pk", flat=True):
        yield f"something has failed on item {pk}, and it has no flag"
    leased = AgentRun.objects.exclude(status=AgentRun.Status.RUNNING).filter(lease_token__isnull=False)
    for pk, status in leased.values_list("pk", "status"):
        yield f"agent run {pk} is {status} and holds a lease"
    without_end = AgentRun.objects.filter(status__in=("done", "failed"), ended_at=None)
    for pk in without_end.values_list("pk", flat=True):
        yield f"agent run {pk} has ended at no time"
    yield from _statuses()


def _statuses() -> Iterable[str]:
    staff = load_staff()
    items = list(Item.objects.all())
    for start in range(0, len(items), 500):
        batch = items[start : start + 500]
        facts = load_facts(batch, now=timezone.now())
        for item in batch:
            wanted = staff.desks[item.department_id].spec.status(facts[item.pk])
            if wanted != item.status:
                yield f"item {item.pk} says {item.status} and is {wanted}"


class Watch:
    """Looks at the statuses while work goes on; ``stop`` returns what was not true at some moment."""

    def __init__(self) -> None:
        self._untrue: dict[int, str] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[str]:
        """End watching."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(60)
        return list(self._untrue.values())

    def _look(self) -> None:
        while not self._end.wait(SAMPLE_SECONDS):
            try:
                self._sample()
            except Error:
                connection.close()
        connection.close()

    def _sample(self) -> None:
        running = AgentRun.objects.filter(status=AgentRun.Status.RUNNING)
        expired = running.filter(lease_expires_at__lt=timezone.now() - REAPED_WITHIN)
        for pk in expired.values_list("pk", flat=True):
            self._untrue[pk] = f"agent run {pk} said running {REAPED_WITHIN.seconds} s after its lease had run out"
        orphans = AgentRun.objects.filter(status__in=AgentRun.ACTIVE).exclude(pipeline_run__status="active")
        for pk in orphans.values_list("pk", flat=True):
            self._untrue[pk] = f"agent run {pk} was active in a pipeline run that had ended"
        ended = running.filter(ended_at__isnull=False, ended_at__gt=F("started_at"))
        for pk in ended.values_list("pk", flat=True):
            self._untrue[pk] = f"agent run {pk} said running and had an end"
