"""Forms for outputs, made from the schema of the agent that writes them, and what they send. Pure.

A text is a line or an area, a choice a list, yes or no a box, a list of texts one line each, a list of objects a
table with room for more rows. Anything else is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from annotated_types import MaxLen
from django.utils.text import capfirst
from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from runs.views.forms import read_number
from runs.wording import field_label, in_words

SPARE_ROWS = 2
MOST_ROWS = 60
LONG = 200
"""A text that may be longer, or that has no limit and is not one line, gets an area."""


@dataclass(slots=True)
class Input:
    """One input of a form. ``kind``: line, area, number, choice, flag, lines, table or json."""

    name: str
    label: str
    kind: str
    value: Any = ""
    hint: str = ""
    choices: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    rows: list[list[Input]] = field(default_factory=list)

    @property
    def row_count(self) -> int:
        """How many rows of a table were shown."""
        return len(self.rows)


def build_inputs(
    schema: type[BaseModel], values: Mapping[str, Any], errors: Mapping[str, list[str]] | None = None
) -> list[Input]:
    """The inputs of a schema's fields, in its order, filled with these values."""
    return [
        _input(f"f-{name}", name, info, values.get(name), (errors or {}).get(name, []))
        for name, info in schema.model_fields.items()
    ]


def read_payload(schema: type[BaseModel], sent: Mapping[str, Any]) -> dict[str, Any]:
    """What a form of this schema sends, as JSON values; not validated yet."""
    return {name: _read(f"f-{name}", info, sent) for name, info in schema.model_fields.items()}


def errors_by_field(error: ValidationError) -> dict[str, list[str]]:
    """``{field: sentences}``; the empty field is the form as a whole."""
    found: dict[str, list[str]] = {}
    for detail in error.errors():
        name, *rest = [str(part) for part in detail["loc"]] or [""]
        row = f"Row {int(rest[0]) + 1}" if rest and rest[0].isdigit() else ""
        where = ", ".join(part for part in (row, *(in_words(part) for part in rest[1:])) if part)
        message = str(detail["msg"]).removeprefix("Value error, ")
        found.setdefault(name, []).append(f"{where}: {message}" if where else message)
    return found


def _input(name: str, label: str, info: FieldInfo, value: Any, errors: list[str]) -> Input:
    kind = _kind(info)
    made = Input(name, capfirst(field_label(label, info)), kind, value, info.description or "", errors=list(errors))
    if kind == "choice":
        made.choices = tuple(str(choice) for choice in get_args(info.annotation))
    elif kind == "lines":
        made.value = "\n".join(str(each) for each in value or ())
    elif kind == "json":
        made.value = json.dumps(value, ensure_ascii=False, indent=1)
    elif kind == "table":
        row = get_args(info.annotation)[0]
        made.columns = tuple(capfirst(in_words(each)) for each in row.model_fields)
        given = [each if isinstance(each, Mapping) else {} for each in value or ()]
        made.rows = [
            [_input(f"{name}-{n}-{key}", key, column, each.get(key), []) for key, column in row.model_fields.items()]
            for n, each in enumerate([*given, *({} for _ in range(SPARE_ROWS))])
        ]
    elif value is None:
        made.value = ""
    return made


def _kind(info: FieldInfo) -> str:
    annotation = info.annotation
    origin = get_origin(annotation)
    if origin is Literal:
        return "choice"
    if annotation is bool:
        return "flag"
    if annotation in (int, float):
        return "number"
    if annotation is str:
        return _text_kind(info.metadata)
    if origin is list:
        entry = get_args(annotation)[0]
        if isinstance(entry, type) and issubclass(entry, BaseModel):
            return "table"
        return "lines" if _is_text(entry) else "json"
    return "json"


def _text_kind(metadata: Iterable[Any]) -> str:
    longest = next((each.max_length for each in metadata if isinstance(each, MaxLen)), None)
    if longest is not None:
        return "line" if longest <= LONG else "area"
    is_checked = any(isinstance(each, AfterValidator) or hasattr(each, "pattern") for each in metadata)
    return "line" if is_checked else "area"


def _is_text(entry: Any) -> bool:
    return entry is str or (hasattr(entry, "__metadata__") and get_args(entry)[0] is str)


def _read(name: str, info: FieldInfo, sent: Mapping[str, Any]) -> Any:
    text = str(sent.get(name, "")).replace("\r\n", "\n")
    match _kind(info):
        case "flag":
            return name in sent
        case "number":
            return _number(text)
        case "lines":
            return [line.strip() for line in text.split("\n") if line.strip()]
        case "table":
            return _read_rows(name, get_args(info.annotation)[0], sent)
        case "json":
            try:
                return json.loads(text or "null")
            except ValueError:
                return text
    return text


def _read_rows(name: str, row: type[BaseModel], sent: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows in which something was written; a box or a choice alone makes no row."""
    count = read_number(str(sent.get(f"{name}-rows", "")))
    found = []
    for n in range(min(count or 0, MOST_ROWS)):
        read = {key: _read(f"{name}-{n}-{key}", column, sent) for key, column in row.model_fields.items()}
        texts = [read[key] for key, column in row.model_fields.items() if _kind(column) not in ("flag", "choice")]
        if any(text not in ("", None, []) for text in texts):
            found.append(read)
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
