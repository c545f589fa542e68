"""What items come to: written down when it first happens, so that no figure shrinks when an item is lost later."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from django.db.models import Count, DateTimeField

from agents.models import Department
from agents.spec import DepartmentSpec
from agents.statements import Among, Given, Statement
from runs.models import Item, ItemOutcome

_REACHED = Statement(
    lambda: (
        ItemOutcome.objects.filter(
            Among("department_id", "departments"),
            at__gte=Given("begin", DateTimeField()),
            at__lt=Given("end", DateTimeField()),
        )
        .order_by()
        .values_list("outcome")
        .annotate(count=Count("pk"))
    )
)


class Reached(NamedTuple):
    """An item has got a status that its kind counts."""

    item: Item
    outcome: str


def find_reached(item: Item, spec: DepartmentSpec, status: str) -> list[Reached]:
    """What the item has come to with this status; nothing for most."""
    return [Reached(item, name) for name, statuses in spec.outcomes.items() if status in statuses]


def record_outcomes(reached: Iterable[Reached], *, now: datetime) -> None:
    """Write down what was reached for the first time; one query, none where nothing was."""
    rows = [
        ItemOutcome(department_id=item.department_id, item_id=item.pk, outcome=outcome, at=now)
        for item, outcome in reached
    ]
    if rows:
        ItemOutcome.objects.bulk_create(rows, ignore_conflicts=True)


def count_outcomes(departments: Collection[Department], begin: datetime, end: datetime) -> dict[str, int]:
    """How many items of these departments came to what between the two moments: ``{outcome: count}``, one query.

    Every outcome that their kinds know is there, also at 0.
    """
    found = {name: 0 for department in departments for name in department.spec.outcomes}
    for name, count in _REACHED.rows(departments=[d.pk for d in departments], begin=begin, end=end):
        if name in found:
            found[name] = count
    return found
