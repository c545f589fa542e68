"""Runs several processes side by side, relays their output and leaves none behind."""

from __future__ import annotations

import os
import queue
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import FrameType

from honcho.colour import get_colours
from honcho.printer import Message, Printer
from honcho.process import Process

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Child:
    """One process. A service must run until it is stopped; anything else may end by itself."""

    process: Process
    is_service: bool
    stops_last: bool
    is_quiet_at_end: bool
    thread: Thread | None = None
    pid: int | None = None
    returncode: int | None = None
    is_asked: bool = False


class Processes:
    """A group of processes that lives until a signal comes or a service ends.

    Honcho starts and prints. Its manager stops whole process groups at once and after 5 s by force, knows no
    SIGHUP and fails on a signal that comes while it starts; so the loop is written here.
    """

    def __init__(self, *, environment: Mapping[str, str], directory: Path, grace_seconds: float = 20) -> None:
        self.children: dict[str, Child] = {}
        self.failed: str | None = None
        """The service that ended by itself, if one did."""
        self._environment = dict(environment)
        self._directory = directory
        self._grace_seconds = grace_seconds
        self._events: queue.Queue[Message] = queue.Queue()
        self._printer = Printer(sys.stdout, width=9)
        self._colours = get_colours()
        self._is_told = False
        self._interrupts = 0
        self._stopping_since: float | None = None
        self._terminal = find_terminal()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        is_service: bool = True,
        stops_last: bool = False,
        is_quiet_at_end: bool = False,
    ) -> None:
        """Start a process in a session of its own, so that a Ctrl-C reaches it through here only.

        What one that is quiet at its end prints after it was asked to stop is dropped.
        """
        process = Process(
            # exec: no shell stands between the process and its signals.
            f"exec {shlex.join(command)}",
            name=name,
            colour=next(self._colours),
            env=self._environment,
            cwd=str(self._directory),
        )
        child = Child(process, is_service, stops_last, is_quiet_at_end)
        child.thread = Thread(target=process.run, args=(self._events,), name=name, daemon=True)
        self.children[name] = child
        child.thread.start()

    def run(self, begin: Callable[[], None], tick: Callable[[], None]) -> int:
        """Call ``begin``, then relay output until all have ended; ``tick`` is called ten times a second.

        The exit code is 0 when a signal ended it and 1 when a service ended by itself (``failed`` names it).
        """
        with self._signals_counted(), self._nothing_left():
            begin()
            while any(child.returncode is None for child in self.children.values()):
                self._relay()
                self._watch_terminal()
                if self._is_told and self._stopping_since is None:
                    self.say("Stopping. Press Ctrl-C again to stop at once.")
                    self._stopping_since = time.monotonic()
                if self._stopping_since is None:
                    tick()
                else:
                    self._stop(self._stopping_since)
        return 1 if self.failed else 0

    def say(self, text: str) -> None:
        """Print lines of our own. A terminal that has been closed ends the group, not this process."""
        try:
            print(text, flush=True)
        except OSError:
            self._lose_terminal()

    def _relay(self) -> None:
        try:
            message = self._events.get(timeout=0.1)
        except queue.Empty:
            return
        child = self.children[message.name]
        if message.type == "start":
            child.pid = message.data["pid"]
        elif message.type == "stop":
            child.returncode = message.data["returncode"]
            if child.is_service and self._stopping_since is None and self.failed is None:
                self.failed = message.name
                self._stopping_since = time.monotonic()
        elif not (child.is_asked and child.is_quiet_at_end):
            self._print(message)

    def _print(self, message: Message) -> None:
        try:
            self._printer.write(message)
        except OSError:
            self._lose_terminal()

    def _watch_terminal(self) -> None:
        # The kernel tells only the session's leader that a terminal was closed. Where that is make (as under
        # `ssh host make demo`), make waits for us and passes nothing on.
        if self._terminal is not None and foreground_group(self._terminal) is None:
            self._lose_terminal()

    def _lose_terminal(self) -> None:
        self._is_told, self._terminal = True, None
        # Whatever is still written, also by the interpreter at its end, goes where it cannot fail.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())

    def _stop(self, since: float) -> None:
        """Ask those that are due to stop; by force at the second Ctrl-C or after the grace."""
        running = [child for child in self.children.values() if child.returncode is None]
        if self._interrupts > 1 or time.monotonic() - since > self._grace_seconds:
            for child in running:
                self._kill_session(child)
            return
        # What others still talk to (the simulator) goes last: calls in flight may end.
        first = [child for child in running if not child.stops_last]
        for child in first or running:
            if child.pid is not None and not child.is_asked:
                child.is_asked = True
                # The process alone, not its group: it knows in which order its own children stop.
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)

    def _kill_session(self, child: Child) -> None:
        """Kill the process and all it has started, also those in process groups of their own (the worker's)."""
        if child.pid is None:
            return
        for pid in session_members(child.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Where there is no /proc. EPERM: what macOS answers for a group of which only a zombie is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)

    @contextmanager
    def _nothing_left(self) -> Iterator[None]:
        try:
            yield
        finally:
            for child in self.children.values():
                self._kill_session(child)

    @contextmanager
    def _signals_counted(self) -> Iterator[None]:
        def count(signum: int, frame: FrameType | None) -> None:
            self._is_told = True
            self._interrupts += signum == signal.SIGINT

        before = {signum: signal.signal(signum, count) for signum in STOP_SIGNALS}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def session_members(session: int) -> list[int]:
    """The processes of a session; empty where the system has no /proc."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdecimal():
            with suppress(ProcessLookupError):
                if os.getsid(int(name)) == session:
                    found.append(int(name))
    return found


def find_terminal() -> int | None:
    """The descriptor of the terminal that controls this process; None where there is none."""
    return next((number for number in range(3) if foreground_group(number) is not None), None)


def foreground_group(terminal: int) -> int | None:
    """The process group that has the terminal; None where it is not our terminal, or no longer."""
    try:
        return os.tcgetpgrp(terminal)
    except OSError:
        return None


@contextmanager
def foreground() -> Iterator[None]:
    """Take the terminal from ``make``, so that Ctrl-C is ours alone and make does not call it an error.

    Nothing happens where there is no terminal, or where this is not the foreground job.
    """
    terminal, owner = find_terminal(), os.getpgrp()
    # Where output goes into a pipe (`make demo | less`), another program of the job needs the terminal.
    is_whole = sys.stdin.isatty() and sys.stdout.isatty()
    is_leader = os.getpid() in (owner, os.getsid(0))
    if terminal is None or not is_whole or is_leader or foreground_group(terminal) != owner:
        yield
        return
    # SIGTTOU would stop a group in the background that changes the terminal; after Ctrl-Z make would hang.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpid())
    try:
        yield
    finally:
        # The terminal may have been closed.
        with suppress(OSError):
            os.tcsetpgrp(terminal, owner)
