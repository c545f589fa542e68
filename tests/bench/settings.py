"""The product's own settings, with the benchmark's kind of department installed."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS, LOGGING

INSTALLED_APPS = [*INSTALLED_APPS, "tests.bench.apps.BenchConfig"]
LOGGING["root"]["level"] = "WARNING"  # type: ignore[index]
