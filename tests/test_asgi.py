"""What the web process has ready before anybody asks for a page."""

from __future__ import annotations

import os
import subprocess
import sys

LOOK = """
import gc, sys
import config.asgi
print("leads.views_list" in sys.modules, gc.get_freeze_count() > 10 * len(gc.get_objects()))
"""


def test_views_are_loaded_and_the_collector_leaves_alone_what_stays() -> None:
    env = {**os.environ, "DATABASE_URL": "sqlite://:memory:", "DJANGO_SETTINGS_MODULE": "config.settings"}
    command = [sys.executable, "-W", "ignore", "-c", LOOK]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
