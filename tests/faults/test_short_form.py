"""The fault harness in its short form, on the database that the tests run on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings

from tests.engine_size import ROOT

LIMIT_SECONDS = 600
# Longer than other tests may take.
pytestmark = [pytest.mark.faults, pytest.mark.database, pytest.mark.timeout(LIMIT_SECONDS + 60)]


def test_nothing_is_lost_nothing_twice_and_no_status_false() -> None:
    database = "sqlite" if settings.IS_SQLITE else "postgres"
    command = [sys.executable, "-m", "tests.faults", "--short", "--core", "--database", database]
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if not settings.IS_SQLITE:
        found = settings.DATABASES["default"]
        password = f":{found['PASSWORD']}" if found["PASSWORD"] else ""
        server = f"postgres://{found['USER']}{password}@{found['HOST'] or '127.0.0.1'}:{found['PORT'] or 5432}"
        env["KONTOR_FAULTS_POSTGRES"] = server
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-3_000:]
    assert "SIGKILL inside commit" in done.stdout
