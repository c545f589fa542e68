"""The places at which shifts run, and the queue tasks that fill them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as configured
from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from runs import slots, stopping, tasks
from runs.models import ShiftSlot
from tests.engine import in_threads

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _two_shifts(settings: Any) -> None:
    settings.SHIFTS = 2


def queued() -> list[dict[str, Any]]:
    """The tasks in the queue, oldest first."""
    return [SignedPackage.loads(row.payload) for row in OrmQ.objects.order_by("pk")]


def slot(number: int = 1) -> ShiftSlot:
    return ShiftSlot.objects.get(number=number)


def token_of(number: int = 1) -> UUID:
    token = slot(number).token
    assert token is not None
    return token


def pass_time(seconds: float) -> None:
    """Let every lease be so much older."""
    for row in ShiftSlot.objects.exclude(lease_expires_at=None):
        assert row.lease_expires_at is not None
        row.lease_expires_at -= timedelta(seconds=seconds)
        row.save(update_fields=["lease_expires_at"])


def test_every_empty_slot_gets_a_task_with_its_token() -> None:
    assert slots.ensure_shifts() == 2
    found = queued()
    assert [task["func"] for task in found] == [slots.HOLD_SHIFT] * 2
    assert [task["args"] for task in found] == [(1, str(token_of(1))), (2, str(token_of(2)))]
    assert found[0]["timeout"] > configured.SHIFT_SECONDS + slots.DRAIN_SECONDS


def test_a_slot_that_is_filled_is_left_alone() -> None:
    slots.ensure_shifts()
    assert slots.ensure_shifts() == 0
    assert slots.take(1, token_of(1), worker="host:1")
    pass_time((slots.PICK_UP_SECONDS + slots.LEASE_SECONDS) / 2)
    assert slots.ensure_shifts() == 1, "only the one whose task nobody picked up"
    assert slot(1).worker == "host:1"


def test_a_task_that_nobody_picks_up_is_written_off() -> None:
    slots.ensure_shifts()
    first = token_of()
    pass_time(slots.PICK_UP_SECONDS + 1)
    assert slots.ensure_shifts() == 2
    assert not slots.take(1, first, worker="late")
    assert slots.take(1, token_of(), worker="host:1")


def test_a_task_that_is_presented_twice_does_nothing_the_second_time() -> None:
    slots.ensure_shifts()
    token = token_of()
    assert slots.take(1, token, worker="host:1")
    assert not slots.take(1, token, worker="host:2")
    assert slot().worker == "host:1"


def test_the_task_function_returns_at_once_without_the_token() -> None:
    tasks.hold_shift(1, str(uuid4()))
    assert not ShiftSlot.objects.exists()


def test_the_task_function_returns_at_once_when_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    slots.ensure_shifts()
    monkeypatch.setattr(tasks, "is_stopping", lambda: True)
    tasks.hold_shift(1, str(token_of()))
    assert slot().started_at is None


def test_a_shift_that_says_that_it_lives_keeps_its_slot() -> None:
    slots.ensure_shifts()
    token = token_of()
    slots.take(1, token, worker="host:1")
    pass_time(slots.LEASE_SECONDS - 1)
    assert slots.renew(1, token, 42)
    assert slot().in_flight == 42
    pass_time(slots.LEASE_SECONDS - 1)
    slots.ensure_shifts()
    assert slot().token == token


def test_a_shift_that_was_lost_is_replaced_and_told_when_it_wakes() -> None:
    slots.ensure_shifts()
    token = token_of()
    slots.take(1, token, worker="host:1")
    pass_time(slots.LEASE_SECONDS + 1)
    slots.ensure_shifts()
    assert slot().token != token
    assert not slots.renew(1, token, 1)
    assert not slots.hand_over(1, token)
    slots.leave(1, token)
    assert slot().token is not None, "whoever lost the slot cannot empty it"


def test_handing_over_queues_a_successor_at_once() -> None:
    slots.ensure_shifts()
    token = token_of()
    slots.take(1, token, worker="host:1")
    before = len(queued())
    assert slots.hand_over(1, token)
    assert len(queued()) == before + 1
    assert token_of() != token
    assert not slots.hand_over(1, token)
    assert slots.take(1, token_of(), worker="host:2")


def test_an_empty_slot_is_filled_again() -> None:
    slots.ensure_shifts()
    token = token_of()
    slots.take(1, token, worker="host:1")
    slots.leave(1, token)
    assert (slot().token, slot().lease_expires_at) == (None, None)
    assert slots.ensure_shifts() == 1


def test_a_lease_that_lies_too_far_ahead_was_given_by_a_wrong_clock() -> None:
    slots.ensure_shifts()
    for number in (1, 2):
        slots.take(number, token_of(number), worker=f"host:{number}")
    ShiftSlot.objects.filter(number=1).update(lease_expires_at=timezone.now() + timedelta(hours=1))
    assert slots.count_alive() == 1
    assert slots.ensure_shifts() == 1
    assert [slot(number).worker for number in (1, 2)] == ["", "host:2"]


def test_the_first_of_the_shifts_that_live_is_one() -> None:
    slots.ensure_shifts()
    for number in (1, 2):
        slots.take(number, token_of(number), worker=f"host:{number}")
    assert [slots.is_first(1), slots.is_first(2)] == [True, False]
    slots.leave(1, token_of(1))
    assert slots.is_first(2)


def test_fewer_shifts_than_before_leave_the_surplus_empty(settings: Any) -> None:
    slots.ensure_shifts()
    ShiftSlot.objects.update(token=None)
    settings.SHIFTS = 1
    assert slots.ensure_shifts() == 1
    assert slot(2).token is None


@pytest.mark.django_db(transaction=True)
def test_an_expired_slot_is_filled_once_whoever_looks() -> None:
    slots.ensure_shifts()
    for number in (1, 2):
        slots.take(number, token_of(number), worker="host:1")
    OrmQ.objects.all().delete()
    pass_time(slots.LEASE_SECONDS + 1)
    assert sum(in_threads(lambda _: slots.ensure_shifts(), 4)) == 2
    assert len(queued()) == 2


@pytest.mark.django_db(transaction=True)
def test_the_first_slots_are_made_once_whoever_looks() -> None:
    in_threads(lambda _: slots.ensure_shifts(), 4)
    assert list(ShiftSlot.objects.values_list("number", flat=True)) == [1, 2]
    assert len(queued()) == 2


@pytest.mark.django_db(transaction=True)
def test_a_token_is_taken_once_whoever_has_it() -> None:
    slots.ensure_shifts()
    token = token_of()
    assert sorted(in_threads(lambda n: slots.take(1, token, worker=f"host:{n}"), 4)) == [False, False, False, True]


def test_once_a_minute_schedules_are_looked_at_and_slots_filled() -> None:
    tasks.every_minute()
    assert len(queued()) == 2


def test_nobody_is_told_to_stop_by_itself() -> None:
    assert not stopping.is_stopping()
