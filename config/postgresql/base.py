"""Django's PostgreSQL, with connections that a web process keeps from one request to the next.

Under ASGI every request has a thread of its own, so its connection ends with it. The next one costs PostgreSQL a new
process, which reads its catalogue anew for every table that a page asks: 10 to 20 ms a page, more than its queries.

Not psycopg_pool, which Django could use: while the server is away it lets every request, also that of a probe, wait for
its time-out, and it comes back with growing pauses. Here a request fails at once and the next one tries again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import Connection, OperationalError
from psycopg.pq import TransactionStatus

KEPT = 10
"""So many connections are kept while nobody uses them; whoever finds none opens one."""


class Pool:
    """What Django asks of a pool: ``open``, ``getconn``, ``putconn``, ``close``. Threads may share it."""

    def __init__(self, wrapper: base.DatabaseWrapper) -> None:
        self._wrapper: Any = wrapper  # its settings, and how it prepares what it opens
        self._free: deque[Connection[Any]] = deque()
        self._keeps = KEPT

    def open(self) -> None:
        """Keep what is given back from now on."""
        self._keeps = KEPT

    def getconn(self) -> Connection[Any]:
        """The connection that was used last and still answers, else a new one."""
        while True:
            try:
                kept = self._free.pop()
            except IndexError:
                return self._connect()
            try:
                kept.execute("SELECT 1")
            except OperationalError:
                # The server was started anew, or has ended what was idle.
                kept.close()
            else:
                return kept

    def putconn(self, connection: Connection[Any]) -> None:
        """Keep it for the next request, unless it is in the midst of something, broken, or one too many."""
        is_idle = connection.info.transaction_status == TransactionStatus.IDLE
        if is_idle and connection.autocommit and len(self._free) < self._keeps:
            self._free.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """End what is kept; what is in use ends when it is given back."""
        self._keeps = 0
        while self._free:
            self._free.pop().close()

    def _connect(self) -> Connection[Any]:
        params = {**self._wrapper.get_connection_params(), "autocommit": True}
        opened: Any = Connection.connect(**params)
        self._wrapper._configure_connection(opened)
        # Where Django gives it back.
        opened._pool = self
        made: Connection[Any] = opened
        return made


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's own, but for where its connections come from and go to."""

    _connection_pools: dict[str, Pool]

    @property
    def pool(self) -> Pool | None:
        """The pool of this process; None for what is asked of the server beside the database."""
        if self.alias == NO_DB_ALIAS:
            return None
        return self._connection_pools.setdefault(self.alias, Pool(self))
