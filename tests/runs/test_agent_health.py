"""How agents do, hour by hour: the sums equal the rows, and what is said of success, speed and the error budget."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from runs import agent_health
from runs.agent_health import bucket_of, count_hours, error_budget_left, percentile, success_percent
from runs.models import AgentHour, AgentRun, DepartmentHour, HourCount, Item, PipelineRun
from runs.models.health import BUCKET_SECONDS, BUCKETS
from tests import factories

NOW = datetime(2026, 3, 2, 14, 30, 20, tzinfo=UTC)


def made(item: Item, agent: str, ended_at: datetime, *, took: float = 3, status: str = "done") -> AgentRun:
    """A step that ended then, after so many seconds."""
    started_at = ended_at - timedelta(seconds=took)
    return factories.make_agent_run(item, agent, status=status, started_at=started_at, ended_at=ended_at)


def sums() -> dict[tuple[str, datetime], tuple[int, int, list[int]]]:
    """By agent and hour: done, failed, and the histogram."""
    rows = AgentHour.objects.select_related("agent")
    return {(r.agent.slug, r.hour): (r.done, r.failed, [getattr(r, name) for name in BUCKETS]) for r in rows}


def recounted() -> dict[tuple[str, datetime], tuple[int, int, list[int]]]:
    """The same, counted in Python from the agent runs."""
    found: dict[tuple[str, datetime], tuple[int, int, list[int]]] = {}
    for run in AgentRun.objects.filter(status__in=["done", "failed"]).select_related("agent"):
        assert run.ended_at is not None
        assert run.started_at is not None
        key = (run.agent.slug, run.ended_at.replace(minute=0, second=0, microsecond=0))
        done, failed, histogram = found.get(key, (0, 0, [0] * len(BUCKETS)))
        is_done = run.status == "done"
        if is_done:
            seconds = (run.ended_at - run.started_at).total_seconds()
            bounds = [*BUCKET_SECONDS, math.inf]
            histogram[next(n for n, bound in enumerate(bounds) if seconds <= bound)] += 1
        found[key] = (done + is_done, failed + (not is_done), histogram)
    return found


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([], 0.5, None),
        ([0] * 10, 0.5, None),
        ([1] + [0] * 9, 0.95, 1.0),
        ([50, 45, 5] + [0] * 7, 0.95, 2.0),
        ([50, 44, 6] + [0] * 7, 0.95, 5.0),
        ([0] * 9 + [1], 0.5, math.inf),
    ],
)
def test_a_percentile_is_the_bound_of_its_bucket(counts: list[int], share: float, expected: float | None) -> None:
    assert percentile(counts, share) == expected


def test_a_failure_is_never_rounded_away() -> None:
    assert success_percent(0, 0) is None
    assert success_percent(100_000, 1) == 99.9
    assert success_percent(5, 0) == 100.0


@pytest.mark.parametrize(
    ("done", "failed", "left"), [(0, 0, None), (100, 0, 100), (99, 1, 0), (199, 1, 50), (98, 2, -100)]
)
def test_the_error_budget_is_what_may_still_fail(done: int, failed: int, left: int | None) -> None:
    assert error_budget_left(done, failed) == left


def test_a_target_is_compared_by_the_bucket_it_lies_in() -> None:
    assert bucket_of(20) == 20
    assert bucket_of(21) == 30
    assert bucket_of(400) == math.inf


@pytest.mark.django_db
def test_the_sums_equal_the_rows_and_counting_again_changes_nothing() -> None:
    item = factories.make_lead(factories.make_department()).item
    ends = [1, 61, 62, 3_000, 3_700, 7_500]
    for number, ago in enumerate(ends):
        made(item, "writer", NOW - timedelta(seconds=ago + 60), took=0.5 + number * 70)
    made(item, "qualifier", NOW - timedelta(hours=3), status="failed")
    made(item, "writer", NOW - timedelta(days=2), took=1.0)
    factories.make_agent_run(item, "researcher")
    count_hours(now=NOW)
    assert sums() == recounted()
    count_hours(now=NOW)
    assert sums() == recounted()
    count_hours(now=NOW + timedelta(hours=5))
    assert sums() == recounted()


@pytest.mark.django_db
def test_what_is_written_late_is_counted_when_its_hour_is_over() -> None:
    item = factories.make_lead(factories.make_department()).item
    count_hours(now=NOW)
    made(item, "writer", NOW - timedelta(minutes=5))
    count_hours(now=NOW)
    assert sums() == {}
    count_hours(now=NOW + timedelta(hours=1))
    assert sums() == recounted() != {}


@pytest.mark.django_db
def test_what_has_just_ended_waits_for_the_next_look() -> None:
    item = factories.make_lead(factories.make_department()).item
    made(item, "writer", NOW - timedelta(seconds=10))
    count_hours(now=NOW)
    assert sums() == {}
    assert agent_health.counted_to() == NOW - agent_health.DELAY
    count_hours(now=NOW + timedelta(minutes=1))
    assert sums() == recounted() != {}


@pytest.mark.django_db
def test_a_clock_that_was_put_back_counts_nothing_twice() -> None:
    item = factories.make_lead(factories.make_department()).item
    count_hours(now=NOW + timedelta(hours=6))
    made(item, "writer", NOW - timedelta(minutes=2))
    count_hours(now=NOW)
    count_hours(now=NOW)
    assert sums() == recounted() != {}


@pytest.mark.django_db
def test_finished_pipeline_runs_are_counted_by_department() -> None:
    department = factories.make_department()
    for status in ("completed", "degraded", "cancelled"):
        item = factories.make_lead(department, name=status, email=f"{status}@example.com").item
        run = factories.make_pipeline_run(item)
        PipelineRun.objects.filter(pk=run.pk).update(status=status, ended_at=NOW - timedelta(minutes=3))
    count_hours(now=NOW)
    hours = agent_health.load_hours([department.pk], now=NOW)
    assert list(DepartmentHour.objects.values_list("completed", "degraded")) == [(1, 1)]
    assert [hour.finished for hour in hours] == [0] * 23 + [2]
    assert hours[-1].hour == datetime(2026, 3, 2, 14, tzinfo=UTC)


@pytest.mark.django_db
def test_an_agent_is_judged_by_its_day_and_its_week() -> None:
    item = factories.make_lead(factories.make_department()).item
    for minutes in range(1, 20):
        made(item, "writer", NOW - timedelta(minutes=minutes + 1), took=4)
    made(item, "writer", NOW - timedelta(minutes=40), took=200)
    made(item, "writer", NOW - timedelta(days=3), status="failed")
    count_hours(now=NOW)
    writer = next(
        health
        for health in agent_health.load_agent_health([item.department_id], now=NOW)
        if health.agent.slug == "writer"
    )
    assert (writer.done, writer.failed, writer.week_done, writer.week_failed) == (20, 0, 20, 1)
    assert (writer.p50_seconds, writer.p95_seconds) == (5.0, 5.0)
    assert writer.success_percent == 100.0
    assert writer.budget_left_percent is not None
    assert writer.budget_left_percent < 0
    assert not writer.is_slow


@pytest.mark.django_db
def test_an_agent_that_did_nothing_is_not_called_well() -> None:
    department = factories.make_department()
    for health in agent_health.load_agent_health([department.pk], now=NOW):
        assert health.success_percent is None
        assert health.p95_seconds is None
        assert health.budget_left_percent is None
    assert agent_health.counted_to() is None
    assert not HourCount.objects.exists()
