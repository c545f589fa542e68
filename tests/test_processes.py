"""config.processes, driven from outside: signals, a closed terminal, Ctrl-C under make."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 30

GROUP = """
import os, sys
from pathlib import Path
from config.processes import Processes, foreground

child = "import signal, sys, time\\n{on_term}\\nprint('up', flush=True)\\nwhile True: time.sleep(60)"
processes = Processes(environment=os.environ, directory=Path.cwd(), grace_seconds={grace})

def begin():
    print("leader", os.getpid(), flush=True)
    processes.start("server", [sys.executable, "-c", child], stops_last=True)
    processes.start("worker", [sys.executable, "-c", {worker}], is_quiet_at_end={quiet})

with foreground():
    code = processes.run(begin, lambda: None)
    print("failed", processes.failed, flush=True)
sys.exit(code)
"""
POLITE = "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))"
LEAVER = """
import subprocess, sys, time
rest = "import time; print('up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", rest], process_group=0)
time.sleep(600)
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def write_group(
    path: Path, *, on_term: str = POLITE, grace: float = 20, worker: str = "child", quiet: bool = False
) -> Path:
    """A program that runs a server and a worker until it is told to stop."""
    path.write_text(GROUP.format(on_term=on_term, grace=grace, worker=worker, quiet=quiet))
    return path


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail after the limit."""
    limit = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < limit, f"{what}: not within {LIMIT_SECONDS} s"
        time.sleep(0.02)


class Started:
    """A started group, what it has printed, and the processes it has made."""

    def __init__(self, program: Path, output: Path) -> None:
        self.output = output
        self.process = subprocess.Popen(
            [sys.executable, str(program)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=output.open("w"),
            stderr=subprocess.STDOUT,
        )
        self.children: list[psutil.Process] = []

    def text(self) -> str:
        """Everything printed until now."""
        return self.output.read_text()

    def wait_until_up(self) -> None:
        """Wait until both children run, and remember them."""
        wait_for(lambda: self.text().count("| up") == 2, "two children are up")
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.children) == 2

    def end(self) -> int:
        """The exit code, once the group has ended and none of its processes is left."""
        code = self.process.wait(LIMIT_SECONDS)
        _, alive = psutil.wait_procs(self.children, LIMIT_SECONDS)
        assert not alive
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start groups that are ended with the test, whatever happens in it."""
    started: list[Started] = []

    def make(**options: object) -> Started:
        program = write_group(tmp_path / f"group{len(started)}.py", **options)  # type: ignore[arg-type]
        started.append(Started(program, tmp_path / f"output{len(started)}"))
        return started[-1]

    yield make
    for group in started:
        for child in group.children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        group.process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_and_is_no_error(start: Callable[..., Started], signum: int) -> None:
    group = start()
    group.wait_until_up()
    group.process.send_signal(signum)
    assert group.end() == 0
    assert group.text().count("| bye") == 2
    assert "failed None" in group.text()
    assert "Traceback" not in group.text()


def test_what_others_talk_to_stops_last(start: Callable[..., Started]) -> None:
    group = start()
    group.wait_until_up()
    group.process.send_signal(signal.SIGTERM)
    group.end()
    goodbyes = [line.split()[1] for line in group.text().splitlines() if line.endswith("| bye")]
    assert goodbyes == ["worker", "server"]


def test_one_that_is_quiet_at_its_end_is_heard_until_then(start: Callable[..., Started]) -> None:
    group = start(quiet=True)
    group.wait_until_up()
    group.process.send_signal(signal.SIGTERM)
    assert group.end() == 0
    goodbyes = [line.split()[1] for line in group.text().splitlines() if line.endswith("| bye")]
    assert goodbyes == ["server"]


def test_a_signal_that_comes_before_the_children_are_up_stops_them_too(start: Callable[..., Started]) -> None:
    group = start()
    wait_for(lambda: "leader" in group.text(), "the group has begun")
    group.children = psutil.Process(group.process.pid).children(recursive=True)
    group.process.send_signal(signal.SIGTERM)
    assert group.end() == 0


def test_a_service_that_ends_by_itself_ends_the_group_with_an_error(start: Callable[..., Started]) -> None:
    group = start(worker="\"print('no such table'); raise SystemExit(3)\"")
    assert group.end() == 1
    assert "no such table" in group.text()
    assert "failed worker" in group.text()


def test_a_process_that_ignores_the_signal_is_killed_after_the_grace(start: Callable[..., Started]) -> None:
    group = start(on_term=STUBBORN, grace=0.5)
    group.wait_until_up()
    group.process.send_signal(signal.SIGTERM)
    assert group.end() == 0


def test_what_a_process_leaves_behind_is_killed(start: Callable[..., Started]) -> None:
    """A grandchild in a process group of its own, as the worker's cluster is one."""
    group = start(worker=repr(LEAVER), grace=1)
    wait_for(lambda: group.text().count("| up") == 2, "server and grandchild are up")
    group.children = psutil.Process(group.process.pid).children(recursive=True)
    assert len(group.children) == 3
    group.process.send_signal(signal.SIGTERM)
    assert group.end() == 0


def test_a_second_ctrl_c_does_not_wait_for_the_grace(start: Callable[..., Started]) -> None:
    group = start(on_term=STUBBORN, grace=LIMIT_SECONDS * 10)
    group.wait_until_up()
    group.process.send_signal(signal.SIGINT)
    wait_for(lambda: "Stopping" in group.text(), "the first Ctrl-C is noticed")
    group.process.send_signal(signal.SIGINT)
    assert group.end() == 0


class Terminal:
    """A terminal of its own in which ``make run`` runs the group."""

    def __init__(self, folder: Path) -> None:
        program = write_group(folder / "group.py")
        (folder / "Makefile").write_text(f"run:\n\t@{sys.executable} {program}\n")
        pid, self.keyboard = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            os.environ["PYTHONPATH"] = str(ROOT)
            os.execvp("make", ["make", "-f", str(folder / "Makefile"), "run"])
        self.pid = pid
        self.seen = b""

    def read_until(self, enough: Callable[[str], bool]) -> str:
        """Everything on the screen once it satisfies, or once the program has ended."""
        limit = time.monotonic() + LIMIT_SECONDS
        while not enough(self.seen.decode()):
            ready, _, _ = select.select([self.keyboard], [], [], max(limit - time.monotonic(), 0))
            assert ready, f"not within {LIMIT_SECONDS} s; on the screen: {self.seen.decode()}"
            try:
                self.seen += os.read(self.keyboard, 4096)
            except OSError:  # Linux says EIO when nobody has the terminal open any more
                break
        return self.seen.decode()

    def wait(self) -> int:
        """The exit code of make."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_ctrl_c_in_a_terminal_is_no_error_for_make(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.read_until(lambda screen: screen.count("up\r\n") == 2)
    children = psutil.Process(terminal.pid).children(recursive=True)
    os.write(terminal.keyboard, b"\x03")
    screen = terminal.read_until(lambda screen: False)
    assert terminal.wait() == 0
    assert "failed None" in screen
    assert "***" not in screen
    assert not psutil.wait_procs(children, LIMIT_SECONDS)[1]
    os.close(terminal.keyboard)


def test_a_terminal_that_is_closed_leaves_no_process_behind(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.read_until(lambda screen: screen.count("up\r\n") == 2)
    children = psutil.Process(terminal.pid).children(recursive=True)
    assert len(children) == 3
    os.close(terminal.keyboard)
    terminal.wait()
    assert not psutil.wait_procs(children, LIMIT_SECONDS)[1]
