"""Values for JSON schemas: one that satisfies a schema, and a given one made to satisfy it.

Understands what structured output accepts (``type``, ``enum``, ``const``, ``anyOf``, ``allOf``, ``$ref``,
``items``, ``required``, string formats) and the bounds that the SDK's ``transform_schema`` moves into the
description as ``{minimum: 0, maximum: 100}``, because a model would heed those too. A
``pattern`` is not heeded: a kind whose schema has one gives it an answer book.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

_HINT = re.compile(
    r"(minimum|maximum|exclusiveMinimum|exclusiveMaximum|minLength|maxLength|minItems|maxItems): (-?[\d.]+)"
)
_WORD = re.compile(r"[^\W\d_]{3,}")
_FALLBACK_WORDS = ("record", "team", "request", "detail", "process", "question", "figure", "plan")
_FORMATS = {
    "date-time": "2026-11-20T09:00:00Z",
    "date": "2026-11-20",
    "time": "09:00:00Z",
    "duration": "P4D",
    "email": "someone@example.org",
    "hostname": "example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "7d444840-9dc0-41d1-b245-5ffdce74fad2",
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_MISSING: Any = object()


@dataclass(slots=True)
class Filler:
    """Makes up values from the words of an item; ``rng`` decides where there is a choice."""

    item: Mapping[str, Any]
    rng: random.Random
    _known_words: list[str] = field(default_factory=list)

    def value(self, schema: Schema, root: Schema, name: str = "") -> Any:
        """A value that satisfies ``schema``; ``root`` holds the ``$defs``, ``name`` is the property's."""
        schema = resolve(schema, root)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self.rng.choice(schema["enum"])
        if schema.get("anyOf"):
            # A null branch is the last resort: an answer worth looking at says something.
            branches = [b for b in schema["anyOf"] if resolve(b, root).get("type") != "null"] or schema["anyOf"]
            return self.value(branches[0], root, name)
        return self._typed(schema, root, name)

    def sentences(self, count: int) -> str:
        """A short paragraph of made-up sentences about the item."""
        return " ".join(self._sentence(name) for name in ("summary", "finding", "reason", "next_step")[:count])

    def _typed(self, schema: Schema, root: Schema, name: str) -> Any:
        kind, hints = schema_type(schema), bounds(schema)
        if kind == "object":
            properties = schema.get("properties", {})
            return {key: self.value(sub, root, key) for key, sub in properties.items()}
        if kind == "array":
            return self._array(schema, root, name, hints)
        if kind == "integer":
            return int(self._number(hints, whole=True))
        if kind == "number":
            return self._number(hints, whole=False)
        if kind == "boolean":
            return self.rng.random() < 0.5
        if kind == "null":
            return None
        return self._text(schema, name, hints)

    def _array(self, schema: Schema, root: Schema, name: str, hints: Mapping[str, float]) -> list[Any]:
        least = max(int(hints.get("minItems", 0)), 1)
        most = max(int(hints.get("maxItems", least + 1)), least)
        count = self.rng.randint(least, min(most, least + 1))
        if "items" not in schema:
            return [self._words(2) for _ in range(count)]
        return [self.value(schema["items"], root, name) for _ in range(count)]

    def _number(self, hints: Mapping[str, float], *, whole: bool) -> float:
        low, high = number_range(hints, whole=whole)
        return self.rng.randint(int(low), int(high)) if whole else round(self.rng.uniform(low, high), 2)

    def _text(self, schema: Schema, name: str, hints: Mapping[str, float]) -> str:
        form = schema.get("format")
        known = self.item.get(name)
        if isinstance(known, str) and known and form in (None, "email", "uri"):
            text = known
        elif form in _FORMATS:
            return _FORMATS[str(form)]
        else:
            text = self._sentence(name)
        least, most = int(hints.get("minLength", 0)), int(hints.get("maxLength", len(text) + 400))
        while len(text) < least:
            text += " " + self._words(4)
        return text[:most]

    def _sentence(self, name: str) -> str:
        subject = str(self.item.get("company") or self.item.get("title") or self.item.get("name") or "This one")
        return f"{name.replace('_', ' ').capitalize() or 'Answer'} for {subject}: {self._words(8)}."

    def _words(self, count: int) -> str:
        if not self._known_words:
            text = " ".join(str(v) for v in self.item.values() if isinstance(v, str | int))
            self._known_words = _WORD.findall(text) or list(_FALLBACK_WORDS)
        return " ".join(self.rng.choices(self._known_words, k=count))


def fit(value: Any, schema: Schema, filler: Filler, root: Schema | None = None, name: str = "") -> Any:
    """``value`` as far as it satisfies ``schema``: unknown keys are dropped, bounds named in the description
    are kept to, and what is missing or has the wrong type is filled in."""
    root = schema if root is None else root
    schema = resolve(schema, root)
    if value is _MISSING:
        return filler.value(schema, root, name)
    if "const" in schema or schema.get("enum"):
        allowed = [schema["const"]] if "const" in schema else schema["enum"]
        return value if value in allowed else filler.value(schema, root, name)
    if schema.get("anyOf"):
        branch = next((b for b in schema["anyOf"] if has_shape(value, b, root)), None)
        return filler.value(schema, root, name) if branch is None else fit(value, branch, filler, root, name)
    kind = schema_type(schema)
    if not _is_type(value, kind):
        return filler.value(schema, root, name)
    if kind == "object":
        return _fit_object(value, schema, filler, root)
    if kind == "array":
        return _fit_array(value, schema, filler, root, name)
    return _within(value, kind, bounds(schema))


def _fit_object(value: dict[str, Any], schema: Schema, filler: Filler, root: Schema) -> dict[str, Any]:
    required = set(schema.get("required", ()))
    return {
        key: fit(value.get(key, _MISSING), sub, filler, root, key)
        for key, sub in schema.get("properties", {}).items()
        if key in value or key in required
    }


def _fit_array(value: list[Any], schema: Schema, filler: Filler, root: Schema, name: str) -> list[Any]:
    hints = bounds(schema)
    least = int(schema.get("minItems", hints.get("minItems", 0)))
    entries = value[: int(hints.get("maxItems", len(value)))] + [_MISSING] * max(least - len(value), 0)
    return [fit(entry, schema.get("items", {"type": "string"}), filler, root, name) for entry in entries]


def _within(value: Any, kind: str, hints: Mapping[str, float]) -> Any:
    if kind == "string" and "maxLength" in hints:
        return value[: int(hints["maxLength"])]
    if kind in ("integer", "number") and hints:
        low, high = number_range(hints, whole=kind == "integer", low=value, high=value)
        return min(max(value, low), high) if low <= high else value
    return value


def has_shape(value: Any, schema: Schema, root: Schema) -> bool:
    """Whether ``value`` could be meant for ``schema``: type, literals and required keys agree."""
    schema = resolve(schema, root)
    if "const" in schema or schema.get("enum"):
        return value in ([schema["const"]] if "const" in schema else schema["enum"])
    if schema.get("anyOf"):
        return any(has_shape(value, branch, root) for branch in schema["anyOf"])
    kind = schema_type(schema)
    if not _is_type(value, kind):
        return False
    if kind == "object":
        properties = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            has_shape(entry, properties[key], root) for key, entry in value.items() if key in properties
        )
    if kind == "array":
        return all(has_shape(entry, schema.get("items", {}), root) for entry in value)
    return True


def resolve(schema: Schema, root: Schema) -> Schema:
    """The schema behind ``$ref`` and a merged ``allOf``."""
    while "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        definitions = root.get("$defs") or root.get("definitions") or {}
        schema = definitions[name]
    if schema.get("allOf"):
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            for key, value in resolve(part, root).items():
                both_dicts = isinstance(value, dict) and isinstance(merged.get(key), dict)
                merged[key] = {**merged[key], **value} if both_dicts else value
        return merged
    return schema


def schema_type(schema: Schema) -> str:
    """The one type of a schema; of a list of types the first that is not null."""
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        return next((str(k) for k in kind if k != "null"), "null")
    return str(kind)


def bounds(schema: Schema) -> dict[str, float]:
    """Bounds of a schema, whether keywords or moved into its description: ``{"minimum": 0.0, …}``."""
    description = schema.get("description", "")
    found = {key: float(number) for key, number in _HINT.findall(description)} if description else {}
    if "minItems" in schema:
        found["minItems"] = float(schema["minItems"])
    return found


def number_range(hints: Mapping[str, float], *, whole: bool, low: float = 0, high: float = 100) -> tuple[float, float]:
    """The lowest and highest number the bounds allow; ``low`` and ``high`` stand in for an open side."""
    step = 1 if whole else 0.01
    least = hints.get("minimum", hints["exclusiveMinimum"] + step if "exclusiveMinimum" in hints else None)
    most = hints.get("maximum", hints["exclusiveMaximum"] - step if "exclusiveMaximum" in hints else None)
    least = min(low, most) if least is None and most is not None else low if least is None else least
    most = max(high, least) if most is None else most
    return (int(least), int(most)) if whole else (least, most)


def _is_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind in ("integer", "number"):
        return False
    return isinstance(value, _TYPES.get(kind, object))
