"""How agents do: steps that ended, hour by hour, and what that says of success, speed and the error budget.

The sums are kept in ``AgentHour`` and ``DepartmentHour``. A job adds each minute what has ended since, up to
``DELAY`` ago, and counts every hour a second time when it has been over for a while: then the sums equal the rows,
whatever was written late. What happens to a step after that, such as a retry days later, does not change them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import (
    BooleanField,
    Count,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    F,
    Min,
    Q,
    QuerySet,
    Sum,
)

from agents.models import Agent
from agents.statements import Among, Given, Statement
from runs.database import now as database_now
from runs.models import AgentHour, AgentRun, DepartmentHour, HourCount, PipelineRun
from runs.models.health import BUCKET_SECONDS, BUCKETS

HOUR = timedelta(hours=1)
DELAY = timedelta(seconds=45)
"""What ended later than this may not be committed yet, and is left for the next look."""
SETTLES = timedelta(minutes=10)
"""So long after its end an hour is counted once more."""
KEPT = timedelta(days=8)
"""How far back an installation that has never counted begins."""
SECONDS = 20.0
WEEK = timedelta(days=7)
SUCCESS_GOAL = 0.99
"""Of the steps that end, so many should be done. What is allowed to fail is the error budget."""
COUNTS = ("done", "failed", *BUCKETS)
NOTHING = (0,) * len(COUNTS)
_ENDED = (PipelineRun.Status.COMPLETED, PipelineRun.Status.DEGRADED)


@dataclass(frozen=True, slots=True)
class AgentHealth:
    """One agent over a day and a week. Latencies are upper bounds of the histogram's buckets, in seconds.

    None where nothing was measured; ``math.inf`` for more than the last bound.
    """

    agent: Agent
    done: int
    failed: int
    p50_seconds: float | None
    p95_seconds: float | None
    week_done: int
    week_failed: int

    @property
    def ended(self) -> int:
        """Steps that ended in the last day."""
        return self.done + self.failed

    @property
    def week_ended(self) -> int:
        """Steps that ended in the last week."""
        return self.week_done + self.week_failed

    @property
    def success_percent(self) -> float | None:
        """Of the last day's steps, how many were done; None if none ended."""
        return success_percent(self.done, self.failed)

    @property
    def is_slow(self) -> bool:
        """Whether fewer than 95 of 100 steps were surely within the agent's latency target."""
        target = bucket_of(self.agent.latency_target_seconds)
        return self.p95_seconds is not None and self.p95_seconds > target

    @property
    def budget_left_percent(self) -> int | None:
        """What is left of the week's error budget; negative if it is overdrawn, None if nothing ended."""
        return error_budget_left(self.week_done, self.week_failed)


@dataclass(frozen=True, slots=True)
class Hour:
    """What ended in one hour: steps that were done, steps that failed, pipeline runs."""

    hour: datetime
    done: int
    failed: int
    finished: int


def success_percent(done: int, failed: int) -> float | None:
    """Rounded down to a tenth, so that a failure is never shown as 100 %; None where nothing ended."""
    ended = done + failed
    return math.floor(done * 1000 / ended) / 10 if ended else None


def error_budget_left(done: int, failed: int) -> int | None:
    """How much of what may fail has not failed yet, in whole percent; negative when it is overdrawn."""
    ended = done + failed
    if not ended:
        return None
    allowed = ended * (1 - SUCCESS_GOAL)
    return math.floor(100 * (1 - failed / allowed) + 1e-9)


def bucket_of(seconds: float) -> float:
    """The upper bound of the bucket in which a time falls."""
    return next((float(bound) for bound in BUCKET_SECONDS if seconds <= bound), math.inf)


def percentile(counts: Sequence[int], share: float) -> float | None:
    """The upper bound (s) of the bucket that holds this share (0 to 1) of a histogram; None for an empty one."""
    total, so_far = sum(counts), 0
    for position, count in enumerate(counts):
        so_far += count
        if total and so_far >= share * total:
            return float(BUCKET_SECONDS[position]) if position < len(BUCKET_SECONDS) else math.inf
    return None


def begin_of_hour(moment: datetime) -> datetime:
    """The full hour before a moment."""
    return moment.replace(minute=0, second=0, microsecond=0)


# --- Reading --------------------------------------------------------------------------------------------------


def counted_to() -> datetime | None:
    """Until when the sums are complete; None if nothing was ever counted."""
    return next((at for (at,) in _COUNTED_TO.rows()), None)


def load_agent_health(department_ids: Iterable[int], *, now: datetime) -> list[AgentHealth]:
    """The enabled agents of these departments, those with the most failures first; two queries."""
    return health_of(_ENABLED.objects(departments=department_ids), now=now)


def health_of(agents: Collection[Agent], *, now: datetime) -> list[AgentHealth]:
    """These agents, those with the most failures first; one query."""
    ids, day = [agent.pk for agent in agents], begin_of_hour(now) - timedelta(hours=23)
    counts = {row[:2]: row[2:] for row in _WEEK.rows(agents=ids, day=day, week=now - WEEK)}
    found = [
        _health(agent, counts.get((agent.pk, True), NOTHING), counts.get((agent.pk, False), NOTHING))
        for agent in agents
    ]
    return sorted(found, key=lambda health: (-health.failed, -health.week_failed, health.agent.pk))


_ENABLED = Statement(
    lambda: Agent.objects.filter(Among("department_id", "departments"), is_enabled=True).order_by("pk")
)
_WEEK = Statement(
    lambda: (
        AgentHour.objects.filter(Among("agent_id", "agents"), hour__gt=Given("week", DateTimeField()))
        .annotate(is_of_day=ExpressionWrapper(Q(hour__gte=Given("day", DateTimeField())), BooleanField()))
        .order_by()
        .values_list("agent_id", "is_of_day")
        .annotate(*(Sum(name) for name in COUNTS))
    )
)


def load_hours(department_ids: Iterable[int], *, now: datetime, hours: int = 24) -> list[Hour]:
    """The last hours, the one that runs included, the oldest first; two queries."""
    last = begin_of_hour(now)
    first = last - HOUR * (hours - 1)
    given: dict[str, Any] = {"departments": department_ids, "first": first}
    found = {hour: (done, failed) for hour, done, failed in _STEPS_BY_HOUR.rows(**given)}
    finished: dict[datetime, int] = dict(_RUNS_BY_HOUR.rows(**given))
    slots = [first + HOUR * position for position in range(hours)]
    return [Hour(hour, *found.get(hour, (0, 0)), finished.get(hour, 0)) for hour in slots]


def _since(hours: QuerySet[Any]) -> QuerySet[Any, Any]:
    """Of some departments, by hour."""
    wanted = hours.filter(Among("department_id", "departments"), hour__gte=Given("first", DateTimeField()))
    return wanted.order_by().values_list("hour")


_COUNTED_TO = Statement(lambda: HourCount.objects.filter(pk=1).values_list("counted_to"))
_STEPS_BY_HOUR = Statement(lambda: _since(AgentHour.objects.all()).annotate(Sum("done"), Sum("failed")))
_RUNS_BY_HOUR = Statement(
    lambda: _since(DepartmentHour.objects.all()).annotate(sum=Sum(F("completed") + F("degraded")))
)


def _health(agent: Agent, day: Sequence[int], earlier: Sequence[int]) -> AgentHealth:
    """From the sums of the last day and of the rest of the week, in the order of ``COUNTS``."""
    done, failed, *histogram = day
    return AgentHealth(
        agent=agent,
        done=done,
        failed=failed,
        p50_seconds=percentile(histogram, 0.5),
        p95_seconds=percentile(histogram, 0.95),
        week_done=done + earlier[0],
        week_failed=failed + earlier[1],
    )


# --- Counting -------------------------------------------------------------------------------------------------


def count_hours(*, now: datetime | None = None, seconds: float = SECONDS) -> None:
    """Count what has ended since the last time; called each minute."""
    until = time.monotonic() + seconds
    HourCount.objects.get_or_create(pk=1)
    while _count_next(now or database_now()) and time.monotonic() < until:
        pass


def _count_next(now: datetime) -> bool:
    """One stretch within one hour, or an hour once more. False: nothing is left, or somebody else is at it."""
    with transaction.atomic():
        state = HourCount.objects.select_for_update(skip_locked=True).filter(pk=1).first()
        if state is None:
            return False
        edge = now - DELAY
        if state.counted_to is None or state.settled_to is None:
            state.counted_to = state.settled_to = _first_hour(now - KEPT, edge)
        if state.counted_to > now + DELAY:
            _begin_again(state, begin_of_hour(now))
        elif state.settled_to + HOUR <= min(state.counted_to, now - SETTLES):
            _forget(state.settled_to, state.settled_to + HOUR)
            _add(state.settled_to, state.settled_to + HOUR)
            state.settled_to += HOUR
        elif state.counted_to < edge:
            end = min(begin_of_hour(state.counted_to) + HOUR, edge)
            _add(state.counted_to, end)
            state.counted_to = end
        state.save(update_fields=["counted_to", "settled_to"])
        return state.counted_to != edge or state.settled_to + HOUR <= min(edge, now - SETTLES)


def _first_hour(since: datetime, edge: datetime) -> datetime:
    """The hour in which something ended first: on a new installation the empty ones before it need no look."""
    steps = AgentRun.objects.filter(status__in=[AgentRun.Status.DONE, AgentRun.Status.FAILED])
    counted: tuple[QuerySet[Any], ...] = (steps, PipelineRun.objects.filter(status__in=_ENDED))
    first = [rows.filter(ended_at__gte=since).aggregate(at=Min("ended_at"))["at"] for rows in counted]
    return begin_of_hour(min((at for at in first if at is not None), default=edge))


def _begin_again(state: HourCount, hour: datetime) -> None:
    """The clock was put back: what seemed to be counted is counted anew."""
    _forget(hour, None)
    state.counted_to = state.settled_to = hour


def _forget(begin: datetime, end: datetime | None) -> None:
    hours = Q(hour__gte=begin) if end is None else Q(hour__gte=begin, hour__lt=end)
    AgentHour.objects.filter(hours).delete()
    DepartmentHour.objects.filter(hours).delete()


def _add(begin: datetime, end: datetime) -> None:
    """Add what ended from ``begin`` up to ``end``, which lie in one hour."""
    hour = begin_of_hour(begin)
    for row in _ended_steps(begin, end):
        agent, department = row.pop("agent"), row.pop("department")
        held, _ = AgentHour.objects.get_or_create(agent_id=agent, hour=hour, defaults={"department_id": department})
        AgentHour.objects.filter(pk=held.pk).update(**{name[2:]: F(name[2:]) + count for name, count in row.items()})
    sums = {f"n_{status}": Count("pk", filter=Q(status=status)) for status in _ENDED}
    runs: Any = PipelineRun.objects.filter(ended_at__gte=begin, ended_at__lt=end, status__in=_ENDED).order_by()
    for row in runs.values("item__department").annotate(**sums):
        held_hour, _ = DepartmentHour.objects.get_or_create(department_id=row["item__department"], hour=hour)
        counts = {status.value: F(status.value) + row[f"n_{status}"] for status in _ENDED}
        DepartmentHour.objects.filter(pk=held_hour.pk).update(**counts)


def _ended_steps(begin: datetime, end: datetime) -> Iterable[dict[str, int]]:
    """By agent: how many steps were done and failed, and the histogram of the last attempt of those that were done."""
    status = AgentRun.Status
    runs = AgentRun.objects.filter(status__in=[status.DONE, status.FAILED], ended_at__gte=begin, ended_at__lt=end)
    took = ExpressionWrapper(F("ended_at") - F("started_at"), output_field=DurationField())
    sums = {
        "n_done": Count("pk", filter=Q(status=status.DONE)),
        "n_failed": Count("pk", filter=Q(status=status.FAILED)),
    }
    bounds = [timedelta(seconds=bound) for bound in BUCKET_SECONDS]
    for position, name in enumerate(BUCKETS):
        within = Q(status=status.DONE)
        within &= Q(took__lte=bounds[position]) if position < len(bounds) else Q(took__gt=bounds[-1])
        within &= Q(took__gt=bounds[position - 1]) if 0 < position < len(bounds) else Q()
        sums[f"n_{name}"] = Count("pk", filter=within)
    grouped: Any = runs.annotate(took=took).order_by().values("agent", "department")
    found: Iterable[dict[str, int]] = grouped.annotate(**sums)
    return found
