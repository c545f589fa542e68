"""Adds settled model calls to the sums that the costs page reads, each call once as what it is now.

What is not rolled up yet ``runs.costs`` adds from the calls themselves (``runs.cost_unrolled``).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import date
from decimal import Decimal

from django.db import connection, transaction

from runs.cost_moves import SUMS, Group, Move, Sums, as_used, group_calls, sum_groups, sum_items
from runs.cost_unrolled import COLUMNS, DAY, unrolled
from runs.database import update_rows
from runs.models import CostRollup, ItemCost, ItemTotal, ModelCall

BATCH = 2_000
SECONDS = 20.0
KEEP_UP_SECONDS = 1.0
KEEP_UP_BATCH = 500
BREATH_SECONDS = 0.11
"""Left free between two batches on SQLite: who waits for its one write lock looks each 100 ms, and may never find it
free where one transaction follows another."""
_LINK = """UPDATE runs_itemcost SET day_before = linked.before FROM (
    SELECT id, LAG(day) OVER (PARTITION BY item_id ORDER BY day) AS before FROM runs_itemcost WHERE item_id IN ({items})
) linked WHERE linked.id = runs_itemcost.id AND linked.before IS NOT NULL
    AND (runs_itemcost.day_before IS NULL OR runs_itemcost.day_before <> linked.before)"""


def roll_up(*, seconds: float = SECONDS, batch: int = BATCH) -> int:
    """Add what is settled to the sums until nothing is left or the time is up. Returns the number of calls."""
    until, done = time.monotonic() + seconds, 0
    while True:
        count = _roll_up_batch(batch)
        done += count
        if count < batch or time.monotonic() > until:
            return done
        if connection.vendor == "sqlite" and not connection.in_atomic_block:
            time.sleep(BREATH_SECONDS)


def keep_up() -> int:
    """Add what was settled since the last look, a second at most; the worker does every few, each minute the rest.

    In small transactions: on SQLite every other writer waits for them.
    """
    # Looked at first: a transaction that writes nothing would hold up who does.
    return roll_up(seconds=KEEP_UP_SECONDS, batch=KEEP_UP_BATCH) if unrolled().order_by("pk")[:1] else 0


def add_correction(calls: Iterable[tuple[ModelCall, Decimal]]) -> None:
    """Calls, locked and not yet changed, that cost something else from now on: in the sums that hold them already."""
    moves = []
    for call, usd in calls:
        if call.rolled not in (ModelCall.Rolled.DONE, ModelCall.Rolled.USED):
            continue
        row = {"started_at": call.started_at} | {name: getattr(call, name) for name in COLUMNS}
        row = as_used(row) if call.rolled == ModelCall.Rolled.USED else row
        moves += [Move(row, False, -1), Move({**row, "cost_usd": usd, "is_estimate": False}, False, 1)]
    _add_to_rollups(sum_groups(moves))
    _add_to_items(sum_items(moves))


def _roll_up_batch(batch: int) -> int:
    with transaction.atomic():
        # Whoever settles a call just now holds it: it comes next time.
        locked = unrolled().select_for_update(skip_locked=True, of=("self",)).order_by("pk")
        ids = list(locked.values_list("pk", flat=True)[:batch])
        if not ids:
            return 0
        rows = list(ModelCall.objects.filter(pk__in=ids).values(*COLUMNS, day=DAY))
        groups, items = group_calls(rows)
        _add_to_rollups(groups)
        _add_to_items(items)
        states = {ModelCall.Status.FINISHED: ModelCall.Rolled.DONE, ModelCall.Status.UNSEEN: ModelCall.Rolled.UNSEEN}
        for status, rolled in states.items():
            ModelCall.objects.filter(pk__in=[row["pk"] for row in rows if row["status"] == status]).update(
                rolled=rolled
            )
    return len(ids)


def _add_to_rollups(groups: dict[Group, Sums]) -> None:
    fields = [{**group._asdict(), "key": group.key} for group in groups]
    # In the order of the keys: two that add the same new rows must not wait for each other.
    fields.sort(key=lambda columns: columns["key"])
    CostRollup.objects.bulk_create((CostRollup(**columns) for columns in fields), ignore_conflicts=True)
    by_key = {group.key: sums for group, sums in groups.items()}
    rows = list(CostRollup.objects.filter(key__in=by_key).select_for_update().order_by("key"))
    update_rows(
        CostRollup,
        SUMS,
        [(row.pk, *(getattr(row, name) + by_key[row.key].values[n] for n, name in enumerate(SUMS))) for row in rows],
    )


def _add_to_items(items: dict[tuple[int, int, date], list[int]]) -> None:
    if not items:
        return
    # First, for it locks the items: who adds another day of one of them must see ours, to know which day is before.
    _add_to_totals(items)
    ItemCost.objects.bulk_create(
        (ItemCost(department_id=department, item_id=item, day=day) for department, item, day in sorted(items)),
        ignore_conflicts=True,
    )
    wanted = {(item, day): sums for (_, item, day), sums in items.items()}
    rows = ItemCost.objects.filter(
        item__in={item for item, _ in wanted}, day__in={day for _, day in wanted}
    ).select_for_update()
    changed = [(row, wanted[row.item_id, row.day]) for row in rows.order_by("pk") if (row.item_id, row.day) in wanted]
    update_rows(
        ItemCost,
        ("calls", "cost_units", "waste_units"),
        [(row.pk, row.calls + sums[0], row.cost_units + sums[1], row.waste_units + sums[2]) for row, sums in changed],
    )
    _link_days({item for _, item, _ in items})


def _link_days(item_ids: Collection[int]) -> None:
    """Say on each day of these items which one was before it; the items' totals are locked."""
    with connection.cursor() as cursor:
        cursor.execute(_LINK.format(items=", ".join(str(pk) for pk in item_ids)))


def _add_to_totals(items: dict[tuple[int, int, date], list[int]]) -> None:
    added: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    departments = {item: department for department, item, _ in items}
    for (_, item, _), (calls, cost, _) in items.items():
        added[item][0] += calls
        added[item][1] += cost
    ItemTotal.objects.bulk_create(
        (ItemTotal(item_id=item, department_id=departments[item]) for item in sorted(departments)),
        ignore_conflicts=True,
    )
    rows = ItemTotal.objects.filter(pk__in=departments).select_for_update().order_by("pk")
    update_rows(
        ItemTotal,
        ("calls", "cost_units"),
        [(row.pk, row.calls + added[row.pk][0], row.cost_units + added[row.pk][1]) for row in rows],
    )
