"""Queries of the ORM that are compiled once and then run with other values.

Django builds the SQL of a query anew each time, which takes several times as long as the database needs to answer
it. The database thread of a shift asks the same twenty questions many times a second.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db import connection, models
from django.db.models.expressions import Expression
from django.db.transaction import TransactionManagementError

from runs.database import Prepare, prepared

M = TypeVar("M", bound=models.Model)
AnyCompiler = Any  # Django's compilers have no public type


@dataclass(frozen=True, slots=True)
class _Slot:
    """The place of a value among the parameters of a compiled query."""

    name: str
    prepare: Prepare | None
    is_list: bool = False

    def fill(self, given: dict[str, Any]) -> Any:
        value = given[self.name]
        if not self.is_list:
            return value if self.prepare is None or value is None else self.prepare(value)
        entries = [self.prepare(each) for each in value] if self.prepare else list(value)
        # One parameter whatever the number of values, so that the statement stays the same.
        return entries if connection.vendor == "postgresql" else json.dumps(entries)


class Given(Expression):
    """A value that is given when the statement runs."""

    def __init__(self, name: str, output_field: Any) -> None:
        super().__init__(output_field=output_field)
        self.name = name

    def as_sql(self, compiler: AnyCompiler, connection: Any) -> Any:
        return "%s", [_Slot(self.name, prepared(self.output_field))]


class Among(models.Func):
    """Whether a column has one of the values in a list that is given when the statement runs."""

    output_field = models.BooleanField()

    def __init__(self, column: str, name: str) -> None:
        super().__init__(models.F(column))
        self.name = name

    def as_sql(
        self,
        compiler: AnyCompiler,
        connection: Any,
        function: str | None = None,
        template: str | None = None,
        arg_joiner: str | None = None,
        **extra_context: Any,
    ) -> Any:
        return self._written(compiler, template or "{} = ANY(%s)")

    def as_sqlite(self, compiler: AnyCompiler, connection: Any, **extra_context: Any) -> Any:
        return self._written(compiler, "{} IN (SELECT value FROM json_each(%s))")

    def _written(self, compiler: AnyCompiler, template: str) -> Any:
        column = self.get_source_expressions()[0]
        sql, params = compiler.compile(column)
        return template.format(sql), [*params, _Slot(self.name, prepared(column.output_field), is_list=True)]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A compiled query: its SQL, its parameters with slots among them, and how its columns become values."""

    sql: str
    params: tuple[Any, ...]
    converters: tuple[tuple[int, Any, tuple[Any, ...]], ...]
    is_locking: bool


class Statement(Generic[M]):
    """One query, compiled once in each thread, because connections belong to threads.

    ``build`` returns the query with ``Given`` and ``Among`` where values differ from run to run.
    """

    def __init__(self, build: Callable[[], models.QuerySet[M, Any]]) -> None:
        self._build = build
        self._plans = threading.local()

    def rows(self, *, limit: int | None = None, **given: Any) -> list[tuple[Any, ...]]:
        """The rows as tuples, in the order of ``values_list`` or of the model's columns."""
        plan = self._plan(limit)
        if plan.is_locking and connection.get_autocommit():
            raise TransactionManagementError("A statement that locks rows belongs into a transaction.")
        params = [part.fill(given) if isinstance(part, _Slot) else part for part in plan.params]
        with connection.cursor() as cursor:
            cursor.execute(plan.sql, params)
            found: list[tuple[Any, ...]] = cursor.fetchall()
        return [_converted(row, plan.converters) for row in found] if plan.converters else found

    def objects(self, *, limit: int | None = None, **given: Any) -> list[M]:
        """The rows as objects of the model; for a query that selects all its columns and nothing else."""
        model: Any = self._build().model
        names = [field.attname for field in model._meta.concrete_fields]
        alias = connection.alias
        return [model.from_db(alias, names, row) for row in self.rows(limit=limit, **given)]

    def _plan(self, limit: int | None) -> _Plan:
        plans: dict[int | None, _Plan] | None = getattr(self._plans, "by_limit", None)
        if plans is None:
            plans = self._plans.by_limit = {}
        if limit not in plans:
            plans[limit] = _compiled(self._build(), limit)
        return plans[limit]


def _compiled(queryset: models.QuerySet[Any, Any], limit: int | None) -> _Plan:
    query: Any = queryset.query if limit is None else queryset[:limit].query
    compiler = query.get_compiler(connection=connection)
    sql, params = compiler.as_sql()
    expressions = [selected[0] for selected in compiler.select]
    converters = tuple(
        (position, expression, tuple(convert))
        for position, (convert, expression) in compiler.get_converters(expressions).items()
    )
    return _Plan(sql, tuple(params), converters, bool(query.select_for_update))


def _converted(row: Iterable[Any], converters: Iterable[tuple[int, Any, tuple[Any, ...]]]) -> tuple[Any, ...]:
    values = list(row)
    for position, expression, convert in converters:
        for one in convert:
            values[position] = one(values[position], expression, connection)
    return tuple(values)
