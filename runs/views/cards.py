"""Outputs as readable cards, made from their payload and the schema of whoever writes them. Pure.

Nothing here knows a kind of department: a payload with ``subject`` and ``body`` is shown as a mail, every
other field by what it is: text, a list of texts, a list of objects as a table, an object as its fields, yes or no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.text import capfirst
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agents.spec import DepartmentSpec
from runs.models import Output
from runs.wording import in_words

REASONING = "reasoning_summary"
_MAIL = ("subject", "body")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a payload. ``kind`` is text, list, table, object, flag or json; ``columns`` belong to a table."""

    name: str
    kind: str
    value: Any
    hint: str = ""
    columns: tuple[str, ...] = ()
    title: str = ""

    @property
    def label(self) -> str:
        """What the field is called: as its schema says, else its name in words."""
        return capfirst(self.title or in_words(self.name))


@dataclass(frozen=True, slots=True)
class Mail:
    """A payload's subject and body."""

    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Card:
    """One output as a page shows it."""

    output: Output
    title: str
    fields: tuple[Field, ...]
    mail: Mail | None
    reasoning: str
    stale: str = ""
    """Why it would be made differently now, in words; empty if it would not."""


def build_card(output: Output, spec: DepartmentSpec, stale: str = "") -> Card:
    """The card of an output of a department of this kind."""
    payload = output.payload if isinstance(output.payload, Mapping) else {"value": output.payload}
    schemas = [agent.schema for agent in spec.agents if agent.writes == output.key]
    infos = _infos(schemas)
    mail = None
    if all(isinstance(payload.get(name), str) for name in _MAIL) and payload["body"]:
        mail = Mail(payload["subject"], payload["body"])
    skipped = {REASONING, *(_MAIL if mail else ())}
    # A JSON column does not keep the order of keys: the schema's is the one that was thought about.
    names = [name for name in infos if name in payload] + [name for name in payload if name not in infos]
    return Card(
        output=output,
        title=capfirst(in_words(output.key)),
        fields=tuple(build_field(name, payload[name], infos.get(name)) for name in names if name not in skipped),
        mail=mail,
        reasoning=str(payload.get(REASONING, "")),
        stale=stale or ("out of date" if output.is_stale else ""),
    )


def build_fields(values: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of any JSON object, in its order; empty ones are left out."""
    return tuple(build_field(name, value) for name, value in values.items() if value not in (None, "", [], {}))


def build_field(name: str, value: Any, info: FieldInfo | None = None) -> Field:
    """One field, by the shape of its value; its schema names and explains it."""
    hint, title = (info.description or "", info.title or "") if info else ("", "")
    if isinstance(value, bool):
        return Field(name, "flag", value, hint, title=title)
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        columns = tuple(dict.fromkeys(key for entry in value for key in entry))
        rows = [[build_field(column, entry.get(column, "")) for column in columns] for entry in value]
        return Field(name, "table", rows, hint, columns, title)
    if isinstance(value, list):
        is_flat = not any(isinstance(entry, list | Mapping) for entry in value)
        return Field(name, "list" if is_flat else "json", value, hint, title=title)
    if isinstance(value, Mapping):
        return Field(name, "object", build_fields(value), hint, title=title)
    return Field(name, "text", "" if value is None else value, hint, title=title)


def _infos(schemas: Iterable[type[BaseModel]]) -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for schema in schemas:
        for name, field in schema.model_fields.items():
            found.setdefault(name, field)
    return found
