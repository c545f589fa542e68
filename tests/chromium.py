"""The machine's Chromium, for the tests and for the pictures; without Django, which ``make shot`` does not set up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def chromium_path() -> str:
    """Chromium as the machine has it, empty if it has none."""
    candidates = (os.environ.get("CHROMIUM", ""), "/usr/bin/chromium")
    found = [path for path in candidates if path and Path(path).exists()]
    return found[0] if found else shutil.which("chromium") or shutil.which("chromium-browser") or ""
