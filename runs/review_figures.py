"""How the review queue does: what waits, how long people take to decide, and what they decide, by agent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import Count, DateTimeField, F, FloatField, Func, Min, QuerySet

from agents.statements import Among, Given, Statement
from runs.database import now as database_now
from runs.models import Output, Review

WINDOW = timedelta(days=30)
MOST_READ = 1_000
"""So many of the latest decisions are looked at; the page says so."""
Answer = Review.Answer
_APPROVED = (Answer.APPROVE, Answer.APPROVE_EDITED)
JUDGED = (*_APPROVED, Answer.SEND_BACK, Answer.REJECT, Answer.CORRECT)


@dataclass(slots=True)
class Verdicts:
    """What people decided about an agent's outputs."""

    approved: int = 0
    edited: int = 0
    sent_back: int = 0
    rejected: int = 0

    @property
    def decided(self) -> int:
        """How many people have judged."""
        return self.approved + self.edited + self.sent_back + self.rejected

    @property
    def approval_rate(self) -> float | None:
        """The share that was approved, changed or not; None without a decision."""
        return (self.approved + self.edited) / self.decided if self.decided else None

    @property
    def unchanged_share(self) -> float | None:
        """The share that was approved as it was written; None without a decision."""
        return self.approved / self.decided if self.decided else None

    @property
    def edited_share(self) -> float | None:
        """The share of the approved that a person changed first; None without an approval."""
        approved = self.approved + self.edited
        return self.edited / approved if approved else None

    @property
    def sent_back_share(self) -> float | None:
        """The share that was to be written again; None without a decision."""
        return self.sent_back / self.decided if self.decided else None

    def add(self, answer: str, count: int = 1) -> None:
        """Count answers of a kind; others than these say nothing of the output."""
        match answer:
            case Answer.APPROVE:
                self.approved += count
            case Answer.APPROVE_EDITED:
                self.edited += count
            case Answer.SEND_BACK:
                self.sent_back += count
            case Answer.REJECT:
                self.rejected += count


@dataclass(slots=True)
class AgentFigures(Verdicts):
    """What became of one agent's work in the window; ``waiting`` is now."""

    title: str = ""
    waiting: int = 0
    corrected: int = 0


@dataclass(slots=True)
class Figures:
    """The queue of some departments. ``median_seconds``: from the question to a person's answer; None without one."""

    waiting: int = 0
    is_cut: bool = False
    """Whether only ``MOST_READ`` decisions were looked at."""
    oldest_at: datetime | None = None
    median_seconds: float | None = None
    total: AgentFigures = field(default_factory=lambda: AgentFigures(title="All agents"))
    agents: Sequence[AgentFigures] = ()


def read_figures(department_ids: Iterable[int], *, now: datetime | None = None) -> Figures:
    """The figures of these departments over the last 30 days, in three queries; of many decisions the latest."""
    given: dict[str, Any] = {"departments": list(department_ids), "since": (now or database_now()) - WINDOW}
    by_agent: dict[str, AgentFigures] = {}
    figures = Figures()
    for job, count, oldest_at in _WAITING.rows(**given):
        figures.waiting += count
        figures.oldest_at = min(figures.oldest_at or oldest_at, oldest_at)
        if job:
            _of(by_agent, job).waiting += count
    decided = _DECIDED.rows(limit=MOST_READ, **given)
    for job, answer, _ in decided:
        if answer in JUDGED:
            for counted in (figures.total, *([_of(by_agent, job)] if job else [])):
                counted.add(answer)
    figures.is_cut = len(decided) == MOST_READ
    figures.median_seconds = median(seconds for _, _, seconds in decided) if decided else None
    for job, count in _CORRECTED.rows(**given):
        figures.total.corrected += count
        _of(by_agent, job).corrected += count
    figures.agents = sorted(by_agent.values(), key=lambda row: row.title)
    return figures


def _of(by_agent: dict[str, AgentFigures], job: str) -> AgentFigures:
    title = job.split(":")[0]
    return by_agent.setdefault(title, AgentFigures(title=title))


class _Seconds(Func):
    """From one moment to another in seconds: to read a thousand pairs of moments takes ten times as long."""

    output_field = FloatField()
    arity = 2
    template = "EXTRACT(EPOCH FROM %(expressions)s)::float8"
    arg_joiner = " - "

    def as_sqlite(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        # Django's own function, which gives microseconds.
        template = "django_timestamp_diff(%(expressions)s) / 1e6"
        return self.as_sql(compiler, connection, template=template, arg_joiner=", ", **extra_context)


_SINCE = Given("since", DateTimeField())


def _waiting() -> QuerySet[Review, Any]:
    rows = Review.objects.filter(Among("department_id", "departments"), status=Review.Status.OPEN)
    return rows.order_by().values_list("agent_run__agent__job").annotate(Count("pk"), Min("created_at"))


def _decided() -> QuerySet[Review, Any]:
    """What people answered, the latest first: the job of the agent, the answer, and how long it took in seconds."""
    rows = Review.objects.filter(
        Among("department_id", "departments"),
        status=Review.Status.ANSWERED,
        answered_at__gte=_SINCE,
        answered_by__isnull=False,
    )
    seconds = _Seconds(F("answered_at"), F("created_at"))
    return rows.order_by("-answered_at").values_list("agent_run__agent__job", "answer", seconds)


def _corrected() -> QuerySet[Output, Any]:
    """How often people have corrected what an agent had written."""
    rows = Output.objects.filter(
        Among("item__department_id", "departments"),
        origin=Output.Origin.CORRECTED,
        created_at__gte=_SINCE,
        replaces__agent_run__isnull=False,
    )
    return rows.order_by().values_list("replaces__agent_run__agent__job").annotate(Count("pk"))


_WAITING = Statement(_waiting)
_DECIDED = Statement(_decided)
_CORRECTED = Statement(_corrected)
