"""The breaker of a model: when it opens, who probes, when it closes, and how a rate limit slows us down."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from agents.model_state import (
    FULL_CAP,
    LONGEST_PAUSE,
    OPEN_AFTER,
    load_states,
    pause_after,
    record_busy,
    record_failures,
    record_successes,
    start_probe,
)
from agents.models import ModelState
from tests.engine import in_threads

HAIKU = ("claude-haiku-5-5", "ANTHROPIC_API_KEY")
SONNET = ("claude-sonnet-5-5", "ANTHROPIC_API_KEY")
pytestmark = pytest.mark.django_db


def fail(times: int) -> list[bool]:
    """Fail so often, one after another; whether a breaker opened each time."""
    return [any(c.is_opening for c in record_failures([HAIKU], "server trouble", timezone.now())) for _ in range(times)]


def state() -> ModelState:
    return ModelState.objects.get(model=HAIKU[0])


def test_it_opens_after_so_many_failures_in_a_row_and_says_so_once() -> None:
    assert fail(OPEN_AFTER) == [False] * (OPEN_AFTER - 1) + [True]
    assert state().breaker == "open"
    assert state().closed_until is not None
    assert fail(2) == [False, False], "late failures of calls that were in flight open nothing again"


def test_failures_that_end_together_count_each() -> None:
    changes = record_failures([HAIKU] * OPEN_AFTER, "server trouble", timezone.now())
    assert [change.is_opening for change in changes] == [True]


def test_a_success_in_between_begins_the_count_anew() -> None:
    fail(OPEN_AFTER - 1)
    assert record_successes([HAIKU]) == [], "a breaker that was closed all the time is no news"
    assert fail(OPEN_AFTER - 1) == [False] * (OPEN_AFTER - 1)


def test_models_are_told_apart() -> None:
    fail(OPEN_AFTER)
    record_failures([SONNET], "server trouble", timezone.now())
    assert ModelState.objects.get(model=SONNET[0]).breaker == "closed"


def test_nobody_probes_before_the_pause_is_over_and_one_afterwards() -> None:
    fail(OPEN_AFTER)
    now = timezone.now()
    assert not start_probe(state(), now)
    later = now + timedelta(minutes=1)
    assert start_probe(state(), later)
    assert state().breaker == "probing"
    assert not start_probe(state(), later)


def test_a_probe_that_is_never_heard_of_again_gives_its_place_away() -> None:
    fail(OPEN_AFTER)
    later = timezone.now() + timedelta(minutes=1)
    assert start_probe(state(), later)
    assert start_probe(state(), later + timedelta(minutes=6))


def test_a_failed_probe_opens_it_again_for_longer() -> None:
    fail(OPEN_AFTER)
    later = timezone.now() + timedelta(minutes=1)
    start_probe(state(), later)
    (change,) = record_failures([HAIKU], "server trouble", later)
    assert not change.is_opening, "it is the same outage"
    assert state().breaker == "open"
    assert state().closed_until == later + pause_after(OPEN_AFTER + 1)


def test_the_pause_doubles_and_is_bounded() -> None:
    assert [pause_after(n).total_seconds() for n in range(OPEN_AFTER, OPEN_AFTER + 3)] == [30, 60, 120]
    assert pause_after(10_000) == LONGEST_PAUSE


def test_a_success_closes_it_and_says_so() -> None:
    fail(OPEN_AFTER)
    (change,) = record_successes([HAIKU])
    assert change.text == "claude-haiku-5-5 works again."
    assert (state().breaker, state().failures, state().closed_until) == ("closed", 0, None)


def test_a_rate_limit_halves_what_may_be_in_flight_once_for_all_calls_it_hit() -> None:
    now = timezone.now()
    for _ in range(5):
        record_busy(HAIKU, until=now + timedelta(seconds=20), reason="rate limit", now=now)
    assert state().in_flight_cap == FULL_CAP // 2
    assert state().breaker == "closed"


def test_successes_let_it_grow_again_and_then_there_is_nothing_to_know() -> None:
    now = timezone.now()
    record_busy(HAIKU, until=now + timedelta(seconds=20), reason="rate limit", now=now)
    record_successes([HAIKU] * 100)
    assert state().in_flight_cap == FULL_CAP // 2 + 100
    record_successes([HAIKU] * FULL_CAP)
    assert state().in_flight_cap == FULL_CAP
    assert state().closed_until == now + timedelta(seconds=20), "a success of a call sent earlier reopens nothing"


def test_a_later_date_stands() -> None:
    now = timezone.now()
    record_busy(HAIKU, until=now + timedelta(minutes=5), reason="rate limit", now=now)
    record_busy(HAIKU, until=now + timedelta(seconds=5), reason="rate limit", now=now)
    assert state().closed_until == now + timedelta(minutes=5)


def test_what_simply_works_is_not_loaded() -> None:
    record_successes([HAIKU])
    ModelState.objects.create(model="claude-opus-5-5")
    assert load_states() == {}


@pytest.mark.django_db(transaction=True)
def test_of_all_workers_that_want_to_probe_one_does() -> None:
    with transaction.atomic():
        fail(OPEN_AFTER)
    later = timezone.now() + timedelta(minutes=1)
    found = state()

    def probe(_: int) -> bool:
        with transaction.atomic():
            return start_probe(found, later)

    assert sorted(in_threads(probe, 4)) == [False, False, False, True]
