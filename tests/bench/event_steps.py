"""What the measurement of the live stream does inside its database: ``python -m tests.bench.event_steps VERB``."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from agents.models import Department  # noqa: E402
from runs.models import Item, LogEntry  # noqa: E402


def prepare() -> dict[str, Any]:
    """A department with one item, and the session of somebody who may see it."""
    call_command("migrate", verbosity=0)
    call_command("sync_departments", stdout=io.StringIO())
    Item.objects.create(department=Department.objects.get(kind="bench"), title="A bench in the park")
    client = Client()
    client.force_login(User.objects.create_superuser("looker"))
    return {"cookie": client.cookies["sessionid"].value}


def write(lines: str, per_second: str) -> dict[str, Any]:
    """So many lines, each in a transaction of its own; when each transaction began, seconds since 1970, by id."""
    item, written, began = Item.objects.get(), {}, time.monotonic()
    for number in range(int(lines)):
        time.sleep(max(0.0, began + number / float(per_second) - time.monotonic()))
        at = time.time()
        entry = LogEntry.objects.create(
            item=item, department=item.department, kind="decision", text=f"Line {number}.", at=timezone.now()
        )
        written[entry.pk] = at
    return {"written": written}


if __name__ == "__main__":
    print(json.dumps({"prepare": prepare, "write": write}[sys.argv[1]](*sys.argv[2:])))
