"""What the overview shows of the work itself: the next questions, steps under way and queued, runs that ended.

A page that refreshes itself asks this every few seconds: its queries are compiled once, and what several rows are about
is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import DateTimeField, Exists, OuterRef, QuerySet, Subquery, prefetch_related_objects

from agents.models import Agent
from agents.statements import Among, Given, Statement, count_each
from runs.access import Access
from runs.models import AgentRun, Item, PipelineRun, Review
from runs.models.people import DUE
from runs.review_queue import asked_now
from runs.switches import describe_halt
from runs.views.shown import Shown, show_agent_run, show_pipeline_run

SHOWN_ROWS = 8
RECENT_RUNS = 20_000
"""So many of the newest pipeline runs are searched for those that have ended."""
MANY = 10_000
"""Steps and items that wait are counted no further than this."""
_NOW = Given("now", DateTimeField())
RowT = TypeVar("RowT", Review, AgentRun, PipelineRun)


@dataclass(frozen=True, slots=True)
class Moving:
    """The rows that are shown, each with its item: ``running`` are steps under way and behind them those next."""

    reviews: Sequence[Review]
    running: Sequence[tuple[AgentRun, Shown]]
    finished: Sequence[tuple[PipelineRun, Shown]]


def read_moving(access: Access, agents: Iterable[Agent], now: datetime) -> Moving:
    """What is asked, done and over; at most six queries. ``agents``: all of the departments that are shown."""
    reviews = _QUESTIONS.objects(limit=SHOWN_ROWS, departments=access.ids, now=now)
    steps = _RUNNING.objects(limit=SHOWN_ROWS, departments=access.ids)
    if len(steps) < SHOWN_ROWS:
        steps += _NEXT.objects(limit=SHOWN_ROWS, departments=access.ids)[: SHOWN_ROWS - len(steps)]
    finished = _FINISHED.objects(limit=SHOWN_ROWS, departments=access.ids)
    by_agent = {agent.pk: agent for agent in agents}
    steps = [step for step in steps if step.agent_id in by_agent]  # that of a new agent is left to the next look
    for step in steps:
        step.agent = by_agent[step.agent_id]
    rows: list[Review | AgentRun | PipelineRun] = [*reviews, *steps, *finished]
    by_item: dict[int | None, Item] = {
        item.pk: item for item in _ITEMS.objects(items={row.item_id for row in rows if row.item_id is not None})
    }
    reviews, steps, finished = _about(reviews, by_item), _about(steps, by_item), _about(finished, by_item)
    access.give_departments(steps)
    prefetch_related_objects([step.item for step in steps], "automation_by")
    halt = describe_halt(access.installation)
    return Moving(
        reviews,
        [(step, show_agent_run(step, now, halt)) for step in steps],
        [(run, show_pipeline_run(run)) for run in finished],
    )


def _about(rows: Sequence[RowT], items: Mapping[int | None, Item]) -> list[RowT]:
    """The rows with their items, without those whose item was erased since they were read."""
    for row in rows:
        if row.item_id in items:
            row.item = items[row.item_id]
    return [row for row in rows if row.item_id is None or row.item_id in items]


def _ended_lately() -> QuerySet[PipelineRun]:
    newest = Subquery(PipelineRun.objects.order_by("-pk").values("pk")[:1])
    runs = PipelineRun.objects.filter(Among("item__department_id", "departments"), pk__gt=newest - RECENT_RUNS)
    return runs.exclude(status=PipelineRun.Status.ACTIVE).order_by("-pk")


def _steps(status: AgentRun.Status) -> QuerySet[AgentRun]:
    return AgentRun.objects.filter(Among("department_id", "departments"), status=status)


_QUESTIONS = Statement(lambda: asked_now().order_by("-risk", DUE, "pk"))
_RUNNING = Statement(lambda: _steps(AgentRun.Status.RUNNING).order_by("-started_at", "pk"))
# As the shifts take them.
_NEXT = Statement(lambda: _steps(AgentRun.Status.QUEUED).order_by("priority", "due_at", "pk"))
_FINISHED = Statement(_ended_lately)
_ITEMS = Statement(lambda: Item.objects.filter(Among("pk", "items")))


# --- How many -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """How many steps are queued, running under a live lease, and lost; items that a shift should look at; and, where
    there are none of those, whether new ones are not due yet. All are counted no further than ``MANY``."""

    queued: int
    running: int
    lost: int
    waiting_items: int
    staged_items: bool

    @property
    def has_many_items(self) -> bool:
        """Whether more items wait than are counted."""
        return self.waiting_items > MANY

    @property
    def is_many(self) -> bool:
        """Whether more are queued than are counted."""
        return self.queued > MANY


def count_work(access: Access, now: datetime) -> Work:
    """One query, two where no item waits."""
    found = count_each(_COUNTED, limit=MANY + 1, departments=access.ids, now=now)
    staged = not found["waiting_items"] and bool(_STAGED.rows(limit=1, departments=access.ids))
    return Work(**found, staged_items=staged)


def _waiting() -> QuerySet[Item]:
    return Item.objects.filter(
        Among("department_id", "departments"), automation=Item.Automation.ACTIVE, route_due_at__lte=_NOW
    )


def _staged() -> QuerySet[Item]:
    """Items that nobody has looked at and that are not due: an import has them until it ends."""
    return Item.objects.filter(
        ~Exists(PipelineRun.objects.filter(item=OuterRef("pk"))),
        Among("department_id", "departments"),
        status="new",
        automation=Item.Automation.ACTIVE,
        route_due_at=None,
    )


_COUNTED: dict[str, Statement[Any]] = {
    "queued": Statement(lambda: _steps(AgentRun.Status.QUEUED).order_by().values_list("pk")),
    "running": Statement(
        lambda: _steps(AgentRun.Status.RUNNING).filter(lease_expires_at__gte=_NOW).order_by().values_list("pk")
    ),
    "lost": Statement(
        lambda: _steps(AgentRun.Status.RUNNING).filter(lease_expires_at__lt=_NOW).order_by().values_list("pk")
    ),
    "waiting_items": Statement(lambda: _waiting().order_by().values_list("pk")),
}
_STAGED = Statement(lambda: _staged().order_by().values_list("pk"))
