"""What follows from a failed attempt: a table of causes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.causes import Cause
from runs.failures import BUSY, COUNTED, GIVE_UP_WAITING, MAX_FAILURES, Verdict, backoff, judge

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def verdict(cause: Cause, **changes: Any) -> Verdict:
    """The verdict about a first attempt, unless told otherwise."""
    values: dict[str, Any] = {
        "failures": 0,
        "waiting_since": None,
        "retry_after_seconds": None,
        "cap_seconds": 300.0,
        "now": NOW,
        "spread": random.Random(1),
    }
    return judge(cause, **{**values, **changes})


def seconds(found: Verdict) -> float:
    """How long until the next try."""
    assert found.due_at is not None
    return (found.due_at - NOW).total_seconds()


@pytest.mark.parametrize("cause", sorted(COUNTED))
@pytest.mark.parametrize(("failures", "least", "most"), [(0, 3.75, 6.25), (1, 15, 25), (2, 60, 100)])
def test_trouble_is_tried_again_with_growing_pauses(cause: Cause, failures: int, least: float, most: float) -> None:
    for seed in range(50):
        found = verdict(cause, failures=failures, spread=random.Random(seed))
        assert least <= seconds(found) <= most
        assert found.is_counted
        assert found.waiting_for.startswith(f"Try {failures + 2} of {MAX_FAILURES} at 09:0")
        assert cause.label in found.waiting_for


@pytest.mark.parametrize("cause", sorted(COUNTED))
def test_the_fourth_failure_is_final(cause: Cause) -> None:
    assert verdict(cause, failures=MAX_FAILURES - 1) == Verdict(None, is_counted=True)


@pytest.mark.parametrize("cause", sorted(BUSY))
@pytest.mark.parametrize(("wanted", "waited"), [(None, 15), (7.0, 7), (7_200.0, 300), (0.0, 0)])
def test_a_busy_model_is_waited_for_as_it_says_up_to_a_cap(cause: Cause, wanted: float | None, waited: float) -> None:
    found = verdict(cause, retry_after_seconds=wanted, failures=3)
    assert waited <= seconds(found) <= waited + 1
    assert not found.is_counted


@pytest.mark.parametrize("cause", sorted(BUSY))
def test_a_busy_model_is_given_up_after_a_day(cause: Cause) -> None:
    day_ago = NOW - GIVE_UP_WAITING
    assert verdict(cause, waiting_since=day_ago).due_at is not None
    assert verdict(cause, waiting_since=day_ago - timedelta(seconds=1)) == Verdict(None)


def test_a_refused_key_is_probed_every_minute_and_counts_nothing() -> None:
    found = verdict(Cause.ACCOUNT, failures=3)
    assert seconds(found) == 60
    assert not found.is_counted


@pytest.mark.parametrize("cause", [Cause.INVALID, Cause.TRUNCATED, Cause.REFUSAL, Cause.REQUEST, Cause.TOOLS])
def test_what_another_try_cannot_change_is_final_at_once(cause: Cause) -> None:
    assert verdict(cause) == Verdict(None)


def test_every_cause_is_decided_about() -> None:
    for cause in Cause:
        assert isinstance(verdict(cause), Verdict)
        assert len(verdict(cause).waiting_for) <= 300


def test_pauses_differ_so_that_not_all_come_back_at_once() -> None:
    spread = random.Random(5)
    assert len({backoff(1, spread) for _ in range(20)}) == 20
