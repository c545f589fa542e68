"""Carries out try-outs: a queue task with an event loop of its own, apart from the shifts, so that neither waits.

One such task at a time holds all that are under way; another one that starts meanwhile leaves at once. It looks for
more as long as it has any, for five minutes at the most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from agents.budgets import Refused
from agents.causes import Cause
from agents.llm import ModelClient
from runs import tryout_claims, tryouts
from runs.executor import execute
from runs.shift import DATABASE_AWAY_SECONDS, SILENCE_SECONDS, worker_name
from runs.staff import StaffRoom
from runs.stopping import is_stopping
from runs.work import OpenCall, SeenCall, Work

logger = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
DATABASE_PATIENCE_SECONDS = 20.0
"""Longer than this nobody would hold the lease any more."""
_STOPPED = (Cause.CUT_OFF, "The worker was stopped. Try it again.")
_HALTED = (Cause.CUT_OFF, "Everything was stopped. Try it again when the department runs.")
_TOO_LONG = (Cause.TIMEOUT, f"It took longer than {tryouts.LONGEST_SECONDS / 60:g} minutes with its tools and repairs.")


@dataclass(slots=True)
class _Flight:
    """A try-out under way."""

    work: Work
    task: asyncio.Task[None]
    ends_at: float
    why: tuple[Cause, str] | None = None
    is_cut: bool = False


class TryOutDesk:
    """Takes what is queued and works until nothing is left. ``books`` of its executors."""

    def __init__(self, *, seconds: float = tryouts.TAKE_SECONDS) -> None:
        self.worker = worker_name()
        self._takes_until = time.monotonic() + seconds
        self._flights: dict[UUID, _Flight] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._room = StaffRoom()
        silence = SILENCE_SECONDS + settings.LEASE_SECONDS / 2
        self._client = ModelClient(settings.ANTHROPIC_BASE_URL, silence_seconds=silence)

    async def run(self) -> None:
        """Until nothing is queued and nothing under way, or the worker stops."""
        try:
            while True:
                if not is_stopping() and time.monotonic() < self._takes_until:
                    for work in await self._patiently(self._claim):
                        self._take_off(work)
                if not self._flights:
                    break
                await asyncio.wait([flight.task for flight in self._flights.values()], timeout=LOOK_SECONDS)
                await self._look_after()
        finally:
            await self._close()

    async def in_database(self, job: Callable[[], Any]) -> Any:
        """Run a job on the database thread and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def next_call(
        self, work: Work, seen: SeenCall, number: int, params: dict[str, Any]
    ) -> OpenCall | Refused | None:
        """Settle the call that was seen and open the next one."""
        return await self._patiently(  # type: ignore[no-any-return]
            lambda: tryout_claims.next_call(work, seen, number, params, staff=self._room.get(), worker=self.worker)
        )

    def _claim(self) -> list[Work]:
        tryout_claims.reap()
        return tryout_claims.claim(set(self._flights), staff=self._room.get(), worker=self.worker)

    def _take_off(self, work: Work) -> None:
        task = asyncio.create_task(self._fly(work))
        self._flights[work.token] = _Flight(work, task, time.monotonic() + tryouts.LONGEST_SECONDS)

    async def _fly(self, work: Work) -> None:
        try:
            ended = await execute(work, client=self._client, books=self, on_event=lambda: None)
            flight = self._flights[work.token]
            # From here on there is no stream to close, and writing it down must not be cut off.
            why, flight.is_cut = flight.why, True
            await self._patiently(lambda: tryout_claims.finish(work, ended, staff=self._room.get(), why=why))
        except Exception:
            # Its lease runs out, and it ends as lost, with what its call had reserved.
            logger.exception("try-out %s could not be written down", work.run_id)
        finally:
            self._flights.pop(work.token, None)

    async def _look_after(self) -> None:
        """Keep the leases, and close the streams of what was stopped, takes too long, or must end with the worker."""
        flights = dict(self._flights)
        if not flights:
            return
        held = await self._patiently(lambda: tryout_claims.renew(set(flights)))
        departments = {flight.work.department_id for flight in flights.values()}
        halted = await self._patiently(lambda: tryout_claims.find_stopped(departments))
        for token, flight in flights.items():
            if is_stopping():
                flight.why = _STOPPED
            elif flight.work.department_id in halted:
                flight.why = _HALTED
            elif time.monotonic() > flight.ends_at:
                flight.why = _TOO_LONG
            if (flight.why or token not in held) and not flight.is_cut:
                flight.is_cut = True
                flight.task.cancel()  # the executor hands over what it has seen, because that costs too

    async def _patiently(self, job: Callable[[], Any]) -> Any:
        """Do it again while the database is away."""
        until = time.monotonic() + DATABASE_PATIENCE_SECONDS
        while True:
            try:
                return await self.in_database(job)
            except (OperationalError, InterfaceError):
                if time.monotonic() > until:
                    raise
                await self.in_database(lambda: connection.close())
                await asyncio.sleep(DATABASE_AWAY_SECONDS)

    async def _close(self) -> None:
        for flight in self._flights.values():
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in self._flights.values()), return_exceptions=True)
        await self._client.close()
        await self.in_database(lambda: connection.close())
        self._thread.shutdown()
