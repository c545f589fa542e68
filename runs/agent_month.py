"""One agent over the last 30 days: what it cost, what people decided about its outputs, its newest steps."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, DateTimeField, IntegerField, QuerySet, Sum

from agents.models import Agent, Soul
from agents.pricing import PriceBook
from agents.statements import Among, Given, Statement
from runs.cost_moves import SUMS
from runs.cost_sums import Period
from runs.costs import Ledger
from runs.models import AgentRun, Item, Review
from runs.money import dollars
from runs.review_figures import Verdicts
from runs.what_if import CacheUse, cache_by_agent, usages_of

DAYS = 30
WINDOW = timedelta(days=DAYS)
MOST_READ = 2_000
"""So many of the latest decisions are looked at."""
_BEGINNING, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
_JUDGED = (Review.Answer.APPROVE, Review.Answer.APPROVE_EDITED, Review.Answer.SEND_BACK, Review.Answer.REJECT)


@dataclass(slots=True)
class Use:
    """What calls came to."""

    calls: int = 0
    usd: Decimal = Decimal(0)

    def add(self, sums: Sequence[int]) -> None:
        """Add sums in the order of the rollups' columns."""
        self.calls += sums[0]
        self.usd += dollars(sums[-1])


@dataclass(frozen=True, slots=True)
class Costs:
    """What an agent cost: calls and dollars of every day, those without any included, and what the cache did."""

    days: Mapping[date, Use]
    cache: CacheUse

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(use.calls for use in self.days.values())

    @property
    def usd(self) -> Decimal:
        """What they cost, in US dollars."""
        return sum((use.usd for use in self.days.values()), Decimal(0))


def last_days(now: datetime) -> Period:
    """The days (UTC) that a page of an agent is about, today included."""
    today = now.astimezone(UTC).date()
    return Period(today - timedelta(days=DAYS - 1), today)


def load_costs(ledger: Ledger, agent: Agent, period: Period, prices: PriceBook) -> Costs:
    """The days of the period and the prompt cache, from one query beside the ledger's own. Equal to the costs page."""
    days = {period.first + timedelta(days=n): Use() for n in range((period.last - period.first).days + 1)}
    starts = (period.first, *prices.changes_in(*period))
    by_span: dict[Any, list[int]] = {}
    for ((day, model), is_waste, is_estimate), sums in ledger.sum_calls(period, ("day", "model"), [agent.pk]).items():
        days[day].add(sums)
        span = by_span.setdefault(((agent.pk, model, bisect(starts, day) - 1), is_waste, is_estimate), [0] * len(SUMS))
        for position, value in enumerate(sums):
            span[position] += value
    return Costs(days, cache_by_agent(usages_of(by_span, starts), prices).get(agent.pk, CacheUse()))


def load_soul_use(ledger: Ledger, agent: Agent, today: date) -> dict[int | None, Use]:
    """Calls and cost under each SOUL id since the beginning; None: of drafts that were tried."""
    found: dict[int | None, Use] = {}
    for ((soul,), _, _), sums in ledger.sum_calls(Period(_BEGINNING.date(), today), ["soul_id"], [agent.pk]).items():
        found.setdefault(soul, Use()).add(sums)
    return found


def load_verdicts(agent: Agent, period: Period) -> Verdicts:
    """What people decided about the agent's outputs in the period; one query."""
    since, until = period.moments
    found = Verdicts()
    given: dict[str, Any] = {"department": agent.department_id, "agent": agent.pk, "since": since, "until": until}
    for answer, count in _BY_ANSWER.rows(**given):
        found.add(answer, count)
    return found


def verdicts_by_soul(agent: Agent) -> dict[int, Verdicts]:
    """What people decided about the agent's outputs by SOUL id; the latest 2,000 decisions, one query."""
    found: dict[int, Verdicts] = {}
    given: dict[str, Any] = {"department": agent.department_id, "agent": agent.pk}
    given |= {"since": _BEGINNING, "until": _END}
    for answer, soul in _LATEST_JUDGED.rows(limit=MOST_READ, **given):
        if soul is not None:
            found.setdefault(soul, Verdicts()).add(answer)
    return found


def count_trespasses(agent: Agent, *, since: datetime) -> int:
    """Answers of the agent that were refused for keys outside its role."""
    return sum(count for _, count in _TRESPASSES.rows(agent=agent.pk, since=since))


def latest_runs(agent: Agent, limit: int) -> list[tuple[AgentRun, int | None]]:
    """The newest steps of the agent (with its ``department``) with their items, and the number of each one's SOUL."""
    runs = _LATEST.objects(limit=limit, agent=agent.pk)
    items = {item.pk: item for item in _ITEMS.objects(items=[run.item_id for run in runs])} if runs else {}
    souls = dict(_SOULS.rows(souls=[run.soul_id for run in runs if run.soul_id])) if runs else {}
    for run in runs:
        run.agent, run.department, run.item = agent, agent.department, items[run.item_id]
    return [(run, souls.get(run.soul_id)) for run in runs]


def _judged() -> QuerySet[Review]:
    return Review.objects.filter(
        department=Given("department", IntegerField()),
        agent_run__agent=Given("agent", IntegerField()),
        status=Review.Status.ANSWERED,
        answered_by__isnull=False,
        answer__in=_JUDGED,
        answered_at__gte=Given("since", DateTimeField()),
        answered_at__lt=Given("until", DateTimeField()),
    )


_BY_ANSWER = Statement(lambda: _judged().order_by().values_list("answer").annotate(Count("pk")))
_LATEST_JUDGED = Statement(lambda: _judged().order_by("-answered_at").values_list("answer", "agent_run__soul_id"))
_TRESPASSES = Statement(
    lambda: (
        AgentRun.objects.filter(
            trespasses__gt=0, agent=Given("agent", IntegerField()), queued_at__gte=Given("since", DateTimeField())
        )
        .order_by()
        .values_list("agent_id")
        .annotate(Sum("trespasses"))
    )
)
_LATEST = Statement(lambda: AgentRun.objects.filter(agent=Given("agent", IntegerField())).order_by("-pk"))
_ITEMS = Statement(lambda: Item.objects.filter(Among("pk", "items")).order_by())
_SOULS = Statement(lambda: Soul.objects.filter(Among("pk", "souls")).order_by().values_list("pk", "number"))
