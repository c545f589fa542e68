"""Leads from outside into the database: each becomes a new item or is merged into the lead it already is.

A lead is known by its normalised e-mail address or by the external id of its source; where the two point to
different leads, the address wins and the row says so. ``leads.merging`` has the rules of a merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import Q

from agents.models import Department
from leads.mapping import LeadRow
from leads.merging import STORED, Desk, Taken, What
from leads.models import ImportJob, Lead, StagedLead
from runs import examples, log
from runs.database import update_rows
from runs.models import Item, Trigger

_BATCH_TRIES = 3


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a webhook. Its id is unique per ``Trigger.source``."""

    id: str
    raw_body: str
    is_single: bool = True

    def id_of(self, number: int) -> str:
        """The delivery id of one lead's trigger: several leads in one delivery are told apart by ``#n``."""
        return self.id if self.is_single else f"{self.id}#{number}"


@dataclass(frozen=True, slots=True)
class Arrival:
    """How leads come in. With a ``job`` they are staged, and due when the import ends; else they are due now.

    ``source`` is the lead's (it keys external ids), ``trigger_source`` the trigger's.
    """

    source: str
    trigger_source: str
    now: datetime
    priority: int = Item.Priority.NORMAL
    job: ImportJob | None = None
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of one row; ``item_id`` is 0 in a preview of a new one."""

    number: int
    what: What
    item_id: int
    notes: tuple[str, ...] = ()


def upsert_leads(*, department: Department, rows: Sequence[LeadRow], arrival: Arrival) -> list[Landed]:
    """Store at most a few hundred rows in one transaction; results in the order of the rows.

    Where another transaction stores one of the leads at the same moment, the rows are done again, in the end one by
    one: by then the other's lead can be seen. A delivery that is already recorded is an ``IntegrityError``. Two
    writers of the same new people can deadlock: an ``OperationalError``, after which the caller begins again.
    """
    with transaction.atomic():
        for _ in range(_BATCH_TRIES):
            try:
                with transaction.atomic():
                    return _land(department, rows, arrival)
            except IntegrityError:
                continue  # whole again first: one by one would lock the known items out of their order
        return [landed for row in rows for landed in _land_again(department, row, arrival)]


def preview_leads(*, department: Department, rows: Sequence[LeadRow], source: str) -> list[Landed]:
    """What ``upsert_leads`` would do with these rows; writes and locks nothing."""
    ids = _known_ids(department, rows, source)
    desk = Desk(department, source, list(Lead.objects.filter(pk__in=ids).select_related("item")))
    return [_landed(desk.take(row)) for row in rows]


def _land_again(department: Department, row: LeadRow, arrival: Arrival) -> list[Landed]:
    try:
        with transaction.atomic():
            return _land(department, [row], arrival)
    except IntegrityError:
        # Committed between our look and our insert; READ COMMITTED shows it to the next look.
        with transaction.atomic():
            return _land(department, [row], arrival)


def _land(department: Department, rows: Sequence[LeadRow], arrival: Arrival) -> list[Landed]:
    desk = Desk(department, arrival.source, _lock_known(department, rows, arrival.source))
    taken = [desk.take(row) for row in rows]
    _write(desk, arrival)
    _record(taken, arrival)
    return [_landed(entry) for entry in taken]


def _landed(taken: Taken) -> Landed:
    return Landed(taken.row.number, taken.what, taken.entry.lead.pk or 0, taken.row.notes)


# --- Finding what is known ---------------------------------------------------------------------------------


def _known_ids(department: Department, rows: Iterable[LeadRow], source: str) -> set[int]:
    emails = {row.email for row in rows if row.email}
    external = {row.external_id for row in rows if row.external_id}
    leads = Lead.objects.filter(department=department)
    found: set[int] = set()
    # The exclusions repeat the conditions of the unique indexes, which are partial: without them no database
    # can use them. Two queries, because an OR over two indexes scans the table.
    if emails:
        found.update(leads.filter(email__in=emails).exclude(email="").values_list("pk", flat=True))
    if external:
        by_id = leads.filter(source=source, external_id__in=external).exclude(external_id="")
        found.update(by_id.values_list("pk", flat=True))
    return found


def _lock_known(department: Department, rows: Sequence[LeadRow], source: str) -> list[Lead]:
    """The leads these rows are about, as they are once their items are locked, in id order."""
    ids = _known_ids(department, rows, source)
    if not ids:
        return []
    items = {item.pk: item for item in Item.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")}
    leads = list(Lead.objects.filter(pk__in=items).order_by("pk"))
    for lead in leads:
        lead.item = items[lead.pk]
    return leads


# --- Writing -----------------------------------------------------------------------------------------------


def _write(desk: Desk, arrival: Arrival) -> None:
    """Insert what is new, update what changed, and make both due, or stage them.

    Without an import what is new waits like its rest, where somebody looks at examples first (``runs.examples``).
    """
    new = [entry.lead for entry in desk.entries if entry.is_new]
    is_held = bool(new) and arrival.job is None and examples.holds_new(desk.department)
    for lead in new:
        lead.item.priority = arrival.priority
        lead.item.route_due_at = None if arrival.job or is_held else arrival.now
        if is_held:
            lead.item.automation, lead.item.automation_reason = Item.Automation.PAUSED, examples.REASON
    Item.objects.bulk_create([lead.item for lead in new])
    for lead in new:
        lead.item = lead.item  # takes over the id; setting `item_id` would forget the item
    # In the order of the unique keys, so that two imports of the same people do not wait for each other. The items,
    # which have none, keep the order of the file: the first rows are the examples.
    Lead.objects.bulk_create(sorted(new, key=lambda lead: (lead.email, lead.external_id)))
    changed = [entry for entry in desk.entries if not entry.is_new and entry.changed]
    update_rows(Lead, STORED, [(e.lead.pk, *(getattr(e.lead, name) for name in STORED)) for e in changed])
    update_rows(Item, ("title",), [(e.lead.pk, e.lead.item.title) for e in changed if "item_title" in e.changed])
    if arrival.job:
        _stage(desk, arrival.job)
    else:
        _make_due(desk, arrival)


def _stage(desk: Desk, job: ImportJob) -> None:
    known = [entry.lead.pk for entry in desk.entries if not entry.is_new]
    # What an interrupted import left behind becomes due with this one.
    left = StagedLead.objects.filter(lead__in=known).values_list("lead_id", flat=True) if known else ()
    waiting = set(left) | {e.lead.pk for e in desk.entries if e.is_new or e.changed}
    staged = [StagedLead(job=job, lead_id=pk) for pk in sorted(waiting)]
    StagedLead.objects.bulk_create(staged, ignore_conflicts=True)


def _make_due(desk: Desk, arrival: Arrival) -> None:
    known = Item.objects.filter(pk__in=[entry.lead.pk for entry in desk.entries if not entry.is_new])
    known.filter(priority__gt=arrival.priority).update(priority=arrival.priority)
    known.filter(Q(route_due_at=None) | Q(route_due_at__gt=arrival.now)).update(
        route_due_at=arrival.now, changed_at=arrival.now
    )


def _record(taken: Sequence[Taken], arrival: Arrival) -> None:
    """A trigger for every new lead and every lead of a delivery; a log line for a change to a known one."""
    triggers, lines = [], []
    for one in taken:
        if one.what == "created" or arrival.delivery:
            triggers.append(_trigger(one, arrival))
        if one.what == "merged" and not one.entry.is_new:
            names = ", ".join(sorted(one.entry.changed - {"item_title"}))
            text = f"{arrival.trigger_source} (row {one.row.number}) brought news of this lead: {names}."
            lines.append(log.item_entry(one.entry.lead.item, "merged", text, at=arrival.now))
    Trigger.objects.bulk_create(triggers)
    log.write(lines)


def _trigger(one: Taken, arrival: Arrival) -> Trigger:
    delivery = arrival.delivery
    payload: dict[str, object] = {"row": one.row.number, "is_new": one.what == "created"}
    if arrival.job:
        payload["import"] = arrival.job.pk
    return Trigger(
        item=one.entry.lead.item,
        kind=Trigger.Kind.CREATED,
        source=arrival.trigger_source,
        delivery_id=delivery.id_of(one.row.number) if delivery else "",
        # The body is one for all leads of a delivery and kept once.
        raw_body=delivery.raw_body if delivery and one.row.number == 1 else "",
        payload=payload,
        due_at=arrival.now,
    )
