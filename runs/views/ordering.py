"""Keyset paging of lists in other orders than the newest first, both ways, as fast on the last page as on the first.

The cursor is the row's id and the value it is ordered by, so that a row whose value changes meanwhile moves no page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from runs.views.forms import read_time
from runs.views.paging import PAGE_ROWS, Page

ModelT = TypeVar("ModelT", bound=Model)
CURSOR = ("before", "after", "at")
"""The parameters of an address that say which page is shown."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order of a list: by ``field`` and then by id, the same way round. Without a field: the newest first.

    ``kind`` is what the field holds: ``time``, ``number`` or ``text``. ``note`` is said where rows are left out.
    ``scope`` is the department beside the field, with which the index begins.
    """

    label: str
    field: str = ""
    kind: str = "number"
    is_descending: bool = True
    note: str = ""
    scope: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the rows are ordered by."""
        sign = "-" if self.is_descending else ""
        return (f"{sign}{self.field}", f"{sign}pk") if self.field else ("-pk",)


def read_ordered_page(
    request: HttpRequest,
    rows: QuerySet[ModelT],
    order: Order,
    load: Callable[[list[int]], Iterable[ModelT]],
    *,
    departments: Sequence[int],
    size: int = PAGE_ROWS,
) -> Page[ModelT]:
    """The page the request asks for. Rows without a value to be ordered by are left out.

    First the keys, then ``load`` reads the rows: what they are joined with is not joined to all that is looked through.
    """
    keys, has_newer, has_older = _read_keys(request, rows, order, departments, size)
    if not keys:
        has_cursor = _cursor(request, "before", order) or _cursor(request, "after", order)
        return Page([], _query(request, {}) if has_cursor else "", "")
    found = {row.pk: row for row in load([pk for pk, _ in keys])}
    return Page(
        # One that was erased since is not shown any more.
        [found[pk] for pk, _ in keys if pk in found],
        _query(request, {"after": keys[0][0], "at": _write(keys[0][1])}) if has_newer else "",
        _query(request, {"before": keys[-1][0], "at": _write(keys[-1][1])}) if has_older else "",
    )


def within(path: str, departments: Sequence[int]) -> Q:
    """Rows of these departments; of one by equality, because only then an index that begins with it gives an order."""
    return Q(**{path: departments[0]}) if len(departments) == 1 else Q(**{f"{path}__in": departments})


def _read_keys(
    request: HttpRequest, rows: QuerySet[ModelT], order: Order, departments: Sequence[int], size: int
) -> tuple[list[tuple[int, Any]], bool, bool]:
    """Ids and values of one page, and whether there is one before and one after it."""
    if order.field:
        rows = rows.filter(**{f"{order.field}__isnull": False})
    if order.scope:
        rows = rows.filter(within(order.scope, departments))
    before, after = _cursor(request, "before", order), _cursor(request, "after", order)
    columns = ("pk", order.field or "pk")
    if after is not None:
        rows = rows.filter(_beyond(order, after, is_forward=False)).order_by(*_reversed(order))
        keys = list(rows.values_list(*columns)[: size + 1])
        return keys[:size][::-1], len(keys) > size, True
    rows = rows.filter(_beyond(order, before, is_forward=True)) if before is not None else rows
    keys = list(rows.order_by(*order.columns).values_list(*columns)[: size + 1])
    return keys[:size], before is not None, len(keys) > size


def _beyond(order: Order, cursor: tuple[Any, int], *, is_forward: bool) -> Q:
    """Rows behind the cursor; written so that an index on (field, id) is entered at the value."""
    value, pk = cursor
    if not order.field:
        return Q(pk__lt=pk) if is_forward else Q(pk__gt=pk)
    way = "lt" if order.is_descending == is_forward else "gt"
    nearer = Q(**{f"{order.field}__{way}e": value})
    return nearer & (Q(**{f"{order.field}__{way}": value}) | Q(**{f"pk__{way}": pk}))


def _reversed(order: Order) -> tuple[str, ...]:
    return tuple(name[1:] if name.startswith("-") else f"-{name}" for name in order.columns)


def _cursor(request: HttpRequest, name: str, order: Order) -> tuple[Any, int] | None:
    pk, text = request.GET.get(name, ""), request.GET.get("at", "")
    if not (pk.isascii() and pk.isdigit() and len(pk) < 19):
        return None
    if not order.field:
        return pk, int(pk)
    try:
        value: Any = text
        if order.kind == "time":
            value = read_time(text)
            if value is None:
                return None
        elif order.kind == "number":
            value = int(text[:19])
    except (ValueError, OverflowError):
        return None
    return value, int(pk)


def _write(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _query(request: HttpRequest, changes: Mapping[str, Any]) -> str:
    params = request.GET.copy()
    for name in CURSOR:
        params.pop(name, None)
    for name, value in changes.items():
        if name != "at" or str(value) != str(changes.get("before", changes.get("after"))):
            params[name] = str(value)
    return f"?{params.urlencode()}"
