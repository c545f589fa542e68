"""A clock that is put back holds up nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from runs.clock import ClockWatch, make_due
from runs.models import AgentRun, Item
from tests.factories import make_agent_run, make_lead

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_the_first_look_and_a_clock_that_goes_on_are_no_alarm() -> None:
    watch = ClockWatch()
    assert not watch.went_back(NOON)
    assert not watch.went_back(NOON + timedelta(hours=1))


def test_a_clock_that_was_put_back_is_noticed_once() -> None:
    watch = ClockWatch()
    watch.went_back(NOON)
    assert watch.went_back(NOON - timedelta(hours=1))
    assert not watch.went_back(NOON - timedelta(hours=1))


def test_a_small_correction_is_no_alarm() -> None:
    watch = ClockWatch()
    watch.went_back(NOON)
    assert not watch.went_back(NOON - timedelta(seconds=1))


@pytest.mark.django_db
def test_what_the_old_clock_had_put_into_the_future_is_due() -> None:
    now = timezone.now()
    run = make_agent_run(make_lead(route_due_at=now + timedelta(hours=1)).item, due_at=now + timedelta(hours=1))
    assert make_due(now) == 1
    assert AgentRun.objects.get(pk=run.pk).due_at == Item.objects.get(pk=run.item_id).route_due_at == now
