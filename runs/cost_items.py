"""Costs by item, and by what items are: from the sums a day, and from the calls that these do not hold yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Count, F, ForeignObjectRel, Q, QuerySet, Sum

from agents.models import Department
from runs.cost_sums import Before, Cost, Period, dearest_first, total
from runs.models import Item, ItemCost
from runs.models.costs import UNITS
from runs.money import dollars

TOP_ITEMS = 100
STATUS = "status"
Live = Mapping[int, Sequence[int]]
"""What is not in the sums yet: ``{item: (calls, cost units, waste units)}``."""
# Both periods in one pass; an item is counted on its first day in the later one.
_BY_VALUE = """
SELECT v.value, SUM(calls) FILTER (WHERE {now}), SUM(cost_units) FILTER (WHERE {now}),
    SUM(waste_units) FILTER (WHERE {now}), SUM(cost_units) FILTER (WHERE NOT {now}),
    COUNT(*) FILTER (WHERE {now} AND (day_before IS NULL OR day_before < %(first)s))
FROM {table} LEFT JOIN ({values}) v ON v.of_item = {table}.item_id
WHERE {table}.department_id IN ({departments}) AND day BETWEEN %(before)s AND %(last)s GROUP BY v.value
"""


def break_down_items(
    departments: Sequence[Department], period: Period, live: Live, live_before: Live
) -> tuple[list[Cost], Before]:
    """The dearest hundred, and the sum of the rest; and what the same items cost in the days before."""
    rows = _rows(departments, period)
    grouped = rows.values("item").annotate(c=Sum("calls"), u=Sum("cost_units"), w=Sum("waste_units")).order_by("-u")
    columns = ("item", "c", "u", "w")
    found = {pk: list(sums) for pk, *sums in grouped.values_list(*columns)[:TOP_ITEMS]}
    if live:
        found |= {pk: list(sums) for pk, *sums in grouped.filter(item__in=live).values_list(*columns)}
    for pk, sums in live.items():
        found[pk] = [a + b for a, b in zip(found.get(pk, [0, 0, 0]), sums, strict=True)]
    titles = dict(Item.objects.filter(pk__in=found).values_list("pk", "title"))
    first_days = Count("pk", filter=Q(day_before=None) | Q(day_before__lt=period.first))
    whole = rows.aggregate(c=Sum("calls"), u=Sum("cost_units"), w=Sum("waste_units"), n=first_days)
    everything = [(whole[name] or 0) + sum(s[n] for s in live.values()) for n, name in enumerate(("c", "u", "w"))]
    top = [_item_cost(pk, titles.get(pk, str(pk)), [*sums, 1]) for pk, sums in found.items()]
    top = sorted(top, key=dearest_first)[:TOP_ITEMS]
    shown = total(top)
    rest = [
        everything[0] - shown.calls,
        everything[1] - int(shown.usd * UNITS),
        everything[2] - int(shown.waste_usd * UNITS),
    ]
    count = whole["n"] + len(live.keys() - _known(rows, live)) - len(top)
    before = _before(_rows(departments, period.before), [cost.key for cost in top], live_before)
    return [*top, _item_cost(None, f"{count:,} others", [*rest, count])] if count > 0 else top, before


def break_down_by_path(
    departments: Sequence[Department], period: Period, by: str, live: Live, live_before: Live
) -> tuple[list[Cost], Before]:
    """By the items' status, or by a dimension of their kind; and the same in the days before."""
    path = path_of(departments, by)
    found: defaultdict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    earlier: defaultdict[Any, int] = defaultdict(int)
    for value, calls, cost, waste, before, items in _sum_by_value(departments, period, path):
        if calls:
            found[value] = [int(calls), int(cost), int(waste), items]
        earlier[value] += int(before or 0)
    if live or live_before:
        known = _known(_rows(departments, period), live)
        for pk, value in Item.objects.filter(pk__in={*live, *live_before}).values_list("pk", path):
            earlier[value] += live_before[pk][1] if pk in live_before else 0
            if pk in live:
                for position, amount in enumerate((*live[pk], pk not in known)):
                    found[value][position] += amount
    spec = departments[0].spec
    costs = [
        _item_cost(value, spec.status_spec(value).label if by == STATUS else str(value or "unknown"), sums)
        for value, sums in found.items()
    ]
    return costs, Before({value: dollars(units) for value, units in earlier.items()}, dollars(sum(earlier.values())))


def _sum_by_value(departments: Sequence[Department], period: Period, path: str) -> list[tuple[Any, ...]]:
    """``(value, calls, cost units, waste units, cost units before, items)``; None for what no item had."""
    adapt = connection.ops.adapt_datefield_value
    days = {"before": period.before.first, "first": period.first, "last": period.last}
    sql = _BY_VALUE.format(
        now="day >= %(first)s",
        table=connection.ops.quote_name(ItemCost._meta.db_table),
        values=str(_values(path).query),
        departments=", ".join(str(department.pk) for department in departments),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, {name: adapt(day) for name, day in days.items()})
        return list(cursor.fetchall())


def _values(path: str) -> QuerySet[Any, Any]:
    """``{of_item, value}`` of all items, straight from the table that has the value: one large join less."""
    head, _, rest = path.partition("__")
    relation = Item._meta.get_field(head)
    if not rest or not isinstance(relation, ForeignObjectRel):
        return Item.objects.annotate(of_item=F("pk"), value=F(path)).order_by().values("of_item", "value")
    rows = relation.related_model._default_manager.annotate(of_item=F(relation.field.attname), value=F(rest))
    return rows.order_by().values("of_item", "value")


def _before(rows: QuerySet[ItemCost], items: Collection[int], live: Live) -> Before:
    """What these items cost, under None what all others did, and all together."""
    units = dict(rows.filter(item__in=items).values_list("item").annotate(u=Sum("cost_units")).order_by())
    everything = (rows.aggregate(u=Sum("cost_units"))["u"] or 0) + sum(sums[1] for sums in live.values())
    by_item: dict[Any, Decimal] = {pk: dollars(units.get(pk, 0) + (live[pk][1] if pk in live else 0)) for pk in items}
    by_item[None] = dollars(everything) - sum(by_item.values())
    return Before(by_item, dollars(everything))


def _rows(departments: Sequence[Department], period: Period) -> QuerySet[ItemCost]:
    return ItemCost.objects.filter(department__in=[d.pk for d in departments], day__range=period)


def _known(rows: QuerySet[ItemCost], live: Live) -> set[int]:
    """Those of the items that the sums of the days hold already, with other calls."""
    return set(rows.filter(item__in=live).values_list("item", flat=True)) if live else set()


def _item_cost(key: Any, label: str, sums: Sequence[int]) -> Cost:
    calls, units, waste, items = sums
    return Cost(key, label, calls, usd=dollars(units), waste_usd=dollars(waste), items=items)


def path_of(departments: Sequence[Department], by: str) -> str:
    """The way from an item to the dimension; the departments that have it must agree on it. For one that they have."""
    if by == STATUS:
        return STATUS
    return next(d.spec.cost_dimensions[by] for d in departments if by in d.spec.cost_dimensions)
