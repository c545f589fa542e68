"""Outputs as people read them: one line that says what it comes to, and fields shown by what their schema says.

A classification is a label, a bounded number a meter, an address a link; the rest is text, lists and tables as in
``runs.views.cards``. Nothing here knows a kind of department. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from agents.spec import DepartmentSpec
from runs.models import Output
from runs.views.cards import Card, Field, build_card
from runs.wording import in_words

SHORT = 90
"""The most characters of a card's headline."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A number between two bounds."""

    value: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class OutputCard:
    """An output with its fields as they are shown, and a headline for the closed card."""

    card: Card
    fields: tuple[Field, ...]
    headline: str
    is_open: bool = False

    @property
    def output(self) -> Output:
        """The row."""
        return self.card.output


def build_output_card(output: Output, spec: DepartmentSpec, stale: str = "") -> OutputCard:
    """The card of an output of a department of this kind."""
    card = build_card(output, spec, stale)
    infos = _infos(output, spec)
    fields = tuple(_shape(field, infos.get(field.name)) for field in card.fields)
    return OutputCard(card, fields, _headline(card, fields))


def _infos(output: Output, spec: DepartmentSpec) -> dict[str, FieldInfo]:
    """The schema's fields. Several agents may write the key: the one whose schema has these fields is meant."""
    payload = output.payload if isinstance(output.payload, Mapping) else {}
    schemas = [agent.schema for agent in spec.agents if agent.writes == output.key]
    fitting = [schema for schema in schemas if set(payload) <= set(schema.model_fields)]
    return dict((fitting or schemas)[0].model_fields) if schemas else {}


def _shape(field: Field, info: FieldInfo | None) -> Field:
    if field.kind == "table":
        return replace(field, value=[[_shape(cell, None) for cell in row] for row in field.value])
    if field.kind != "text":
        return field
    if isinstance(field.value, str) and _is_address(field.value):
        return replace(field, kind="link")
    if info is not None and get_origin(info.annotation) is Literal and field.value != "":
        return replace(field, kind="label")
    if (meter := _meter(field.value, info)) is not None:
        return replace(field, kind="meter", value=meter)
    return field


def _meter(value: Any, info: FieldInfo | None) -> Meter | None:
    """Of a number whose schema says from where to where it goes."""
    if info is None or not isinstance(value, int | float):
        return None
    least = next((bound.ge for bound in info.metadata if isinstance(bound, Ge)), None)
    most = next((bound.le for bound in info.metadata if isinstance(bound, Le)), None)
    if not isinstance(least, int | float) or not isinstance(most, int | float):
        return None
    return Meter(value, least, most)


def _headline(card: Card, fields: Sequence[Field]) -> str:
    """What the output comes to in one line: labels and numbers first, else a mail's subject, else the first text."""
    marks = [str(f.value) for f in fields if f.kind == "label"]
    marks += [f"{f.value.value:g} of {f.value.most:g}" for f in fields if f.kind == "meter"]
    if card.mail:
        marks = [card.mail.subject or "(no subject)"]
    texts = [str(f.value) for f in fields if f.kind == "text" and isinstance(f.value, str) and len(f.value) > 12]
    said = " · ".join([*marks, *texts[:1]]) or " · ".join(_counted(fields)) or card.reasoning
    return said if len(said) <= SHORT else f"{said[: SHORT - 1].rstrip()}…"


def _counted(fields: Sequence[Field]) -> list[str]:
    return [
        f"{in_words(field.name)}: {len(field.value)}"
        for field in fields
        if field.kind in ("table", "list") and field.value
    ][:2]


def _is_address(text: str) -> bool:
    """Whether the text is a web address and nothing else."""
    return text.startswith(("https://", "http://")) and len(text) > 10 and not any(c.isspace() for c in text)
