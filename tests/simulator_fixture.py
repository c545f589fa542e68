"""A simulator for tests: the real server on a free loopback port, in a thread of the test process.

In a thread, so that a test's own answer books count and a start takes milliseconds. It listens on a real
socket: worker processes that a test starts reach it by ``base_url`` as well.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from agents.simulator.engine import Engine
from agents.simulator.faults import Script
from agents.simulator.server import Server, new_event_loop
from agents.simulator.service import Simulator

_T = TypeVar("_T")
_PATIENCE_SECONDS = 10


class SimulatorServer:
    """``with SimulatorServer() as simulator``: answers at once unless ``latency_ms`` says otherwise.

    ``latency_ms=None`` takes as long as the models do.
    """

    def __init__(self, *, latency_ms: int | None = 0, seed: int = 0, port: int = 0) -> None:
        self.simulator = Simulator(engine=Engine(seed=seed, latency_ms=latency_ms))
        self.port = port
        self._server = Server(self.simulator)
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)

    @property
    def base_url(self) -> str:
        """What the SDK is given: without ``/v1``."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen; OSError where the port is taken."""
        self._thread.start()
        listening = self._server.start("127.0.0.1", self.port)
        try:
            self.port = asyncio.run_coroutine_threadsafe(listening, self._loop).result(_PATIENCE_SECONDS)
        except OSError:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Break off all connections and end the thread."""
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(_PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def faults(self, rules: list[dict[str, Any]]) -> None:
        """Replace the fault script, ``[]`` ends all faults; ValueError where a rule is not understood."""
        script = Script(rules)

        def replace() -> None:
            self.simulator.script = script

        self._in_loop(replace)

    def faults_fired(self) -> list[int]:
        """How often each rule of the script has fired, in order."""
        return [rule["fired"] for rule in self._in_loop(lambda: self.simulator.script.as_json())]

    def set_latency(self, latency_ms: int | None) -> None:
        """How long answers take from now on."""

        def replace() -> None:
            self.simulator.engine.latency_ms = latency_ms

        self._in_loop(replace)

    def stats(self) -> dict[str, Any]:
        """The totals since the start or the last reset."""
        return self._in_loop(self.simulator.ledger.as_json)

    def calls(self) -> list[dict[str, Any]]:
        """One record a finished request for a message, oldest first."""
        return list(self._in_loop(lambda: self.simulator.ledger.as_json(calls=True))["calls"])

    def requests(self, last: int | None = None) -> list[dict[str, Any]]:
        """The last raw requests, oldest first: ``{"method", "path", "headers", "body"}``."""
        kept = self._in_loop(lambda: [entry.as_json() for entry in self.simulator.ledger.recorded])
        return kept[-last:] if last else kept

    def reset(self) -> None:
        """Forget books, fault script and prompt cache."""
        self._in_loop(self.simulator.reset)

    def _in_loop(self, function: Callable[[], _T]) -> _T:
        # All state belongs to the loop's thread.
        outcome: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def run() -> None:
            try:
                outcome.set_result(function())
            except Exception as error:
                outcome.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return outcome.result(_PATIENCE_SECONDS)
