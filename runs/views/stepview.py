"""The right side of the run page: one agent run under its tabs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.utils import timezone

from agents.prompts import read_data
from runs.models import AgentRun, ModelCall, ModelCallBody, Output, ToolCall
from runs.views.cards import Card, Field, build_card, build_fields
from runs.views.shown import Shown, show_agent_run, show_model_call

TABS = (
    ("error", "Error"),
    ("input", "Input"),
    ("output", "Output"),
    ("reasoning", "Reasoning"),
    ("calls", "Calls"),
    ("cost", "Cost"),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of data the agent was given: what it is, and its fields."""

    kind: str
    key: str
    fields: tuple[Field, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class CallRow:
    """One model call with the tools it asked for."""

    call: ModelCall
    shown: Shown
    tools: tuple[ToolCall, ...]

    @property
    def tokens_in(self) -> int:
        """All of the prompt, cached or not."""
        call = self.call
        cached = call.cache_write_5m_tokens + call.cache_write_1h_tokens + call.cache_read_tokens
        return call.input_tokens + cached


@dataclass(slots=True)
class StepView:
    """One agent run as the run page shows it; only what the chosen tab needs is filled in."""

    run: AgentRun
    shown: Shown
    tab: str
    tabs: list[tuple[str, str]]
    can_retry: bool
    retry_hint: str
    is_chosen: bool
    """Whether a person chose the step; else the page follows the run."""
    calls: list[CallRow] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    card: Card | None = None
    thoughts: list[str] = field(default_factory=list)
    cost_usd: Decimal = Decimal(0)


def build_step_view(
    run: AgentRun, calls: Sequence[ModelCall], tab: str, *, can_operate: bool, is_chosen: bool
) -> StepView:
    """Read what one tab of an agent run shows. Without a tab: Error if it failed, else Output, else Input."""
    has_failed = run.status == AgentRun.Status.FAILED or any(call.cause for call in calls)
    tab = tab or _first_tab(run)
    view = StepView(
        run=run,
        shown=show_agent_run(run, timezone.now()),
        tab=tab,
        tabs=[(name, label) for name, label in TABS if name != "error" or has_failed or tab == "error"],
        can_retry=run.status == AgentRun.Status.FAILED and can_operate,
        retry_hint=_retry_hint(run, can_operate),
        is_chosen=is_chosen,
        cost_usd=sum((call.cost_usd for call in calls), Decimal(0)),
    )
    tools = _tools(run) if tab in ("calls", "error") else {}
    view.calls = [CallRow(call, show_model_call(call), tuple(tools.get(call.pk, ()))) for call in calls]
    if tab in ("output", "reasoning"):
        output = run.outputs.select_related("author", "agent_run__agent").order_by("-pk").first()
        view.card = build_card(output, run.department.spec) if isinstance(output, Output) else None
    if tab == "reasoning":
        view.thoughts = _thoughts(calls)
    if tab == "input":
        view.pieces = _pieces(calls)
    return view


def _first_tab(run: AgentRun) -> str:
    if run.status == AgentRun.Status.FAILED:
        return "error"
    return "output" if run.status == AgentRun.Status.DONE else "input"


def _retry_hint(run: AgentRun, can_operate: bool) -> str:
    if run.status != AgentRun.Status.FAILED:
        return f"Only a failed step can be retried; this one is {run.get_status_display()}."
    return "" if can_operate else "Retrying takes the role of an operator."


def _tools(run: AgentRun) -> dict[int, list[ToolCall]]:
    found: dict[int, list[ToolCall]] = {}
    for tool in run.tool_calls.order_by("pk"):
        found.setdefault(tool.model_call_id, []).append(tool)
    return found


def _pieces(calls: Sequence[ModelCall]) -> list[Piece]:
    """What the latest attempt was given, read from its first request."""
    if not calls:
        return []
    first = min((call for call in calls if call.attempt == calls[-1].attempt), key=lambda call: call.number)
    body = ModelCallBody.objects.filter(call=first).first()
    return read_pieces(body.request) if body else []


def read_pieces(request: Any) -> list[Piece]:
    """The delimited data of a request's user messages."""
    messages = request.get("messages", []) if isinstance(request, dict) else []
    texts = [text for message in messages for text in _texts(message)]
    return [
        Piece(kind, key, build_fields(value if isinstance(value, dict) else {kind: value}), value)
        for text in texts
        for kind, key, value in read_data(text)
        if value not in ([], {}, None, "")
    ]


def _texts(message: Any) -> Iterable[str]:
    if not isinstance(message, dict) or message.get("role") != "user":
        return []
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    return [str(block.get("text", "")) for block in blocks if isinstance(block, dict)]


def _thoughts(calls: Sequence[ModelCall]) -> list[str]:
    """Summaries of the model's thinking, where the API returned them."""
    found = []
    for body in ModelCallBody.objects.filter(call__in=calls).order_by("call__attempt", "call__number"):
        content = body.response.get("content", []) if isinstance(body.response, dict) else []
        found += [block.get("thinking", "") for block in content if isinstance(block, dict)]
    return [thought for thought in found if thought]
