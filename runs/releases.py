"""Whether this release and the database fit each other: the migrations of the one against those of the other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from agents.statements import Statement

Name = tuple[str, str]
"""App and migration."""


_tables: set[str] = set()
"""Databases whose table of migrations was seen. To look for it reads the whole catalogue, and every page asks."""


def applied_migrations() -> Mapping[Name, int]:
    """Those that the database has, each with its place in the order; one query."""
    recorder = MigrationRecorder(connection)
    if connection.alias not in _tables:
        if not recorder.has_table():
            return {}
        _tables.add(connection.alias)
    return {(app, name): pk for app, name, pk in _APPLIED.rows()}


_APPLIED = Statement(lambda: MigrationRecorder(connection).migration_qs.values_list("app", "name", "pk"))


def missing_migrations(applied: Mapping[Name, int] | None = None) -> set[Name]:
    """Those of this release that the database lacks. ``applied``: what was read already."""
    known, _ = _migrations()
    return set(known - (applied_migrations() if applied is None else applied).keys())


def newer_migrations(applied: Mapping[Name, int] | None = None) -> set[Name]:
    """Those that a newer release has applied. ``applied``: what was read already.

    Of an app that this release has, and applied after all that it knows of the app: what is older was squashed or
    removed since, and apps that are not installed any more concern nobody.
    """
    known, replaced = _migrations()
    applied = applied_migrations() if applied is None else applied
    latest: dict[str, int] = {}
    for app, name in applied.keys() & known:
        latest[app] = max(latest.get(app, 0), applied[app, name])
    unknown = applied.keys() - known - replaced
    return {(app, name) for app, name in unknown if app in latest and applied[app, name] > latest[app]}


@cache
def _migrations() -> tuple[frozenset[Name], frozenset[Name]]:
    """The migrations of this release, and those that they replace."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    replaced = {name for migration in loader.disk_migrations.values() for name in migration.replaces}
    return frozenset(loader.disk_migrations), frozenset(replaced)
