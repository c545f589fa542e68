"""The connections that web processes keep: handed on, replaced when they have died, and never handed on unclean."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from config.postgresql.base import KEPT, DatabaseWrapper, Pool

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="There are none with SQLite."),
]


@pytest.fixture
def wrapper() -> Iterator[DatabaseWrapper]:
    """One thread's connection, beside that of the test; the pool is its own."""
    made = DatabaseWrapper({**connection.settings_dict}, "kept")
    yield made
    made.close()
    made.close_pool()


def ask(wrapper: DatabaseWrapper, sql: str = "SELECT pg_backend_pid()") -> Any:
    """The one value a query brings; the connection goes back, as at the end of a request."""
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        value = cursor.fetchone()
    wrapper.close()
    return value[0] if value else None


def test_the_next_request_has_the_same_connection_in_another_thread(wrapper: DatabaseWrapper) -> None:
    def elsewhere() -> Any:
        other = DatabaseWrapper({**connection.settings_dict}, "kept")
        return ask(other)

    first = ask(wrapper)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(elsewhere).result(10) == first
    assert ask(wrapper) == first


def test_two_at_once_have_two(wrapper: DatabaseWrapper) -> None:
    other = DatabaseWrapper({**connection.settings_dict}, "kept")
    with wrapper.cursor() as one, other.cursor() as two:
        one.execute("SELECT pg_backend_pid()")
        two.execute("SELECT pg_backend_pid()")
        assert one.fetchone() != two.fetchone()
    other.close()


def test_one_that_the_server_has_ended_is_replaced(wrapper: DatabaseWrapper) -> None:
    first = ask(wrapper)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    second = ask(wrapper)
    assert second != first
    assert ask(wrapper) == second


def test_one_in_the_midst_of_a_transaction_is_not_handed_on(wrapper: DatabaseWrapper) -> None:
    wrapper.set_autocommit(False)
    first = ask(wrapper)
    assert ask(wrapper) != first


def test_it_speaks_of_times_as_any_other(wrapper: DatabaseWrapper) -> None:
    assert ask(wrapper, "SHOW TimeZone") == "UTC"
    assert ask(wrapper, "SHOW TimeZone") == "UTC"


def test_no_more_are_kept_than_that_and_none_after_the_end(wrapper: DatabaseWrapper) -> None:
    pool = Pool(wrapper)
    held = [pool.getconn() for _ in range(KEPT + 2)]
    for one in held:
        pool.putconn(one)
    assert sum(one.closed for one in held) == 2
    last = pool.getconn()
    pool.close()
    pool.putconn(last)
    assert all(one.closed for one in held)


@pytest.mark.parametrize(("asked", "kept"), [("", "config.postgresql"), ("0", "django.db.backends.postgresql")])
def test_only_a_web_process_keeps_them(asked: str, kept: str) -> None:
    env = {**os.environ, "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none", "KONTOR_KEEP_CONNECTIONS": asked}
    if not asked:
        del env["KONTOR_KEEP_CONNECTIONS"]
    tell = "from django.conf import settings; print(settings.DATABASES['default']['ENGINE'])"
    for module, engine in (("config.asgi", kept), ("django", "django.db.backends.postgresql")):
        command = [sys.executable, "-W", "ignore", "-c", f"import {module}; {tell}"]
        env["DJANGO_SETTINGS_MODULE"] = "config.settings"
        assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip() == engine


@pytest.mark.parametrize("engine", ["web", "worker"])
def test_a_connection_that_the_network_cut_is_given_up_within_seconds(wrapper: DatabaseWrapper, engine: str) -> None:
    used: Any = wrapper if engine == "web" else connection
    used.ensure_connection()
    with socket.socket(fileno=os.dup(used.connection.fileno())) as asked:
        if asked.family == socket.AF_UNIX:
            pytest.skip("No network lies between.")
        assert asked.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert asked.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert asked.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
