"""Which JSON schemas structured output refuses, with messages worded like the API's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agents.simulator.errors import invalid

MAX_OPTIONAL, MAX_UNIONS = 24, 16
_COMMON = frozenset({"title", "description", "type", "enum", "const", "default", "$defs", "definitions", "$schema"})
_ALLOWED = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems"}),
    "string": frozenset({"format", "pattern"}),
}
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_REFERENCES = ("#/$defs/", "#/definitions/")
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


def check_schema(schema: Any, where: str) -> tuple[int, int]:
    """Refuse (ApiError 400) what structured output does not support; ``where`` is the path in the request.

    Returns how many optional and union-typed parameters the schema has, because the limits are per request.
    """
    if not isinstance(schema, dict):
        raise invalid(f"{where}: Input should be a valid dictionary")
    if "$ref" not in schema and schema.get("type") != "object" and "anyOf" not in schema:
        raise invalid(f"{where}: The root of the schema must be of type 'object'")
    if _is_recursive(schema):
        raise invalid(f"{where}: Recursive schemas are not supported")
    optional = unions = 0
    for node in _nodes(schema):
        _check_node(node, schema, where)
        optional += len(set(node.get("properties", ())) - set(node.get("required", ())))
        unions += "anyOf" in node or isinstance(node.get("type"), list)
    return optional, unions


def check_limits(optional: int, unions: int) -> None:
    """Refuse a request whose schemas have too many optional or union-typed parameters together."""
    if optional > MAX_OPTIONAL:
        raise invalid(
            f"Schemas contains too many optional parameters ({optional}), which would make grammar "
            "compilation inefficient. Reduce the number of optional parameters in your tool schemas "
            f"(limit: {MAX_OPTIONAL})."
        )
    if unions > MAX_UNIONS:
        raise invalid(
            f"Schemas contains too many parameters with union types ({unions} parameters with type arrays or "
            f"anyOf). This causes exponential compilation cost. Reduce the number of nullable or union-typed "
            f"parameters (limit: {MAX_UNIONS})."
        )


def _check_node(node: Mapping[str, Any], root: Mapping[str, Any], where: str) -> None:
    if "$ref" in node:
        reference = str(node["$ref"])
        name = reference.rpartition("/")[2]
        if not reference.startswith(_REFERENCES) or name not in _definitions(root):
            raise invalid(f"{where}: Unresolvable or external $ref: {reference}")
        return
    if "oneOf" in node:
        raise invalid(f"{where}: Schema type 'oneOf' is not supported")
    if "anyOf" in node or "allOf" in node:
        return
    given = node.get("type")
    kinds = given if isinstance(given, list) else [given]
    is_literal = "enum" in node or "const" in node
    if not all(kind in _TYPES or (kind is None and is_literal) for kind in kinds):
        raise invalid(f"{where}: Schema must have a supported 'type', 'anyOf', 'enum' or 'const'")
    _check_keywords(node, [str(kind) for kind in kinds], where)


def _check_keywords(node: Mapping[str, Any], kinds: list[str], where: str) -> None:
    allowed = _COMMON.union(*(_ALLOWED.get(kind, frozenset()) for kind in kinds))
    unsupported, kind = sorted(set(node) - allowed), kinds[0]
    if unsupported:
        raise invalid(f"{where}: For '{kind}' type, properties {', '.join(unsupported)} are not supported")
    if "object" in kinds and node.get("additionalProperties") is not False:
        raise invalid(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    if "array" in kinds and node.get("minItems", 0) not in (0, 1):
        raise invalid(f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    if "string" in kinds and node.get("format", "date") not in _FORMATS:
        raise invalid(f"{where}: For 'string' type, format '{node['format']}' is not supported")


def _definitions(root: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**root.get("definitions", {}), **root.get("$defs", {})}


def _children(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for keyword in ("anyOf", "allOf", "oneOf"):
        yield from node.get(keyword, ())
    yield from node.get("properties", {}).values()
    if isinstance(node.get("items"), dict):
        yield node["items"]


def _nodes(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    todo: list[Mapping[str, Any]] = [root, *_definitions(root).values()]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(_children(node))


def _is_recursive(root: Mapping[str, Any]) -> bool:
    """Whether a definition reaches itself; checked by walking down with the references on the way."""

    def reaches(node: Mapping[str, Any], path: frozenset[str]) -> bool:
        if "$ref" in node:
            reference = str(node["$ref"])
            if reference == "#" or reference in path:
                return True
            target = _definitions(root).get(reference.rpartition("/")[2], {})
            return reaches(target, path | {reference})
        return any(reaches(child, path) for child in _children(node))

    return reaches(root, frozenset())
