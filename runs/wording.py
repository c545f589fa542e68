"""Names of fields, outputs and kinds as words in a sentence: the one place for each."""

from __future__ import annotations

from typing import Literal

from pydantic.fields import FieldInfo

from agents.spec import DepartmentSpec

_SPELT = {"crm": "CRM", "icp": "ICP", "url": "URL", "id": "ID", "api": "API", "soul": "SOUL"}

HAPPENED = {
    "created": "it came in",
    "reply": "a reply came in",
    "follow_up": "a follow-up is due",
    "decision": "a decision was made",
    "schedule": "a scheduled look is due",
    "operator": "an operator asked for it",
    "resume": "it was resumed",
}
"""What a trigger says has happened, by its kind; "it" is the item."""
OCCASIONS = {
    "created": "an arrival",
    "reply": "a reply",
    "follow_up": "a follow-up",
    "decision": "a decision",
    "schedule": "a scheduled look",
    "operator": "an operator's request",
    "resume": "a resumption",
}
"""The same as a thing for which outputs are made."""


def in_words(slug: str) -> str:
    """``crm_update`` becomes ``CRM update``, ``opt_out`` becomes ``opt-out``."""
    words = " ".join(_SPELT.get(word, word) for word in slug.split("_"))
    return words.replace("opt out", "opt-out")


def say_value(value: object) -> str:
    """A value of a classification: ``yes``, ``not now``."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else in_words(str(value))


def field_label(name: str, info: FieldInfo | None = None) -> str:
    """A field as its schema calls it (``Field(title=…)``), else its name in words."""
    return (info and info.title) or in_words(name)


def facet_label(name: str, kind: DepartmentSpec | None) -> str:
    """A promoted field as the schema of an agent of this kind calls it that promotes it."""
    promoting = [agent.schema for agent in kind.agents if name in agent.facets] if kind else []
    return field_label(name, promoting[0].model_fields.get(name) if promoting else None)


def trigger_words(kind: str, planned: Literal["is", "was", ""] = "") -> str:
    """What a trigger says, as a sentence without a full stop; ``planned``: that it is or was planned, if so."""
    said = f"{OCCASIONS[kind]} {planned} planned" if planned else HAPPENED[kind]
    return f"{said[0].upper()}{said[1:]}"


def because(cause: str) -> str:
    """What set off a pipeline run, from the kinds of triggers it keeps (``created, follow-up``); others as they are."""
    kinds = cause.split(", ")
    return ", ".join(HAPPENED.get(kind.replace("-", "_"), kind) for kind in kinds)
