"""Many rows at once: inserted, updated to values of their own, increased; the same on both databases. And snapshots."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import DataError, connection, transaction
from django.test.utils import CaptureQueriesContext

from runs.database import increase_rows, insert_rows, snapshot, update_rows
from runs.models import AgentRun, Item, LogEntry, ModelCall
from tests.factories import make_agent_run, make_department, make_item, make_model_call

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 16, 9, 30, 15, 123456, tzinfo=UTC)


def make_runs(number: int) -> list[AgentRun]:
    return [make_agent_run(make_item(title=f"Item {n}")) for n in range(number)]


def test_rows_are_inserted_with_their_ids_and_their_stamps() -> None:
    department = make_department()
    items = [Item(department=department, title=f"Item {n}", tags=[f"tag {n}", "é"], route_due_at=NOW) for n in range(3)]
    insert_rows(items)
    found = list(Item.objects.order_by("pk"))
    assert [item.pk for item in found] == [item.pk for item in items]
    assert [(i.title, i.tags, i.route_due_at) for i in found] == [
        (f"Item {n}", [f"tag {n}", "é"], NOW) for n in range(3)
    ]
    assert all(item.created_at and item.changed_at for item in found)
    items[0].title = "Changed"
    items[0].save()
    assert Item.objects.count() == 3


def test_a_row_keeps_the_moment_it_was_given() -> None:
    insert_rows([LogEntry(kind="test", text="At its own time.", at=NOW)])
    assert LogEntry.objects.get().at == NOW


@pytest.mark.parametrize("number", [1, 3])
def test_each_row_gets_values_of_its_own(number: int) -> None:
    runs = make_runs(number)
    tokens = [uuid4() for _ in runs]
    rows = [
        (run.pk, AgentRun.Status.RUNNING, token, NOW, n, Decimal("0.12345678") + n, None)
        for n, (run, token) in enumerate(zip(runs, tokens, strict=True))
    ]
    columns = ["status", "lease_token", "lease_expires_at", "attempt", "cost_usd", "started_at"]
    update_rows(AgentRun, columns, rows)
    for n, run in enumerate(AgentRun.objects.order_by("pk")):
        assert (run.status, run.lease_token, run.lease_expires_at) == ("running", tokens[n], NOW)
        assert (run.attempt, run.cost_usd, run.started_at) == (n, Decimal("0.12345678") + n, None)


def test_a_value_may_be_missing_in_the_first_row_only() -> None:
    runs = make_runs(2)
    update_rows(AgentRun, ["ended_at", "error"], [(runs[0].pk, None, ""), (runs[1].pk, NOW, "It broke.")])
    found = AgentRun.objects.order_by("pk").values_list("ended_at", "error")
    assert list(found) == [(None, ""), (NOW, "It broke.")]


def test_other_rows_stay_as_they_are() -> None:
    runs = make_runs(3)
    update_rows(AgentRun, ["error"], [(run.pk, "It broke.") for run in runs[:2]])
    assert AgentRun.objects.get(pk=runs[2].pk).error == ""


def test_json_is_stored_as_json() -> None:
    items = [make_item() for _ in range(2)]
    update_rows(Item, ["tags"], [(item.pk, ["a", {"b": n}]) for n, item in enumerate(items)])
    assert list(Item.objects.order_by("pk").values_list("tags", flat=True)) == [["a", {"b": 0}], ["a", {"b": 1}]]


def test_an_amount_is_added_as_often_as_its_row_is_named() -> None:
    first, second = make_runs(2)
    increase_rows(AgentRun, "cost_usd", [(first.pk, Decimal("0.1")), (second.pk, Decimal("0.2"))])
    increase_rows(AgentRun, "cost_usd", [(first.pk, Decimal("0.01")), (first.pk, Decimal("0.02"))])
    found = dict(AgentRun.objects.values_list("pk", "cost_usd"))
    assert found == {first.pk: Decimal("0.13"), second.pk: Decimal("0.2")}


def test_nothing_to_do_asks_nothing() -> None:
    with CaptureQueriesContext(connection) as queries:
        insert_rows([])
        update_rows(AgentRun, ["error"], [])
        increase_rows(AgentRun, "cost_usd", [])
    assert len(queries) == 0


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite takes a text of any length")
def test_what_is_too_long_is_refused_and_not_cut() -> None:
    calls = [make_model_call(run) for run in make_runs(2)]
    with pytest.raises(DataError), transaction.atomic():
        update_rows(ModelCall, ["stop_reason"], [(call.pk, "x" * 41) for call in calls])


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one process for all")
def test_a_snapshot_only_reads_with_one_process_and_says_so_no_longer_afterwards() -> None:
    names = ("transaction_isolation", "transaction_read_only", "max_parallel_workers_per_gather")

    def settings() -> list[str]:
        with connection.cursor() as cursor:
            return [cursor.execute(f"SHOW {name}").fetchone()[0] for name in names]

    before = settings()
    with snapshot():
        assert settings() == ["repeatable read", "on", "0"]
    assert settings() == before != ["repeatable read", "on", "0"]
