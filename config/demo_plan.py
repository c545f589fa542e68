"""What ``make demo`` runs on: model endpoint, database, ports and secrets. Nothing is started here."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CLAUDE_URL = "https://api.anthropic.com"
TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


class DemoProblem(Exception):
    """The demo cannot start. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the agents' questions go."""

    url: str
    key: str
    description: str
    is_simulated: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What this demo runs on, decided before anything is touched."""

    web_port: int
    simulator_port: int
    endpoint: Endpoint
    database_url: str
    own_database: Path | None
    """The demo's own SQLite file; None where DATABASE_URL names another database."""
    is_reset: bool
    mailbox: Path
    """Where the demo's mails are written to."""
    given: Mapping[str, str] = field(repr=False)

    def environment(self, kept: Mapping[str, str]) -> dict[str, str]:
        """The environment of every process of the demo. What is named here wins over an ``.env`` file."""
        demo = {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONUNBUFFERED": "1",
            "DATABASE_URL": self.database_url,
            "ANTHROPIC_BASE_URL": self.endpoint.url,
            "ANTHROPIC_API_KEY": self.endpoint.key,
            "KONTOR_SIMULATED": "1" if self.endpoint.is_simulated else "0",
            "KONTOR_BASE_URL": f"http://127.0.0.1:{self.web_port}",
            "DEBUG": "0",
            # Django says so of every static file: whitenoise reads files synchronously, which is quick enough.
            "PYTHONWARNINGS": "ignore:StreamingHttpResponse must consume synchronous iterators",
            # The demo is plain HTTP on this machine, whatever the .env of an installation says.
            "SECURE_COOKIES": "0",
            "BEHIND_TLS_PROXY": "0",
            "REDIS_URL": "",
            # Nothing that is approved in a demo reaches anybody: mails are written to files, which a page shows.
            "EMAIL_URL": "",
            "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "EMAIL_FILE_PATH": str(self.mailbox),
            **kept,
        }
        if self.endpoint.is_simulated:
            # The sample companies do not exist; and no proxy may stand before the simulator.
            demo["KONTOR_TOOLS_NETWORK"] = "0"
            demo["NO_PROXY"] = demo["no_proxy"] = _without_proxy(self.given)
        # Whom an installation's .env alarms and reports to is not told of the demo.
        silent = dict.fromkeys(("KONTOR_SLACK_WEBHOOK_URL", "KONTOR_PING_URL", TRACES), "")
        return {"LOG_LEVEL": "WARNING", "LOG_FORMAT": "text", **silent, **self.given, **demo}


def read_plan(given: Mapping[str, str], var: Path) -> Plan:
    """What the environment asks for; DemoProblem where it contradicts itself."""
    web, simulator = _port(given, "WEB_PORT", 8000), _port(given, "SIMULATOR_PORT", 8901)
    if web == simulator:
        raise DemoProblem(f"WEB_PORT and SIMULATOR_PORT are both {web}. Give them different numbers.")
    endpoint = _endpoint(given, simulator)
    # Simulated and real answers do not mix: each has a database of its own.
    own = var / ("demo.sqlite3" if endpoint.is_simulated else "demo-live.sqlite3")
    other = given.get("DATABASE_URL", "")
    is_reset = given.get("RESET", "") not in ("", "0")
    if other and is_reset:
        raise DemoProblem(
            "RESET=1 deletes only the demo's own files, and DATABASE_URL names another database. "
            "Unset DATABASE_URL, or empty that database yourself."
        )
    return Plan(
        web_port=web,
        simulator_port=simulator,
        endpoint=endpoint,
        database_url=other or f"sqlite:///{own}",
        own_database=None if other else own,
        is_reset=is_reset,
        mailbox=var / "mailbox" / own.stem,
        given=given,
    )


def _endpoint(given: Mapping[str, str], simulator_port: int) -> Endpoint:
    url, key = given.get("ANTHROPIC_BASE_URL", "").rstrip("/"), given.get("ANTHROPIC_API_KEY", "")
    if url and url != CLAUDE_URL:
        # A server on one's own machine often wants no key, but the SDK always sends one.
        return Endpoint(url, key or "none", f"the server at {url} (ANTHROPIC_BASE_URL is set)")
    if key:
        return Endpoint(CLAUDE_URL, key, "Claude, paid with your key (ANTHROPIC_API_KEY is set)")
    if url:
        raise DemoProblem(f"ANTHROPIC_BASE_URL is {url}, which wants a key. Set ANTHROPIC_API_KEY, or unset both.")
    return Endpoint(
        f"http://127.0.0.1:{simulator_port}",
        "simulator",
        "the simulator (no key needed, answers are invented)",
        True,
    )


def _port(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, "") or str(default)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65_536):
        raise DemoProblem(f"{name} is {text!r}. It must be a number from 1 to 65535.")
    return int(text)


def _without_proxy(given: Mapping[str, str]) -> str:
    before = given.get("no_proxy") or given.get("NO_PROXY") or ""
    return ",".join(filter(None, [before, "127.0.0.1", "localhost"]))


def require_free_ports(plan: Plan) -> None:
    """Refuse to start where something else listens already, and say which variable to change."""
    wanted = [("WEB_PORT", plan.web_port, "the web server")]
    if plan.endpoint.is_simulated:
        wanted.append(("SIMULATOR_PORT", plan.simulator_port, "the simulator"))
    for name, port, what in wanted:
        if not _is_free(port):
            instead = next((p for p in range(port + 10, 65_536, 10) if _is_free(p)), port + 10)
            raise DemoProblem(
                f"Port {port}, which {what} needs, is in use. Stop the program that uses it, "
                f"or take another port: make demo {name}={instead}"
            )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do it: a connection that has just been closed does not block a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def keep_secrets(path: Path) -> dict[str, str]:
    """The demo's secrets, made at random once and kept in a file that only its owner may read."""
    kept: dict[str, str] = {}
    if path.exists():
        lines = path.read_text().splitlines()
        kept = {name: value for name, _, value in (line.partition("=") for line in lines) if value}
    new = {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "KONTOR_WEBHOOK_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
        "DEMO_PASSWORD": "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3)),
    }
    if not new.keys() <= kept.keys():
        kept = {**new, **kept}
        # Written aside and moved, so that a half-written file is never read.
        aside = path.with_suffix(".new")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.writelines(f"{name}={value}\n" for name, value in kept.items())
        aside.replace(path)
    return kept


def marker_of(database: Path) -> str:
    """How ``runs.marker`` names an SQLite file. What is left of it would call a new database a restored backup, and
    hold its sends."""
    return hashlib.sha256(f"django.db.backends.sqlite3|||{database}".encode()).hexdigest()[:12]


def start_over(plan: Plan, var: Path) -> None:
    """Delete the demo's own files: its database, how far that had come, its mails and its secrets."""
    if plan.own_database is None:
        return
    database = plan.own_database
    marker = var / f"newest-{marker_of(database)}.json"
    for path in (database, Path(f"{database}-wal"), Path(f"{database}-shm"), marker, var / "demo.env"):
        path.unlink(missing_ok=True)
    shutil.rmtree(plan.mailbox, ignore_errors=True)
