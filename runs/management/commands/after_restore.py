from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from runs.marker import write_marker
from runs.restore import PAGE, after_restore


class Command(BaseCommand):
    """Makes a restored database safe to work on; to be run before a worker is started on it."""

    help = "After a backup was restored: hold sends, make unsent messages unsure, queue again what was running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--reason", default="manage.py after_restore", help="why, for the record")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        restored = after_restore(user=None, reason=options["reason"])
        write_marker()
        if restored is None:
            return
        if options["json"]:
            self.stdout.write(json.dumps(asdict(restored), default=str))
            return
        when = f"{restored.backup_at:%Y-%m-%d %H:%M:%S} UTC" if restored.backup_at else "an unknown time"
        self.stdout.write(f"The newest entry of the log is of {when}: what happened since is not in this database.")
        self.stdout.write(f"Sends are held in {len(restored.departments)} departments.")
        self.stdout.write(f"{restored.unsure} unsent messages are unsure; a person decides on each.")
        self.stdout.write(
            f"{restored.agent_runs} agent runs are queued again, {restored.calls} calls stand as estimates."
        )
        self.stdout.write(f"Now start web and worker, look at {PAGE} and release the departments there.")
