"""Which agent runs a list shows: its filters as an address carries them, and as a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.db.models import Exists, OuterRef, Q, QuerySet

from agents.causes import Cause
from agents.models import Agent
from agents.statements import Given
from runs.access import Access
from runs.models import AgentRun, Item, ModelCall

LOST = "lost"
STATUSES = (
    (AgentRun.Status.QUEUED.value, "Waiting"),
    (AgentRun.Status.RUNNING.value, "Running"),
    (LOST, "Lost, being recovered"),
    (AgentRun.Status.FAILED.value, "Failed"),
    (AgentRun.Status.DONE.value, "Done"),
    (AgentRun.Status.CANCELLED.value, "Cancelled"),
    (AgentRun.Status.SUPERSEDED.value, "Superseded"),
)
"""What a person may ask for. ``lost`` is running by its row, but nobody holds its lease."""
PERIODS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
PERIOD_LABELS = {"1h": "the last hour", "24h": "the last 24 hours", "7d": "the last 7 days", "30d": "the last 30 days"}
NAMES = ("status", "agent", "model", "cause", "text", "since")
_SAID = {"since": "period"}
MOST_ITEMS = 200
"""A text that more items carry is looked for in the newest of them only."""


@dataclass(frozen=True, slots=True)
class StepFilters:
    """What a person has chosen; empty is everything. ``text`` stands in the item's title."""

    status: str = ""
    agent: str = ""
    model: str = ""
    cause: str = ""
    text: str = ""
    since: str = ""
    problems: tuple[str, ...] = ()
    """Sentences about what could not be read."""

    @property
    def query(self) -> str:
        """As the query string of an address, without what is not chosen."""
        return urlencode({name: value for name in NAMES if (value := getattr(self, name))})

    @property
    def is_any(self) -> bool:
        """Whether anything is chosen but the status."""
        return bool(self.agent or self.model or self.cause or self.text or self.since)

    @property
    def is_slow(self) -> bool:
        """Whether something is chosen that no index serves."""
        return bool(self.model or self.since) and not self.text


def read_step_filters(params: Mapping[str, str]) -> StepFilters:
    """The filters in an address. What no list could have is left out and said."""
    given = {name: params.get(name, "").strip()[:100] for name in NAMES}
    known = {
        "status": [value for value, _ in STATUSES],
        "cause": [value for value in Cause.values if value],
        "since": list(PERIODS),
    }
    problems = unknown_among(given, known)
    fit = {name: value for name, value in given.items() if not value or value in known.get(name, (value,))}
    return StepFilters(**fit, problems=problems)


def unknown_among(given: Mapping[str, str], known: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A sentence for each value that is none of those known under its name."""
    return tuple(
        f"“{given[name][:40]}” is no {_SAID.get(name, name)} (known: {', '.join(values)})."
        for name, values in known.items()
        if given[name] and given[name] not in values
    )


def filter_steps(filters: StepFilters, access: Access, now: datetime) -> QuerySet[AgentRun]:
    """The agent runs that the filters let through, of the departments that are shown."""
    rows = with_status(steps_of(access), filters.status, now)
    if filters.agent:
        # By id: only then does the database know whether they have many runs, and how to find them.
        agents = Agent.objects.filter(department__in=access.ids, slug=filters.agent)
        rows = rows.filter(agent__in=list(agents.values_list("pk", flat=True)))
    if filters.cause:
        # The status first, of which there are few: every one of these has an end that has a cause.
        rows = rows.filter(cause=filters.cause)
    if filters.text:
        rows = rows.filter(item__in=found_items(filters.text, access))
    if filters.since:
        rows = rows.filter(queued_at__gte=begins(filters, now))
    if filters.model:
        used = ModelCall.objects.filter(agent_run=OuterRef("pk"))
        rows = rows.filter(Exists(used.filter(Q(model_used=filters.model) | Q(model_asked=filters.model))))
    return rows


def steps_of(access: Access) -> QuerySet[AgentRun]:
    """All agent runs of the departments that are shown."""
    return AgentRun.objects.filter(department__in=access.ids)


def with_status(rows: QuerySet[AgentRun], status: str, now: datetime | Given) -> QuerySet[AgentRun]:
    """Those in one of ``STATUSES``; all without one."""
    if status == LOST:
        return rows.filter(status=AgentRun.Status.RUNNING, lease_expires_at__lt=now)
    if status == AgentRun.Status.RUNNING:
        return rows.filter(status=status, lease_expires_at__gte=now)
    return rows.filter(status=status) if status else rows


def begins(filters: StepFilters, now: datetime) -> datetime:
    """The moment since which steps are shown."""
    return now - PERIODS[filters.since]


def found_items(text: str, access: Access) -> list[int]:
    """The newest items whose title has the text in it, at most ``MOST_ITEMS``."""
    rows = Item.objects.filter(department__in=access.ids, title__icontains=text)
    return list(rows.order_by("-pk").values_list("pk", flat=True)[:MOST_ITEMS])
