"""Scratch databases: a template with departments, agents, SOULs, rules and prices, and a copy of it for each case."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from psycopg import sql

from agents.models import Agent, Budget, Department
from leads.department import SALES
from runs.syncing import sync_department
from tests.engine_size import ROOT

POSTGRES = "postgres://postgres@127.0.0.1:5432"
POSTGRES_BIN = "KONTOR_FAULTS_POSTGRES_BIN"
OTHER_KEY = "OTHER_API_KEY"
LIMIT_USD = 10_000


class Databases:
    """The databases of one run on ``sqlite`` or ``postgres``; every case has a fresh one."""

    def __init__(self, vendor: str, folder: Path, server: str = POSTGRES) -> None:
        self.vendor, self.folder, self.server = vendor, folder, server
        self._count = 0
        self._template = self._name("template")

    def url(self, name: str) -> str:
        """What ``DATABASE_URL`` says for it."""
        return f"sqlite:///{name}" if self.vendor == "sqlite" else f"{self.server}/{name}"

    def prepare(self) -> None:
        """Make the template."""
        self._create(self._template)
        point_at(self._template, self.url(self._template))
        call_command("migrate", verbosity=0)
        call_command("sync_departments", stdout=io.StringIO())
        sync_department(SALES, slug="other", name="Other")
        Department.objects.filter(slug="other").update(api_key_env=OTHER_KEY)
        # Nothing but the harness starts work.
        Department.objects.update(schedule="")
        for department in Department.objects.all():
            Budget.objects.create(department=department, period=Budget.Period.DAY, limit_usd=LIMIT_USD)
            agent = Agent.objects.filter(department=department).earliest("pk")
            Budget.objects.create(department=department, agent=agent, period=Budget.Period.MONTH, limit_tokens=10**12)
        connection.close()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A copy of the template, to which this process's connections point; its URL."""
        self._count += 1
        name = self._name(str(self._count))
        if self.vendor == "sqlite":
            shutil.copy(self._template, name)
        else:
            self._create(name, self._template)
        point_at(name, self.url(name))
        try:
            yield self.url(name)
        finally:
            connections.close_all()
            self._drop(name)

    def clean(self) -> None:
        """Drop the template."""
        connections.close_all()
        self._drop(self._template)

    def _name(self, what: str) -> str:
        name = f"kontor_faults_{os.getpid()}_{what}"
        return str(self.folder / f"{name}.sqlite3") if self.vendor == "sqlite" else name

    def _create(self, name: str, template: str = "template1") -> None:
        if self.vendor == "postgres":
            order = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            with psycopg.connect(f"{self.server}/postgres", autocommit=True) as admin:
                admin.execute(order.format(sql.Identifier(name), sql.Identifier(template)))

    def _drop(self, name: str) -> None:
        if self.vendor == "sqlite":
            for suffix in ("", "-wal", "-shm"):
                Path(name + suffix).unlink(missing_ok=True)
            return
        with psycopg.connect(f"{self.server}/postgres", autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def point_at(name: str, url: str) -> None:
    """Have this process work in another database from now on, whichever thread asks."""
    connections.close_all()
    found = settings.DATABASES["default"]
    wanted = psycopg.conninfo.conninfo_to_dict(url) if url.startswith("postgres") else {}
    changes = {"NAME": name, "HOST": wanted.get("host", ""), "PORT": str(wanted.get("port", ""))}
    for known in (found, connections.settings["default"]):
        known.update(changes)
    connection.settings_dict.update(changes)


class PrivateServer:
    """A PostgreSQL server of our own on a free port, which may be restarted while others are not disturbed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.data, self.port = folder / "data", port
        self.url = f"postgres://postgres@127.0.0.1:{port}"
        self._bin = find_postgres_bin()

    @staticmethod
    def is_possible() -> bool:
        """Whether the server's programs are on this machine, and a user who may run them."""
        return bool(find_postgres_bin())

    def start(self) -> None:
        """Make the cluster and start it."""
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync")
        self._control("start")

    def restart(self) -> None:
        """What an administrator does: connections are cut, transactions under way are rolled back."""
        self._control("restart", "-m", "fast")

    def stop(self) -> None:
        """Stop the server."""
        self._control("stop", "-m", "immediate")

    def _control(self, verb: str, *more: str) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=100"
        log = str(self.data / "server.log")
        self._run("pg_ctl", "-D", str(self.data), "-l", log, "-o", options, "-w", *more, verb)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(Path(self._bin) / program), *arguments]
        if os.geteuid() == 0:
            # The server refuses to run as root.
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.data.parent)


def find_postgres_bin() -> str:
    """The folder of ``initdb``; empty if there is none. A variable names it where it is not found by itself."""
    if named := os.environ.get(POSTGRES_BIN):
        return named
    if found := shutil.which("initdb"):
        return str(Path(found).parent)
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if sys.platform == "linux" else []
    return str(places[-1].parent) if places else ""


@contextmanager
def private_server(port: int) -> Iterator[PrivateServer]:
    """A server that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kontor-postgres-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = PrivateServer(Path(folder), port)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def manage(url: str, *arguments: str) -> None:
    """Run ``manage.py`` on a database."""
    env = {**os.environ, "DATABASE_URL": url}
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
