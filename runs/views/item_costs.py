"""What one item has cost: by agent, by day and call by call; the sums are those of ``ItemCost``, to the last digit."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from django.http import HttpRequest

from agents.models import Agent
from runs.cost_moves import group_calls
from runs.cost_unrolled import settled_calls
from runs.models import Item, ModelCall
from runs.money import dollars
from runs.views.paging import read_page
from runs.views.shown import show_model_call


@dataclass(slots=True)
class Line:
    """One agent's or one day's calls. ``waste_usd`` is what brought nothing that was used."""

    label: str
    day: date | None = None
    calls: int = 0
    usd: Decimal = Decimal(0)
    waste_usd: Decimal = Decimal(0)

    def add(self, calls: int, usd: Decimal, *, is_waste: bool) -> None:
        """Put calls in."""
        self.calls += calls
        self.usd += usd
        self.waste_usd += usd if is_waste else 0

    @property
    def waste_share(self) -> float | None:
        """Of its costs, 0 to 1; None where nothing was spent."""
        return float(self.waste_usd / self.usd) if self.usd else None


def cost_context(request: HttpRequest, item: Item) -> dict[str, Any]:
    """The sums and the newest calls, in four queries."""
    page = read_page(request, item.model_calls.select_related("agent", "agent_run"))
    under_way = item.model_calls.filter(status=ModelCall.Status.STARTED)
    return {
        **sum_costs(item),
        "under_way": list(under_way.values_list("reserved_usd", flat=True)),
        "page": page,
        "calls": [(call, show_model_call(call)) for call in page.rows],
    }


def sum_costs(item: Item) -> dict[str, Any]:
    """``{"total", "agents", "days"}`` over the item's settled calls; two queries."""
    groups, _ = group_calls(settled_calls(item=item))
    titles = {agent.pk: agent.title for agent in Agent.objects.filter(department=item.department_id)}
    agents: defaultdict[int, Line] = defaultdict(lambda: Line(""))
    days: defaultdict[date, Line] = defaultdict(lambda: Line(""))
    total = Line("Total")
    for group, sums in groups.items():
        calls, usd = sums.values[0], dollars(sums.values[-1])
        for line in (agents[group.agent_id], days[group.day], total):
            line.add(calls, usd, is_waste=group.is_waste)
    for pk, line in agents.items():
        line.label = titles.get(pk, f"agent {pk}")
    for day, line in days.items():
        line.label, line.day = day.isoformat(), day
    return {
        "total": total,
        "agents": sorted(agents.values(), key=lambda line: (-line.usd, line.label)),
        "days": [days[day] for day in sorted(days)],
    }
