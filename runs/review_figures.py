"""How the review queue does: what waits, how long people take to decide, and what they decide, by agent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median

from django.db.models import Count, Min

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
    ids, since = list(department_ids), (now or database_now()) - WINDOW
    by_agent: dict[str, AgentFigures] = {}
    figures = Figures()
    waiting = Review.objects.filter(department__in=ids, status=Review.Status.OPEN).order_by()
    for row in waiting.values("agent_run__agent__job").annotate(count=Count("pk"), oldest=Min("created_at")):
        figures.waiting += row["count"]
        figures.oldest_at = min(figures.oldest_at or row["oldest"], row["oldest"])
        if row["agent_run__agent__job"]:
            _of(by_agent, row["agent_run__agent__job"]).waiting += row["count"]
    answered = Review.objects.filter(
        department__in=ids, status=Review.Status.ANSWERED, answered_at__gte=since, answered_by__isnull=False
    ).order_by("-answered_at")
    seconds = []
    for asked, at, answer, job in answered.values_list("created_at", "answered_at", "answer", "agent_run__agent__job")[
        :MOST_READ
    ]:
        if at is not None:
            seconds.append((at - asked).total_seconds())
        if answer in JUDGED:
            for counted in (figures.total, *([_of(by_agent, job)] if job else [])):
                counted.add(answer)
    figures.is_cut = len(seconds) == MOST_READ
    figures.median_seconds = median(seconds) if seconds else None
    for job, count in _corrected(ids, since):
        figures.total.corrected += count
        _of(by_agent, job).corrected += count
    figures.agents = sorted(by_agent.values(), key=lambda row: row.title)
    return figures


def _of(by_agent: dict[str, AgentFigures], job: str) -> AgentFigures:
    title = job.split(":")[0]
    return by_agent.setdefault(title, AgentFigures(title=title))


def _corrected(ids: list[int], since: datetime) -> list[tuple[str, int]]:
    """How often people have corrected what an agent had written: ``(job, count)``."""
    rows = Output.objects.filter(
        item__department__in=ids,
        origin=Output.Origin.CORRECTED,
        created_at__gte=since,
        replaces__agent_run__isnull=False,
    )
    job = "replaces__agent_run__agent__job"
    return list(rows.order_by().values(job).annotate(count=Count("pk")).values_list(job, "count"))
