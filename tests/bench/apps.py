from django.apps import AppConfig

from agents.spec import register


class BenchConfig(AppConfig):
    name = "tests.bench"
    label = "bench"

    def ready(self) -> None:
        """Declare the kind of department that the benchmark measures; its callables need the app registry."""
        from tests.bench.kind import BENCH

        register(BENCH)
