"""Adds settled model calls to the sums that the costs page reads, each call once as what it is now.

A call that was given up as unseen and answers late is taken out of the sums as unseen and put in as settled; one
whose answer turns out to be of no use (``runs.calls.discard_answers``) is moved to what was wasted. What is not
rolled up yet ``runs.costs`` adds from the calls themselves, so that a page always equals the sum over calls.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Count, ExpressionWrapper, Q, QuerySet, Sum
from django.db.models.fields import BooleanField
from django.db.models.functions import TruncDate

from agents.causes import Cause
from agents.statements import Statement
from runs.database import update_rows
from runs.models import CostRollup, ItemCost, ItemTotal, ModelCall
from runs.money import dollars, in_units, units

BATCH = 2_000
SECONDS = 20.0
KEEP_UP_SECONDS = 1.0
KEEP_UP_BATCH = 500
BREATH_SECONDS = 0.11
"""Left free between two batches on SQLite: who waits for its one write lock looks each 100 ms, and may never find it
free where one transaction follows another."""
_UNROLLED = """(("runs_modelcall"."rolled" = '' AND "runs_modelcall"."status" IN ('finished', 'unseen'))
    OR ("runs_modelcall"."rolled" = 'unseen' AND "runs_modelcall"."status" = 'finished')
    OR ("runs_modelcall"."rolled" = 'used' AND "runs_modelcall"."status" = 'finished'))"""
"""Word for word the condition of the index model_call_to_roll: SQLite uses it for no other, nor for parameters."""
_LINK = """UPDATE runs_itemcost SET day_before = linked.before FROM (
    SELECT id, LAG(day) OVER (PARTITION BY item_id ORDER BY day) AS before FROM runs_itemcost WHERE item_id IN ({items})
) linked WHERE linked.id = runs_itemcost.id AND linked.before IS NOT NULL
    AND (runs_itemcost.day_before IS NULL OR runs_itemcost.day_before <> linked.before)"""
TOKENS = ("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens")
SUMS = ("calls", *TOKENS, "cost_units")
_MONEY = ("cost_usd", "reserved_usd")
_COLUMNS = (
    *("pk", "department_id", "item_id", "agent_id", "soul_id", "model_asked", "model_used", "status", "rolled"),
    *("cause", "error", "is_estimate", *_MONEY, *TOKENS),
)
_DAY = TruncDate("started_at", tzinfo=UTC)
"""Told by the database: to read a moment takes three times as long as all other columns together."""
_APART = {
    "day": _DAY,
    "has_error": ExpressionWrapper(~Q(error=""), BooleanField()),
    "has_output": ExpressionWrapper(Q(output_tokens__gt=0), BooleanField()),
}
"""Of error and output only what the rule for waste and tokens asks: that there is one."""


class Group(NamedTuple):
    """What one row of the rollups is about."""

    department_id: int
    day: date
    agent_id: int
    model: str
    soul_id: int | None
    is_waste: bool
    is_estimate: bool

    @property
    def key(self) -> str:
        """The value of ``CostRollup.key``."""
        flags = f"{self.is_waste:d}{self.is_estimate:d}"
        return f"{self.department_id}:{self.day}:{self.agent_id}:{self.soul_id or 0}:{flags}:{self.model}"


@dataclass(slots=True)
class Sums:
    """What is added to one row: in the order of ``SUMS``."""

    values: list[int]

    @classmethod
    def empty(cls) -> Sums:
        """Nothing yet."""
        return cls([0] * len(SUMS))

    def add(self, sign: int, amounts: Iterable[int]) -> None:
        """Put calls in (1) or take them out (-1)."""
        for position, value in enumerate(amounts):
            self.values[position] += sign * value


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


def group_calls(rows: Iterable[dict[str, Any]]) -> tuple[dict[Group, Sums], dict[tuple[int, int, date], list[int]]]:
    """What these calls add to the rollups, and to the items: ``{(department, item, day): [calls, units, waste]}``.

    Checks belong to no item and are in the first only.
    """
    groups: defaultdict[Group, Sums] = defaultdict(Sums.empty)
    items: defaultdict[tuple[int, int, date], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        for move in _moves(row):
            _add_to_groups(groups, move)
            _add_to_sums(items, move)
    return groups, items


def add_correction(calls: Iterable[tuple[ModelCall, Decimal]]) -> None:
    """Calls, locked and not yet changed, that cost something else from now on: in the sums that hold them already."""
    groups: defaultdict[Group, Sums] = defaultdict(Sums.empty)
    items: defaultdict[tuple[int, int, date], list[int]] = defaultdict(lambda: [0, 0, 0])
    for call, usd in calls:
        if call.rolled not in (ModelCall.Rolled.DONE, ModelCall.Rolled.USED):
            continue
        row = {"started_at": call.started_at} | {name: getattr(call, name) for name in _COLUMNS}
        row = _as_used(row) if call.rolled == ModelCall.Rolled.USED else row
        for move in (_Move(row, False, -1), _Move({**row, "cost_usd": usd, "is_estimate": False}, False, 1)):
            _add_to_groups(groups, move)
            _add_to_sums(items, move)
    _add_to_rollups(groups)
    _add_to_items(items)


def unrolled() -> QuerySet[ModelCall]:
    """The calls that the sums do not hold as what they are now; few, whatever the number of calls."""
    return ModelCall.objects.extra(where=[_UNROLLED])


def unrolled_calls(**filters: Any) -> Iterable[dict[str, Any]]:
    """Their columns. Filter by a column that few calls share, or not at all: the small index serves no other."""
    rows: Iterable[dict[str, Any]] = unrolled().filter(**filters).order_by("pk").values(*_COLUMNS, day=_DAY)
    return rows


def sum_unrolled() -> dict[Group, Sums]:
    """What they add to the rollups: as ``group_calls``, but alike calls are added up by the database."""
    groups: defaultdict[Group, Sums] = defaultdict(Sums.empty)
    for row in _ALIKE.read():
        for move in _moves(row):
            _add_to_groups(groups, move)
    return groups


def sum_unrolled_items() -> dict[tuple[int, int, date], list[int]]:
    """What they add to the items, likewise."""
    items: defaultdict[tuple[int, int, date], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in _ALIKE_OF_ITEMS.read():
        for move in _moves(row):
            _add_to_sums(items, move)
    return items


class _AddedUp:
    """The calls of ``unrolled``, those that are alike in these columns added up; ``rows`` narrows them."""

    def __init__(self, alike: Sequence[str], tokens: Sequence[str], rows: Callable[[], QuerySet[ModelCall]]) -> None:
        self._tokens = tokens
        sums: dict[str, Any] = {"count": Count("pk")}
        sums |= {f"sum_{name}": Sum(in_units(name)) for name in _MONEY}
        sums |= {f"sum_{name}": Sum(name) for name in tokens}
        self._columns = (*alike, *_APART, *sums)
        self._statement = Statement(
            lambda: rows().annotate(**_APART).values_list(*alike, *_APART).order_by().annotate(**sums)
        )

    def read(self) -> Iterator[dict[str, Any]]:
        """As rows of calls, each with its ``count``."""
        for values in self._statement.rows():
            row = dict(zip(self._columns, values, strict=True))
            row |= {name: row[f"sum_{name}"] for name in self._tokens}
            row |= {name: dollars(int(row[f"sum_{name}"])) for name in _MONEY}
            yield row | {"error": row["has_error"]}


_KINDS = ("status", "rolled", "cause")
_WHOSE = ("department_id", "agent_id", "soul_id", "model_asked", "model_used", "is_estimate")
_ALIKE = _AddedUp((*_WHOSE, *_KINDS), TOKENS, unrolled)
_ALIKE_OF_ITEMS = _AddedUp(("department_id", "item_id", *_KINDS), (), lambda: unrolled().exclude(item=None))


def settled_calls(**filters: Any) -> Iterable[dict[str, Any]]:
    """The columns of settled calls, as if none were in the sums: ``group_calls`` of them is the sum over the calls."""
    settled = [ModelCall.Status.FINISHED, ModelCall.Status.UNSEEN]
    rows = ModelCall.objects.filter(status__in=settled, **filters).order_by("pk").values(*_COLUMNS, day=_DAY)
    return ({**row, "rolled": ModelCall.Rolled.NOT} for row in rows)


def is_of_use(row: dict[str, Any]) -> bool:
    """The one rule for what was wasted: a call is of use if its answer was taken, by an attempt whose output was.

    Whoever finds that it was not says why in the call's ``error`` (``runs.calls``); an unseen end has one, too.
    """
    return not row["cause"] and not row["error"]


def is_billed(row: dict[str, Any]) -> bool:
    """Whether the tokens of a call were paid for: those of a refusal before any output were not."""
    return bool(row["cause"] != Cause.REFUSAL or row["output_tokens"])


def _as_used(row: dict[str, Any]) -> dict[str, Any]:
    """A call as it is in the sums, which do not know yet that its answer was of no use."""
    return {**row, "error": ""}


class _Move(NamedTuple):
    """A call that is put into the sums (``sign`` 1) or taken out of them (-1), as unseen or as what it is.

    Of a row with a ``count`` it is so many calls.
    """

    row: dict[str, Any]
    as_unseen: bool
    sign: int

    @property
    def day(self) -> date:
        row = self.row
        found: date = row["day"] if "day" in row else row["started_at"].astimezone(UTC).date()
        return found

    @property
    def is_waste(self) -> bool:
        return self.as_unseen or not is_of_use(self.row)

    @property
    def units(self) -> int:
        # An unseen call stands at its reservation, with no tokens; its model is the one that was asked.
        return units(self.row["reserved_usd"] if self.as_unseen else self.row["cost_usd"])

    @property
    def calls(self) -> int:
        found: int = self.row.get("count", 1)
        return found


def _moves(row: dict[str, Any]) -> Iterator[_Move]:
    """What makes the sums hold a call as what it is now."""
    if row["rolled"] == ModelCall.Rolled.UNSEEN:
        yield _Move(row, True, -1)
    if row["rolled"] == ModelCall.Rolled.USED:
        yield _Move(_as_used(row), False, -1)
    yield _Move(row, row["status"] == ModelCall.Status.UNSEEN, 1)


def _add_to_groups(groups: defaultdict[Group, Sums], move: _Move) -> None:
    row, as_unseen = move.row, move.as_unseen
    tokens = [0] * len(TOKENS) if as_unseen or not is_billed(row) else [row[name] for name in TOKENS]
    model = row["model_asked"] if as_unseen else row["model_used"] or row["model_asked"]
    group = Group(
        row["department_id"],
        move.day,
        row["agent_id"],
        model,
        row["soul_id"],
        move.is_waste,
        as_unseen or row["is_estimate"],
    )
    groups[group].add(move.sign, (move.calls, *tokens, move.units))


def _add_to_sums(items: defaultdict[tuple[int, int, date], list[int]], move: _Move) -> None:
    row = move.row
    if row["item_id"] is None:
        return
    sums, cost = items[row["department_id"], row["item_id"], move.day], move.units
    for position, value in enumerate((move.calls, cost, cost if move.is_waste else 0)):
        sums[position] += move.sign * value


def _roll_up_batch(batch: int) -> int:
    with transaction.atomic():
        # Whoever settles a call just now holds it: it comes next time.
        locked = unrolled().select_for_update(skip_locked=True, of=("self",)).order_by("pk")
        ids = list(locked.values_list("pk", flat=True)[:batch])
        if not ids:
            return 0
        rows = list(ModelCall.objects.filter(pk__in=ids).values(*_COLUMNS, day=_DAY))
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
