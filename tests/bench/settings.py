"""The product's own settings, with the benchmark's kind of department installed."""

import os
from pathlib import Path

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS, LOGGING, VAR_DIR

INSTALLED_APPS = [*INSTALLED_APPS, "tests.bench.apps.BenchConfig"]
LOGGING["root"]["level"] = "WARNING"  # type: ignore[index]
# What workers note beside their database goes with the scratch database.
VAR_DIR = Path(os.environ.get("BENCH_FOLDER", VAR_DIR))
