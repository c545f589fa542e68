"""The columns of the list of leads: what they are called, and what a file has in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from runs.views.exports import moment_text
from runs.views.ordering import Order

if TYPE_CHECKING:
    from leads.listing import LeadRow

LIST = "leads"
ALWAYS = ("name", "company", "email")
"""What every file begins with; on the page it is one cell."""

COLUMNS: dict[str, str] = {
    "status": "Status",
    "tier": "Tier",
    "stage": "Stage",
    "now": "Waits for",
    "owner": "Owner",
    "activity": "Last activity",
    "cost": "Cost",
    "due": "Next due",
    "source": "Source",
    "country": "Country",
    "created": "Came in",
}
USUAL = ("status", "tier", "now", "owner", "activity", "cost", "due")

ORDERS: dict[str, Order] = {
    "newest": Order("Newest first"),
    "activity": Order("Last activity", "item__changed_at", "time", scope="item__department"),
    "due": Order(
        "Next due",
        "item__route_due_at",
        "time",
        is_descending=False,
        note="Only leads that have something due.",
        scope="item__department",
    ),
    "cost": Order(
        "Dearest first",
        "item__total__cost_units",
        "number",
        note="Only leads that have cost something.",
        scope="item__total__department",
    ),
    "name": Order("Name", "name", "text", is_descending=False),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The columns that are shown, in their order."""

    names: tuple[str, ...]

    @property
    def labels(self) -> list[tuple[str, str]]:
        """Each with its label."""
        return [(name, COLUMNS[name]) for name in self.names]

    @property
    def width(self) -> int:
        """How many columns the table has, the lead's and the ticks' included."""
        return len(self.names) + 2


def choose(names: list[str]) -> Chosen:
    """These columns; the usual ones if none of them is known."""
    return Chosen(tuple(name for name in COLUMNS if name in names) or USUAL)


def order_of(name: str) -> tuple[str, Order]:
    """The order of that name, the newest first if there is none."""
    return (name, ORDERS[name]) if name in ORDERS else ("newest", ORDERS["newest"])


def file_row(row: LeadRow, chosen: Chosen, zone: tzinfo) -> list[object]:
    """One line of a file, with times in this zone."""
    values = (_VALUES[name](row) for name in chosen.names)
    shown = (moment_text(value, zone) if isinstance(value, datetime) else value for value in values)
    return [*(getattr(row.lead, name) for name in ALWAYS), *shown]


def file_head(chosen: Chosen) -> list[object]:
    """The first line of a file."""
    return [*(name.capitalize() for name in ALWAYS), *(COLUMNS[name] for name in chosen.names)]


_VALUES: dict[str, Callable[[LeadRow], object]] = {
    "status": lambda row: row.shown.label,
    "tier": lambda row: row.tier,
    "stage": lambda row: row.stage,
    "now": lambda row: row.waits_in_words,
    "owner": lambda row: str(row.lead.owner or ""),
    "activity": lambda row: row.lead.item.changed_at,
    "cost": lambda row: row.cost_usd,
    "due": lambda row: row.lead.item.route_due_at,
    "source": lambda row: row.lead.source,
    "country": lambda row: row.lead.country,
    "created": lambda row: row.lead.item.created_at,
}
