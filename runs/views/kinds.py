"""The kinds of department that are at work among those that are shown."""

from __future__ import annotations

from collections.abc import Iterable

from agents.models import Department
from agents.spec import DepartmentSpec


def kinds_of(departments: Iterable[Department]) -> list[DepartmentSpec]:
    """Their declarations, by name; a kind that no installed app declares is left out."""
    found: dict[str, DepartmentSpec] = {}
    for department in departments:
        try:
            found[department.kind] = department.spec
        except LookupError:
            continue
    return [found[kind] for kind in sorted(found)]
