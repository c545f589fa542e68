"""Fixtures that every test may use: a department with its agents, a simulator, people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from django.db import connection

from tests.simulator_fixture import SimulatorServer

# Tests have nothing to lose, so nothing waits for the disk.
os.environ.setdefault("SQLITE_SYNCHRONOUS", "OFF")
os.environ.setdefault("PGOPTIONS", "-c synchronous_commit=off")
os.environ.setdefault("ANTHROPIC_API_KEY", "test-key")


@pytest.fixture(scope="session", autouse=True)
def _quick_flush() -> None:
    """Empty PostgreSQL's tables by DELETE: TRUNCATE makes a new file for each and waits two seconds for the disk."""
    if connection.vendor != "postgresql":
        return

    def sql_flush(_: Any, style: Any, tables: Iterable[str], **__: Any) -> list[str]:
        # Foreign keys are checked at the end of the transaction, so any order will do.
        return [f"DELETE FROM {connection.ops.quote_name(table)};" for table in tables]

    type(connection.ops).sql_flush = sql_flush  # type: ignore[method-assign, assignment]


@pytest.fixture
def simulator(settings: Any) -> Iterator[SimulatorServer]:
    """A simulator that answers at once; the engine talks to it, and nothing talks to the network."""
    with SimulatorServer() as server:
        settings.ANTHROPIC_BASE_URL = server.base_url
        settings.TOOLS_NETWORK = False
        settings.SHIFTS = 1
        yield server
