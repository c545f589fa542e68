"""The list of leads: its rows, and the counts beside it. What narrows it is in ``leads.filters``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from django.contrib.auth.models import User
from django.db.models import Count, prefetch_related_objects
from django.urls import reverse
from django.utils import timezone

from agents.spec import StatusSpec
from agents.statements import Among, Statement
from leads.filters import KEY, Filters, count_statuses
from leads.models import Lead
from leads.progress import STAGES, STATUSES
from runs.access import Access
from runs.cost_moves import group_calls
from runs.cost_unrolled import unrolled_calls
from runs.models import AgentRun, Item, Output, Review
from runs.money import dollars
from runs.status_counts import MOST, Counted
from runs.views.shown import Shown, show_agent_run, show_automation, show_item

_STAGE_OF = {slug: label for label, slugs in STAGES.values() for slug in slugs}


@dataclass(frozen=True, slots=True)
class LeadRow:
    """One line of the list. ``work`` is what is being done to the lead now, or what that waits for."""

    lead: Lead
    shown: Shown
    automation: Shown | None
    tier: str
    score: int | None
    stage: str
    work: tuple[tuple[str, Shown], ...]
    questions: int
    is_due: bool
    cost_usd: Decimal

    @property
    def number(self) -> str:
        """The lead's id for attributes; a number is localised first, which a list does a hundred times."""
        return str(self.lead.pk)

    @property
    def name(self) -> str:
        """What the lead is called."""
        return self.lead.item.title if self.lead.item.is_erased else str(self.lead)

    @property
    def address(self) -> str:
        """Where its page is."""
        return reverse("leads:detail", args=[self.lead.pk])

    @property
    def reached_at(self) -> str:
        """Company and e-mail in one line."""
        return " · ".join(part for part in (self.lead.company, self.lead.email) if part)

    @property
    def waits_in_words(self) -> str:
        """What the cell says, without marks."""
        parts = [f"a person: {self.questions} question{'' if self.questions == 1 else 's'}"] if self.questions else []
        parts += [self.automation.label] if self.automation else []
        parts += [f"{title}: {shown.label}" for title, shown in self.work]
        return "; ".join(parts) or ("looked at next" if self.is_due else "")


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many leads have a status, and the query string that lists them. ``count`` is None where nobody counted."""

    status: StatusSpec
    count: Counted | None
    query: str
    is_chosen: bool


def load_leads(ids: Sequence[int], owners: Iterable[User]) -> list[Lead]:
    """These leads with what the list shows of them, in no order. ``owners`` are people that were read already."""
    leads, known = _LEADS.objects(leads=ids), {owner.pk: owner for owner in owners}
    for lead in leads:
        if lead.owner_id in known:
            lead.owner = known[lead.owner_id]
    # Few leads have these, and most pages none: no join for them.
    prefetch_related_objects([lead for lead in leads if lead.owner_id not in (None, *known)], "owner")
    prefetch_related_objects([lead.item for lead in leads if lead.item.automation_by_id], "automation_by")
    return leads


def read_rows(leads: Sequence[Lead], halt: str) -> list[LeadRow]:
    """What the list shows of these leads (with item, its total, department and owner selected), in four queries.

    ``halt``: why nothing starts in the whole installation, from ``runs.switches``.
    """
    now, ids = timezone.now(), [lead.pk for lead in leads]
    facets = dict(_FACETS.rows(items=ids))
    work: dict[int, list[tuple[str, Shown]]] = {}
    items = {lead.pk: lead.item for lead in leads}
    for run in _ACTIVE.objects(items=ids):
        run.item = items[run.item_id]
        run.department = run.item.department
        work.setdefault(run.item_id, []).append((run.agent.title, show_agent_run(run, now, halt)))
    questions = dict(_QUESTIONS.rows(items=ids))
    costs = read_costs(leads)
    return [
        LeadRow(
            lead=lead,
            shown=show_item(lead.item, lead.item.department.spec),
            automation=show_automation(lead.item),
            tier=str(facets.get(lead.pk, {}).get("tier", "")),
            score=facets.get(lead.pk, {}).get("score"),
            stage=_STAGE_OF.get(lead.item.status, ""),
            work=tuple(work.get(lead.pk, ())),
            questions=questions.get(lead.pk, 0),
            is_due=not halt and _is_looked_at(lead.item, now),
            cost_usd=costs[lead.pk],
        )
        for lead in leads
    ]


_LEADS = Statement(lambda: Lead.objects.filter(Among("pk", "leads")).select_related("item__total"))
_FACETS = Statement(
    lambda: (
        Output.objects.filter(Among("item_id", "items"), key=KEY, is_current=True)
        .order_by()
        .values_list("item_id", "facets")
    )
)
_ACTIVE = Statement(
    lambda: (
        AgentRun.objects.filter(Among("item_id", "items"), status__in=AgentRun.ACTIVE)
        .select_related("agent")
        .order_by("pk")
    )
)
_QUESTIONS = Statement(
    lambda: (
        Review.objects.filter(Among("item_id", "items"), status=Review.Status.OPEN)
        .order_by()
        .values_list("item_id")
        .annotate(count=Count("pk"))
    )
)


def _is_looked_at(item: Item, now: datetime) -> bool:
    """Whether a worker decides next what is wanted of it."""
    department = item.department
    is_open = department.state in department.WORKING and not department.stopped_by_error
    is_due = item.route_due_at is not None and item.route_due_at <= now
    return is_due and is_open and item.automation == Item.Automation.ACTIVE


def read_costs(leads: Sequence[Lead]) -> dict[int, Decimal]:
    """What the settled calls of each lead (with its item's total) came to, with those that no sum holds yet."""
    units = {lead.pk: total.cost_units if (total := getattr(lead.item, "total", None)) else 0 for lead in leads}
    _, items = group_calls(unrolled_calls(item__in=list(units)))
    for (_, item, _), (_, cost, _) in items.items():
        units[item] += cost
    return {pk: dollars(cost) for pk, cost in units.items()}


def count_by_status(access: Access, filters: Filters) -> list[StatusCount]:
    """The statuses that leads of the shown departments have; one query.

    With how many leads each has, up to ``MOST``, unless something else is filtered too: to count those would read
    every lead.
    """
    is_narrowed = bool(replace(filters, status="", stage="", ids=()).params)
    ids = [department.pk for department in access.shown if department.kind == "sales"]
    numbers = count_statuses(ids, most=0 if is_narrowed else MOST + 1)
    known = {status.slug: status for status in STATUSES}
    specs = [*STATUSES, *(StatusSpec(slug, slug) for slug in sorted(numbers) if slug not in known)]
    return [
        StatusCount(
            spec,
            None if is_narrowed else Counted(min(numbers[spec.slug], MOST), is_more=numbers[spec.slug] > MOST),
            replace(filters, status=spec.slug, stage="", ids=()).query,
            spec.slug == filters.status,
        )
        for spec in specs
        if spec.slug in numbers
    ]
