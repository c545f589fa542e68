"""Costs by item, and by what items are: from the sums a day, and from the calls that these do not hold yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import DateField, F, ForeignObjectRel, Q, QuerySet, Sum

from agents.models import Department
from agents.statements import Among, AnyOf, Given, Statement
from runs.cost_sums import Cost, Period, dearest_first, total
from runs.models import Item, ItemCost
from runs.money import dollars

TOP_ITEMS = 100
STATUS = "status"
Live = Mapping[int, Sequence[int]]
"""What is not in the sums yet: ``{item: (calls, cost units, waste units)}``."""
_DAYS = "{table}.department_id IN ({departments}) AND {table}.day BETWEEN %(first)s AND %(last)s"
# Floats choose which items are the dearest, in half the time; what these came to is then read to the last digit.
_DEAREST = f"""
SELECT item_id, COUNT(*) OVER () FROM {{table}} WHERE {_DAYS}
GROUP BY item_id ORDER BY SUM(CAST(cost_units AS double precision)) DESC LIMIT %(limit)s
"""
_BOTH_DAYS = _DAYS.replace("%(first)s", "%(before)s")
# Both periods in one pass; an item is counted on its first day in the later one.
# What is worked on is mostly what came last: of the items before the first of these none need be looked at.
_BY_VALUE = f"""
SELECT v.value, SUM(calls) FILTER (WHERE {{now}}), SUM(cost_units) FILTER (WHERE {{now}}),
    SUM(waste_units) FILTER (WHERE {{now}}), SUM(cost_units) FILTER (WHERE NOT {{now}}),
    COUNT(*) FILTER (WHERE {{now}} AND (day_before IS NULL OR day_before < %(first)s))
FROM {{table}} LEFT JOIN ({{values}}) v
    ON v.of_item = {{table}}.item_id AND v.of_item >= (SELECT MIN(item_id) FROM {{table}} WHERE {_BOTH_DAYS})
WHERE {_BOTH_DAYS} GROUP BY v.value
"""


def break_down_items(
    departments: Sequence[int], period: Period, live: Live, live_before: Live, whole: tuple[Cost, Decimal]
) -> tuple[list[Cost], dict[Any, Decimal]]:
    """The dearest hundred, and the rest of what all items cost in the period and in the days before (``whole``); and
    what the same lines cost in the days before."""
    dearest = _read(_DEAREST, departments, period, limit=TOP_ITEMS)
    ids = {pk for pk, _ in dearest} | live.keys()
    sums, earlier = _sum_items(departments, period, ids)
    known = len(live.keys() & sums.keys())
    for pk, more in live.items():
        sums[pk] = [a + b for a, b in zip(sums.get(pk, [0, 0, 0]), more, strict=True)]
    titles = dict(_TITLES.rows(items=ids))
    found = [_item_cost(pk, titles.get(pk, str(pk)), [*of_item, 1]) for pk, of_item in sums.items()]
    top = sorted(found, key=dearest_first)[:TOP_ITEMS]
    before = {
        cost.key: dollars(earlier.get(cost.key, 0) + (live_before[cost.key][1] if cost.key in live_before else 0))
        for cost in top
    }
    before[None] = whole[1] - sum(before.values())
    count = (dearest[0][1] if dearest else 0) + len(live) - known - len(top)
    if count > 0:
        rest = whole[0].minus(total(top))
        label = f"{count:,} other{'s' if count > 1 else ''}"
        top.append(Cost(None, label, rest.calls, usd=rest.usd, waste_usd=rest.waste_usd, items=count))
    return top, before


def break_down_by_path(
    departments: Sequence[Department], period: Period, by: str, live: Live, live_before: Live
) -> tuple[list[Cost], dict[Any, Decimal]]:
    """By the items' status, or by a dimension of their kind; and the same in the days before."""
    path, ids = path_of(departments, by), [department.pk for department in departments]
    found: defaultdict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    earlier: defaultdict[Any, int] = defaultdict(int)
    for value, calls, cost, waste, before, items in _read(_BY_VALUE, ids, period, values=str(_values(path).query)):
        if calls:
            found[value] = [int(calls), int(cost), int(waste), items]
        earlier[value] += int(before or 0)
    if live or live_before:
        known = {pk for (pk,) in _KNOWN.rows(departments=ids, items=live, first=period.first, last=period.last)}
        for pk, value in Item.objects.filter(AnyOf("pk", {*live, *live_before})).values_list("pk", path):
            earlier[value] += live_before[pk][1] if pk in live_before else 0
            if pk in live:
                for position, amount in enumerate((*live[pk], pk not in known)):
                    found[value][position] += amount
    spec = departments[0].spec
    costs = [
        _item_cost(value, spec.status_spec(value).label if by == STATUS else str(value or "unknown"), sums)
        for value, sums in found.items()
    ]
    return costs, {value: dollars(cost) for value, cost in earlier.items()}


def _read(sql: str, departments: Sequence[int], period: Period, *, values: str = "", limit: int = 0) -> list[Any]:
    """The rows of a statement about the days of the period and before."""
    adapt = connection.ops.adapt_datefield_value
    days = {"before": period.before.first, "first": period.first, "last": period.last}
    sql = sql.format(
        now="day >= %(first)s",
        table=connection.ops.quote_name(ItemCost._meta.db_table),
        values=values,
        departments=", ".join(map(str, departments)),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, {name: adapt(day) for name, day in days.items()} | {"limit": limit})
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
    departments: Sequence[int], period: Period, items: Collection[int]
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """What these items came to in the period: ``{item: [calls, cost units, waste units]}``, and in the days before:
    ``{item: cost units}``. By the index of each item."""
    days: dict[str, Any] = {"before": period.before.first, "first": period.first, "last": period.last}
    sums, earlier = {}, {}
    for pk, calls, cost, waste, before in _BY_ITEM.rows(departments=departments, items=items, **days):
        earlier[pk] = int(before or 0)
        if calls is not None:
            sums[pk] = [int(calls), int(cost), int(waste)]
    return sums, earlier


def _days(first: str) -> QuerySet[ItemCost]:
    day = DateField()
    return ItemCost.objects.filter(
        Among("department_id", "departments"),
        Among("item_id", "items"),
        day__gte=Given(first, day),
        day__lte=Given("last", day),
    ).order_by()


def _by_item() -> QuerySet[ItemCost, Any]:
    now = Q(day__gte=Given("first", DateField()))
    of_now = {f"now_{name}": Sum(name, filter=now) for name in ("calls", "cost_units", "waste_units")}
    return _days("before").values_list("item").annotate(**of_now, earlier=Sum("cost_units", filter=~now))


_BY_ITEM = Statement(_by_item)
_KNOWN = Statement(lambda: _days("first").values_list("item").distinct())
"""Those of the items that the sums of the days hold already, with other calls."""
_TITLES = Statement(lambda: Item.objects.filter(Among("pk", "items")).order_by().values_list("pk", "title"))


def _item_cost(key: Any, label: str, sums: Sequence[int]) -> Cost:
    calls, cost, waste, items = sums
    return Cost(key, label, calls, usd=dollars(cost), waste_usd=dollars(waste), items=items)


def path_of(departments: Sequence[Department], by: str) -> str:
    """The way from an item to the dimension; the departments that have it must agree on it. For one that they have."""
    if by == STATUS:
        return STATUS
    return next(d.spec.cost_dimensions[by] for d in departments if by in d.spec.cost_dimensions)
