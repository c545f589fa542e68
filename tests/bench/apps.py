import os

from django.apps import AppConfig

from agents.spec import register

WITHOUT = "BENCH_WITHOUT"
"""The variable that names what a measurement leaves out of the engine, divided by commas: heartbeats, log."""


class BenchConfig(AppConfig):
    name = "tests.bench"
    label = "bench"

    def ready(self) -> None:
        """Declare the kind of department that the benchmark measures; its callables need the app registry."""
        from runs import leases, log
        from tests.bench.kind import BENCH

        register(BENCH)
        left_out = os.environ.get(WITHOUT, "").split(",")
        if "heartbeats" in left_out:
            leases.heartbeat = lambda tokens: None
        if "log" in left_out:
            log.write = lambda entries: None
