"""From the registry to rows: missing departments, agents and SOULs are created, nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction
from pydantic import ValidationError as SchemaError

from agents.models import Agent, Department, Soul
from agents.models.agent import SECTIONS
from agents.souls import create_draft, publish, read_soul
from agents.spec import AgentSpec, DepartmentSpec

COLUMNS = {
    "job": "job",
    "model": "model",
    "fallback_models": "fallback_models",
    "effort": "effort",
    "max_tokens": "max_tokens",
    "timeout_seconds": "timeout_seconds",
    "latency_target_seconds": "latency_target_seconds",
    "needs": "needs",
    "uses": "uses",
    "fields": "fields",
    "settings_keys": "settings",
    "conversation": "conversation",
    "tools": "tools",
    "writes": "writes",
    "scope": "scope",
    "serves": "serves",
    "output_policy": "output_policy",
}
"""Columns of ``Agent``, each with the attribute of ``AgentSpec`` that gives its first value."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something an administrator has made otherwise than the code declares it. It stays as it is."""

    what: str
    field: str
    in_code: Any
    in_database: Any

    def __str__(self) -> str:
        return f"{self.what}, {self.field}: {self.in_database!r} here, {self.in_code!r} in code"


@dataclass(slots=True)
class SyncReport:
    """What one department lacked, where it differs, and what is wrong with it. One line each."""

    department: str
    created: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sync_team(spec: DepartmentSpec, *, slug: str, name: str) -> tuple[Department, SyncReport]:
    """Department, settings, agents, chain of command and SOULs. ``runs.syncing`` adds the rules.

    ValueError if the slug belongs to another kind, SoulError if a default SOUL cannot be read.
    """
    report = SyncReport(slug)
    with transaction.atomic():
        department, is_new = Department.objects.get_or_create(
            slug=slug, defaults={"kind": spec.kind, "name": name, "settings": default_settings(spec)}
        )
        # Two machines that start at once: the second waits here and finds everything there.
        department = Department.objects.select_for_update(no_key=True).get(pk=department.pk)
        if department.kind != spec.kind:
            raise ValueError(f"The department {slug} is of the kind {department.kind}, not {spec.kind}.")
        if is_new:
            report.created.append(f"department {slug}")
        else:
            _sync_settings(spec, department, report)
        agents = _sync_agents(spec, department, report)
        _sync_souls(spec, agents, report)
    return department, report


def default_settings(spec: DepartmentSpec) -> dict[str, Any]:
    """The settings a new department of the kind begins with, as JSON."""
    return spec.settings_schema().model_dump(mode="json")


def agent_columns(spec: AgentSpec) -> dict[str, Any]:
    """The first values of an agent's row; tuples as lists, because JSON columns hold lists."""
    values = {column: getattr(spec, attribute) for column, attribute in COLUMNS.items()}
    return {column: list(v) if isinstance(v, tuple) else v for column, v in values.items()}


def _sync_settings(spec: DepartmentSpec, department: Department, report: SyncReport) -> None:
    # What a department has settled differently is its own business and no difference. A key that a newer
    # release added is missing, though, and agents would not be told it.
    missing = {k: v for k, v in default_settings(spec).items() if k not in department.settings}
    if missing:
        department.settings = {**department.settings, **missing}
        department.save(update_fields=["settings"])
        report.created += [f"setting {key}" for key in missing]
    try:
        spec.settings_schema.model_validate(department.settings)
    except SchemaError as error:
        report.problems += [
            f"Setting {'.'.join(map(str, e['loc'])) or 'as a whole'}: {e['msg']}." for e in error.errors()
        ]


def _sync_agents(spec: DepartmentSpec, department: Department, report: SyncReport) -> dict[str, Agent]:
    present = {agent.slug: agent for agent in department.agents.select_related("reports_to")}
    created = []
    for declared in spec.agents:
        if (agent := present.get(declared.slug)) is not None:
            report.differences += _differences(declared, agent)
            continue
        agent = Agent.objects.create(department=department, slug=declared.slug, **agent_columns(declared))
        present[declared.slug] = agent
        created.append((declared, agent))
        report.created.append(f"agent {declared.slug}")
    # The chain of command last: a superior may stand further down in the declaration.
    for declared, agent in created:
        if declared.reports_to:
            agent.reports_to = present[declared.reports_to]
            agent.save(update_fields=["reports_to"])
    known = {declared.slug for declared in spec.agents}
    report.problems += [
        f"The agent {slug} is enabled, but this release no longer declares it. Disable it."
        for slug, agent in present.items()
        if slug not in known and agent.is_enabled
    ]
    return present


def _differences(declared: AgentSpec, agent: Agent) -> Iterable[Difference]:
    what = f"agent {agent.slug}"
    for column, in_code in agent_columns(declared).items():
        in_database = getattr(agent, column)
        if in_code != in_database:
            yield Difference(what, column, in_code, in_database)
    superior = agent.reports_to.slug if agent.reports_to else ""
    if superior != declared.reports_to:
        yield Difference(what, "reports_to", declared.reports_to, superior)


def _sync_souls(spec: DepartmentSpec, agents: dict[str, Agent], report: SyncReport) -> None:
    published = {
        soul.agent_id: soul for soul in Soul.objects.filter(agent__in=agents.values(), status=Soul.Status.PUBLISHED)
    }
    for declared in spec.agents:
        agent = agents[declared.slug]
        shipped = read_soul(Path(spec.souls_dir) / f"{declared.slug}.md")
        soul = published.get(agent.pk)
        if soul is None:
            draft = create_draft(agent=agent, sections=shipped, author=None, note="Shipped with Kontor")
            publish(soul=draft, author=None)
            report.created.append(f"SOUL {draft.number} of {agent.slug}")
            continue
        report.differences += [
            Difference(f"SOUL {soul.number} of {agent.slug}", name, shipped[name], getattr(soul, name))
            for name in SECTIONS
            if shipped[name] != getattr(soul, name).strip()
        ]
