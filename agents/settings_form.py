"""A form for the settings of a kind: one labelled field for each key of its pydantic schema.

How a value is shown: a text in a line or a box, a number, a tick; a list of known words as ticks; a list of
texts or numbers one to a line; a list of small records one to a line, their texts apart by ``|``; all else as
JSON. The schema itself has the last word on every value.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from django import forms
from pydantic import BaseModel
from pydantic import ValidationError as SchemaError
from pydantic.fields import FieldInfo

PREFIX = "settings_"
"""Before each key, in the names of the form's fields."""
_LINE_CHARS = 200
"""Texts that may be longer than this get a box instead of a line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How one setting is shown and read: what kind of value, and of what its elements are made."""

    key: str
    info: FieldInfo
    shape: Literal["text", "integer", "number", "tick", "choices", "lines", "records", "json"]
    parts: tuple[str, ...] = ()
    element: Any = None


def entries(schema: type[BaseModel]) -> list[Entry]:
    """The settings of a schema in the order of its fields."""
    return [_entry(key, info) for key, info in schema.model_fields.items()]


def form_fields(
    schema: type[BaseModel], values: Mapping[str, Any], keys: Collection[str] | None = None
) -> dict[str, forms.Field]:
    """``{field name: form field}``, filled with ``values``, or the schema's defaults where one lacks.

    ``keys``: only these settings, else all of them.
    """
    defaults = schema.model_construct().model_dump(mode="json")
    return {
        PREFIX + entry.key: _form_field(entry, values.get(entry.key, defaults.get(entry.key)))
        for entry in entries(schema)
        if keys is None or entry.key in keys
    }


def read_settings(
    schema: type[BaseModel], cleaned: Mapping[str, Any], stored: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The settings a submitted form stands for, as JSON, and what is wrong, ``{form field: [sentences]}``.

    ``stored``: the settings as they are, for those that the form has no field for.
    """
    # What an older release has stored beside its schema is left behind.
    raw: dict[str, Any] = {key: value for key, value in (stored or {}).items() if key in schema.model_fields}
    errors: dict[str, list[str]] = {}
    for entry in entries(schema):
        name = PREFIX + entry.key
        if name in cleaned:
            try:
                raw[entry.key] = _read(entry, cleaned[name])
            except ValueError as error:
                errors[name] = [str(error)]
    if errors:
        return {}, errors
    try:
        return schema.model_validate(raw).model_dump(mode="json"), {}
    except SchemaError as error:
        for fault in error.errors():
            name = PREFIX + str(fault["loc"][0]) if fault["loc"] else "__all__"
            errors.setdefault(name, []).append(_sentence(fault["loc"][1:], fault["msg"]))
        return {}, errors


def _entry(key: str, info: FieldInfo) -> Entry:
    kind = _bare(info.annotation)
    if kind is str:
        return Entry(key, info, "text")
    if kind is bool:
        return Entry(key, info, "tick")
    if kind in (int, float):
        return Entry(key, info, "integer" if kind is int else "number")
    if get_origin(kind) is list:
        element = _bare(get_args(kind)[0])
        if get_origin(element) is Literal:
            return Entry(key, info, "choices", tuple(str(word) for word in get_args(element)))
        if element in (str, int, float):
            return Entry(key, info, "lines", element=element)
        if isinstance(element, type) and issubclass(element, BaseModel) and _all_texts(element):
            return Entry(key, info, "records", tuple(element.model_fields))
    return Entry(key, info, "json")


def _bare(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and without ``None``."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [each for each in get_args(annotation) if each is not NoneType]
        return _bare(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _all_texts(record: type[BaseModel]) -> bool:
    return all(_bare(info.annotation) is str for info in record.model_fields.values())


def _form_field(entry: Entry, value: Any) -> forms.Field:
    common: dict[str, Any] = {
        "label": entry.info.title or entry.key.replace("_", " ").capitalize(),
        "help_text": entry.info.description or _hint(entry),
        "required": False,
        "initial": _shown(entry, value),
    }
    if entry.shape == "tick":
        return forms.BooleanField(**common)
    if entry.shape == "choices":
        choices = [(word, word.replace("_", " ")) for word in entry.parts]
        return forms.MultipleChoiceField(choices=choices, widget=forms.CheckboxSelectMultiple, **common)
    if entry.shape == "integer":
        return forms.IntegerField(**{**common, "required": entry.info.is_required() or value is not None})
    if entry.shape == "number":
        return forms.FloatField(**common)
    if entry.shape == "text" and _max_length(entry.info) <= _LINE_CHARS:
        return forms.CharField(widget=forms.TextInput(attrs={"size": 80}), **common)
    rows = 4 if entry.shape == "text" else 8 if entry.shape in ("records", "json") else 4
    # Not stripped: the schema says what becomes of spaces.
    return forms.CharField(strip=False, widget=forms.Textarea(attrs={"rows": rows, "cols": 90}), **common)


def _max_length(info: FieldInfo) -> int:
    return next((m.max_length for m in info.metadata if getattr(m, "max_length", None)), 1_000_000)


def _hint(entry: Entry) -> str:
    if entry.shape == "lines":
        return "One a line."
    if entry.shape == "records":
        return f"One a line: {' | '.join(entry.parts)}"
    return "JSON" if entry.shape == "json" else ""


def _shown(entry: Entry, value: Any) -> Any:
    """A stored value as the form shows it; one that does not fit the schema any more is shown as JSON."""
    if value is None:
        return None
    if entry.shape == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    if entry.shape not in ("lines", "records"):
        return value
    if not isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if entry.shape == "lines":
        return "\n".join(str(each) for each in value)
    return "\n".join(
        " | ".join(str(each.get(part, "")) for part in entry.parts) if isinstance(each, dict) else str(each)
        for each in value
    )


def _read(entry: Entry, value: Any) -> Any:
    if entry.shape == "json":
        try:
            return json.loads(value or "null")
        except json.JSONDecodeError as error:
            raise ValueError(f"This is not JSON: {error}.") from error
    if entry.shape == "text":
        return value.replace("\r\n", "\n")
    if entry.shape not in ("lines", "records"):
        return value
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    if entry.shape == "lines":
        return lines if entry.element is str else [_number(line, entry.element) for line in lines]
    return [_record(line, entry.parts) for line in lines]


def _number(line: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(line)
    except ValueError:
        raise ValueError(f"{line!r} is not a number. Write one number a line.") from None


def _record(line: str, parts: tuple[str, ...]) -> dict[str, str]:
    texts = [text.strip() for text in line.split("|")]
    if len(texts) != len(parts):
        raise ValueError(f"{line!r} has {len(texts)} parts. Each line has {len(parts)}: {' | '.join(parts)}.")
    return dict(zip(parts, texts, strict=True))


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    # Lines are counted from 1 by people.
    place = ", ".join(f"line {part + 1}" if isinstance(part, int) else str(part) for part in location)
    return f"{place}: {message}." if place else f"{message}."
