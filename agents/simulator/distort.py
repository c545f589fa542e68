"""Faults in what the model says: answers that break the schema on purpose, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.simulator.faults import Fault
from agents.simulator.values import Schema, resolve, schema_type

CONTENT_KINDS = frozenset({"schema", "extra_keys", "answer", "text"})
_WRONG: dict[str, Any] = {
    "string": {"not": "a string"},
    "integer": "not a number",
    "number": "not a number",
    "boolean": "not a boolean",
    "array": "not a list",
    "object": "not an object",
    "null": "not null",
}


def distorted(value: Any, fault: Fault, schema: Schema | None) -> Any:
    """``value`` as the fault wants it said: another answer, more keys, or one that breaks ``schema``."""
    if fault.kind == "answer":
        return fault.answer
    if not isinstance(value, dict) or schema is None:
        return value
    if fault.kind == "extra_keys":
        return {**value, **fault.keys}
    return violated(value, fault.violation, schema) if fault.kind == "schema" else value


def violated(value: Mapping[str, Any], violation: str, schema: Schema) -> dict[str, Any]:
    """A copy of ``value`` with a key missing, a value out of its enum, or a value of a wrong type.

    A schema without an enum gets a wrong type instead.
    """
    root, wrong = schema, dict(value)
    properties: dict[str, Schema] = dict(resolve(schema, root).get("properties", {}))
    required = [key for key in resolve(schema, root).get("required", ()) if key in wrong]
    if violation == "missing" and required:
        del wrong[required[0]]
        return wrong
    for key, sub in properties.items():
        sub = resolve(sub, root)
        if violation == "enum" and key in wrong and (sub.get("enum") or "const" in sub):
            wrong[key] = "none of these"
            return wrong
    candidates = [k for k in required or list(wrong) if "anyOf" not in resolve(properties.get(k, {}), root)]
    if candidates:
        wrong[candidates[0]] = _WRONG[schema_type(resolve(properties.get(candidates[0], {}), root))]
    return wrong
