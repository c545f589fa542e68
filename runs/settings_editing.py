"""What an administrator sets up in a department, page by page: each change is checked, and an Action."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from agents.models import Department
from agents.spec import DepartmentSpec
from agents.syncing import default_settings
from runs.allowed import YES, Allowed, no
from runs.database import now as database_now
from runs.models import Action, LogEntry
from runs.rule_editing import CHANGED
from runs.schedules import next_run
from runs.variables import why_not_name
from runs.wording import in_words

VERB = "settings_change"
COLUMNS = ("name", "time_zone", "schedule", "api_key_env", "webhook_secret_env")
"""Columns of ``Department`` that are settings; the switch has a page of its own."""
SECRETS = ("api_key_env", "webhook_secret_env")
"""Those that name a variable of the environment, which all departments share."""


@dataclass(frozen=True, slots=True)
class Section:
    """One page of settings: columns of the department and keys of its kind's settings, or something to look at."""

    slug: str
    label: str
    columns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    means: str = ""

    @property
    def is_form(self) -> bool:
        """Whether there is anything to be saved on it."""
        return bool(self.columns or self.keys)


def sections_of(spec: DepartmentSpec) -> list[Section]:
    """Every page of settings of a kind, in their order; no setting is without one."""
    own = [Section(s.slug, s.label, keys=s.keys, means=s.means) for s in spec.settings_sections]
    named = {key for section in own for key in section.keys}
    left = tuple(key for key in spec.settings_schema.model_fields if key not in named)
    if left:
        own.append(Section("more", "More settings", keys=left))
    return [
        Section("department", "Department", ("name", "time_zone"), means=_MEANS["department"]),
        *own,
        Section("schedule", "Schedule", ("schedule",), means=_MEANS["schedule"]),
        Section("channels", "Channels"),
        Section("members", "Members"),
        Section("budgets", "Budgets"),
        Section("alerts", "Alerts"),
        Section("keys", "API key", ("api_key_env", "webhook_secret_env"), means=_MEANS["keys"]),
    ]


def values_of(department: Department, section: Section) -> dict[str, Any]:
    """What the section holds now: columns by name, settings by key."""
    columns = {name: getattr(department, name) for name in section.columns}
    settings = settings_of(department)
    return columns | {key: settings.get(key) for key in section.keys}


def settings_of(department: Department) -> dict[str, Any]:
    """The settings as agents are told them: a default where one lacks, without what the kind has no place for."""
    defaults = default_settings(department.spec)
    return defaults | {key: value for key, value in department.settings.items() if key in defaults}


def stamp(department: Department, section: Section) -> str:
    """What a form remembers of the values it shows."""
    text = json.dumps(values_of(department, section), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def change_settings(
    *, department: Department, user: User, section: Section, values: Mapping[str, Any], seen: str = ""
) -> Allowed:
    """Store the values of one section: columns by name, settings by key. Checked by the model and the kind's schema.

    ``seen``: the ``stamp`` of what the person saw; what somebody else has changed since is not overwritten.
    """
    with transaction.atomic():
        held = Department.objects.select_for_update(no_key=True).get(pk=department.pk)
        if seen and seen != stamp(held, section):
            return no(CHANGED)
        return write_changes(held, user, {name: values[name] for name in values if name in _names(section)})


def write_changes(held: Department, user: User, values: Mapping[str, Any]) -> Allowed:
    """Store columns and settings of a department that is locked, with the Action; nothing if they are the same."""
    settings = settings_of(held)
    stored = {name: getattr(held, name) if name in COLUMNS else settings.get(name) for name in values}
    after = {name: value for name, value in values.items() if value != stored[name]}
    if not after:
        return no("Nothing was changed.")
    if problem := why_not_name(department=held, user=user, names=[after[name] for name in SECRETS if name in after]):
        return no(problem)
    before = {name: stored[name] for name in after}
    for name in set(after) & set(COLUMNS):
        setattr(held, name, after[name])
    held.settings = settings | {name: value for name, value in after.items() if name not in COLUMNS}
    try:
        held.full_clean(exclude=["kind", "slug"])
    except ValidationError as error:
        return no(" ".join(error.messages))
    now = database_now()
    if {"schedule", "time_zone"} & set(after):
        held.schedule_next_at = next_run(held, now)
    held.save(update_fields=[*COLUMNS, "settings", "schedule_next_at"])
    names = ", ".join(in_words(name) for name in after)
    Action.objects.create(
        department=held, user=user, verb=VERB, target=f"department:{held.pk}", before=before, after=after
    )
    LogEntry.objects.create(department=held, kind="settings", text=f"{user} changed {names}.", at=now)
    return YES


def _names(section: Section) -> Collection[str]:
    return (*section.columns, *section.keys)


_MEANS = {
    "department": "Days of budgets, schedules and quiet hours follow the time zone.",
    "schedule": "The schedule has the router look at every open item. It starts only what the rules want and lack.",
    "keys": "Only names of environment variables are stored here. The secrets stay in the environment. "
    "A department's own variables begin with its short name: ACME_API_KEY.",
}
