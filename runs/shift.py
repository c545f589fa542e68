"""A shift: one event loop that keeps many model calls in flight, and one database thread that serves it.

The loop never touches the database. The thread does everything that does, in turns: write down what came
back, route what is due, claim what may start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from agents.budgets import Refused, begin_periods
from agents.llm import ModelClient
from runs import control, dispatch, leases, sending, slots, switches, tracing
from runs.calls import CallAsk, find_open, open_calls, settle_calls
from runs.clock import ClockWatch, make_due
from runs.commits import commit, settle_apart
from runs.database import now as database_now
from runs.executor import execute
from runs.housekeeping import do_each
from runs.loop_guard import find_dear
from runs.models import AgentRun
from runs.releases import newer_migrations
from runs.staff import Staff, StaffRoom
from runs.stopping import is_stopping
from runs.work import CutOff, Finished, OpenCall, SeenCall, Work

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
BATCH = 50
"""The most items routed and runs claimed in one transaction, so that no lock is held long."""
KEEP_UP_SECONDS = 2.0
LOOK_AFTER_SECONDS = 1.0
SILENCE_SECONDS = 30.0
GRACE_SECONDS = 5.0
DATABASE_AWAY_SECONDS = 0.5
SWITCH_SECONDS = 0.0005


def worker_name() -> str:
    """Machine and process, as pages and logs name a worker."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True)
class _Flight:
    """A run in the air: its task, and when its call last showed a sign of life."""

    work: Work
    task: asyncio.Task[None]
    heard_at: float


class Shift:
    """Holds one slot for ``seconds``, then hands it over and drains."""

    def __init__(
        self, number: int, token: UUID, *, seconds: float | None = None, concurrency: int | None = None
    ) -> None:
        self.number, self.token = number, token
        self.worker = worker_name()
        self.concurrency = concurrency or settings.SHIFT_CONCURRENCY
        self._ends_at = time.monotonic() + (settings.SHIFT_SECONDS if seconds is None else seconds)
        self._flights: dict[UUID, _Flight] = {}
        self._finished: list[Finished] = []
        self._cut_off: list[SeenCall] = []
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._room = StaffRoom()
        # Before the lease runs out, which is renewed a third of a lease before the silence at the earliest: that the
        # server is silent does not mean that the worker is lost.
        silence = SILENCE_SECONDS + settings.LEASE_SECONDS / 2
        self._client = ModelClient(settings.ANTHROPIC_BASE_URL, silence_seconds=silence)
        self._is_claiming = self._holds_slot = True
        self._is_behind = self._is_aside = False
        self._heartbeat_at = self._looked_at = time.monotonic()
        self._kept_up_at = self._aside_at = 0.0
        self._clock = ClockWatch()

    async def run(self) -> None:
        """Work until the shift has ended and everything it holds has come back or was given back."""
        # Every statement lets go of the interpreter's lock; at the default of 5 ms a busy loop is slow to give it back.
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            drained_by: float | None = None
            while True:
                now = time.monotonic()
                is_over = now > self._ends_at or not self._holds_slot or self._is_behind
                if drained_by is None and (is_stopping() or is_over):
                    drained_by = now + (GRACE_SECONDS if is_stopping() else slots.DRAIN_SECONDS)
                    await self._stop_claiming()
                if drained_by is not None:
                    if is_stopping():
                        drained_by = min(drained_by, now + GRACE_SECONDS)
                    if not self._flights and not self._finished or now > drained_by:
                        break
                await self._turn()
        finally:
            await self._give_back()

    async def in_database(self, job: Callable[[], Any]) -> Any:
        """Run a job on the database thread and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def next_call(
        self, work: Work, seen: SeenCall, number: int, params: dict[str, Any]
    ) -> OpenCall | Refused | None:
        """Settle the call that was seen and open the next one of the same run, if the run is still ours."""
        while True:
            try:
                return await self.in_database(lambda: self._next_call(work, seen, number, params))  # type: ignore[no-any-return]
            except (OperationalError, InterfaceError):
                await self._wait_for_database()

    # --- on the event loop ------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        """One round: the database thread works, then the loop takes off what was claimed."""
        self._news.clear()
        finished, self._finished = self._finished, []
        try:
            works, lost, was_busy = await self.in_database(lambda: self._tick(finished))
        except Exception as error:
            # What came back is kept: writing it down again is harmless if it was written after all.
            self._finished = finished + self._finished
            if not isinstance(error, (OperationalError, InterfaceError)):
                raise
            await self._wait_for_database()
            return
        for token in lost:
            if token in self._flights:
                self._flights.pop(token).task.cancel()  # its stream is closed, and it hands over what it has seen
        for work in works:
            self._take_off(work)
        if not was_busy and not self._finished:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with the news.
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._news.wait()

    def _take_off(self, work: Work) -> None:
        task = asyncio.create_task(self._fly(work))
        self._flights[work.token] = _Flight(work, task, time.monotonic())

    async def _fly(self, work: Work) -> None:
        def heard() -> None:
            flight = self._flights.get(work.token)
            if flight is not None:
                flight.heard_at = time.monotonic()

        with tracing.attempt(work):
            finished = await execute(work, client=self._client, books=self, on_event=heard)
        # In this order: the database thread must never find a run neither here nor there.
        if isinstance(finished, CutOff):
            self._cut_off += finished.unsettled
        elif finished is not None and work.token in self._flights:
            self._finished.append(finished)
        self._flights.pop(work.token, None)
        self._news.set()

    async def _wait_for_database(self) -> None:
        logger.warning("shift %s: the database does not answer; trying again", self.number, exc_info=True)
        # The lambda matters: `connection` is another one on every thread.
        await self.in_database(lambda: connection.close())
        await asyncio.sleep(DATABASE_AWAY_SECONDS)

    async def _stop_claiming(self) -> None:
        """Give the slot to a successor, or leave it empty when the whole worker stops or is out of date."""
        self._is_claiming = False
        if self._holds_slot:
            self._holds_slot = False
            end = slots.leave if is_stopping() or self._is_behind else slots.hand_over
            try:
                await self.in_database(lambda: end(self.number, self.token))
            except (OperationalError, InterfaceError):
                await self._wait_for_database()  # its lease runs out, and somebody fills the slot

    async def _give_back(self) -> None:
        """Release what is still held, so that another worker need not wait for the leases to run out."""
        works = [flight.work for flight in self._flights.values()]
        for flight in self._flights.values():
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in self._flights.values()), return_exceptions=True)
        try:
            await self.in_database(lambda: self._last_words(works))
        except Exception:
            logger.exception("shift %s could not release %s runs; their leases will run out", self.number, len(works))
        await self._client.close()
        self._thread.shutdown()

    # --- on the database thread -------------------------------------------------------------------------------

    def _tick(self, finished: list[Finished]) -> tuple[list[Work], set[UUID], bool]:
        """Heartbeats, then commits, then routing and claims. Returns new work, lost tokens, whether it was busy."""
        staff, now = self._room.get(), time.monotonic()
        if now - self._heartbeat_at > settings.LEASE_SECONDS / 3:
            self._heartbeat_at = now
            leases.heartbeat([t for t, f in list(self._flights.items()) if now - f.heard_at < SILENCE_SECONDS])
        commit(finished, staff)
        self._settle_cut_off()
        lost: set[UUID] = set()
        if now - self._looked_at > LOOK_AFTER_SECONDS:
            self._looked_at = now
            tokens = set(self._flights)
            lost = tokens - leases.still_held(tokens)
        if now - self._kept_up_at > KEEP_UP_SECONDS:
            self._kept_up_at = now
            self._keep_up(staff)
        works: list[Work] = []
        routed = 0
        if self._is_claiming and not is_stopping():
            routed = dispatch.route_due(BATCH, staff=staff)
            works = self._claim(staff)
        return works, lost, bool(finished or routed or works)

    def _claim(self, staff: Staff) -> list[Work]:
        # What has come back since and is not written down yet would be lost with this process, too.
        held = [flight.work for flight in list(self._flights.values())] + [one.work for one in list(self._finished)]
        room = min(self.concurrency - len(self._flights), BATCH)
        if room <= 0 or any(work.is_poison for work in held):
            return []
        if not self._is_aside:
            return leases.claim(room, staff=staff, worker=self.worker, is_alone=not held)
        if held:
            return []
        # One, and then its turn is over: the others have waited meanwhile.
        self._is_aside, self._aside_at = False, time.monotonic()
        return leases.claim_poison(staff=staff, worker=self.worker)

    def _keep_up(self, staff: Staff) -> None:
        """Every few seconds: say that this shift lives, fill empty slots, take back what was lost."""
        if self._clock.went_back(now := database_now()):
            logger.warning("shift %s: the clock was put back; %s agent runs are made due", self.number, make_due(now))
        if self._holds_slot:
            self._holds_slot = slots.renew(self.number, self.token, len(self._flights))
        newer = newer_migrations()
        if newer and not self._is_behind:
            logger.warning("shift %s ends: the database is ahead of this release (%s)", self.number, sorted(newer))
            self._is_behind, self._is_claiming = True, False
        filling = () if is_stopping() else (slots.ensure_shifts, sending.queue_due)
        do_each((*filling, leases.reap, control.resume_due, switches.take_back_stopped))
        self._is_aside = self._must_make_room(staff)

    def _must_make_room(self, staff: Staff) -> bool:
        """Whether this shift is to claim nothing until it is empty, for a run that may only be claimed alone."""
        if time.monotonic() - self._aside_at < leases.STARVED.total_seconds():
            return False
        return self._is_claiming and slots.is_first(self.number) and leases.is_starving(staff)

    def _next_call(self, work: Work, seen: SeenCall, number: int, params: dict[str, Any]) -> OpenCall | Refused | None:
        staff = self._room.get()
        with transaction.atomic():
            now = database_now()
            run = (
                AgentRun.objects.filter(lease_token=work.token, status=AgentRun.Status.RUNNING)
                .select_for_update()
                .first()
            )
            begin_periods(work.department_id, now=now)  # before the call that is settled is locked
            settle_calls([seen], staff, now=now)
            if run is None:
                return None
            run.lease_expires_at = now + timedelta(seconds=settings.LEASE_SECONDS)
            run.save(update_fields=["lease_expires_at"])
            ask = CallAsk(run, work.agent, work.soul_id, work.api_key_env, work.attempt, number, params)
            # The database may have gone away after it had written the call: then we come here again.
            if opened := find_open(ask):
                return opened
            if reason := find_dear(run):
                return Refused(reason, now)  # due at once: whoever claims it asks a person
            return open_calls([ask], staff, now=now, worker=self.worker)[run.pk]

    def _settle_cut_off(self) -> None:
        """Book what calls had cost when their run was taken away. Settling one twice is harmless."""
        while self._cut_off:
            seen = self._cut_off[:BATCH]
            settle_apart(seen, self._room.get())
            del self._cut_off[: len(seen)]

    def _last_words(self, works: list[Work]) -> None:
        try:
            if self._finished:
                commit(self._finished, self._room.get())
            self._settle_cut_off()
            if works:
                leases.release(works)
        finally:
            connection.close()
