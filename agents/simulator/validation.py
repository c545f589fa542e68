"""Which requests the Messages API refuses before a model sees them. Every check raises ApiError."""

from __future__ import annotations

import marshal
import re
from collections.abc import Mapping
from typing import Any

from agents.simulator.catalogue import EFFORTS, Model, find_model
from agents.simulator.errors import ApiError, invalid
from agents.simulator.schemas import check_limits, check_schema
from agents.simulator.turns import check_messages

VERSIONS = ("2023-06-01", "2026-10-21")
MAX_BODY_BYTES = 32_000_000
MAX_STRICT_TOOLS = 20

_COUNT_FIELDS = frozenset(
    {"cache_control", "messages", "model", "output_config", "speed", "system", "thinking", "tool_choice"}
    | {"tools", "user_profile_id", "workspace_id"}
)
_FIELDS = _COUNT_FIELDS | {"container", "diagnostics", "inference_geo", "max_tokens", "metadata"}
_FIELDS |= {"service_tier", "stop_sequences", "stream"}
_FIXED = ("tools", "tool_choice", "output_config", "thinking", "max_tokens")
_SAMPLING = ("temperature", "top_p", "top_k")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_accepted: set[bytes] = set()
_ACCEPTED_LIMIT = 2_000


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse a request without a usable key (401) or without a known ``anthropic-version`` (400)."""
    bearer = headers.get("authorization", "")
    key = bearer[7:].strip() if bearer[:7].lower() == "bearer " else headers.get("x-api-key", "").strip()
    if not key:
        raise ApiError(401, "Authentication required: send the API key as a bearer token.")
    if key == "invalid":
        raise ApiError(401, "invalid bearer token" if bearer else "invalid x-api-key")
    version = headers.get("anthropic-version", "")
    if not version:
        raise invalid("anthropic-version: header is required")
    if version not in VERSIONS:
        raise invalid(f"anthropic-version: {version!r} is not a valid version")


def check_request(body: Any, *, version: str, counting: bool = False) -> Model:
    """Refuse a body that the API would refuse; the model otherwise. ``counting`` is for count_tokens."""
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object")
    model = _check_model(body)
    known = _COUNT_FIELDS if counting else _FIELDS
    if not known.issuperset(body):
        _refuse_unknown(body, known, model, version)
    if not counting:
        _check_max_tokens(body, model)
    check_messages(body, model)
    # Agents send the same tools, schema and thinking in every call: what was found good once is remembered.
    fixed = [model.id, *(body.get(key) for key in _FIXED)]
    key = marshal.dumps(fixed)
    if key not in _accepted:
        _check_fixed(body, model)
        if len(_accepted) >= _ACCEPTED_LIMIT:
            _accepted.clear()
        _accepted.add(key)
    _check_rest(body)
    return model


def _check_model(body: Mapping[str, Any]) -> Model:
    name = body.get("model")
    if name is None:
        raise invalid("model: Field required")
    if not isinstance(name, str) or not name:
        raise invalid("model: Input should be a valid string")
    model = find_model(name)
    if model is None:
        raise ApiError(404, f"model: {name}")
    return model


def _refuse_unknown(body: Mapping[str, Any], known: frozenset[str], model: Model, version: str) -> None:
    for name in sorted(set(body) - known):
        is_sampling = name in _SAMPLING
        if is_sampling and version == "2023-06-01" and model.token_factor == 1.0:
            continue
        if is_sampling:
            raise invalid(f"{name}: Sampling parameters are not supported. Remove `{name}` from the request.")
        raise invalid(f"{name}: Extra inputs are not permitted")


def _check_max_tokens(body: Mapping[str, Any], model: Model) -> None:
    given = body.get("max_tokens")
    if given is None:
        raise invalid("max_tokens: Field required")
    if not isinstance(given, int) or isinstance(given, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if given < 0:
        raise invalid("max_tokens: Input should be greater than or equal to 0")
    if given > model.max_tokens:
        raise invalid(
            f"max_tokens: {given} > {model.max_tokens}, which is the maximum allowed number of output tokens "
            f"for {model.id}"
        )


def _check_fixed(body: Mapping[str, Any], model: Model) -> None:
    effort, counts = _check_output_config(body.get("output_config"), model)
    _check_thinking(body, model, effort)
    for optional, unions in _check_tools(body):
        counts = (counts[0] + optional, counts[1] + unions)
    check_limits(*counts)
    _check_tool_choice(body, model)


def _check_output_config(config: Any, model: Model) -> tuple[str, tuple[int, int]]:
    if config is None:
        return model.effort_default, (0, 0)
    if not isinstance(config, dict):
        raise invalid("output_config: Input should be a valid dictionary")
    for name in sorted(set(config) - {"effort", "format"}):
        raise invalid(f"output_config.{name}: Extra inputs are not permitted")
    effort = config.get("effort")
    if effort is not None and effort not in EFFORTS:
        raise invalid(f"output_config.effort: Input should be {', '.join(map(repr, EFFORTS))}")
    if effort is not None and effort not in model.efforts:
        supported = f"Supported: {', '.join(model.efforts)}." if model.efforts else "It takes no effort."
        raise invalid(f"output_config.effort: '{effort}' is not supported by {model.id}. {supported}")
    form = config.get("format")
    if form is None:
        return effort or model.effort_default, (0, 0)
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    for name in sorted(set(form) - {"type", "schema"}):
        raise invalid(f"output_config.format.{name}: Extra inputs are not permitted")
    if "schema" not in form:
        raise invalid("output_config.format.schema: Field required")
    return effort or model.effort_default, check_schema(form["schema"], "output_config.format.schema")


def _check_thinking(body: Mapping[str, Any], model: Model, effort: str) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("adaptive", "between_tools", "disabled", "enabled"):
        raise invalid("thinking.type: Input should be 'adaptive', 'between_tools', 'disabled' or 'enabled'")
    if kind not in model.thinking_types:
        raise invalid(f'"thinking.type.{kind}" is not supported for this model ({model.id}).')
    if kind in ("disabled", "between_tools") and model.efforts and effort not in model.quiet_efforts:
        raise invalid(f'"thinking.type.{kind}" is not supported at effort `{effort}` on {model.id}.')
    if kind == "enabled":
        budget, most = thinking.get("budget_tokens"), body.get("max_tokens", model.max_tokens)
        if not isinstance(budget, int) or budget < 1_024:
            raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= most:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_tools(body: Mapping[str, Any]) -> list[tuple[int, int]]:
    tools = body.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a valid list")
    names: set[str] = set()
    counts = []
    for number, tool in enumerate(tools):
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise invalid(f"tools.{number}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if name in names:
            raise invalid("tools: Tool names must be unique.")
        names.add(name)
        schema = tool.get("input_schema")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise invalid(f"tools.{number}.custom.input_schema.type: Input should be 'object'")
        if tool.get("strict"):
            counts.append(check_schema(schema, f"tools.{number}.custom.input_schema"))
    if len(counts) > MAX_STRICT_TOOLS:
        raise invalid(f"tools: Too many strict tools ({len(counts)}). The maximum is {MAX_STRICT_TOOLS}.")
    return counts


def _check_tool_choice(body: Mapping[str, Any], model: Model) -> None:
    choice = body.get("tool_choice")
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        raise invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    tools = body.get("tools") or []
    if not tools:
        raise invalid("tool_choice: `tool_choice` may only be specified while providing `tools`.")
    if kind in ("any", "tool") and not model.forced_tool_choice:
        raise invalid(f"tool_choice: `tool_choice.type` '{kind}' is not supported by {model.id}. Use 'auto'.")
    if kind == "tool" and choice.get("name") not in {tool["name"] for tool in tools}:
        raise invalid(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")


def _check_rest(body: Mapping[str, Any]) -> None:
    system = body.get("system")
    if system is not None and not isinstance(system, str | list):
        raise invalid("system: Input should be a valid string or list")
    if isinstance(system, list):
        for number, block in enumerate(system):
            if not isinstance(block, dict) or block.get("type") != "text":
                raise invalid(f"system.{number}.type: Input should be 'text'")
            if not block.get("text"):
                raise invalid("system: text content blocks must be non-empty")
    if not isinstance(body.get("stream", False), bool):
        raise invalid("stream: Input should be a valid boolean")
    if "service_tier" in body and body["service_tier"] not in ("auto", "standard_only"):
        raise invalid("service_tier: Input should be 'auto' or 'standard_only'")
