"""Queries of the ORM that are compiled once and then run with other values, and how values go to the driver.

Django builds the SQL of a query anew each time, which takes several times as long as the database needs to answer
it. The database thread of a shift asks the same twenty questions many times a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any, Generic, TypeVar

from django.db import connection, models
from django.db.models.base import ModelState
from django.db.models.expressions import Expression
from django.db.models.query import get_related_populators
from django.db.transaction import TransactionManagementError

M = TypeVar("M", bound=models.Model)
AnyCompiler = Any  # Django's compilers have no public type
AnyField = Any  # django-stubs parametrise Field, Django does not
Prepare = Callable[[Any], Any]


def prepared(field: AnyField) -> Prepare | None:
    """How a value of this field goes to the driver; None where it goes as it is. Moments must be aware."""
    if isinstance(field, models.ForeignKey):
        return prepared(field.target_field)
    if isinstance(field, (models.CharField, models.TextField)):
        return str  # members of a TextChoices are strings that a driver may take for something else
    if isinstance(field, (models.IntegerField, models.BooleanField)):
        return None
    is_sqlite = connection.vendor == "sqlite"
    if isinstance(field, models.DateTimeField):
        return _moment if is_sqlite else None
    if isinstance(field, models.UUIDField):
        return attrgetter("hex") if is_sqlite else None
    if isinstance(field, models.JSONField) and field.encoder is None:
        return json.dumps if is_sqlite else _json
    return partial(field.get_db_prep_save, connection=connection)


def _moment(value: datetime) -> str:
    """A moment as Django writes it for SQLite."""
    return str(value.astimezone(UTC).replace(tzinfo=None))


def _json(value: Any) -> Any:
    """JSON as PostgreSQL takes it. Not bound to a connection, which would stay open as long as the statement."""
    return connection.ops.adapt_json_value(value, None)


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


class AnyOf(Among):
    """The same for values that are known, in any query: one parameter, where SQLite takes 32,766 at most."""

    def __init__(self, column: str, values: Iterable[Any]) -> None:
        super().__init__(column, "values")
        self.values = list(values)

    def _written(self, compiler: AnyCompiler, template: str) -> Any:
        sql, (*params, slot) = super()._written(compiler, template)
        return sql, [*params, slot.fill({"values": self.values})]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A compiled query: its SQL, its parameters with slots among them, and how its columns become values."""

    model: type[models.Model]
    columns: tuple[str, ...]
    sql: str
    params: tuple[Any, ...]
    converters: tuple[tuple[int, Any, tuple[Any, ...]], ...]
    related: tuple[Any, ...]
    is_locking: bool

    def filled(self, given: dict[str, Any]) -> list[Any]:
        """The parameters."""
        return [part.fill(given) if isinstance(part, _Slot) else part for part in self.params]


class Statement(Generic[M]):
    """One query, compiled once for all threads: each request for a page has a thread of its own.

    ``build`` returns the query with ``Given`` and ``Among`` where values differ from run to run.
    """

    def __init__(self, build: Callable[[], models.QuerySet[M, Any]]) -> None:
        self._build = build
        self._plans: dict[int | None, _Plan] = {}

    def rows(self, *, limit: int | None = None, **given: Any) -> list[tuple[Any, ...]]:
        """The rows as tuples, in the order of ``values_list`` or of the model's columns."""
        return self._run(self._plan(limit), given)

    def objects(self, *, limit: int | None = None, **given: Any) -> list[M]:
        """The rows as objects of the model, with what ``select_related`` names; for a query that selects no more."""
        plan = self._plan(limit)
        return [_loaded(plan, row) for row in self._run(plan, given)]

    def count(self, *, limit: int | None = None, **given: Any) -> int:
        """How many rows, counted by the database, no further than ``limit``."""
        return count_each({"": self}, limit=limit, **given)[""]

    def _run(self, plan: _Plan, given: dict[str, Any]) -> list[tuple[Any, ...]]:
        if plan.is_locking and connection.get_autocommit():
            raise TransactionManagementError("A statement that locks rows belongs into a transaction.")
        with connection.cursor() as cursor:
            cursor.execute(plan.sql, plan.filled(given))
            found: list[tuple[Any, ...]] = cursor.fetchall()
        return [_converted(row, plan.converters) for row in found] if plan.converters else found

    def _plan(self, limit: int | None) -> _Plan:
        if limit not in self._plans:
            self._plans[limit] = _compiled(self._build(), limit)
        return self._plans[limit]


def count_each(statements: Mapping[str, Statement[Any]], *, limit: int | None = None, **given: Any) -> dict[str, int]:
    """How many rows each of them has, counted by the database, no further than ``limit``; one query for all."""
    plans = [statement._plan(limit) for statement in statements.values()]
    counts = ", ".join(f"(SELECT COUNT(*) FROM ({plan.sql}) counted)" for plan in plans)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {counts}", [value for plan in plans for value in plan.filled(given)])
        return dict(zip(statements, cursor.fetchone(), strict=True))


def _compiled(queryset: models.QuerySet[Any, Any], limit: int | None) -> _Plan:
    query: Any = queryset.query if limit is None else queryset[:limit].query
    compiler = query.get_compiler(connection=connection)
    sql, params = compiler.as_sql()
    expressions = [selected[0] for selected in compiler.select]
    converters = tuple(
        (position, expression, tuple(map(_unbound, convert)))
        for position, (convert, expression) in compiler.get_converters(expressions).items()
    )
    columns = tuple(field.attname for field in queryset.model._meta.concrete_fields)
    related = tuple(get_related_populators(compiler.klass_info or {}, compiler.select, connection.alias))  # type: ignore[call-arg]
    return _Plan(queryset.model, columns, sql, tuple(params), converters, related, bool(query.select_for_update))


def _unbound(convert: Any) -> Any:
    """The same way to make a value, not bound to the connection of the thread that compiled the statement."""
    if getattr(convert, "__self__", None) is not connection.ops:
        return convert
    name = convert.__name__
    return lambda value, expression, used: getattr(used.ops, name)(value, expression, used)


def _loaded(plan: _Plan, row: Sequence[Any]) -> Any:
    """What ``Model.from_db`` makes, without a descriptor and two signals for every row: a fifth of its cost."""
    found: Any = plan.model.__new__(plan.model)
    found._state = ModelState()
    found._state.adding, found._state.db = False, connection.alias
    found.__dict__.update(zip(plan.columns, row[: len(plan.columns)] if plan.related else row, strict=True))
    for other in plan.related:
        other.populate(row, found)
    return found


def _converted(row: Iterable[Any], converters: Iterable[tuple[int, Any, tuple[Any, ...]]]) -> tuple[Any, ...]:
    values = list(row)
    for position, expression, convert in converters:
        for one in convert:
            values[position] = one(values[position], expression, connection)
    return tuple(values)
