"""The product's own settings, with the small kind of department of the benchmark and the harness's own app."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS, LOGGING

INSTALLED_APPS = [*INSTALLED_APPS, "tests.bench.apps.BenchConfig", "tests.faults.apps.FaultsConfig"]
LOGGING["root"]["level"] = "WARNING"
