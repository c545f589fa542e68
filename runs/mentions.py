"""Where rows of others name a person who is erased, and how they cease to.

An address is taken out wherever it stands. A name or a number may be a word of somebody else's, so those are looked
for in the person's own department alone. Looking reads whole tables and is done before anything is locked; what was
written meanwhile is looked at in the transaction that erases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.models import LogEntry as AdminEntry
from django.db.models import BooleanField, Case, Max, Model, Q, QuerySet, TextField, When
from django.db.models.functions import Cast

from agents.models import Member
from runs.models import (
    Action,
    Alert,
    AlertDelivery,
    BulkAction,
    EditPattern,
    LogEntry,
    Review,
    SavedView,
    Suppression,
)

INSTEAD = "[erased]"
"""What stands in texts of others where the person was named."""
_NAMED_FROM = 5
"""Shorter texts than this would be found in words that are not about the person."""
_LATE_ROWS = 10_000
"""A row has its id before others see it: of so many that were newest, each may have appeared after the look."""
_NONE = Q(pk__in=())


@dataclass(frozen=True, slots=True)
class Person:
    """Who is erased: ``addresses`` are theirs, and written to; ``texts`` name them in their department."""

    addresses: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    @property
    def everywhere(self) -> frozenset[str]:
        """What is surely an address: what was imported as one may be any word."""
        return frozenset(text for text in self.addresses if "@" in text.strip("@"))

    @property
    def at_home(self) -> frozenset[str]:
        """What is taken out of the rows of their department."""
        return self.addresses | self.texts


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows that may name a person, the columns that do, and which rows are a department's (``own``)."""

    rows: QuerySet[Any]
    columns: tuple[str, ...]
    own: Q = _NONE
    of_machine: tuple[str, ...] = ()
    """Columns that no person writes: a name in them is chance."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a look has found, for ``forget``: of each table the ids, and up to which id it looked."""

    person: Person
    department_id: int | None
    found: tuple[tuple[frozenset[int], int], ...]


def find_mentions(person: Person, department_id: int | None = None) -> Mentions:
    """Look through the tables; two queries each, without a lock."""
    found = []
    for table in _tables(department_id):
        newest = table.rows.aggregate(newest=Max("pk"))["newest"] or 0
        rows = _naming(table, person).filter(pk__lte=newest)
        found.append((frozenset(rows.values_list("pk", flat=True)), newest))
    return Mentions(person, department_id, tuple(found))


def forget(mentions: Mentions) -> int:
    """Take the person out of what was found and of what was written since; how many rows were changed."""
    count = 0
    for table, (ids, newest) in zip(_tables(mentions.department_id), mentions.found, strict=True):
        late = _naming(table, mentions.person).filter(pk__gt=newest - _LATE_ROWS).values_list("pk", flat=True)
        rows = table.rows.annotate(is_own=Case(When(table.own, then=True), default=False, output_field=BooleanField()))
        for row in rows.in_bulk(ids.union(late)).values():
            count += _forget_in(row, table, mentions.person)
    return count


def without(text: str, person: Person) -> str:
    """The text without whatever names the person."""
    return str(_without(text, _pattern(person.at_home)))


def _tables(department_id: int | None) -> list[_Table]:
    def of(path: str) -> Q:
        return Q(**{path: department_id}) if department_id else _NONE

    # What somebody keeps for themselves is of the department in which alone they are.
    alone = Member.objects.exclude(user__in=Member.objects.exclude(department=department_id).values("user"))
    kept = Q(department=None, user__in=alone.values("user")) if department_id else _NONE
    here = of("department")
    return [
        _Table(LogEntry.objects.all(), ("text", "data"), here),
        _Table(Action.objects.all(), ("target", "before", "after", "reason"), here, of_machine=("target",)),
        _Table(BulkAction.objects.all(), ("selection", "arguments", "refused"), here),
        _Table(Review.objects.filter(item=None), ("ask", "answer_note"), here),
        _Table(Alert.objects.all(), ("text", "next_step"), here),
        _Table(AlertDelivery.objects.all(), ("error",), of("alert__department")),
        _Table(SavedView.objects.all(), ("name", "params"), here | kept),
        _Table(EditPattern.objects.all(), ("text", "became"), here),
        _Table(Suppression.objects.all(), ("note",), of("item__department")),
        _Table(AdminEntry.objects.all(), ("object_repr", "change_message")),
    ]


def _naming(table: _Table, person: Person) -> QuerySet[Any]:
    """The rows in which one of the texts stands, and some more: where a word ends is not asked of the database."""
    rows, anywhere, in_own = table.rows, _NONE, _NONE
    for name in table.columns:
        rows = rows.alias(**{f"{name}_text": Cast(name, TextField())})
        anywhere |= _contains(name, person.everywhere)
        if name not in table.of_machine:
            in_own |= _contains(name, person.at_home - person.everywhere)
    return rows.filter(anywhere | (in_own & table.own))


def _contains(name: str, texts: Collection[str]) -> Q:
    found = _NONE
    texts = [text for text in texts if len(text) >= _NAMED_FROM]
    # SQLite keeps JSON with other letters than ASCII written as \u….
    for form in {*texts, *(json.dumps(text)[1:-1] for text in texts)}:
        found |= Q(**{f"{name}_text__icontains": form})
    return found


def _forget_in(row: Any, table: _Table, person: Person) -> int:
    address, whole = _pattern(person.everywhere), _pattern(person.at_home)
    changes = {}
    for name in table.columns:
        value = getattr(row, name)
        became = _without(value, whole if row.is_own and name not in table.of_machine else address)
        if became != value:
            changes[name] = _fitting(row, name, became)
    return type(row)._base_manager.filter(pk=row.pk).update(**changes) if changes else 0


def _pattern(texts: Collection[str]) -> re.Pattern[str] | None:
    """Finds the texts as whole words: ``ann@x.example`` neither in ``joann@x.example`` nor in ``ann@x.example.org``."""
    longest_first = sorted((text for text in texts if len(text) >= _NAMED_FROM), key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w+])(?<!\w[.-])(?:{words})(?!\w|[.-]\w)", re.IGNORECASE) if words else None


def _without(value: Any, pattern: re.Pattern[str] | None) -> Any:
    """The same text, or JSON of any depth, without what the pattern finds. Keys stay: code reads values by them."""
    if pattern is None:
        return value
    if isinstance(value, str):
        return pattern.sub(INSTEAD, value)
    if isinstance(value, Mapping):
        return {key: _without(entry, pattern) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without(entry, pattern) for entry in value]
    return value


def _fitting(row: Model, name: str, value: Any) -> Any:
    if isinstance(row, SavedView) and name == "name":
        # Two of a person's views would have the same name.
        number = f" {row.pk}"
        return value[: 80 - len(number)] + number
    most = getattr(row._meta.get_field(name), "max_length", None)
    return value[:most] if isinstance(value, str) and most else value
