"""What is done now and then: one thing that fails holds up no other."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from runs import alert_delivery, pings, schedules, tasks
from runs.housekeeping import do_each


def _fail() -> None:
    raise ValueError("a mistake in Kontor")


def _be_away() -> None:
    raise OperationalError("gone")


def test_the_others_are_done_and_it_says_that_not_all_were() -> None:
    done: list[int] = []
    assert not do_each([_fail, lambda: done.append(1)])
    assert do_each([lambda: done.append(2)])
    assert done == [1, 2]


def test_a_database_that_is_away_is_told_to_the_caller() -> None:
    with pytest.raises(OperationalError):
        do_each([_be_away])


@pytest.mark.django_db
def test_alerts_are_delivered_whatever_else_fails_and_no_ping_says_that_all_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(schedules, "run_due", _fail)
    monkeypatch.setattr(alert_delivery, "queue_due", lambda: done.append("alerts"))
    monkeypatch.setattr(pings, "send_ping", lambda: done.append("ping"))
    tasks.every_minute()
    assert done == ["alerts"]
