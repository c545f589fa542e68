"""Fixtures that every test may use: a department with its agents, a simulator, people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.db import connection

from tests.simulator_fixture import SimulatorServer

# For the processes that tests start.
os.environ.setdefault("SQLITE_SYNCHRONOUS", "OFF")
# What waits for a lock that nobody gives back ends as an error that names it, and so does whoever keeps one.
PG_LIMITS = "-c lock_timeout=60s -c statement_timeout=120s -c idle_in_transaction_session_timeout=240s"
os.environ.setdefault("PGOPTIONS", f"-c synchronous_commit=off {PG_LIMITS}")
os.environ.setdefault("ANTHROPIC_API_KEY", "test-key")


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> None:
    """Tests have nothing to lose. PostgreSQL's TRUNCATE makes a new file for each table: two seconds a test."""
    if connection.vendor == "sqlite":
        options = connection.settings_dict["OPTIONS"]
        options["init_command"] = options["init_command"].replace("synchronous=FULL", "synchronous=OFF")
        return

    def sql_flush(_: Any, style: Any, tables: Iterable[str], **__: Any) -> list[str]:
        # Foreign keys are checked at the end of the transaction, so any order will do.
        return [f"DELETE FROM {connection.ops.quote_name(table)};" for table in tables]

    type(connection.ops).sql_flush = sql_flush  # type: ignore[method-assign, assignment]


@pytest.fixture(scope="session", autouse=True)
def _static_files_by_their_names() -> None:
    """Where somebody has collected static files, the tests still see the sources."""
    getattr(staticfiles_storage, "hashed_files", {}).clear()


@pytest.fixture
def simulator(settings: Any) -> Iterator[SimulatorServer]:
    """A simulator that answers at once; the engine talks to it, and nothing talks to the network."""
    with SimulatorServer() as server:
        settings.ANTHROPIC_BASE_URL = server.base_url
        settings.TOOLS_NETWORK = False
        settings.SHIFTS = 1
        yield server
