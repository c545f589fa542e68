"""What the engine asks of the database beyond the ORM: its clock, and many different updates in one go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connection, models
from django.utils import timezone


def now() -> datetime:
    """The database's clock, because several machines share it; SQLite has none but this machine's."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment.astimezone(UTC)


def update_rows(model: type[models.Model], columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Update many rows, each to values of its own: ``rows`` are ``(pk, *values)`` in the order of ``columns``.

    ``bulk_update`` builds one CASE per column and row, which costs more than the work it writes down.
    """
    if not rows:
        return
    fields: list[models.Field[Any, Any]] = [model._meta.get_field(name) for name in columns]  # type: ignore[misc]
    quote = connection.ops.quote_name
    assignments = ", ".join(f"{quote(str(field.column))} = %s" for field in fields)
    sql = f"UPDATE {quote(model._meta.db_table)} SET {assignments} WHERE {quote(str(model._meta.pk.column))} = %s"
    prepared = [
        [
            *(field.get_db_prep_save(value, connection) for field, value in zip(fields, row[1:], strict=True)),
            row[0],
        ]
        for row in rows
    ]
    with connection.cursor() as cursor:
        cursor.executemany(sql, prepared)
