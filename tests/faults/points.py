"""Named places at which a worker process kills itself, once, when a file in its folder says so.

The product knows nothing of this: the engine's functions are wrapped while the installed app starts. Also here:
a clock that can be moved by a file, and the names of the queue's processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.utils import timezone
from django_q import cluster as queue

from agents.llm import ModelClient
from agents.replies import ModelReply, ModelRequest
from runs import commits, database, leases
from runs.models import AgentRun

POINTS = (
    "before_claim",
    "after_claim",
    "request_sent",
    "mid_stream",
    "answer_in_hand",
    "inside_commit",
    "after_commit",
)
ROLES = ("pusher", "monitor")
OFFSET = "offset"
_SENT_AFTER_SECONDS = 0.05
"""The simulator answers later, so the request is on its way and nothing has come back."""
_MID_STREAM_EVENT = 4


class Trap:
    """The traps of one worker: files ``armed-<point>`` before, ``fired-<point>`` after."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[UUID, int] = {}
        """The items that this process works on, by the tokens of their runs."""

    def arm(self, point: str, first_item: int) -> None:
        """Have the next process that comes by kill itself, if it holds no item older than ``first_item``.

        Older ones have been struck before and are being healed: how long that takes is what is measured.
        """
        (self.folder / f"fired-{point}").unlink(missing_ok=True)
        new = self.folder / f"new-{point}"
        new.write_text(str(first_item))
        new.rename(self.folder / f"armed-{point}")

    def disarm(self, point: str) -> None:
        """Nobody came by."""
        (self.folder / f"armed-{point}").unlink(missing_ok=True)

    def is_armed(self, point: str) -> bool:
        """Whether the next process that comes by dies."""
        return (self.folder / f"armed-{point}").exists()

    def fired(self, point: str) -> tuple[float, int] | None:
        """When (seconds since 1970) and which process; None while nobody has come by."""
        try:
            at, pid = (self.folder / f"fired-{point}").read_text().split()
        except FileNotFoundError:
            return None
        return float(at), int(pid)

    def spring(self, point: str) -> None:
        """Die here if the trap is armed and nobody was faster."""
        mine, armed = self.folder / f"sprung-{point}-{os.getpid()}", self.folder / f"armed-{point}"
        try:
            if any(item < int(armed.read_text()) for item in list(self.held.values())):
                return
            armed.rename(mine)
        except FileNotFoundError:
            return
        mine.write_text(f"{time.time()} {os.getpid()}")
        mine.rename(self.folder / f"fired-{point}")
        os.kill(os.getpid(), signal.SIGKILL)


class MovedClock:
    """``django.utils.timezone`` as the engine's clock sees it: ahead by the seconds in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> datetime:
        """The time, moved."""
        try:
            moved = float(self._file.read_text() or 0)
        except FileNotFoundError:
            moved = 0.0
        return timezone.now() + timedelta(seconds=moved)


def install(folder: Path) -> None:
    """Wrap the engine's functions in this process and in those forked from it."""
    trap = Trap(folder)
    leases.claim = _claiming(trap, leases.claim)
    commits._end_done = _ending(trap, commits._end_done)
    commits._commit_group = _committing(trap, commits._commit_group)
    ModelClient.call = _calling(trap, ModelClient.call)  # type: ignore[method-assign]
    setattr(database, "timezone", MovedClock(folder / OFFSET))  # noqa: B010 - a stand-in for a module
    for role in ROLES:
        setattr(queue, role, _named(folder, role, getattr(queue, role)))


def _claiming(trap: Trap, claim: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if trap.is_armed("before_claim") and AgentRun.objects.filter(status=AgentRun.Status.QUEUED).exists():
            trap.spring("before_claim")
        works = claim(*args, **kwargs)
        trap.held |= {work.token: work.item_id for work in works}
        if works:
            trap.spring("after_claim")
        return works

    return wrapped


def _calling(trap: Trap, call: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(self: ModelClient, request: ModelRequest, on_event: Any = None, **more: Any) -> ModelReply:
        seen = 0

        def heard() -> None:
            nonlocal seen
            seen += 1
            if seen == _MID_STREAM_EVENT:
                trap.spring("mid_stream")
            if on_event is not None:
                on_event()

        if trap.is_armed("request_sent"):
            asyncio.get_running_loop().call_later(_SENT_AFTER_SECONDS, trap.spring, "request_sent")
        reply: ModelReply = await call(self, request, heard, **more)
        trap.spring("answer_in_hand")
        return reply

    return wrapped


def _ending(trap: Trap, end_done: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(done: Any, now: datetime) -> Any:
        entries = end_done(done, now)
        if done:
            trap.spring("inside_commit")
        return entries

    return wrapped


def _committing(trap: Trap, commit_group: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(finished: Any, staff: Any, **more: Any) -> None:
        commit_group(finished, staff, **more)
        trap.spring("after_commit")
        for one in finished:
            trap.held.pop(one.work.token, None)

    return wrapped


def _named(folder: Path, role: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """A process of the queue that says which one it is."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        (folder / f"pid-{role}").write_text(str(os.getpid()))
        return target(*args, **kwargs)

    return wrapped
