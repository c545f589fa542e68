"""What the engine asks of the database beyond the ORM: its clock, and many different updates in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any

from django.db import connection, models
from django.utils import timezone

from agents.statements import Prepare, prepared

AnyField = Any  # django-stubs parametrise Field, Django does not
INSERT_BATCH = 500
"""Rows in one statement: below the 32,766 values that SQLite takes, for every table there is."""
_STAMPED = ("created_at", "changed_at", "at")
"""Columns whose value the field itself may give while it is saved."""


def now() -> datetime:
    """The database's clock, because several machines share it; SQLite has none but this machine's."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment.astimezone(UTC)


def insert_rows(rows: Iterable[models.Model]) -> None:
    """Insert unsaved objects of one model and give them their ids.

    What ``bulk_create`` does, at a third of its cost: it builds an expression for every value of every row.
    """
    objects = list(rows)
    if not objects:
        return
    plan = _insertion(type(objects[0]))
    for start in range(0, len(objects), INSERT_BATCH):
        batch = objects[start : start + INSERT_BATCH]
        values: list[Any] = []
        for each in batch:
            for field in plan.stamped:
                field.pre_save(each, add=True)
            row = list(plan.read(each))
            for position, prepare in plan.prepared:
                if row[position] is not None:
                    row[position] = prepare(row[position])
            values += row
        with connection.cursor() as cursor:
            cursor.execute(f"{plan.head}{', '.join([plan.places] * len(batch))}{plan.tail}", values)
            if plan.tail:
                for each, (number,) in zip(batch, cursor.fetchall(), strict=True):
                    each.pk = number
        for each in batch:
            each._state.adding, each._state.db = False, connection.alias


def update_rows(model: type[models.Model], columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Update many rows, each to values of its own: ``rows`` are ``(pk, *values)`` in the order of ``columns``.

    ``bulk_update`` builds one CASE per column and row, which costs more than the work it writes down.
    """
    _execute_many(*_update(model, tuple(columns)), rows)


def increase_rows(model: type[models.Model], column: str, rows: Sequence[Sequence[Any]]) -> None:
    """Add an amount of its own to one column of each row: ``rows`` are ``(pk, amount)``."""
    _execute_many(*_increase(model, column), rows)


@dataclass(frozen=True, slots=True)
class _Insertion:
    """An INSERT of one model, but for the number of its rows. ``tail`` is empty where the key is given."""

    stamped: tuple[AnyField, ...]
    read: Callable[[models.Model], tuple[Any, ...]]
    prepared: tuple[tuple[int, Prepare], ...]
    head: str
    places: str
    tail: str


@cache
def _insertion(model: type[models.Model]) -> _Insertion:
    pk = _pk(model)
    is_numbered = isinstance(pk, models.AutoField)
    columns = [field for field in model._meta.concrete_fields if not (is_numbered and field is pk)]
    names = ", ".join(_quote(field) for field in columns)
    plan = [prepared(field) for field in columns]
    return _Insertion(
        stamped=tuple(field for field in columns if field.attname in _STAMPED),
        read=attrgetter(*(field.attname for field in columns)),
        prepared=tuple((position, prepare) for position, prepare in enumerate(plan) if prepare),
        head=f"INSERT INTO {connection.ops.quote_name(model._meta.db_table)} ({names}) VALUES ",
        places=f"({', '.join(['%s'] * len(columns))})",
        tail=f" RETURNING {_quote(pk)}" if is_numbered else "",
    )


@cache
def _update(model: type[models.Model], columns: tuple[str, ...]) -> tuple[str, tuple[Prepare | None, ...]]:
    fields = [_field(model, name) for name in columns]
    assignments = ", ".join(f"{_quote(field)} = %s" for field in fields)
    return _of_one_row(model, assignments), tuple(prepared(field) for field in fields)


@cache
def _increase(model: type[models.Model], column: str) -> tuple[str, tuple[Prepare | None, ...]]:
    field = _field(model, column)
    return _of_one_row(model, f"{_quote(field)} = {_quote(field)} + %s"), (prepared(field),)


def _of_one_row(model: type[models.Model], assignments: str) -> str:
    table = connection.ops.quote_name(model._meta.db_table)
    return f"UPDATE {table} SET {assignments} WHERE {_quote(_pk(model))} = %s"


def _execute_many(sql: str, plan: Sequence[Prepare | None], rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    values = [
        [
            *(
                value if prepare is None or value is None else prepare(value)
                for prepare, value in zip(plan, row[1:], strict=True)
            ),
            row[0],
        ]
        for row in rows
    ]
    with connection.cursor() as cursor:
        cursor.executemany(sql, values)


def _field(model: type[models.Model], name: str) -> AnyField:
    field: AnyField = model._meta.get_field(name)
    return field


def _pk(model: type[models.Model]) -> AnyField:
    pk: AnyField = model._meta.pk
    return pk


def _quote(field: AnyField) -> str:
    return connection.ops.quote_name(str(field.column))
