"""Work for the faults to strike, and when it was done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from agents.models import Department
from leads.models import Lead
from runs.database import snapshot
from runs.models import AgentRun, Item, ModelCall, Trigger
from tests.factories import make_lead
from tests.faults.site import wait_for

SETTLED_SECONDS = 150.0


def add_items(count: int) -> list[int]:
    """Items of the small kind, six agents in a row each, due now. Their ids."""
    with transaction.atomic():
        department = Department.objects.get(kind="bench")
        now = timezone.now()
        items = Item.objects.bulk_create(
            Item(department=department, title=f"Bench in the park number {n}", route_due_at=now) for n in range(count)
        )
        Trigger.objects.bulk_create(Trigger(item=item, kind=Trigger.Kind.CREATED, due_at=now) for item in items)
    return [item.pk for item in items]


def add_lead(company: str, *, department: str = "sales", **fields: Any) -> Lead:
    """A lead that is due now; its company's name is in every request but the last ones, for faults to match."""
    with transaction.atomic():
        office = Department.objects.get(slug=department)
        lead = make_lead(office, company=company, route_due_at=timezone.now(), **fields)
        Trigger.objects.create(item=lead.item, kind=Trigger.Kind.CREATED, due_at=timezone.now())
    return lead


def is_settled(ids: Sequence[int] | None = None) -> bool:
    """Whether nothing is due and no agent run is active, of these items or of all."""
    items, runs = Item.objects.all(), AgentRun.objects.all()
    if ids is not None:
        items, runs = items.filter(pk__in=ids), runs.filter(item_id__in=ids)
    # Of one state: between two looks a run may end and make its item due, or a due item get its runs.
    with snapshot():
        is_due = items.filter(route_due_at__isnull=False, route_due_at__lte=timezone.now()).exists()
        return not is_due and not runs.filter(status__in=AgentRun.ACTIVE).exists()


def wait_settled(ids: Sequence[int] | None = None, limit_seconds: float = SETTLED_SECONDS) -> float:
    """Return once nothing is left to do; the time then, in seconds since 1970."""
    wait_for(lambda: is_settled(ids), "everything is settled", limit_seconds)
    return time.time()


def wait_in_flight(ids: Sequence[int], count: int) -> None:
    """Return once so many calls of these items are under way."""
    started = ModelCall.objects.filter(item_id__in=ids, status=ModelCall.Status.STARTED)
    wait_for(lambda: started.count() >= count, f"{count} calls are under way")


def healed_at(ids: Sequence[int], struck_at: float) -> float:
    """When the last agent run that lost its worker was done; where none had one, when the next one was."""
    runs = AgentRun.objects.filter(item_id__in=ids, ended_at__isnull=False)
    ended = [at.timestamp() for at in runs.filter(lost_leases__gt=0).values_list("ended_at", flat=True) if at]
    if ended:
        return max(ended)
    later = [at.timestamp() for at in runs.values_list("ended_at", flat=True) if at and at.timestamp() >= struck_at]
    return min(later, default=struck_at)


def retry_seconds() -> list[float]:
    """For each agent run that needed more than one call: from the end of the first to the end of the run."""
    found = []
    runs = AgentRun.objects.filter(Q(attempt__gt=1) | Q(model_calls__number__gt=1), status=AgentRun.Status.DONE)
    for run in runs.distinct():
        first = run.model_calls.order_by("attempt", "number").first()
        if first is not None and first.ended_at is not None and run.ended_at is not None:
            found.append((run.ended_at - first.ended_at).total_seconds())
    return found
