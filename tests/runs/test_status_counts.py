"""Counts for the lists: what the job keeps equals the rows, departments apart, and it rests in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agents.statements import Statement
from runs.database import now as database_now
from runs.models import AgentRun, Item, PipelineRun, StatusCount
from runs.status_counts import ROWS_A_SECOND, Counted, count_items, count_statuses, count_up_to, read_counts
from tests.factories import make_agent_run, make_department, make_lead

pytestmark = pytest.mark.django_db
Rows = StatusCount.Rows


def _numbers(rows: str, *departments: int) -> dict[str, int]:
    return {status: counted.number for status, counted in read_counts(rows, departments).items()}


def _age(seconds: float) -> None:
    StatusCount.objects.update(counted_at=database_now() - timedelta(seconds=seconds))


def test_what_it_keeps_are_the_rows_of_each_department() -> None:
    first, second = make_department(), make_department(slug="other")
    for department, statuses in ((first, ("done", "done", "failed")), (second, ("done", "queued"))):
        for status in statuses:
            make_agent_run(make_lead(department).item, "intake", status=status)
    PipelineRun.objects.filter(item__department=second).update(status="completed")
    assert count_statuses()
    assert _numbers(Rows.AGENT_RUNS, first.pk) == {"done": 2, "failed": 1}
    assert _numbers(Rows.AGENT_RUNS, first.pk, second.pk) == {"done": 3, "failed": 1, "queued": 1}
    assert _numbers(Rows.PIPELINE_RUNS, first.pk, second.pk) == {"active": 3, "completed": 2}
    assert _numbers(Rows.AGENT_RUNS) == {}


def test_items_are_counted_as_they_are_in_each_department_and_status() -> None:
    first, second, third = make_department(), make_department(slug="other"), make_department(slug="third")
    for department, statuses in ((first, "aab"), (second, "bcc"), (third, "a")):
        for status in statuses:
            Item.objects.filter(pk=make_lead(department).item.pk).update(status=status)
    expected = {(first.pk, "a"): 2, (first.pk, "b"): 1, (second.pk, "b"): 1, (second.pk, "c"): 2}
    assert count_items([first.pk, second.pk]) == expected
    assert count_items([first.pk, second.pk], most=1) == dict.fromkeys(expected, 1)
    Item.objects.filter(department=first, status="b").update(status="a")
    assert count_items([first.pk]) == {(first.pk, "a"): 3}
    assert count_items([]) == {}


def test_what_is_gone_is_counted_no_more() -> None:
    run = make_agent_run(make_lead().item, "intake", status="failed")
    count_statuses()
    AgentRun.objects.update(status="superseded")
    _age(120)
    assert count_statuses()
    assert _numbers(Rows.AGENT_RUNS, run.department_id) == {"superseded": 1}


def test_it_rests_for_a_minute_and_longer_the_more_there_is() -> None:
    make_agent_run(make_lead().item, "intake", status="done")
    assert count_statuses()
    assert not count_statuses()
    _age(60)
    assert count_statuses()
    StatusCount.objects.filter(status="done").update(count=300 * ROWS_A_SECOND)
    _age(60)
    assert not count_statuses()
    _age(301)
    assert count_statuses()


def test_a_count_from_a_clock_that_was_put_back_does_not_last() -> None:
    make_agent_run(make_lead().item, "intake", status="done")
    count_statuses()
    _age(-3_600)
    assert count_statuses()


def test_a_page_counts_no_further_than_it_must(django_assert_num_queries: Any) -> None:
    for _ in range(4):
        make_agent_run(make_lead().item, "intake", status="done")
    rows = {name: Statement(AgentRun.objects.filter(status=name).values_list) for name in ("done", "failed")}
    with django_assert_num_queries(1):
        some = count_up_to(rows, most=3)
    assert some == {"done": Counted(3, is_more=True), "failed": Counted(0)}
    assert count_up_to(rows, most=4)["done"].is_more is False
