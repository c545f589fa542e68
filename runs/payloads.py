"""What people write into outputs: checked by the schema of the agent that writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from agents.spec import ITEM, AgentSpec, DepartmentSpec
from runs.models import Output
from runs.outputs import writer_of

FOR_PEOPLE = "reasoning_summary"


class Unfit(ValueError):
    """What a person wrote does not fit the schema; the text says where, in sentences."""


@dataclass(frozen=True, slots=True)
class Classification:
    """One field by which rules decide, as a person may correct it. ``choices`` are JSON values."""

    name: str
    value: Any
    choices: tuple[Any, ...]

    def read(self, text: str) -> Any:
        """The choice that a form sent as text; the value it has where that is none of them."""
        return next((choice for choice in self.choices if as_text(choice) == text), self.value)


def fit_payload(spec: DepartmentSpec, output: Output, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The output's payload with these fields changed, as its schema accepts it; else ``Unfit``."""
    try:
        fitted = _writer(spec, output).schema.model_validate({**output.payload, **changes})
    except LookupError as error:
        raise Unfit(str(error)) from error
    except ValidationError as error:
        raise Unfit(" ".join(_sentence(detail) for detail in error.errors())) from error
    return fitted.model_dump(mode="json")


def texts_of(spec: DepartmentSpec, output: Output) -> dict[str, str]:
    """The texts of an output that a person may edit before it is approved: ``{field: text}``, in the schema's order."""
    try:
        names = _writer(spec, output).schema.model_fields
    except LookupError:
        return {}  # of an older release, or of a rule that is no more
    texts = {name: output.payload.get(name) for name in names if name != FOR_PEOPLE}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def classifications_of(spec: DepartmentSpec, output: Output) -> list[Classification]:
    """The fields of an output that sort an item and have a few possible values; empty if it sorts nothing."""
    try:
        writer = _writer(spec, output)
    except LookupError:
        return []
    found = [
        Classification(name, output.payload.get(name), _choices(writer, name))
        for name in writer.facets
        if name in output.payload
    ]
    return [field for field in found if field.choices]


def read_corrections(fields: Sequence[Classification], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a form changes: ``{field: value}`` of those that differ now."""
    read = {field.name: field.read(str(given[field.name])) for field in fields if field.name in given}
    return {field.name: read[field.name] for field in fields if read.get(field.name, field.value) != field.value}


def as_text(value: Any) -> str:
    """A choice as a form sends it."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _writer(spec: DepartmentSpec, output: Output) -> AgentSpec:
    return writer_of(spec, output.key, output.trigger.kind if output.trigger else ITEM)


def _choices(writer: AgentSpec, name: str) -> tuple[Any, ...]:
    field = writer.schema.model_fields.get(name)
    if field is None:
        return ()
    if field.annotation is bool:
        return (True, False)
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _sentence(detail: Any) -> str:
    where = ".".join(map(str, detail["loc"]))
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{where.replace('_', ' ').capitalize()}: {message}." if where else f"{message[0].upper()}{message[1:]}."
