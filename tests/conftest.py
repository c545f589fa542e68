"""Fixtures that every test may use: a department with its agents, a simulator, people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulator_fixture import SimulatorServer

os.environ.setdefault("SQLITE_SYNCHRONOUS", "OFF")
os.environ.setdefault("ANTHROPIC_API_KEY", "test-key")


@pytest.fixture
def simulator(settings: Any) -> Iterator[SimulatorServer]:
    """A simulator that answers at once; the engine talks to it, and nothing talks to the network."""
    with SimulatorServer() as server:
        settings.ANTHROPIC_BASE_URL = server.base_url
        settings.TOOLS_NETWORK = False
        settings.SHIFTS = 1
        yield server
