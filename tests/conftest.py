"""Fixtures that every test may use: a department with its agents, a simulator, people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import hypothesis
import pytest
from django.conf import settings as django_settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.db import connection

from runs.marker import marker_path
from tests.simulator_fixture import SimulatorServer

# For the processes that tests start.
os.environ.setdefault("SQLITE_SYNCHRONOUS", "OFF")
# What waits for a lock that nobody gives back ends as an error that names it, and so does whoever keeps one.
PG_LIMITS = "-c lock_timeout=60s -c statement_timeout=120s -c idle_in_transaction_session_timeout=240s"
os.environ.setdefault("PGOPTIONS", f"-c synchronous_commit=off {PG_LIMITS}")
os.environ.setdefault("ANTHROPIC_API_KEY", "test-key")

# The same examples every time, so that a change is judged by itself; EXPLORE=1 looks for new ones. None may fail for
# the time it took: machines are busy.
hypothesis.settings.register_profile("kontor", derandomize=not os.environ.get("EXPLORE"), deadline=None)
hypothesis.settings.load_profile("kontor")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--second-database",
        action="store_true",
        help="Leave out what has no part in the database; it has run on the first one.",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the second database, keep what reads or writes it."""
    if config.getoption("second_database"):
        items[:] = [item for item in items if _has_part_in_database(item)]


def _has_part_in_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("looks"):
        return False
    fixtures = getattr(item, "fixturenames", ())
    return (
        "db" in fixtures
        or "transactional_db" in fixtures
        or any(item.get_closest_marker(name) for name in ("django_db", "database"))
    )


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On SQLite every run of tests has a file of its own, so that two in one checkout leave each other alone."""
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = tmp_path_factory.mktemp("database") / "kontor.test.sqlite3"


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """A database made anew has not gone back in time, however far one of the same name had come."""
    marker_path().unlink(missing_ok=True)


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
def _no_work_for_nothing() -> None:
    """Hashing a password takes a third of a second by design, listing all static files a tenth for every client."""
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django_settings.WHITENOISE_AUTOREFRESH = True


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
