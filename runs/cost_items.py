"""Costs by item, and by what items are: from the sums a day, and from the calls that these do not hold yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import F, ForeignObjectRel, Q, QuerySet, Sum

from agents.models import Department
from agents.statements import AnyOf
from runs.cost_sums import Before, Cost, Period, dearest_first, total
from runs.models import Item, ItemCost
from runs.money import dollars, units

TOP_ITEMS = 100
STATUS = "status"
Live = Mapping[int, Sequence[int]]
"""What is not in the sums yet: ``{item: (calls, cost units, waste units)}``."""
# Both periods in one pass; an item is counted on its first day in the later one.
_SUMS = """SUM(calls) FILTER (WHERE {now}), SUM(cost_units) FILTER (WHERE {now}),
    SUM(waste_units) FILTER (WHERE {now}), SUM(cost_units) FILTER (WHERE NOT {now}),
    COUNT(*) FILTER (WHERE {now} AND (day_before IS NULL OR day_before < %(first)s))"""
_DAYS = "{table}.department_id IN ({departments}) AND {table}.day BETWEEN %(before)s AND %(last)s"
_WHOLE = f"SELECT {_SUMS} FROM {{table}} WHERE {_DAYS}"
# What is worked on is mostly what came last: of the items before the first of these none need be looked at.
_BY_VALUE = f"""
SELECT v.value, {_SUMS} FROM {{table}} LEFT JOIN ({{values}}) v
    ON v.of_item = {{table}}.item_id AND v.of_item >= (SELECT MIN(item_id) FROM {{table}} WHERE {_DAYS})
WHERE {_DAYS} GROUP BY v.value
"""


def break_down_items(
    departments: Sequence[Department], period: Period, live: Live, live_before: Live
) -> tuple[list[Cost], Before]:
    """The dearest hundred, and the sum of the rest; and what the same items cost in the days before."""
    dearest = _rows(departments, period).values_list("item").annotate(u=Sum("cost_units")).order_by("-u")[:TOP_ITEMS]
    ids = {pk for pk, _ in dearest} | live.keys()
    sums, earlier = _sum_items(departments, period, ids)
    known = len(live.keys() & sums.keys())
    for pk, more in live.items():
        sums[pk] = [a + b for a, b in zip(sums.get(pk, [0, 0, 0]), more, strict=True)]
    for pk in ids & live_before.keys():
        earlier[pk] = earlier.get(pk, 0) + live_before[pk][1]
    titles = dict(Item.objects.filter(pk__in=ids).values_list("pk", "title"))
    found = [_item_cost(pk, titles.get(pk, str(pk)), [*of_item, 1]) for pk, of_item in sums.items()]
    top = sorted(found, key=dearest_first)[:TOP_ITEMS]
    ((calls, cost, waste, before, items),) = _read(_WHOLE, departments, period)
    whole = [int(amount or 0) for amount in (calls, cost, waste)]
    everything = [amount + sum(of_item[n] for of_item in live.values()) for n, amount in enumerate(whole)]
    shown = total(top)
    rest = [a - b for a, b in zip(everything, (shown.calls, units(shown.usd), units(shown.waste_usd)), strict=True)]
    count = items + len(live) - known - len(top)
    whole_before = dollars(int(before or 0) + sum(of_item[1] for of_item in live_before.values()))
    by_item: dict[Any, Decimal] = {cost.key: dollars(earlier.get(cost.key, 0)) for cost in top}
    by_item[None] = whole_before - sum(by_item.values())
    return [*top, *([_item_cost(None, f"{count:,} others", [*rest, count])] if count > 0 else [])], Before(
        by_item, whole_before
    )


def break_down_by_path(
    departments: Sequence[Department], period: Period, by: str, live: Live, live_before: Live
) -> tuple[list[Cost], Before]:
    """By the items' status, or by a dimension of their kind; and the same in the days before."""
    path = path_of(departments, by)
    found: defaultdict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    earlier: defaultdict[Any, int] = defaultdict(int)
    for value, calls, cost, waste, before, items in _read(_BY_VALUE, departments, period, str(_values(path).query)):
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
    by_value = {value: dollars(cost) for value, cost in earlier.items()}
    return costs, Before(by_value, dollars(sum(earlier.values())))


def _read(sql: str, departments: Sequence[Department], period: Period, values: str = "") -> list[tuple[Any, ...]]:
    """``(..., calls, cost units, waste units, cost units before, items)`` of the days of the period and before."""
    adapt = connection.ops.adapt_datefield_value
    days = {"before": period.before.first, "first": period.first, "last": period.last}
    sql = sql.format(
        now="day >= %(first)s",
        table=connection.ops.quote_name(ItemCost._meta.db_table),
        values=values,
        departments=", ".join(str(department.pk) for department in departments),
    )
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql" and connection.in_atomic_block:
            # Several people look at once: a second process for one of them costs the others more than it saves.
            cursor.execute("SET LOCAL max_parallel_workers_per_gather = 0")
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


def _sum_items(
    departments: Sequence[Department], period: Period, items: Collection[int]
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """What these items came to in the period: ``{item: [calls, cost units, waste units]}``, and in the days before:
    ``{item: cost units}``. By the index of each item."""
    now, both = Q(day__gte=period.first), Period(period.before.first, period.last)
    columns = ("calls", "cost_units", "waste_units")
    of_now = {f"now_{name}": Sum(name, filter=now) for name in columns}
    rows = _rows(departments, both).filter(AnyOf("item_id", items)).values_list("item").order_by()
    sums, earlier = {}, {}
    for pk, calls, cost, waste, before in rows.annotate(**of_now, before=Sum("cost_units", filter=~now)):
        earlier[pk] = before or 0
        if calls is not None:
            sums[pk] = [calls, cost, waste]
    return sums, earlier


def _rows(departments: Sequence[Department], period: Period) -> QuerySet[ItemCost]:
    return ItemCost.objects.filter(department__in=[d.pk for d in departments], day__range=period)


def _known(rows: QuerySet[ItemCost], live: Live) -> set[int]:
    """Those of the items that the sums of the days hold already, with other calls."""
    return set(rows.filter(item__in=live).values_list("item", flat=True)) if live else set()


def _item_cost(key: Any, label: str, sums: Sequence[int]) -> Cost:
    calls, cost, waste, items = sums
    return Cost(key, label, calls, usd=dollars(cost), waste_usd=dollars(waste), items=items)


def path_of(departments: Sequence[Department], by: str) -> str:
    """The way from an item to the dimension; the departments that have it must agree on it. For one that they have."""
    if by == STATUS:
        return STATUS
    return next(d.spec.cost_dimensions[by] for d in departments if by in d.spec.cost_dimensions)
