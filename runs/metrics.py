"""Numbers for Prometheus, from the database: every web process tells the same, whoever did the work.

Each group of numbers is read again only when it is older than its ``seconds``, however often it is asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Min, QuerySet, Sum
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from agents.models import Department, ModelState
from runs.database import newest
from runs.database import now as database_now
from runs.health import SILENT, due_items, read_queue
from runs.models import AgentRun, CostCorrection, ModelCall, OutboxMessage, Review, ShiftSlot

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SETTLED = timedelta(minutes=10)
"""A call that began so long ago is over, and what is told of it does not change any more."""
TOKENS = {
    "input": "input_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "cache_read": "cache_read_tokens",
    "output": "output_tokens",
}
_SUMMED = ("cost_usd", *TOKENS.values())
Key = tuple[str, ...]
Sums = dict[Key, list[float]]


@dataclass(slots=True)
class CallTotals:
    """Sums over all model calls there ever were, by department, model, status and cause.

    Old calls change only by a corrected price, so their sums are kept and only what came after them is added up
    again: the first reading of a process looks at the whole table, the others at some minutes of it.
    """

    settled: Sums = field(default_factory=dict)
    edge: int = 0
    """Calls up to this id are in ``settled``."""
    correction: int = 0
    """The newest corrected cost that ``settled`` knows of."""

    def read(self, now: datetime) -> Sums:
        """``{(department, model, status, cause): [calls, US dollars, tokens by kind ...]}``."""
        correction = newest(CostCorrection)
        # Another database, such as a restored one; or old calls cost something else now.
        if newest(ModelCall) < self.edge or correction != self.correction:
            self.settled, self.edge, self.correction = {}, 0, correction
        edge = self._find_edge(now)
        if edge > self.edge:
            _add(self.settled, _sum(ModelCall.objects.filter(pk__gt=self.edge, pk__lte=edge)))
            self.edge = edge
        totals = {key: list(values) for key, values in self.settled.items()}
        _add(totals, _sum(ModelCall.objects.filter(pk__gt=self.edge)))
        return totals

    def _find_edge(self, now: datetime) -> int:
        rows = ModelCall.objects.filter(pk__gt=self.edge)
        old = rows.filter(started_at__lt=now - SETTLED).order_by("-pk").values_list("pk", flat=True).first()
        if old is None:
            return self.edge
        under_way = rows.filter(status=ModelCall.Status.STARTED, pk__lte=old)
        first = under_way.order_by("pk").values_list("pk", flat=True).first()
        return old if first is None else first - 1


@dataclass(slots=True)
class Group:
    """Some metrics that are read together, at most every ``seconds``."""

    read: Callable[[datetime], Iterable[Metric]]
    seconds: float
    read_at: float = float("-inf")
    metrics: list[Metric] = field(default_factory=list)


class Numbers:
    """A collector of Prometheus over groups that are read one after the other, by one request at a time."""

    def __init__(self) -> None:
        self._totals = CallTotals()
        self._lock = threading.Lock()
        self._groups = [
            Group(_flow, 5),
            Group(_models, 5),
            Group(self._calls, 10),
            # These look at an index of every row there is: 0.1 s at a million.
            Group(_agent_runs, 30),
            Group(_outbox, 30),
        ]

    def collect(self) -> Iterator[Metric]:
        """All metrics, as fresh as their groups want to be."""
        with self._lock:
            now = database_now()
            for group in self._groups:
                if time.monotonic() - group.read_at >= group.seconds:
                    group.metrics = list(group.read(now))
                    group.read_at = time.monotonic()
                yield from group.metrics

    def _calls(self, now: datetime) -> Iterable[Metric]:
        labels = ("department", "model")
        calls = CounterMetricFamily(
            "kontor_model_calls", "Requests to the model API.", labels=[*labels, "status", "cause"]
        )
        cost = CounterMetricFamily("kontor_model_cost_usd", "What they cost, in US dollars.", labels=labels)
        tokens = CounterMetricFamily("kontor_model_tokens", "Tokens as reported.", labels=[*labels, "kind"])
        spent: dict[Key, list[float]] = {}
        for key, values in self._totals.read(now).items():
            calls.add_metric(key, values[0])
            _add(spent, {key[:2]: values})
        for key, values in spent.items():
            cost.add_metric(key, values[1])
            for kind, value in zip(TOKENS, values[2:], strict=True):
                tokens.add_metric([*key, kind], value)
        return calls, cost, tokens


def render_metrics(numbers: Numbers | None = None) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(numbers or _numbers)
    return generate_latest(registry)


def _flow(now: datetime) -> Iterable[Metric]:
    """Whether work flows: shifts, queue, items that are due, open questions."""
    slots = ShiftSlot.objects.filter(token__isnull=False, heartbeat_at__gt=now - SILENT).aggregate(
        alive=Count("pk"), calls=Sum("in_flight", default=0)
    )
    yield _gauge("kontor_shifts_alive", "Shifts that hold a place and have been heard of.", slots["alive"])
    yield _gauge("kontor_shifts_wanted", "Places for shifts.", settings.SHIFTS)
    yield _gauge("kontor_calls_in_flight", "Model calls that the shifts hold now.", slots["calls"])
    queue = read_queue(now)
    if queue is not None:
        tasks = GaugeMetricFamily("kontor_queue_tasks", "Tasks of the queue.", labels=["state"])
        tasks.add_metric(["waiting"], queue.waiting)
        tasks.add_metric(["taken"], queue.taken)
        yield tasks
        yield _age("kontor_queue_oldest_seconds", "How long the oldest task has waited.", queue.oldest_at, now)
    due = due_items(now).aggregate(count=Count("pk"), oldest=Min("route_due_at"))
    yield _gauge("kontor_items_due", "Items that wait for a decision.", due["count"])
    yield _age("kontor_items_due_oldest_seconds", "How long the oldest of them has waited.", due["oldest"], now)
    questions = Review.objects.filter(status=Review.Status.OPEN).values_list("department__slug", "kind")
    reviews = GaugeMetricFamily("kontor_reviews_open", "Questions to people.", labels=["department", "kind"])
    for *key, count in questions.annotate(count=Count("pk")).order_by():
        reviews.add_metric(key, count)
    yield reviews


def _models(now: datetime) -> Iterable[Metric]:
    labels = ["model", "key"]
    breaker = GaugeMetricFamily("kontor_model_breaker", "1 for the state the breaker is in.", labels=[*labels, "state"])
    closed = GaugeMetricFamily("kontor_model_takes_calls", "0 while no call may start.", labels=labels)
    for state in ModelState.objects.all():
        key = [state.model, state.api_key_env]
        for value in ModelState.Breaker.values:
            breaker.add_metric([*key, value], state.breaker == value)
        closed.add_metric(key, state.closed_until is None or state.closed_until <= now)
    halted = GaugeMetricFamily("kontor_line_stopped", "1 while the line stands still.", labels=["department"])
    for slug, error in Department.objects.values_list("slug", "stopped_by_error"):
        halted.add_metric([slug], bool(error))
    return breaker, closed, halted


def _agent_runs(now: datetime) -> Iterable[Metric]:
    runs = GaugeMetricFamily("kontor_agent_runs", "Agent runs by status.", labels=["department", "status"])
    rows = AgentRun.objects.order_by().values_list("department_id", "status").annotate(count=Count("pk"))
    slugs = dict(Department.objects.values_list("pk", "slug"))
    for department_id, status, count in rows:
        runs.add_metric([slugs[department_id], status], count)
    running = AgentRun.objects.filter(status=AgentRun.Status.RUNNING)
    failed = GaugeMetricFamily("kontor_agent_runs_failed", "Failed ones by cause.", labels=["department", "cause"])
    causes = AgentRun.objects.filter(department__in=slugs, status=AgentRun.Status.FAILED).order_by()
    for department_id, cause, count in causes.values_list("department_id", "cause").annotate(count=Count("pk")):
        failed.add_metric([slugs[department_id], cause], count)
    oldest = AgentRun.objects.filter(status=AgentRun.Status.QUEUED, due_at__lte=now).aggregate(at=Min("due_at"))["at"]
    return (
        runs,
        failed,
        _gauge(
            "kontor_agent_runs_lost", "Those whose lease ran out.", running.filter(lease_expires_at__lt=now).count()
        ),
        _age("kontor_agent_runs_due_oldest_seconds", "How long the oldest due run has waited.", oldest, now),
    )


def _outbox(now: datetime) -> Iterable[Metric]:
    outbox = GaugeMetricFamily("kontor_outbox_messages", "What leaves the house.", labels=["department", "status"])
    rows = OutboxMessage.objects.order_by().values_list("department__slug", "status").annotate(count=Count("pk"))
    for *key, count in rows:
        outbox.add_metric(key, count)
    return (outbox,)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _age(name: str, text: str, since: datetime | None, now: datetime) -> Metric:
    return _gauge(name, text, max((now - since).total_seconds(), 0) if since else 0)


def _sum(calls: QuerySet[ModelCall]) -> Sums:
    slugs = dict(Department.objects.values_list("pk", "slug"))
    rows = (
        calls.order_by()
        .values_list("department_id", "model_asked", "status", "cause")
        .annotate(count=Count("pk"), **{f"sum_{name}": Sum(name) for name in _SUMMED})
    )
    return {
        (slugs[department_id], model, status, cause): [float(value or 0) for value in values]
        for department_id, model, status, cause, *values in rows
    }


def _add(totals: Sums, more: Sums) -> None:
    for key, values in more.items():
        if key in totals:
            totals[key] = [before + value for before, value in zip(totals[key], values, strict=True)]
        else:
            totals[key] = list(values)


_numbers = Numbers()
