"""The queue's cluster without the locks that a killed process leaves behind.

django-q2's processes share multiprocessing queues, events and counters, each guarded by a semaphore. A process that
is killed while it holds one locks out all others for ever: an idle worker always holds the queue's. Here they share
sockets, on which the kernel hands each message to exactly one reader, and single bytes of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import mmap
import multiprocessing
import os
import pickle
import select
import signal
import socket
import time
import uuid
from collections.abc import Collection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any

from django.db import connections
from django_q.cluster import Sentinel
from django_q.conf import Conf
from django_q.worker import worker

logger = logging.getLogger(__name__)

FULL_BYTES = 8_192
"""A channel that holds about so much makes its writer wait: nobody fetches rows that nobody can work on."""
LARGEST_BYTES = 1 << 20
POLL_SECONDS = 0.05
IDLE = -1.0
_PR_SET_PDEATHSIG = 1


class Channel:
    """A queue between processes, as far as django-q2 uses one."""

    def __init__(self, full_bytes: int | None = None) -> None:
        self._out, self._in = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if full_bytes is not None:
            self._in.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, full_bytes)

    def put(self, message: Any) -> None:
        """Hand a message over, waiting while the channel is full. A result too large to send is cut to a sentence."""
        try:
            self._in.send(pickle.dumps(message))
        except OSError as error:
            if error.errno != errno.EMSGSIZE or not isinstance(message, dict):
                raise
            self._in.send(pickle.dumps({**message, "result": "The result was too large to keep."}))

    def get(self) -> Any:
        """Take a message, waiting for one."""
        return pickle.loads(self._out.recv(LARGEST_BYTES))

    def qsize(self) -> int:
        """1 if a message waits; how many cannot be told without a counter that could be left locked."""
        return len(select.select([self._out], [], [], 0)[0])

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self.qsize()

    def close(self) -> None:
        """Nothing to do: readers that are still there read what is left, and the kernel closes the rest."""

    def join_thread(self) -> None:
        """Nothing to wait for: no thread stands between us and the socket."""


class Flag:
    """An event between processes: one byte of shared memory, looked at now and then."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Raise the flag."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Whether it has been raised."""
        return self._byte[0] == 1

    def wait(self, timeout: float) -> bool:
        """Wait until it is raised or ``timeout`` seconds have passed; returns whether it is raised."""
        until = time.monotonic() + timeout
        while not self.is_set() and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return self.is_set()


class Board:
    """What the workers are at, in memory that the worker command shares: never locked."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # Twice as many places: one that a dead worker had is not at once another's.
        self._seconds = RawArray(ctypes.c_double, [IDLE] * (2 * workers))
        self._ended_at = RawValue(ctypes.c_double, 0)

    @property
    def ended_at(self) -> float:
        """When a task last ended, by the monotonic clock; 0 if none has."""
        return float(self._ended_at.value)

    def is_full(self) -> bool:
        """Whether every worker is at a task, so that another one has to wait."""
        return sum(seconds > 0 for seconds in self._seconds) >= self._workers

    def timer(self, taken: Collection[int]) -> Timer:
        """A timer at a place that is not taken."""
        return Timer(self, next(place for place in range(len(self._seconds)) if place not in taken))

    def read(self, place: int) -> float:
        """The seconds at a place."""
        return self._seconds[place]

    def clear(self, place: int) -> None:
        """Nobody is at this place; a worker that died has not ended its task."""
        self._seconds[place] = IDLE

    def write(self, place: int, seconds: float) -> None:
        """Set the seconds at a place; a worker that falls idle has ended its task."""
        if self._seconds[place] > 0 and seconds == IDLE:
            self._ended_at.value = time.monotonic()
        self._seconds[place] = seconds


class Timer:
    """How long a worker may still take for its task: written by the worker and by the sentinel, never locked.

    Both write only what they know, and the next round of the sentinel writes again.
    """

    def __init__(self, board: Board, place: int) -> None:
        self._board, self.place = board, place
        board.clear(place)

    @property
    def value(self) -> float:
        """Seconds left; -1 idle, -2 recycled, 0 timed out."""
        return self._board.read(self.place)

    @value.setter
    def value(self, seconds: float) -> None:
        self._board.write(self.place, seconds)

    def get_lock(self) -> contextlib.AbstractContextManager[None]:
        """No lock, so none can be left behind."""
        return contextlib.nullcontext()


class LockFreeSentinel(Sentinel):  # type: ignore[misc]
    """django-q2's sentinel over channels, flags and timers of ours."""

    def __init__(self, stop_event: Flag, start_event: Flag, cluster_id: uuid.UUID, board: Board) -> None:
        super().__init__(stop_event, start_event, cluster_id, start=False)
        self.task_queue, self.result_queue, self.event_out = Channel(FULL_BYTES), Channel(), Flag()
        self._board = board
        self._left: Timer | None = None
        self.start()

    def spawn_worker(self) -> None:
        """A worker with a timer that cannot be left locked."""
        taken = {process.timer.place for process in self.pool} | ({self._left.place} if self._left else set())
        self.spawn_process(worker, self.task_queue, self.result_queue, self._board.timer(taken), self.timeout)

    def reincarnate(self, process: Any) -> None:
        """Replace a process that died; what a worker's timer says is read until the new one is there."""
        self._left = getattr(process, "timer", None)
        super().reincarnate(process)
        if self._left is not None:
            self._board.clear(self._left.place)
        self._left = None


class Cluster:
    """The processes that carry out queue tasks. They live in a process group of their own and die with us.

    Of their own, because Ctrl-C and process runners signal whole groups, and these would die in the middle of what
    they do: only we hear it and bring them to an orderly end.
    """

    def __init__(self) -> None:
        self._stop = Flag()
        self._process: BaseProcess | None = None
        self.board = Board(Conf.WORKERS)

    def start(self) -> None:
        """Start the processes. Connections are closed first: they cannot be shared across a fork."""
        connections.close_all()
        self._stop, started, self.board = Flag(), Flag(), Board(Conf.WORKERS)
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=LockFreeSentinel, args=(self._stop, started, uuid.uuid4(), self.board))
        self._process.start()

    def is_alive(self) -> bool:
        """Whether the sentinel lives; it looks after all others."""
        return self._process is not None and self._process.is_alive()

    def stop(self) -> None:
        """Let every process finish its task, and wait for them."""
        self._stop.set()
        if self._process is not None:
            self._process.join()

    def kill(self) -> None:
        """End every process at once; what they held is taken up again when its lease runs out."""
        if self._process is not None and self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.join()


def guard_forks() -> None:
    """Let every process forked from here die with its parent, and the first of them lead a group of its own."""
    ours = os.getpid()
    libc = ctypes.CDLL(None)

    def in_child() -> None:
        parent = os.getppid()
        if parent == ours:
            os.setpgid(0, 0)
        # Linux only; elsewhere an orphan works on until its queue is empty.
        if hasattr(libc, "prctl"):
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    os.register_at_fork(after_in_child=in_child)
