"""Backup and restore as the README says them, on both databases: the older database is noticed and made safe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 120
pytestmark = pytest.mark.database
START = """
import os, sys
from pathlib import Path
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django
from django.conf import settings
settings.VAR_DIR = Path(sys.argv[1])
django.setup()
from django.utils import timezone
from agents.models import Department
from runs import restore
from runs.models import LogEntry
"""
BEFORE = """
LogEntry.objects.create(kind="decision", text="Before the backup.", at=timezone.now())
restore.keep_marker()
"""
AFTER = """
for number in range(3):
    LogEntry.objects.create(kind="decision", text="After the backup.", at=timezone.now())
Department.objects.update(name="Renamed after the backup")
assert restore.keep_marker() is None
"""
LOOK = """
import json
restored = restore.keep_marker()
print(json.dumps({
    "noticed": restored is not None,
    "lines": LogEntry.objects.filter(text="After the backup.").count(),
    "kept": LogEntry.objects.filter(text="Before the backup.").count(),
    "states": sorted(Department.objects.values_list("state", flat=True)),
    "again": restore.keep_marker() is not None,
}))
"""


class Installation:
    """An installation of its own on a scratch database."""

    def __init__(self, url: str, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "DATABASE_URL": url, "DEBUG": "0", "LOG_LEVEL": "ERROR"}
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)

    def manage(self, *arguments: str) -> str:
        return self._run(["manage.py", *arguments])

    def do(self, code: str) -> str:
        return self._run(["-c", START + code, str(self.directory)])

    def _run(self, arguments: list[str]) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_SECONDS,
            check=True,
        ).stdout

    def prepare(self) -> None:
        """A department and a line of the log; the marker knows it."""
        self.manage("migrate", "--verbosity=0")
        self.manage("sync_departments", "--json")
        self.do(BEFORE)

    def expect_restored(self) -> None:
        """What came after the backup is gone, the restore was noticed once, and nothing may be sent."""
        found: dict[str, Any] = json.loads(self.do(LOOK))
        assert found == {"noticed": True, "lines": 0, "kept": 1, "states": ["holding_sends"], "again": False}


def call(*command: str, **options: Any) -> None:
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS, capture_output=True, **options)


@pytest.mark.skipif(not settings.IS_SQLITE, reason="runs with the tests on SQLite")
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3")
@pytest.mark.parametrize("statement", [".backup '{backup}'", "VACUUM INTO '{backup}'"])
def test_a_backup_of_sqlite_is_restored_and_noticed(tmp_path: Path, statement: str) -> None:
    database, backup = tmp_path / "kontor.sqlite3", tmp_path / "backup.sqlite3"
    installation = Installation(f"sqlite:///{database}", tmp_path)
    installation.prepare()
    call("sqlite3", str(database), statement.format(backup=backup))
    installation.do(AFTER)
    for rest in ("-wal", "-shm"):
        Path(f"{database}{rest}").unlink(missing_ok=True)
    shutil.copy(backup, database)
    installation.expect_restored()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A database of its own on the server of the tests."""
    found = settings.DATABASES["default"]
    server = f"postgres://{found['USER']}:{found['PASSWORD']}@{found['HOST']}:{found['PORT'] or 5432}"
    name = f"backup_{uuid4().hex[:12]}"
    recreate(server, name, drop=False)
    yield f"{server}/{name}"
    recreate(server, name, create=False)


def recreate(server: str, name: str, *, drop: bool = True, create: bool = True) -> None:
    """What dropdb and createdb do."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        if drop:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        if create:
            connection.execute(f'CREATE DATABASE "{name}"')


@pytest.mark.skipif(settings.IS_SQLITE, reason="runs with the tests on PostgreSQL")
@pytest.mark.skipif(shutil.which("pg_dump") is None, reason="there is no pg_dump")
def test_a_backup_of_postgresql_is_restored_and_noticed(tmp_path: Path, postgres_url: str) -> None:
    dump = str(tmp_path / "kontor.dump")
    installation = Installation(postgres_url, tmp_path)
    installation.prepare()
    call("pg_dump", "--format=custom", f"--file={dump}", postgres_url)
    installation.do(AFTER)
    parts = urlsplit(postgres_url)
    recreate(f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/"))
    call("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={postgres_url}", dump)
    installation.expect_restored()
