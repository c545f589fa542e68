"""What travels between the database thread, which claims and commits, and the event loop, which calls the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from agents.causes import Cause
from agents.models import Agent
from agents.replies import ModelReply, ModelRequest
from agents.tools import ToolResult
from runs.inputs import Prepared


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A ModelCall that is written as ``started``: its budget is reserved, so the request may go out."""

    pk: int
    run_id: int | None
    """None: a try-out's, or a check."""
    request: ModelRequest
    reserved_usd: Decimal
    reserved_tokens: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool as it was used, for the ToolCall row."""

    call_pk: int
    name: str
    arguments: Any
    result: ToolResult
    started_at: datetime
    latency_ms: int


@dataclass(frozen=True, slots=True)
class SeenCall:
    """A call whose end was seen, with what it brought."""

    call: OpenCall
    reply: ModelReply
    tools: tuple[ToolUse, ...] = ()
    remark: str = ""
    """What we found wrong with a reply the API thought complete, such as a schema violation."""


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed agent run: everything the event loop needs, so that it never touches the database."""

    run_id: int
    item_id: int
    pipeline_run_id: int
    department_id: int
    agent: Agent
    schema: type[BaseModel]
    facets: tuple[str, ...]
    soul_id: int | None
    api_key_env: str
    token: UUID
    attempt: int
    prepared: Prepared
    first_call: OpenCall
    is_poison: bool = False
    """It has lost its worker so often that nothing else may fly beside it."""

    @property
    def model(self) -> str:
        """The model of this attempt: the agent's own, or one that stands in for it."""
        return str(self.first_call.request.params["model"])


@dataclass(frozen=True, slots=True)
class CutOff:
    """An attempt whose run was taken away: nothing of it counts but what its calls have cost."""

    unsettled: tuple[SeenCall, ...]


@dataclass(slots=True)
class Finished:
    """How an attempt ended: with a ``payload``, or with a ``cause``. ``unsettled`` are calls not yet written down."""

    work: Work
    payload: Mapping[str, Any] | None = None
    cause: Cause = Cause.NONE
    error: str = ""
    retry_after_seconds: float | None = None
    waiting_until: datetime | None = None
    trespasses: int = 0
    unsettled: list[SeenCall] = field(default_factory=list)

    @property
    def facets(self) -> dict[str, Any]:
        """The fields of the output that rules may test."""
        payload = self.payload or {}
        return {name: payload[name] for name in self.work.facets if name in payload}
