"""A real process that imports is killed, and the same command finishes its work."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection

from leads.models import ImportJob, Lead, StagedLead
from runs.models import Item, Trigger
from tests.factories import make_department

ROWS = 6_000
PATIENCE_SECONDS = 60


@pytest.mark.django_db(transaction=True)
def test_an_import_that_is_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    make_department()
    path = tmp_path / "many.csv"
    path.write_text("email,name\n" + "".join(f"p{n}@x.example,Person {n}\n" for n in range(ROWS)))
    process = subprocess.Popen(
        [sys.executable, "manage.py", "import_leads", str(path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "DATABASE_URL": _database_url()},
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for_leads(process, ROWS // 6)
    finally:
        process.kill()
        process.wait()
    stored = Lead.objects.count()
    assert 0 < stored < ROWS
    assert StagedLead.objects.count() == stored
    assert ImportJob.objects.get().status == "running"
    assert not Item.objects.exclude(route_due_at=None).exists()

    out = io.StringIO()
    call_command("import_leads", str(path), "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert report["continued"]
    assert (report["imported"], report["unchanged"]) == (ROWS - stored, stored)
    assert Lead.objects.count() == Trigger.objects.count() == ROWS
    assert Item.objects.exclude(route_due_at=None).count() == ROWS
    assert not StagedLead.objects.exists()
    assert ImportJob.objects.get().status == "done"


def _wait_for_leads(process: subprocess.Popen[bytes], count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Lead.objects.count() < count:
        assert time.monotonic() < deadline, "the import did not get going"
        assert process.poll() is None, "the import ended before it could be killed"
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)


def _database_url() -> str:
    """The test database, for another process."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    password = f":{settings['PASSWORD']}" if settings["PASSWORD"] else ""
    address = f"{settings['HOST'] or '127.0.0.1'}:{settings['PORT'] or 5432}"
    return f"postgres://{settings['USER']}{password}@{address}/{settings['NAME']}"
