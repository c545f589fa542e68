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
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from typing import Any

from django.db import connections
from django_q.cluster import Sentinel
from django_q.worker import worker

logger = logging.getLogger(__name__)

FULL_BYTES = 8_192
"""A channel that holds about so much makes its writer wait: nobody fetches rows that nobody can work on."""
LARGEST_BYTES = 1 << 20
POLL_SECONDS = 0.05
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


class Timer:
    """How long a worker may still take for its task: written by the worker and by the sentinel, never locked.

    Both write only what they know, and the next round of the sentinel writes again.
    """

    def __init__(self) -> None:
        self._seconds = RawValue(ctypes.c_float, -1)

    @property
    def value(self) -> float:
        """Seconds left; -1 idle, -2 recycled, 0 timed out."""
        return float(self._seconds.value)

    @value.setter
    def value(self, seconds: float) -> None:
        self._seconds.value = seconds

    def get_lock(self) -> contextlib.AbstractContextManager[None]:
        """No lock, so none can be left behind."""
        return contextlib.nullcontext()


class LockFreeSentinel(Sentinel):  # type: ignore[misc]
    """django-q2's sentinel over channels, flags and timers of ours."""

    def __init__(self, stop_event: Flag, start_event: Flag, cluster_id: uuid.UUID) -> None:
        super().__init__(stop_event, start_event, cluster_id, start=False)
        self.task_queue, self.result_queue, self.event_out = Channel(FULL_BYTES), Channel(), Flag()
        self.start()

    def spawn_worker(self) -> None:
        """A worker with a timer that cannot be left locked."""
        self.spawn_process(worker, self.task_queue, self.result_queue, Timer(), self.timeout)


class Cluster:
    """The processes that carry out queue tasks. They live in a process group of their own and die with us.

    Of their own, because Ctrl-C and process runners signal whole groups, and these would die in the middle of what
    they do: only we hear it and bring them to an orderly end.
    """

    def __init__(self) -> None:
        self._stop = Flag()
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Start the processes. Connections are closed first: they cannot be shared across a fork."""
        connections.close_all()
        self._stop, started = Flag(), Flag()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=LockFreeSentinel, args=(self._stop, started, uuid.uuid4()))
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
