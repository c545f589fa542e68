"""Queries that are compiled once: the same rows as the ORM's, with values of every run."""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, models, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from agents.statements import Among, Given, Statement, count_each
from runs.models import AgentRun, Item
from tests.factories import make_agent_run, make_item

NOW = datetime(2026, 11, 16, 9, 30, tzinfo=UTC)

DUE = Statement(
    lambda: (
        Item.objects.filter(Among("pk", "items"), route_due_at__lte=Given("now", models.DateTimeField()))
        .order_by("-pk")
        .values_list("pk", "tags", "route_due_at")
    )
)
WHOLE = Statement(lambda: Item.objects.filter(Among("pk", "items")).order_by("pk"))
LOCKED = Statement(lambda: Item.objects.filter(Among("pk", "items")).select_for_update())
BY_TOKEN = Statement(lambda: AgentRun.objects.filter(Among("lease_token", "tokens")))


@pytest.fixture
def items(db: None) -> list[Item]:
    made = [make_item(title=f"Item {number}") for number in range(3)]
    for hours, item in enumerate(made):
        item.tags, item.route_due_at = [f"tag {hours}"], NOW + timedelta(hours=hours)
        item.save()
    return made


def test_it_answers_with_the_values_of_each_run(items: list[Item]) -> None:
    first, second, third = items
    ids = [item.pk for item in items]
    assert [row[0] for row in DUE.rows(items=ids, now=NOW)] == [first.pk]
    assert [row[0] for row in DUE.rows(items=ids, now=NOW + timedelta(hours=2))] == [third.pk, second.pk, first.pk]
    assert [row[0] for row in DUE.rows(items=ids[:1], now=NOW + timedelta(hours=2))] == [first.pk]


def test_values_come_back_as_the_orm_gives_them(items: list[Item]) -> None:
    assert DUE.rows(items=[items[0].pk], now=NOW) == [(items[0].pk, ["tag 0"], NOW)]
    loaded = WHOLE.objects(items=[item.pk for item in items])
    assert [item.__dict__.keys() for item in loaded] == [item.__dict__.keys() for item in Item.objects.order_by("pk")]
    assert [(i.title, i.tags, i.route_due_at, i.changed_at) for i in loaded] == [
        (i.title, i.tags, i.route_due_at, i.changed_at) for i in Item.objects.order_by("pk")
    ]


def test_what_select_related_names_comes_with_the_rows(items: list[Item], django_assert_num_queries: Any) -> None:
    run = make_agent_run(item=items[0])
    statement = Statement(
        lambda: AgentRun.objects.filter(Among("pk", "runs")).select_related("agent", "item", "trigger")
    )
    for _ in range(2):
        with django_assert_num_queries(1):
            (found,) = statement.objects(runs=[run.pk])
            assert (found.agent.slug, found.item.title, found.trigger) == (run.agent.slug, "Item 0", None)
    assert found.__dict__.keys() == AgentRun.objects.select_related("agent").get(pk=run.pk).__dict__.keys()
    assert found == run


@pytest.mark.django_db(transaction=True)
def test_it_is_compiled_once_for_all_threads_and_bound_to_the_connection_of_none() -> None:
    item, built = make_item(tags=["tag"], route_due_at=NOW), []

    def build() -> models.QuerySet[Item]:
        built.append(connection.settings_dict)
        return Item.objects.filter(Among("pk", "items"), tags=Given("tags", Item._meta.get_field("tags")))

    statement, found = Statement(build), []

    def look() -> None:
        found.append((connection.ops, statement.objects(items=[item.pk], tags=["tag"])))
        connection.close()

    for _ in range(2):
        thread = Thread(target=look)
        thread.start()
        thread.join()
    assert [(row.pk, row.tags, row.route_due_at) for _, [row] in found] == [(item.pk, ["tag"], NOW)] * 2
    assert len(built) == 1
    first = weakref.ref(found[0][0])
    del found[:]
    gc.collect()
    assert first() is None, "the connection of a thread that is over would stay"


def test_what_it_loads_can_be_saved(items: list[Item]) -> None:
    [item] = WHOLE.objects(items=[items[0].pk])
    item.title = "Another title"
    item.save(update_fields=["title"])
    assert Item.objects.get(pk=items[0].pk).title == "Another title"
    assert Item.objects.count() == 3


def test_an_empty_list_finds_nothing(items: list[Item]) -> None:
    assert DUE.rows(items=[], now=NOW) == []
    assert BY_TOKEN.objects(tokens=[]) == []
    assert BY_TOKEN.objects(tokens=[uuid4()]) == []


def test_a_limit_holds_for_its_run_only(items: list[Item]) -> None:
    ids = [item.pk for item in items]
    assert [item.pk for item in WHOLE.objects(limit=2, items=ids)] == ids[:2]
    assert [item.pk for item in WHOLE.objects(limit=1, items=ids)] == ids[:1]
    assert [item.pk for item in WHOLE.objects(items=ids)] == ids


def test_the_statement_is_the_same_whatever_the_number_of_values(items: list[Item]) -> None:
    with CaptureQueriesContext(connection) as captured:
        WHOLE.objects(items=[items[0].pk])
        WHOLE.objects(items=[item.pk for item in items])
    shapes = {query["sql"].split("ANY")[0].split("json_each")[0] for query in captured.captured_queries}
    assert len(captured) == 2
    assert len(shapes) == 1


@pytest.mark.django_db(transaction=True)
def test_rows_are_locked_in_a_transaction_only() -> None:
    item = make_item()
    with transaction.atomic():
        assert [locked.pk for locked in LOCKED.objects(items=[item.pk])] == [item.pk]
    with pytest.raises(TransactionManagementError, match="belongs into a transaction"):
        LOCKED.objects(items=[item.pk])


def test_several_are_counted_at_once_and_no_further_than_a_limit(items: list[Item]) -> None:
    ids = [item.pk for item in items]
    with CaptureQueriesContext(connection) as queries:
        assert count_each({"due": DUE, "all": WHOLE}, limit=2, items=ids, now=NOW) == {"due": 1, "all": 2}
    assert len(queries) == 1
    assert WHOLE.count(limit=10, items=ids) == 3
    assert WHOLE.count(limit=10, items=[]) == 0
