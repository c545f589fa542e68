"""Calls that the sums of costs do not hold: what was not rolled up yet, and checks, which belong to no item.

``runs.costs`` adds them to what it reads from the rollups, so that a page always equals the sum over calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

from django.db.models import Count, DateTimeField, ExpressionWrapper, Q, QuerySet, Sum
from django.db.models.fields import BooleanField
from django.db.models.functions import TruncDate

from agents.statements import Among, Given, Statement
from runs.cost_moves import TOKENS, Group, Sums, moves_of, sum_groups, sum_items
from runs.models import ModelCall
from runs.money import dollars, in_units

_UNROLLED = """(("runs_modelcall"."rolled" = '' AND "runs_modelcall"."status" IN ('finished', 'unseen'))
    OR ("runs_modelcall"."rolled" = 'unseen' AND "runs_modelcall"."status" = 'finished')
    OR ("runs_modelcall"."rolled" = 'used' AND "runs_modelcall"."status" = 'finished'))"""
"""Word for word the condition of the index model_call_to_roll: SQLite uses it for no other, nor for parameters."""
_MONEY = ("cost_usd", "reserved_usd")
COLUMNS = (
    *("pk", "department_id", "item_id", "agent_id", "soul_id", "model_asked", "model_used", "status", "rolled"),
    *("cause", "error", "is_estimate", *_MONEY, *TOKENS),
)
DAY = TruncDate("started_at", tzinfo=UTC)
"""Told by the database: to read a moment takes three times as long as all other columns together."""
_APART = {
    "day": DAY,
    "has_error": ExpressionWrapper(~Q(error=""), BooleanField()),
    "has_output": ExpressionWrapper(Q(output_tokens__gt=0), BooleanField()),
}
"""Of error and output only what the rule for waste and tokens asks: that there is one."""


def unrolled() -> QuerySet[ModelCall]:
    """The calls that the sums do not hold as what they are now; few, whatever the number of calls."""
    return ModelCall.objects.extra(where=[_UNROLLED])


def unrolled_calls(**filters: Any) -> Iterable[dict[str, Any]]:
    """Their columns. Filter by a column that few calls share, or not at all: the small index serves no other."""
    rows: Iterable[dict[str, Any]] = unrolled().filter(**filters).order_by("pk").values(*COLUMNS, day=DAY)
    return rows


def settled_calls(**filters: Any) -> Iterable[dict[str, Any]]:
    """The columns of settled calls, as if none were in the sums: ``group_calls`` of them is the sum over the calls."""
    rows = _settled().filter(**filters).order_by("pk").values(*COLUMNS, day=DAY)
    return ({**row, "rolled": ModelCall.Rolled.NOT} for row in rows)


def sum_unrolled() -> dict[Group, Sums]:
    """What the calls that are not rolled up add to the rollups."""
    return sum_groups(moves_of(_UNROLLED_CALLS.read()))


def sum_unrolled_items() -> dict[tuple[int, int, date], list[int]]:
    """What they add to the items."""
    return sum_items(moves_of(_UNROLLED_OF_ITEMS.read()))


def sum_checks(departments: Collection[int], begin: datetime, end: datetime) -> dict[Group, Sums]:
    """All settled checks of these departments (ids) that began in between, rolled up or not."""
    rows = _CHECKS.read(departments=departments, begin=begin, end=end)
    return sum_groups(moves_of(row | {"rolled": ModelCall.Rolled.NOT} for row in rows))


class _AddedUp:
    """Calls, those that are alike in these columns added up by the database: it takes a fraction of the time."""

    def __init__(self, alike: Sequence[str], tokens: Sequence[str], calls: Callable[[], QuerySet[ModelCall]]) -> None:
        sums: dict[str, Any] = {"count": Count("pk")}
        sums |= {f"sum_{name}": Sum(in_units(name)) for name in _MONEY}
        sums |= {f"sum_{name}": Sum(name) for name in tokens}
        self._columns = (*alike, "day", "error", "has_output", "count", *_MONEY, *tokens)
        self._statement = Statement(
            lambda: calls().annotate(**_APART).values_list(*alike, *_APART).order_by().annotate(**sums)
        )

    def read(self, **given: Any) -> Iterator[dict[str, Any]]:
        """As rows of calls, each with its ``count``."""
        for values in self._statement.rows(**given):
            row = dict(zip(self._columns, values, strict=True))
            for name in _MONEY:
                row[name] = dollars(int(row[name]))
            yield row


def _settled() -> QuerySet[ModelCall]:
    return ModelCall.objects.filter(status__in=[ModelCall.Status.FINISHED, ModelCall.Status.UNSEEN])


def _checks() -> QuerySet[ModelCall]:
    """Few, and the index by item holds them together."""
    moment = DateTimeField()
    spans = {"started_at__gte": Given("begin", moment), "started_at__lt": Given("end", moment)}
    return _settled().filter(Among("department_id", "departments"), item=None, **spans)


_WHOSE = ("department_id", "agent_id", "soul_id", "model_asked", "model_used", "is_estimate", "status", "cause")
_UNROLLED_CALLS = _AddedUp((*_WHOSE, "rolled"), TOKENS, unrolled)
_UNROLLED_OF_ITEMS = _AddedUp(
    ("department_id", "item_id", "status", "cause", "rolled"), (), lambda: unrolled().exclude(item=None)
)
_CHECKS = _AddedUp(_WHOSE, TOKENS, _checks)
