"""The right side of the run page: one agent run under its tabs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.db.models import IntegerField
from django.utils import timezone

from agents.models import Member
from agents.prompts import read_data
from agents.statements import Given, Statement
from runs.access import Access
from runs.allowed import Allowed, can_cancel, can_rerun, can_retry
from runs.models import AgentRun, ModelCall, ModelCallBody, Output, ToolCall
from runs.runbook import section_of_cause, url_of
from runs.views.attempts import Attempt, CallRow, build_attempts, call_rows, fallback_note
from runs.views.cards import Card, Field, build_card, build_fields
from runs.views.shown import Shown, show_agent_run

TABS = (
    ("error", "Error"),
    ("input", "Input"),
    ("output", "Output"),
    ("reasoning", "Reasoning"),
    ("attempts", "Attempts"),
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
class Material:
    """The rows of one agent run, oldest first; calls with ``price`` and ``soul`` selected."""

    calls: Sequence[ModelCall]
    tools: Sequence[ToolCall]


@dataclass(slots=True)
class StepView:
    """One agent run as the run page shows it; only what the chosen tab needs is filled in."""

    run: AgentRun
    shown: Shown
    tab: str
    tabs: list[tuple[str, str]]
    can_retry: Allowed
    can_rerun: Allowed
    can_cancel: Allowed
    can_try: bool
    is_chosen: bool
    """Whether a person chose the step; else the page follows the run."""
    calls: list[CallRow]
    attempts: list[Attempt]
    attempt: Attempt | None
    """The one that the tabs are about: the chosen one, else the latest."""
    is_attempt_chosen: bool
    pieces: list[Piece] = field(default_factory=list)
    card: Card | None = None
    thoughts: list[str] = field(default_factory=list)
    note: str = ""
    """What the attempt was told because its model stood in for another."""
    cost_usd: Decimal = Decimal(0)
    later: AgentRun | None = None
    """The newest step for the same work, if a retry, a rerun or the rules have made one since."""

    @property
    def pk_text(self) -> str:
        """The id as a template puts it into an address."""
        return str(self.run.pk)

    @property
    def runbook_url(self) -> str:
        """What to do about why it failed; empty if it has not."""
        return url_of(section_of_cause(self.run.cause)) if self.run.cause else ""

    @property
    def query(self) -> str:
        """What an address needs to show the same step, tab and attempt again."""
        attempt = f"&attempt={self.attempt.number}" if self.attempt and self.is_attempt_chosen else ""
        return f"step={self.run.pk}&tab={self.tab}{attempt}"


def build_step_view(
    run: AgentRun,
    material: Material,
    *,
    tab: str,
    attempt: int | None,
    access: Access,
    is_chosen: bool,
    halt: str = "",
) -> StepView:
    """Read what one tab of an agent run shows. Without a tab: Error if it failed, else Output, else Input."""
    calls = sorted(material.calls, key=lambda call: (call.attempt, call.number))
    has_failed = run.status == AgentRun.Status.FAILED or any(call.cause for call in calls)
    tab = tab or _first_tab(run)
    shown = show_agent_run(run, timezone.now(), halt)
    rows = call_rows(calls, _by_call(material.tools))
    attempts = build_attempts(run, rows, shown)
    chosen = next((one for one in attempts if one.number == attempt), None)
    view = StepView(
        run=run,
        shown=shown,
        tab=tab,
        tabs=[(name, label) for name, label in TABS if name != "error" or has_failed or tab == "error"],
        can_retry=can_retry(run, access),
        can_rerun=can_rerun(run, access),
        can_cancel=can_cancel(run, access),
        can_try=access.can(run.department_id, Member.Role.OPERATOR),
        is_chosen=is_chosen,
        calls=rows,
        attempts=attempts,
        attempt=chosen or (attempts[-1] if attempts else None),
        is_attempt_chosen=chosen is not None,
        cost_usd=sum((call.cost_usd for call in calls), Decimal(0)),
    )
    _fill(view)
    return view


def _fill(view: StepView) -> None:
    """Read what the tab needs beside the calls."""
    run, calls = view.run, [row.call for row in view.attempt.rows] if view.attempt else []
    same = AgentRun.objects.filter(item=run.item_id, agent=run.agent_id, trigger=run.trigger_id, pk__gt=run.pk)
    view.later = same.order_by("-pk").first()
    if view.tab in ("output", "reasoning"):
        for output in _NEWEST.objects(limit=1, run=run.pk):
            output.agent_run = run
            view.card = build_card(output, run.department.spec)
    if view.tab == "reasoning":
        view.thoughts = _thoughts(calls)
    if view.tab in ("input", "attempts") and calls:
        body = ModelCallBody.objects.filter(call=calls[0]).only("request").first()
        view.pieces = read_pieces(body.request) if body and view.tab == "input" else []
        view.note = fallback_note(body.request) if body else ""


_NEWEST = Statement(lambda: Output.objects.filter(agent_run=Given("run", IntegerField())).order_by("-pk"))


def _first_tab(run: AgentRun) -> str:
    if run.status == AgentRun.Status.FAILED:
        return "error"
    return "output" if run.status == AgentRun.Status.DONE else "input"


def _by_call(tools: Iterable[ToolCall]) -> dict[int, list[ToolCall]]:
    found: dict[int, list[ToolCall]] = {}
    for tool in tools:
        found.setdefault(tool.model_call_id, []).append(tool)
    return found


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
