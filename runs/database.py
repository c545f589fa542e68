"""What the engine asks of the database beyond the ORM: its clock, and many different updates in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any

from django.db import connection, models, transaction
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


def newest(model: type[models.Model]) -> int:
    """The highest id of a table, 0 for none. Of rows that are written at once, a lower one may come later."""
    pk: int | None = model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
    return pk or 0


def take_turns(lock: int) -> None:
    """Until the transaction ends nobody else passes here with the same number; waits for whoever is at it.

    On SQLite a transaction that writes has the only write lock from its beginning.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock])


# Several people look at once: a second process for one of them costs the others more than it saves.
_ONE_STATE = """SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL max_parallel_workers_per_gather = 0"""


@contextmanager
def snapshot() -> Iterator[None]:
    """Several queries that see one state of the database, and hold nobody up. Only for reading."""
    if connection.in_atomic_block:
        yield
        return
    if connection.vendor == "postgresql":
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(_ONE_STATE)
            yield
        return
    # Not atomic(): on SQLite it takes the only write lock at once, which a reader need not have.
    with connection.cursor() as cursor:
        if connection.connection.in_transaction:
            yield
            return
        cursor.execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


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
    _change_rows(_change(model, tuple(columns), is_increase=False), rows)


def increase_rows(model: type[models.Model], column: str, rows: Sequence[Sequence[Any]]) -> None:
    """Add an amount of its own to one column of each row: ``rows`` are ``(pk, amount)``."""
    _change_rows(_change(model, (column,), is_increase=True), rows)


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


@dataclass(frozen=True, slots=True)
class _Change:
    """An UPDATE that gives each row values of its own: ``one`` for a row, ``head … tail`` for many at once."""

    plan: tuple[Prepare | None, ...]
    one: str
    head: str
    first: str
    places: str
    tail: str


@cache
def _change(model: type[models.Model], columns: tuple[str, ...], *, is_increase: bool) -> _Change:
    fields, pk = [_field(model, name) for name in columns], _pk(model)
    table, names = connection.ops.quote_name(model._meta.db_table), [_quote(field) for field in fields]
    before = [f"{table}.{name} + " if is_increase else "" for name in names]
    one = ", ".join(f"{name} = {old}%s" for name, old in zip(names, before, strict=True))
    many = ", ".join(f"{name} = {old}given.{name}" for name, old in zip(names, before, strict=True))
    return _Change(
        plan=tuple(prepared(field) for field in fields),
        one=f"UPDATE {table} SET {one} WHERE {_quote(pk)} = %s",
        head=f"UPDATE {table} SET {many} FROM (VALUES ",
        # The types of the first row are those of all; without a length, which would cut what is too long.
        first=f"({', '.join(f'%s::{_type(field)}' for field in (*fields, pk))})",
        places=f"({', '.join(['%s'] * (len(fields) + 1))})",
        tail=f") AS given ({', '.join(names)}, given_key) WHERE {table}.{_quote(pk)} = given.given_key",
    )


def _change_rows(change: _Change, rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    values = [
        [
            *(
                value if prepare is None or value is None else prepare(value)
                for prepare, value in zip(change.plan, row[1:], strict=True)
            ),
            row[0],
        ]
        for row in rows
    ]
    # SQLite runs one small statement after the other at no cost. Rows that are named twice are changed twice.
    is_together = connection.vendor == "postgresql" and 1 < len({row[0] for row in rows}) == len(rows)
    with connection.cursor() as cursor:
        if not is_together:
            cursor.executemany(change.one, values)
            return
        for start in range(0, len(values), INSERT_BATCH):
            batch = values[start : start + INSERT_BATCH]
            places = ", ".join([change.first, *[change.places] * (len(batch) - 1)])
            cursor.execute(f"{change.head}{places}{change.tail}", [value for row in batch for value in row])


def _type(field: AnyField) -> str:
    if isinstance(field, models.ForeignKey):
        return _type(field.target_field)
    return str(field.rel_db_type(connection) if field.primary_key else field.db_type(connection)).split("(")[0]


def _field(model: type[models.Model], name: str) -> AnyField:
    field: AnyField = model._meta.get_field(name)
    return field


def _pk(model: type[models.Model]) -> AnyField:
    pk: AnyField = model._meta.pk
    return pk


def _quote(field: AnyField) -> str:
    return connection.ops.quote_name(str(field.column))
