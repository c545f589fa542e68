"""The list of leads: its filters, its rows, and the counts beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from agents.spec import StatusSpec
from leads.models import Lead
from leads.progress import STATUSES
from runs.access import Access
from runs.models import AgentRun, Item, Output, Review
from runs.views.shown import Shown, show_agent_run, show_automation, show_item

TIERS = ("Hot", "Warm", "Cold")
KEY = "qualification"


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list is narrowed to; empty means everything. ``item`` is one lead by its id."""

    status: str = ""
    tier: str = ""
    text: str = ""
    item: int | None = None

    @property
    def query(self) -> str:
        """The same as a query string without the question mark."""
        values = {"status": self.status, "tier": self.tier, "q": self.text, "item": self.item or ""}
        return urlencode({name: value for name, value in values.items() if value})


@dataclass(frozen=True, slots=True)
class LeadRow:
    """One line of the list. ``work`` is what is being done to the lead now."""

    lead: Lead
    shown: Shown
    automation: Shown | None
    tier: str
    score: int | None
    work: tuple[tuple[str, Shown], ...]
    questions: int
    is_due: bool


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many leads have a status, and the query string that lists them."""

    status: StatusSpec
    count: int
    query: str
    is_chosen: bool


def read_filters(values: Mapping[str, Any]) -> Filters:
    """The filters of a query string or a form; what is not a filter is left out."""
    item = str(values.get("item", ""))
    tier = str(values.get("tier", ""))
    return Filters(
        status=str(values.get("status", ""))[:50],
        tier=tier if tier in TIERS else "",
        text=str(values.get("q", "")).strip()[:100],
        item=int(item) if item.isascii() and item.isdigit() and len(item) < 19 else None,
    )


def filter_leads(access: Access, filters: Filters, *, departments: Sequence[int] | None = None) -> QuerySet[Lead]:
    """The leads of the shown departments, or of those given, that fit the filters."""
    leads = Lead.objects.filter(department__in=access.ids if departments is None else departments)
    if filters.item is not None:
        leads = leads.filter(pk=filters.item)
    if filters.status:
        leads = leads.filter(item__status=filters.status)
    if filters.tier:
        qualified = Output.objects.filter(item=OuterRef("pk"), key=KEY, is_current=True, facets__tier=filters.tier)
        leads = leads.filter(Exists(qualified))
    for word in filters.text.split():
        leads = leads.filter(Q(name__icontains=word) | Q(email__icontains=word) | Q(company__icontains=word))
    return leads


def read_rows(leads: Sequence[Lead]) -> list[LeadRow]:
    """What the list shows of these leads (with item and department selected), in three queries."""
    now, ids = timezone.now(), [lead.pk for lead in leads]
    outputs = Output.objects.filter(item__in=ids, key=KEY, is_current=True)
    facets = dict(outputs.values_list("item_id", "facets"))
    work: dict[int, list[tuple[str, Shown]]] = {}
    active = AgentRun.objects.filter(item__in=ids, status__in=AgentRun.ACTIVE).select_related(
        "agent", "item", "department"
    )
    for run in active.order_by("pk"):
        work.setdefault(run.item_id, []).append((run.agent.title, show_agent_run(run, now)))
    open_reviews = Review.objects.filter(item__in=ids, status=Review.Status.OPEN).values_list("item_id")
    questions = dict(open_reviews.annotate(count=Count("pk")).order_by())
    return [
        LeadRow(
            lead=lead,
            shown=show_item(lead.item, lead.item.department.spec),
            automation=show_automation(lead.item),
            tier=str(facets.get(lead.pk, {}).get("tier", "")),
            score=facets.get(lead.pk, {}).get("score"),
            work=tuple(work.get(lead.pk, ())),
            questions=questions.get(lead.pk, 0),
            is_due=lead.item.route_due_at is not None and lead.item.route_due_at <= now,
        )
        for lead in leads
    ]


def count_by_status(access: Access, filters: Filters) -> list[StatusCount]:
    """How many leads the shown departments have of each status, whatever else is filtered; one query."""
    rows = Item.objects.filter(department__in=access.ids, department__kind="sales").values_list("status")
    counts = dict(rows.annotate(count=Count("pk")).order_by())
    known = {status.slug: status for status in STATUSES}
    specs = [*STATUSES, *(StatusSpec(slug, slug) for slug in sorted(counts) if slug not in known)]
    return [
        StatusCount(
            spec,
            counts[spec.slug],
            Filters(spec.slug, filters.tier, filters.text).query,
            spec.slug == filters.status,
        )
        for spec in specs
        if spec.slug in counts
    ]


def describe_filters(filters: Filters, access: Access) -> str:
    """The selection in words, for the question before a large run."""
    if filters.item is not None:
        return f"lead {filters.item}"
    parts = []
    if filters.status:
        label = next((status.label for status in STATUSES if status.slug == filters.status), filters.status)
        parts.append(f"status “{label}”")
    if filters.tier:
        parts.append(f"tier {filters.tier}")
    if filters.text:
        parts.append(f"text “{filters.text}”")
    where = f" of {access.current}" if access.current else ""
    return f"leads{where} with {' and '.join(parts)}" if parts else f"all leads{where}"
