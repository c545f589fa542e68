from __future__ import annotations

import os
from pathlib import Path

from django.apps import AppConfig

FOLDER = "KONTOR_FAULTS"
"""The variable that names the folder of a worker's traps. Without it the product runs as it is."""


class FaultsConfig(AppConfig):
    name = "tests.faults"
    label = "faults"

    def ready(self) -> None:
        """Set the traps in the processes that are to fall into them."""
        # Imported here because the engine's functions, which are wrapped, need the app registry.
        from tests.faults.points import install

        if folder := os.environ.get(FOLDER):
            install(Path(folder))
