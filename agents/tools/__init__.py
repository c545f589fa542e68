"""The read-only tools: a closed list. Adding one is a module with a ``Tool`` and one line in ``_TOOLS``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pydantic import ValidationError

from agents.prompts import data_block
from agents.reading import storable, storable_json
from agents.tools.base import (
    DatabaseTool,
    NetworkTool,
    Tool,
    ToolArgs,
    ToolContext,
    ToolFailure,
    ToolResult,
)
from agents.tools.search import SEARCH_KNOWLEDGE
from agents.tools.website import READ_WEBSITE

__all__ = [
    "DatabaseTool",
    "NetworkTool",
    "RunInDb",
    "Tool",
    "ToolArgs",
    "ToolContext",
    "ToolFailure",
    "ToolResult",
    "run_tool",
    "tool",
    "tool_definitions",
    "validate_args",
]

AnyTool = DatabaseTool | NetworkTool
RunInDb = Callable[[Callable[[], ToolResult]], Awaitable[ToolResult]]
"""Runs a function on the engine's database thread and returns what it returns."""

log = logging.getLogger(__name__)

_TOOLS: dict[str, AnyTool] = {each.name: each for each in (SEARCH_KNOWLEDGE, READ_WEBSITE)}


def tool(name: str) -> AnyTool:
    """The tool of that name; KeyError names the known ones."""
    try:
        return _TOOLS[name]
    except KeyError:
        raise KeyError(f"There is no tool {name!r}. There are: {', '.join(_TOOLS)}.") from None


def tool_definitions(names: Iterable[str]) -> list[dict[str, Any]]:
    """The ``tools`` of a request, in the given order, in the API's strict mode."""
    return [
        {"name": t.name, "description": t.description, "input_schema": t.input_schema, "strict": True}
        for t in map(tool, names)
    ]


def validate_args(tool: Tool, args: Any) -> str | None:
    """What is wrong with the arguments, as a sentence for the model; None if nothing is."""
    try:
        tool.args.model_validate(args)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()]
        return f"{tool.name} was called with arguments that do not fit its schema. {'; '.join(faults[:5])}."
    return None


async def run_tool(tool: AnyTool, ctx: ToolContext, args: Any, run_in_db: RunInDb) -> ToolResult:
    """Run a tool within its time and size; never raises but for cancellation.

    The content of a success is one ``<data>`` block, because outsiders wrote what is in it. A failure is a
    sentence the model can act on; what broke inside goes to the log of the process, not to the model.
    """
    problem = validate_args(tool, args)
    if problem is not None:
        return ToolResult(storable(problem), is_error=True, detail={"error": "arguments"})
    values = tool.args.model_validate(args).model_dump()
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            if isinstance(tool, DatabaseTool):
                run = tool.run
                result = await run_in_db(lambda: run(ctx, values))
            else:
                result = await tool.run(ctx, values)
    except ToolFailure as failure:
        return ToolResult(
            storable(str(failure)), is_error=True, detail=storable_json({"error": "failed"} | failure.detail)
        )
    except TimeoutError:
        reason = f"{tool.name} gave no result within {tool.timeout_seconds:g} seconds."
        return ToolResult(reason, is_error=True, detail={"error": "timeout"})
    except Exception as error:
        log.exception("The tool %s failed in department %s", tool.name, ctx.department_id)
        reason = f"{tool.name} failed for a reason of its own. Go on without it."
        return ToolResult(reason, is_error=True, detail={"error": type(error).__name__})
    return _bounded(tool, result)


def _bounded(tool: Tool, result: ToolResult) -> ToolResult:
    content, detail = storable(result.content), storable_json(result.detail) | {"chars": len(result.content)}
    if len(content) > tool.max_chars:
        content = f"{content[: tool.max_chars].rstrip()}\n[Cut here: {len(content):,} characters in all.]"
    return ToolResult(content if result.is_error else data_block(tool.name, content), result.is_error, detail)
