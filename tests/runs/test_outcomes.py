"""What items come to: counted when it first happens, whatever becomes of the item later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection, transaction

from runs import dispatch
from runs.models import Item, ItemOutcome, LogEntry
from runs.outcomes import count_outcomes, find_reached, record_outcomes
from runs.staff import load_staff
from tests.factories import make_department, make_lead, make_log_entry, make_message, make_output

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


def route(item: Item, now: datetime = NOON) -> None:
    """Decide about the item as a shift does."""
    with transaction.atomic():
        locked = Item.objects.select_for_update().get(pk=item.pk)
        LogEntry.objects.bulk_create(dispatch.route([locked], load_staff(), now=now))


def names(item: Item) -> list[str]:
    return sorted(ItemOutcome.objects.filter(item=item).values_list("outcome", flat=True))


def test_a_lead_that_is_qualified_counts_and_still_does_when_it_is_lost() -> None:
    item = make_lead().item
    make_output(item, "qualification")
    route(item)
    item.refresh_from_db()
    assert (item.status, names(item)) == ("qualified", ["qualified lead"])
    make_output(item, "crm_update", facets={"stage": "lost"})
    route(item, NOON + timedelta(days=3))
    item.refresh_from_db()
    assert (item.status, names(item)) == ("lost", ["qualified lead"])
    day = NOON.replace(hour=0)
    assert count_outcomes([item.department], day, day + timedelta(days=1))["qualified lead"] == 1


def test_only_the_first_time_counts() -> None:
    item = make_lead(status="contacted").item
    make_message(item, "in", at=NOON)
    route(item)
    Item.objects.filter(pk=item.pk).update(status="contacted")
    route(item, NOON + timedelta(days=40))
    assert ItemOutcome.objects.get(item=item, outcome="reply").at == NOON
    later = NOON + timedelta(days=30)
    assert count_outcomes([item.department], later, later + timedelta(days=30))["reply"] == 0


def test_a_lead_that_is_lost_at_once_was_never_qualified() -> None:
    item = make_lead().item
    make_output(item, "crm_update", facets={"stage": "lost"})
    route(item)
    item.refresh_from_db()
    assert (item.status, names(item)) == ("lost", [])


def test_departments_do_not_mix_and_the_end_of_a_period_is_outside() -> None:
    ours, theirs = make_lead(make_department(slug="ours")).item, make_lead(make_department(slug="theirs")).item
    for item, at in ((ours, NOON), (theirs, NOON)):
        record_outcomes(find_reached(item, item.department.spec, "meeting"), now=at)
    assert count_outcomes([ours.department], NOON, NOON + timedelta(seconds=1)) == {
        "qualified lead": 1,
        "reply": 0,
        "meeting": 1,
    }
    assert sum(count_outcomes([ours.department], NOON - timedelta(days=1), NOON).values()) == 0
    assert count_outcomes([], NOON, NOON + timedelta(days=1)) == {}


def test_nothing_new_is_one_query_and_nothing_at_all_none(django_assert_num_queries: object) -> None:
    item = make_lead().item
    reached = find_reached(item, item.department.spec, "replied")
    for _ in range(2):
        with django_assert_num_queries(1):  # type: ignore[operator]
            record_outcomes(reached, now=NOON)
    with django_assert_num_queries(0):  # type: ignore[operator]
        record_outcomes([], now=NOON)
    assert names(item) == ["qualified lead", "reply"]


def test_the_migration_takes_the_first_time_from_the_log_and_the_rest_from_the_status() -> None:
    told, silent = make_lead(status="lost").item, make_lead(status="meeting").item
    for days, status in ((3, "replied"), (1, "qualified"), (9, "lost")):
        make_log_entry(told, kind="status", data={"to": status}, at=NOON + timedelta(days=days))
    Item.objects.filter(pk=silent.pk).update(changed_at=NOON)
    migration = import_module("runs.migrations.0014_known_outcomes")
    for _ in range(2):
        migration.fill(apps, connection.schema_editor())
    assert names(told) == ["qualified lead", "reply"]
    assert ItemOutcome.objects.get(item=told, outcome="reply").at == NOON + timedelta(days=3)
    assert set(ItemOutcome.objects.filter(item=silent).values_list("outcome", "at")) == {
        ("qualified lead", NOON),
        ("meeting", NOON),
    }
