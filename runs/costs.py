"""What model calls cost: sums by any dimension over any days, equal to the sum over the calls to the last digit.

Read from the rollups, and for what is not rolled up yet from the calls. Days are UTC, as on the provider's invoice.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import cache, cached_property
from typing import Any

from django.db.models import Case, DateField, Sum, Value, When

from agents.models import Agent, Department, Soul
from agents.spec import DepartmentSpec
from agents.statements import Among, Given, Statement
from runs.cost_items import STATUS, break_down_by_path, break_down_items
from runs.cost_moves import SUMS, Group, Sums
from runs.cost_sums import Before, Cost, Period, dearest_first, total
from runs.cost_unrolled import sum_checks, sum_unrolled, sum_unrolled_items
from runs.database import snapshot
from runs.models import CostRollup

CALL_DIMENSIONS = {
    "agent": "agent_id",
    "model": "model",
    "soul": "soul_id",
    "department": "department_id",
    "day": "day",
}
ITEM = "item"
CHECKS = "(checks)"
"""The key of what belongs to no item, where costs are broken down by items."""
_Key = tuple[tuple[Any, ...], bool, bool]


def dimensions(specs: Iterable[DepartmentSpec]) -> tuple[str, ...]:
    """What costs can be broken down by in departments of these kinds."""
    of_items = dict.fromkeys(name for spec in specs for name in spec.cost_dimensions)
    return (*CALL_DIMENSIONS, ITEM, STATUS, *of_items)


def break_down(departments: Collection[Department], period: Period, by: str) -> list[Cost]:
    """As ``Ledger.break_down``, for who asks one thing only."""
    with snapshot():
        return Ledger(departments).break_down(period, by)


class Ledger:
    """The costs of some departments as they stand now; what is not rolled up yet is read once, whatever is asked.

    To be used inside ``snapshot()``, or a call may be rolled up between two questions and count in both.
    """

    def __init__(self, departments: Collection[Department]) -> None:
        self.departments = list(departments)
        self._ids = [department.pk for department in self.departments]
        self._checks: dict[Period, tuple[Cost, Cost]] = {}

    def break_down(self, period: Period, by: str) -> list[Cost]:
        """Costs in the period by one dimension, the dearest first; days in their order.

        ``item`` brings the dearest hundred and the sum of the rest. LookupError for a dimension nobody has.
        """
        if by in CALL_DIMENSIONS and self.departments:
            # Without the days before, which are as much work again.
            return _in_order(self._by_call(period, by), by)
        return self.compare(period, by)[0]

    def compare(self, period: Period, by: str) -> tuple[list[Cost], Before]:
        """The same, and what the same lines came to in as many days before."""
        if not self.departments:
            return [], Before({}, Decimal(0))
        if by in CALL_DIMENSIONS:
            found, before = self._by_call_against_before(period, by)
        elif by in dimensions([department.spec for department in self.departments]):
            found, before = self._by_item(period, by)
        else:
            raise LookupError(f"Costs cannot be broken down by {by!r}.")
        return _in_order(found, by), before

    def sum_calls(
        self, period: Period, names: Sequence[str], agents: Collection[int] = (), starts: Sequence[date] = ()
    ) -> dict[_Key, list[int]]:
        """``{(values of the names, is_waste, is_estimate): sums in the order of SUMS}``, of these agents or of all.

        With ``starts``, days that begin spans, the last of the values is the number of the span.
        """
        statement = _rolled_up(tuple(names), of_agents=bool(agents), spans=len(starts))
        given: dict[str, Any] = {"departments": self._ids, "agents": agents, "first": period.first, "last": period.last}
        given |= {_start(number): day for number, day in enumerate(starts)}
        names = (*names, "span") if starts else names
        width = len(names)
        found: dict[_Key, list[int]] = {}
        for row in statement.rows(**given):
            found[row[:width], row[width], row[width + 1]] = list(row[width + 2 :])
        for group, sums in self._live.items():
            if group.department_id not in self._ids:
                continue
            if not period.first <= group.day <= period.last or (agents and group.agent_id not in agents):
                continue
            values = (bisect(starts, group.day) - 1 if name == "span" else getattr(group, name) for name in names)
            key = (tuple(values), group.is_waste, group.is_estimate)
            known = found.setdefault(key, [0] * len(SUMS))
            for position, value in enumerate(sums.values):
                known[position] += value
        return found

    @cached_property
    def _live(self) -> dict[Group, Sums]:
        """The calls that the sums do not hold as what they are, of all days: a worker leaves few."""
        return sum_unrolled()

    @cached_property
    def _live_by_item(self) -> dict[tuple[int, int, date], list[int]]:
        """The same calls by department, item and day."""
        return {key: sums for key, sums in sum_unrolled_items().items() if key[0] in self._ids}

    def _live_items(self, period: Period) -> dict[int, list[int]]:
        found: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        for (_, item, day), sums in self._live_by_item.items():
            if period.first <= day <= period.last:
                for position, amount in enumerate(sums):
                    found[item][position] += amount
        return dict(found)

    def checks(self, period: Period) -> tuple[Cost, Cost]:
        """What was spent on no item, in the period and in the days before."""
        if period not in self._checks:
            now, earlier = (Cost(CHECKS, "Checks of the agents") for _ in range(2))
            for group, sums in sum_checks(self._ids, period.before.moments[0], period.moments[1]).items():
                cost = now if group.day >= period.first else earlier
                cost.add(sums.values, is_waste=group.is_waste, is_estimate=group.is_estimate)
            self._checks[period] = now, earlier
        return self._checks[period]

    def _by_item(self, period: Period, by: str) -> tuple[list[Cost], Before]:
        """By item or by what items are; what was spent on no item is a line of its own."""
        checks, earlier = self.checks(period)
        live, live_before = self._live_items(period), self._live_items(period.before)
        if by == ITEM:
            now, before = self._whole(period)
            rest = (now.minus(checks), before.usd - earlier.usd)
            found, by_key = break_down_items(self._ids, period, live, live_before, rest)
        else:
            found, by_key = break_down_by_path(self.departments, period, by, live, live_before)
        if checks.calls or earlier.calls:
            by_key[CHECKS] = earlier.usd
        # As the lines beside it: costs by item are kept without their tokens.
        line = replace(checks, tokens=Cost().tokens, estimated_usd=Decimal(0))
        return [*found, *([line] if checks.calls else [])], Before(by_key, sum(by_key.values(), Decimal(0)))

    def _whole(self, period: Period) -> tuple[Cost, Cost]:
        """All costs of the period, and of the days before."""
        starts = [period.before.first, period.first]
        earlier, now = self._sums_by(Period(starts[0], period.last), "department", starts)
        return total(now), total(earlier)

    def _by_call(self, period: Period, by: str) -> list[Cost]:
        return self._labelled(by, self._sums_by(period, by, [period.first])[0])

    def _by_call_against_before(self, period: Period, by: str) -> tuple[list[Cost], Before]:
        starts = [period.before.first, period.first]
        earlier, found = self._sums_by(Period(starts[0], period.last), by, starts)
        by_key = {cost.key: cost.usd for cost in earlier}
        return self._labelled(by, found), Before(by_key, sum(by_key.values(), Decimal(0)))

    def _sums_by(self, period: Period, by: str, starts: Sequence[date]) -> list[list[Cost]]:
        """For each span of days, without labels, which the days before need not have."""
        spans: list[dict[Any, Cost]] = [{} for _ in starts]
        summed = self.sum_calls(period, [CALL_DIMENSIONS[by]], starts=starts)
        for ((value, span), waste, estimate), sums in summed.items():
            spans[span].setdefault(value, Cost(value)).add(sums, is_waste=waste, is_estimate=estimate)
        return [[cost for cost in found.values() if cost.calls] for found in spans]

    def _labelled(self, by: str, found: list[Cost]) -> list[Cost]:
        labels = _labels(by, [cost.key for cost in found], self.departments)
        for cost in found:
            cost.label = labels.get(cost.key) or str(cost.key)
        return found


def _start(number: int) -> str:
    return f"start_{number}"


@cache
def _rolled_up(names: tuple[str, ...], *, of_agents: bool, spans: int) -> Statement[CostRollup]:
    """The rows of ``Ledger.sum_calls``, but for the calls that are not rolled up."""
    day = DateField()

    def build() -> Any:
        rows = CostRollup.objects.filter(
            Among("department_id", "departments"), day__gte=Given("first", day), day__lte=Given("last", day)
        )
        rows = rows.filter(Among("agent_id", "agents")) if of_agents else rows
        values = names
        if spans:
            since = (When(day__gte=Given(_start(n), day), then=Value(n)) for n in reversed(range(spans)))
            rows, values = rows.annotate(span=Case(*since)), (*names, "span")
        grouped = rows.order_by().values_list(*values, "is_waste", "is_estimate")
        return grouped.annotate(*(Sum(name) for name in SUMS))

    return Statement(build)


def _in_order(costs: Iterable[Cost], by: str) -> list[Cost]:
    return sorted(costs, key=(lambda cost: cost.key) if by == "day" else dearest_first)


def _labels(by: str, values: Collection[Any], departments: Sequence[Department]) -> dict[Any, str]:
    if by == "agent":
        names = {department.pk: f" ({department})" if len(departments) > 1 else "" for department in departments}
        agents = Agent.objects.filter(pk__in=values).only("job", "department_id")
        return {agent.pk: f"{agent.title}{names[agent.department_id]}" for agent in agents}
    if by == "soul":
        souls = Soul.objects.filter(pk__in=[value for value in values if value]).select_related("agent")
        named = souls.only("number", "agent__job")
        return {None: "no SOUL", **{s.pk: f"{s.agent.title} SOUL {s.number or 'draft'}" for s in named}}
    if by == "department":
        return {department.pk: str(department) for department in departments}
    return {}
