"""What a read-only tool is, what it is given and what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Args = Mapping[str, Any]


class ToolArgs(BaseModel):
    """Base of the arguments of a tool: flat, simple types, a description for each, nothing beyond them."""

    model_config = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who asks: the department, the fields that the agent may see, whether the network may be used."""

    department_id: int
    item: Mapping[str, Any]
    network: bool


@dataclass(frozen=True, slots=True)
class ToolResult:
    """``content`` goes to the model; ``detail`` is a JSON object for the log (url, status, bytes, hits …)."""

    content: str
    is_error: bool = False
    detail: dict[str, Any] = field(default_factory=dict)


class ToolFailure(Exception):
    """A tool could not do what it was asked. The text is for the model: plain words, nothing internal."""

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Tool:
    """Common to all tools. ``run`` gets arguments that fit ``args`` and may raise ToolFailure."""

    kind: ClassVar[Literal["database", "network"]]
    name: str
    description: str
    args: type[ToolArgs]
    timeout_seconds: float
    max_chars: int

    @property
    def input_schema(self) -> dict[str, Any]:
        """The arguments as the API's strict mode takes them: types and descriptions, no other keyword."""
        schema = self.args.model_json_schema()
        return {
            "type": "object",
            "properties": {
                name: {"type": spec["type"], "description": spec["description"]}
                for name, spec in schema["properties"].items()
            },
            "required": schema.get("required", []),
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class DatabaseTool(Tool):
    """Runs on the engine's database thread and never waits for the network."""

    kind: ClassVar[Literal["database", "network"]] = "database"
    run: Callable[[ToolContext, Args], ToolResult]


@dataclass(frozen=True, slots=True)
class NetworkTool(Tool):
    """Runs on the event loop and never touches the database."""

    kind: ClassVar[Literal["database", "network"]] = "network"
    run: Callable[[ToolContext, Args], Awaitable[ToolResult]]
