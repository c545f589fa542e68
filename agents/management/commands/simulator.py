"""``manage.py simulator``: a local server that speaks the Messages API."""

from __future__ import annotations

import errno
import gc
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agents.simulator.engine import Engine
from agents.simulator.faults import Script
from agents.simulator.ledger import Ledger
from agents.simulator.server import Server, new_event_loop, serve_until_signalled
from agents.simulator.service import Simulator


class Command(BaseCommand):
    """Serves until SIGTERM or SIGINT, then exits with 0."""

    help = "Serve the Messages API locally, with simulated answers: no key, no costs, scriptable faults."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: %(default)s).")
        parser.add_argument("--port", type=int, default=8787, help="Port, 0 for a free one (default: 8787).")
        parser.add_argument(
            "--latency-ms", type=int, default=None, help="How long every answer takes (default: by model)."
        )
        parser.add_argument("--seed", type=int, default=0, help="Seed of answers and latencies (default: 0).")
        parser.add_argument("--faults", type=Path, default=None, help="JSON file with a fault script.")
        parser.add_argument(
            "--no-record", action="store_true", help="Do not keep the last raw requests (for benchmarks)."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        simulator = Simulator(
            engine=Engine(seed=options["seed"], latency_ms=options["latency_ms"]),
            ledger=Ledger(record=not options["no_record"]),
            script=_read_script(options["faults"]),
        )
        loop = new_event_loop()
        try:
            loop.run_until_complete(self._serve(simulator, options["host"], options["port"]))
        finally:
            loop.close()

    async def _serve(self, simulator: Simulator, host: str, port: int) -> None:
        server = Server(simulator)
        try:
            port = await server.start(host, port)
        except OSError as error:
            raise CommandError(_why_not(error, host, port)) from None
        self.stdout.write(f"Simulator of the Messages API on http://{host}:{port} (answers are simulated).")
        self.stdout.flush()
        # What was loaded so far lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        await serve_until_signalled(server)


def _read_script(path: Path | None) -> Script:
    if path is None:
        return Script()
    try:
        return Script(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CommandError(f"The fault script {path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise CommandError(f"The fault script {path} is not valid: {error}") from None


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop what runs there or choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs rights this user does not have: choose one above 1023 with --port."
    return f"The simulator cannot listen on {host}:{port}: {error.strerror or error}."
