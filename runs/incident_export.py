"""An incident, or one run, as a zip file: what happened, with everything somebody needs who was not there, no secrets.

Made while it is sent: a bounded number of rows at a time is in memory. What the bounds cut off is said in README.txt.
"""

from __future__ import annotations

import json
import platform
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Q, QuerySet
from django.forms.models import model_to_dict

from agents.models import Agent, Department, ModelState, Soul
from runs.database import now as database_now
from runs.models import (
    Action,
    AgentRun,
    Alert,
    AlertDelivery,
    LogEntry,
    ModelCall,
    ModelCallBody,
    PipelineRun,
    Review,
    Rule,
    ShiftSlot,
    ToolCall,
)
from runs.secrets import Redactor, known_secrets

KINDS = (Review.Kind.INCIDENT, Review.Kind.FAILURE, Review.Kind.REFUSAL)
"""Questions whose failed runs can be exported."""
MAX_RUNS = 500
MAX_CALLS = 2_000
MAX_LOG = 10_000
MAX_ALERTS = 100
MAX_BODY_CHARS = 200_000
MAX_BODIES_CHARS = 20_000_000
CHUNK = 100
_PACKAGES = ("Django", "anthropic", "django-q2", "psycopg", "pydantic", "uvicorn")
_SETTINGS = (
    *("VERSION", "DEBUG", "TIME_ZONE", "SIMULATED", "ANTHROPIC_BASE_URL", "BASE_URL", "SHIFTS", "SHIFT_CONCURRENCY"),
    *("LEASE_SECONDS", "SEND_LEASE_SECONDS", "REVIEW_NOTIFY_MINUTES", "REVIEW_FELL_THROUGH_DAYS", "Q_CLUSTER"),
)
_README = """\
Export of {name} of {department}, made {at} UTC by {who}.

{about}

{first}
runs.json       the agent runs concerned, with their items' titles
calls.json      every request to the model API of these runs: request, response, tokens, cost, timing
tools.json      the tools that were used in them
log.json        the log of the items concerned, the oldest line first
alerts.json     the alerts of {alerts} that were open since it began, and whom they reached
actions.json    what people did to the items concerned
settings.json   department, agents, SOULs, rules and settings as they are now; models and shifts
versions.json   of Kontor, Python, packages, database and migrations

Secrets (keys, passwords, tokens, the data of sessions) were taken out; where one stood it says [secret].
The files do contain personal data of the items. Times are UTC, amounts US dollars.

{cuts}
"""


@dataclass(slots=True)
class _Export:
    """What one export knows while it is made. ``cuts``: a sentence for everything that was cut off."""

    subject: Review | PipelineRun
    name: str
    about: str
    first: str
    """What the first file is, for README.txt. The file's name is its first word."""
    department: Department
    since: datetime
    runs: QuerySet[AgentRun]
    who: str
    at: datetime
    redactor: Redactor
    sees_system: bool
    """Whether alerts of the whole installation are for whoever takes it."""
    run_ids: list[int] = field(default_factory=list)
    item_ids: list[int] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)


class _Pipe:
    """What a zip file is written to: it keeps what was written until somebody takes it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def export_incident(*, review: Review, user: User | None, sees_system: bool) -> Iterator[bytes]:
    """The zip file in pieces. That somebody took it is written down first; ``user`` None: from the command line.

    ``sees_system``: with the alerts of the whole installation.

    ValueError for a question that is not about failed runs.
    """
    if review.kind not in KINDS:
        raise ValueError("Only questions about failed runs can be exported.")
    Action.objects.create(
        department_id=review.department_id, user=user, verb="export_incident", target=f"review:{review.pk}"
    )
    export = _Export(
        subject=review,
        name=f"incident {review.pk}",
        about=review.ask,
        first="incident.json   the question, and how it was answered",
        department=review.department,
        since=review.created_at,
        runs=AgentRun.objects.filter(incident=review),
        who=_name(user),
        at=database_now(),
        redactor=Redactor(known_secrets()),
        sees_system=sees_system,
    )
    return _zip(export)


def export_run(*, run: PipelineRun, user: User | None, sees_system: bool) -> Iterator[bytes]:
    """The same of one pipeline run as it stands now, whatever has become of it."""
    department, name = run.item.department, f"run {run.pk}"
    Action.objects.create(department=department, item=run.item, user=user, verb="export_run", target=f"run:{run.pk}")
    export = _Export(
        subject=run,
        name=name,
        about=f"{run.item.title}: {run.get_status_display()}. {run.missing}".strip(),
        first="run.json        the run as a whole: what woke it, and what has become of it",
        department=department,
        since=run.started_at,
        runs=run.agent_runs.all(),
        who=_name(user),
        at=database_now(),
        redactor=Redactor(known_secrets()),
        sees_system=sees_system,
        item_ids=[run.item_id],
    )
    return _zip(export)


def _name(user: User | None) -> str:
    return user.get_username() if user else "the command line"


def file_name(row: Review | PipelineRun) -> str:
    """What the file is called."""
    return f"{'incident' if isinstance(row, Review) else 'run'}-{row.pk}.zip"


def _zip(export: _Export) -> Iterator[bytes]:
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        for name, rows in _files(export):
            with archive.open(name, "w") as file:
                for text in _json(rows, export.redactor):
                    file.write(text.encode())
                    yield pipe.take()
        # Last, because only now is known what was cut off.
        archive.writestr("README.txt", _readme(export))
    yield pipe.take()


def _readme(export: _Export) -> str:
    cuts = "\n".join(f"CUT OFF: {cut}" for cut in export.cuts) or "Nothing was cut off."
    text = _README.format(
        name=export.name,
        department=export.department,
        at=f"{export.at:%Y-%m-%d %H:%M:%S}",
        who=export.who,
        about=export.about,
        first=export.first,
        alerts="the department and the installation" if export.sees_system else "the department",
        cuts=cuts,
    )
    return export.redactor.text(text)


def _files(export: _Export) -> Iterator[tuple[str, Iterable[Any]]]:
    yield export.first.split()[0], [_row(export.subject)]
    yield "runs.json", _runs(export)
    yield "calls.json", _calls(export)
    yield "tools.json", _tools(export)
    yield "log.json", _log(export)
    yield "alerts.json", _alerts(export)
    yield "actions.json", _actions(export)
    yield "settings.json", [_settings(export)]
    yield "versions.json", [_versions()]


def _json(rows: Iterable[Any], redactor: Redactor) -> Iterator[str]:
    """A JSON array, a row at a time."""
    lead = "[\n"
    for row in rows:
        # As JSON knows it, so that the redactor sees every text there is.
        plain = json.loads(json.dumps(row, default=str))
        yield lead + json.dumps(redactor.value(plain), ensure_ascii=False, indent=1)
        lead = ",\n"
    yield "[]\n" if lead == "[\n" else "\n]\n"


def _row(row: Any, *leave_out: str) -> dict[str, Any]:
    """The columns of a row, the ones that cannot be edited included."""
    columns = (column for column in row._meta.concrete_fields if column.name not in leave_out)
    return {column.attname: getattr(row, column.attname) for column in columns}


def _runs(export: _Export) -> Iterator[dict[str, Any]]:
    runs = export.runs.select_related("agent", "item").order_by("pk")
    found = list(runs[: MAX_RUNS + 1])
    if len(found) > MAX_RUNS:
        export.cuts.append(f"only the first {MAX_RUNS:,} of the agent runs, and what belongs to them.")
    for run in found[:MAX_RUNS]:
        export.run_ids.append(run.pk)
        export.item_ids.append(run.item_id)
        yield {**_row(run, "lease_token"), "agent": run.agent.slug, "item": run.item.title}


def _calls(export: _Export) -> Iterator[dict[str, Any]]:
    calls = ModelCall.objects.filter(agent_run__in=export.run_ids)
    room = MAX_BODIES_CHARS
    without = 0
    for call in _bounded(export, calls, MAX_CALLS, "model calls"):
        bodies = ModelCallBody.objects.filter(call=call.pk).first()
        texts = [json.dumps(value, ensure_ascii=False) for value in (bodies.request, bodies.response)] if bodies else []
        fits = (
            bodies is not None and all(len(text) <= MAX_BODY_CHARS for text in texts) and sum(map(len, texts)) <= room
        )
        if fits and bodies is not None:
            room -= sum(map(len, texts))
            yield {**_row(call), "request": bodies.request, "response": bodies.response}
        else:
            without += bodies is not None
            note = "left out: too long" if bodies is not None else "no longer kept"
            yield {**_row(call), "request": note, "response": note}
    if without:
        export.cuts.append(f"request and response of {without:,} calls, which are too long.")


def _tools(export: _Export) -> Iterator[dict[str, Any]]:
    for tool in _bounded(export, ToolCall.objects.filter(agent_run__in=export.run_ids), MAX_CALLS, "tool calls"):
        yield _row(tool)


def _log(export: _Export) -> Iterator[dict[str, Any]]:
    lines = LogEntry.objects.filter(item__in=export.item_ids)
    for line in _bounded(export, lines, MAX_LOG, "lines of the log"):
        yield _row(line)


def _actions(export: _Export) -> Iterator[dict[str, Any]]:
    rows = Action.objects.filter(item__in=export.item_ids).select_related("user")
    for action in _bounded(export, rows, MAX_CALLS, "actions"):
        yield {**_row(action), "user": action.user.get_username() if action.user else None}


def _alerts(export: _Export) -> Iterator[dict[str, Any]]:
    whose = Q(department=export.department) | (Q(department=None) if export.sees_system else Q())
    was_open = Q(state=Alert.State.OPEN) | Q(closed_at__gte=export.since) | Q(last_at__gte=export.since)
    for alert in _bounded(export, Alert.objects.filter(whose, was_open), MAX_ALERTS, "alerts"):
        deliveries = AlertDelivery.objects.filter(alert=alert).order_by("pk")[:MAX_ALERTS]
        yield {**_row(alert), "deliveries": [_row(delivery, "lease_token") for delivery in deliveries]}


def _bounded(export: _Export, rows: QuerySet[Any], most: int, what: str) -> Iterator[Any]:
    """So many rows at the most, in the order of their ids, a hundred at a time; says so if there are more."""
    last, left = 0, most
    while True:
        chunk = list(rows.filter(pk__gt=last).order_by("pk")[: min(CHUNK, left + 1)])
        yield from chunk[:left]
        if len(chunk) > left:
            export.cuts.append(f"only the first {most:,} {what}.")
            return
        if len(chunk) < CHUNK:
            return
        last, left = chunk[-1].pk, left - len(chunk)


def _settings(export: _Export) -> dict[str, Any]:
    department = export.department
    agents = list(Agent.objects.filter(department=department).order_by("pk"))
    souls = Soul.objects.filter(agent__in=agents, status=Soul.Status.PUBLISHED).select_related("agent")
    return {
        "department": _row(department),
        "agents": [_row(agent) for agent in agents],
        "souls": [{**_row(soul), "agent": soul.agent.slug} for soul in souls],
        "rules": [model_to_dict(rule) for rule in Rule.objects.filter(department=department).order_by("position")],
        "models": [_row(state) for state in ModelState.objects.filter(api_key_env=department.api_key_env)],
        "shifts": [_row(slot, "token") for slot in ShiftSlot.objects.order_by("number")],
        "settings": {name: getattr(settings, name, None) for name in _SETTINGS},
    }


def _versions() -> dict[str, Any]:
    applied = MigrationRecorder(connection).applied_migrations()
    with connection.cursor() as cursor:
        cursor.execute("select sqlite_version()" if connection.vendor == "sqlite" else "select version()")
        database = cursor.fetchone()[0]
    return {
        "kontor": settings.VERSION,
        "python": sys.version,
        "platform": platform.platform(),
        "database": f"{connection.vendor} {database}",
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "migrations": sorted(".".join(name) for name in applied),
    }
