"""Leads from outside into the database: new, merged, unchanged; and never twice, whoever else is writing."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from agents.models import Department
from leads.intake import Arrival, Landed, preview_leads, upsert_leads
from leads.mapping import LeadRow
from leads.models import ImportJob, Lead, StagedLead
from runs.models import Item, LogEntry, Trigger
from tests.factories import make_department, make_lead

pytestmark = pytest.mark.django_db


@pytest.fixture
def sales() -> Department:
    return make_department()


def _row(number: int = 1, attributes: dict[str, Any] | None = None, **fields: str) -> LeadRow:
    return LeadRow(number, fields, attributes or {})


def _land(department: Department, *rows: LeadRow, source: str = "crm", **changes: Any) -> list[Landed]:
    values: dict[str, Any] = {"source": source, "trigger_source": f"test:{source}", "now": timezone.now()}
    return upsert_leads(department=department, rows=rows, arrival=Arrival(**{**values, **changes}))


def _fates(landed: list[Landed]) -> list[str]:
    return [one.what for one in landed]


def test_a_new_lead_is_an_item_that_is_due_with_its_trigger(sales: Department) -> None:
    now = timezone.now()
    row = _row(email="anna@x.example", name="Anna", external_id="7", attributes={"size": 5})
    [landed] = _land(sales, row, now=now, priority=Item.Priority.PROSPECT)
    lead = Lead.objects.select_related("item").get()
    assert (landed.what, landed.item_id) == ("created", lead.pk)
    assert (lead.name, lead.email, lead.source, lead.external_id) == ("Anna", "anna@x.example", "crm", "7")
    assert lead.attributes == {"size": 5}
    assert (lead.item.title, lead.item.priority, lead.item.route_due_at) == ("Anna", Item.Priority.PROSPECT, now)
    trigger = Trigger.objects.get()
    assert (trigger.item_id, trigger.kind, trigger.status) == (lead.pk, "created", "open")
    assert trigger.source == "test:crm"


def test_new_leads_keep_the_order_of_their_rows(sales: Department) -> None:
    """The first five rows of a file are the examples."""
    rows = [_row(number, email=f"{name}@x.example", name=name) for number, name in enumerate(("Zoe", "Anna", "Max"))]
    _land(sales, *rows)
    assert list(Lead.objects.order_by("pk").values_list("name", flat=True)) == ["Zoe", "Anna", "Max"]


def test_a_known_lead_gets_what_it_lacks_and_keeps_what_it_has(sales: Department) -> None:
    known = make_lead(sales, email="anna@x.example", name="Anna", company="", phone="1", attributes={"a": 1, "b": 2})
    row = _row(email="anna@x.example", name="Anne", company="Acme", phone="2", attributes={"b": 3, "c": 4})
    assert _fates(_land(sales, row)) == ["merged"]
    known.refresh_from_db()
    assert (known.name, known.company, known.phone) == ("Anna", "Acme", "1")
    assert known.attributes == {"a": 1, "b": 3, "c": 4}
    entry = LogEntry.objects.get(item=known.pk)
    assert "attributes, company" in entry.text
    assert not Trigger.objects.exists()


def test_a_known_lead_without_news_is_unchanged(sales: Department) -> None:
    job = ImportJob.objects.create(department=sales, source="crm", file_name="x")
    known = make_lead(sales, email="anna@x.example", name="Anna", attributes={"a": 1})
    row = _row(email="anna@x.example", name="ANNA", attributes={"a": 1})
    assert _fates(_land(sales, row, job=job)) == ["unchanged"]
    assert not LogEntry.objects.exists()
    assert not StagedLead.objects.exists()
    known.item.refresh_from_db()
    assert known.item.route_due_at is None


def test_a_second_message_is_added_to_the_first_once(sales: Department) -> None:
    known = make_lead(sales, email="anna@x.example", message="Hello")
    again = _row(email="anna@x.example", message="Are you there?")
    assert _fates(_land(sales, again)) == ["merged"]
    assert _fates(_land(sales, again)) == ["unchanged"]
    known.refresh_from_db()
    assert known.message == "Hello\n\nAre you there?"


def test_a_lead_is_known_by_the_external_id_of_its_source(sales: Department) -> None:
    _land(sales, _row(external_id="7", name="Anna"))
    landed = _land(sales, _row(external_id="7", email="anna@x.example", company="Acme"))
    assert _fates(landed) == ["merged"]
    lead = Lead.objects.get()
    assert (lead.email, lead.company) == ("anna@x.example", "Acme")
    assert _fates(_land(sales, _row(external_id="7", email="bo@x.example"), source="other")) == ["created"]


def test_where_address_and_id_disagree_the_address_wins_and_the_row_says_so(sales: Department) -> None:
    by_id = make_lead(sales, email="bo@x.example", source="crm", external_id="7")
    by_email = make_lead(sales, email="anna@x.example", company="", source="form")
    [landed] = _land(sales, _row(email="anna@x.example", external_id="7", company="Acme"))
    assert landed.item_id == by_email.pk
    assert "belong to two leads" in landed.notes[0]
    by_email.refresh_from_db()
    by_id.refresh_from_db()
    assert (by_email.company, by_email.external_id) == ("Acme", "")
    assert by_email.attributes == {"crm id": "7"}
    assert by_id.external_id == "7"


def test_a_known_id_with_another_address_keeps_its_address_and_says_so(sales: Department) -> None:
    known = make_lead(sales, email="anna@x.example", source="crm", external_id="7")
    [landed] = _land(sales, _row(email="new@x.example", external_id="7"))
    assert landed.item_id == known.pk
    assert "another e-mail address, which stays" in landed.notes[0]
    known.refresh_from_db()
    assert known.email == "anna@x.example"


def test_duplicates_in_one_batch_merge_with_each_other(sales: Department) -> None:
    rows = [
        _row(1, email="anna@x.example", external_id="1"),
        _row(2, email="anna@x.example", name="Anna"),
        _row(3, external_id="1", company="Acme"),
        _row(4, email="anna@x.example", name="Anna"),
    ]
    landed = _land(sales, *rows)
    assert _fates(landed) == ["created", "merged", "merged", "unchanged"]
    assert len({one.item_id for one in landed}) == 1
    lead = Lead.objects.select_related("item").get()
    assert (lead.name, lead.company, lead.item.title) == ("Anna", "Acme", "Anna")
    assert Trigger.objects.count() == 1


def test_rows_that_undo_each_other_change_nothing_when_they_come_again(sales: Department) -> None:
    rows = [
        _row(1, email="anna@x.example", attributes={"from": "form"}),
        _row(2, email="anna@x.example", attributes={"from": "fair"}),
    ]
    assert _fates(_land(sales, *rows)) == ["created", "merged"]
    assert _fates(_land(sales, *rows)) == ["unchanged", "unchanged"]
    assert Lead.objects.get().attributes == {"from": "fair"}
    assert not LogEntry.objects.exists()


def test_departments_do_not_see_each_others_leads(sales: Department) -> None:
    other = make_department(slug="other")
    make_lead(other, email="anna@x.example", source="crm", external_id="7", company="")
    assert _fates(_land(sales, _row(email="anna@x.example", external_id="7", company="Acme"))) == ["created"]
    assert Lead.objects.get(department=other).company == ""


def test_what_a_prospect_sends_makes_a_known_lead_due_and_urgent(sales: Department) -> None:
    now = timezone.now()
    later = now + timedelta(days=3)
    known = make_lead(sales, email="anna@x.example", priority=Item.Priority.IMPORT, route_due_at=later)
    _land(sales, _row(email="anna@x.example"), now=now, priority=Item.Priority.PROSPECT)
    known.item.refresh_from_db()
    assert (known.item.route_due_at, known.item.priority) == (now, Item.Priority.PROSPECT)


def test_an_import_stages_new_and_changed_leads_and_makes_none_due(sales: Department) -> None:
    job = ImportJob.objects.create(department=sales, source="crm", file_name="x")
    known = make_lead(sales, email="anna@x.example", company="")
    rows = [_row(1, email="anna@x.example", company="Acme"), _row(2, email="bo@x.example")]
    landed = _land(sales, *rows, job=job, priority=Item.Priority.IMPORT)
    assert set(job.staged.values_list("lead_id", flat=True)) == {known.pk, landed[1].item_id}
    assert not Item.objects.exclude(route_due_at=None).exists()


def test_what_an_interrupted_import_left_is_staged_by_the_next_one(sales: Department) -> None:
    old = ImportJob.objects.create(department=sales, source="crm", file_name="x")
    new = ImportJob.objects.create(department=sales, source="crm", file_name="y")
    row = _row(email="anna@x.example")
    [first] = _land(sales, row, job=old)
    assert _fates(_land(sales, row, job=new)) == ["unchanged"]
    assert list(new.staged.values_list("lead_id", flat=True)) == [first.item_id]


def test_a_preview_says_the_same_and_writes_nothing(sales: Department) -> None:
    make_lead(sales, email="anna@x.example", company="")
    rows = [
        _row(1, email="anna@x.example", company="Acme"),
        _row(2, email="bo@x.example"),
        _row(3, email="bo@x.example"),
    ]
    previewed = preview_leads(department=sales, rows=rows, source="crm")
    assert Lead.objects.count() == 1
    assert Lead.objects.get().company == ""
    assert _fates(previewed) == _fates(_land(sales, *rows)) == ["merged", "created", "unchanged"]


def test_a_batch_takes_a_fixed_number_of_queries(sales: Department, django_assert_max_num_queries: Any) -> None:
    rows = [_row(n, email=f"lead{n}@x.example", external_id=str(n)) for n in range(40)]
    with django_assert_max_num_queries(14):
        _land(sales, *rows)


@pytest.mark.django_db(transaction=True)
def test_writers_at_the_same_moment_make_one_lead_of_one_person() -> None:
    sales = make_department()
    barrier = threading.Barrier(4)
    fates: list[str] = []
    faults: list[BaseException] = []

    def write(offset: int) -> None:
        try:
            # Everybody writes the same people, each in another order and with something of their own.
            rows = [
                _row(n, email=f"p{(n + offset) % 12}@x.example", attributes={f"from {offset}": n}) for n in range(12)
            ]
            barrier.wait(10)
            for _ in range(20):
                with suppress(OperationalError):  # a deadlock: again, as the callers do
                    fates.extend(_fates(_land(sales, *rows)))
                    break
        except BaseException as fault:
            faults.append(fault)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(offset,), daemon=True) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults
    assert (fates.count("created"), fates.count("merged")) == (12, 36)
    assert Lead.objects.count() == Item.objects.count() == Trigger.objects.count() == 12
    assert all(len(lead.attributes) == 4 for lead in Lead.objects.all())
