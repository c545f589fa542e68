"""The queue's processes: what they share, and when the worker command takes them for stuck."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django_q.worker import worker

from runs.cluster import IDLE, Board, Channel, Cluster, LockFreeSentinel
from runs.management.commands.worker import BUSY_SECONDS, STANDSTILL_SECONDS, Command
from runs.models import LogEntry
from tests.engine import take_slot

pytestmark = pytest.mark.django_db
LOOKED_AT: list[Any] = []
SOON = STANDSTILL_SECONDS + 1


def watching(board: Board, moved_at: float = 0.0) -> Command:
    """The worker command as it watches a cluster where something last moved at ``moved_at``."""
    command = Command()
    command.cluster = Cluster()
    command.cluster.board = board
    command._moved_at = moved_at
    return command


def task(function: Any) -> dict[str, Any]:
    """A task as the pusher hands it to a worker."""
    return {"id": "1", "name": "a task", "func": function, "args": (), "kwargs": {}}


def look() -> None:
    """A task that replaces the board by whether it is full."""
    LOOKED_AT.append(LOOKED_AT.pop().is_full())


def test_a_worker_shows_that_it_is_at_a_task_and_when_it_has_ended() -> None:
    board, tasks, results = Board(1), Channel(), Channel()
    began = time.monotonic()
    tasks.put(task(look))
    tasks.put("STOP")
    LOOKED_AT.append(board)
    worker(tasks, results, board.timer(()), 5)
    assert LOOKED_AT.pop() is True
    assert results.get()["success"]
    assert not board.is_full()
    assert board.ended_at >= began


def test_a_place_of_a_worker_that_died_is_not_given_away_before_it_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LockFreeSentinel, "__init__", lambda self, board: setattr(self, "_board", board))
    sentinel = LockFreeSentinel(board := Board(2))  # type: ignore[call-arg, arg-type]
    sentinel.pool, sentinel._left, sentinel.timeout = [], None, 60
    sentinel.task_queue, sentinel.result_queue = Channel(), Channel()
    sentinel.monitor = sentinel.pusher = None
    spawned: list[Any] = []

    class Process:
        """As far as the sentinel looks at one."""

        name, pid, exitcode = "worker", 0, 1

        def __init__(self, timer: Any) -> None:
            self.timer = timer

        def terminate(self) -> None:
            spawned.append("terminated")

        def join(self, *_: Any) -> None:
            pass

    def spawn(_: Any, *args: Any) -> None:
        sentinel.pool.append(Process(args[2]))

    sentinel.spawn_process = spawn
    sentinel.spawn_worker()
    sentinel.spawn_worker()
    first, second = sentinel.pool
    first.timer.value, second.timer.value = 0, 40
    ended_at = board.ended_at
    sentinel.reincarnations = 0
    sentinel.reincarnate(first)
    assert len({process.timer.place for process in [first, *sentinel.pool]}) == 3
    assert first.timer.value == IDLE
    assert spawned == ["terminated"], "its time was over"
    assert board.ended_at == ended_at
    assert not board.is_full()


def test_a_cluster_in_which_nothing_moves_stands_still() -> None:
    assert not watching(Board(2)).cluster.board.ended_at
    assert watching(Board(2))._stands_still_for(STANDSTILL_SECONDS - 1) == 0
    assert watching(Board(2))._stands_still_for(SOON) == SOON


def test_while_a_shift_holds_its_slot_work_flows() -> None:
    take_slot()
    command = watching(Board(2))
    assert command._stands_still_for(SOON) == 0
    assert command._moved_at == SOON


def test_while_tasks_are_being_finished_it_is_no_standstill() -> None:
    board = Board(2)
    timer = board.timer(())
    timer.value = 40
    timer.value = IDLE
    assert watching(board)._stands_still_for(board.ended_at + STANDSTILL_SECONDS - 1) == 0
    assert watching(board)._stands_still_for(board.ended_at + SOON) == pytest.approx(SOON)


def test_tasks_that_take_every_place_are_waited_for_but_not_for_ever() -> None:
    board = Board(2)
    first = board.timer(())
    first.value = 600
    assert watching(board)._stands_still_for(SOON) == SOON, "there is a place for the canary"
    board.timer({first.place}).value = 600
    assert watching(board)._stands_still_for(SOON) == 0
    assert watching(board)._stands_still_for(BUSY_SECONDS + 1) == BUSY_SECONDS + 1


def test_a_restart_is_written_down_and_begins_a_new_count(monkeypatch: pytest.MonkeyPatch) -> None:
    command = watching(Board(2))
    monkeypatch.setattr(command.cluster, "kill", lambda: None)
    monkeypatch.setattr(command.cluster, "start", lambda: None)
    command._restart("It stood still.")
    assert command._moved_at > 0
    assert LogEntry.objects.get(kind="healed").text.startswith("It stood still.")
