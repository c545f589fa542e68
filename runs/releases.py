"""Whether this release and the database fit each other: the migrations of the one against those of the other."""

from __future__ import annotations

from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

Name = tuple[str, str]
"""App and migration."""


def missing_migrations() -> set[Name]:
    """Those of this release that the database lacks."""
    known, _ = _migrations()
    return set(known - MigrationRecorder(connection).applied_migrations().keys())


def newer_migrations() -> set[Name]:
    """Those that a newer release has applied.

    Of an app that this release has, and applied after all that it knows of the app: what is older was squashed or
    removed since, and apps that are not installed any more concern nobody.
    """
    known, replaced = _migrations()
    applied = MigrationRecorder(connection).applied_migrations()
    latest: dict[str, int] = {}
    for app, name in applied.keys() & known:
        latest[app] = max(latest.get(app, 0), applied[app, name].pk)
    unknown = applied.keys() - known - replaced
    return {(app, name) for app, name in unknown if app in latest and applied[app, name].pk > latest[app]}


@cache
def _migrations() -> tuple[frozenset[Name], frozenset[Name]]:
    """The migrations of this release, and those that they replace."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    replaced = {name for migration in loader.disk_migrations.values() for name in migration.replaces}
    return frozenset(loader.disk_migrations), frozenset(replaced)
