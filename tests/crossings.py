"""Looks through every table for a row that refers to a row of another department. Works on whatever rows are there."""

from __future__ import annotations

from django.apps import apps
from django.db.models import F, ForeignKey, Model, OneToOneField

from agents.models import Department

KONTOR = ("agents", "runs", "leads")


def references(model: type[Model]) -> list[ForeignKey[Model, Model]]:
    """The model's references to tables of Kontor, the ones that are always there first."""
    found = [
        field
        for field in model._meta.get_fields()
        if isinstance(field, ForeignKey | OneToOneField)
        and isinstance(field.related_model, type)
        and field.related_model._meta.app_label in KONTOR
    ]
    return sorted(found, key=lambda field: field.null)


def paths(model: type[Model], seen: frozenset[type[Model]] = frozenset()) -> dict[str, str]:
    """For each reference of the model, the lookup that leads over it to a department's id."""
    found = {}
    for field in references(model):
        target = field.related_model
        if target is Department:
            found[field.name] = f"{field.name}_id"
        elif isinstance(target, type) and target not in seen and target is not model:
            further = paths(target, seen | {model})
            if further:
                found[field.name] = f"{field.name}__{next(iter(further.values()))}"
        elif target is model:
            own = next((p for name, p in found.items() if name != field.name), None)
            if own is not None:
                found[field.name] = f"{field.name}__{own}"
    return found


def crossings() -> list[str]:
    """One line for each pair of references of one table that lead some row to two departments."""
    lines = []
    for model in apps.get_models():
        if model._meta.app_label not in KONTOR:
            continue
        ways = list(paths(model).items())
        for name, path in ways[1:]:
            first, straight = ways[0]
            rows = model._base_manager.filter(**{f"{path}__isnull": False, f"{straight}__isnull": False})
            crossed = rows.exclude(**{path: F(straight)})
            lines += [f"{model.__name__} {pk}: {first} and {name}" for pk in crossed.values_list("pk", flat=True)]
    return lines


def checked() -> dict[str, list[str]]:
    """Which references of which table are compared, to see that the check looks at something."""
    return {model.__name__: list(paths(model)) for model in apps.get_models() if model._meta.app_label in KONTOR}
