"""Every condition at the moment of sending, one by one: the reason, until when, and what becomes of the message."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from runs.send_conditions import LOOK_AGAIN, Situation, Then, why_not

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
READY = Situation(now=NOW, channel="email", address="lena@example.com")
WAIT, WITHDRAW, ASK = Then.WAIT, Then.WITHDRAW, Then.ASK


def test_a_message_with_nothing_against_it_leaves() -> None:
    assert why_not(READY) is None


@pytest.mark.parametrize(
    ("changes", "then", "reason"),
    [
        ({"automation": "closed"}, WITHDRAW, "It is closed."),
        ({"is_output_current": False}, WITHDRAW, "What was approved has been replaced."),
        ({"is_output_approved": False}, WITHDRAW, "It is not approved any more."),
        (
            {"suppressed_as": "@example.com", "suppressed_why": "entered by a person"},
            WITHDRAW,
            "@example.com is on the list of those nobody writes to: entered by a person.",
        ),
        ({"replied_since": True}, ASK, "A reply came in after it was approved."),
        (
            {"is_by_person": False},
            ASK,
            "The first mails after a change of SOULs, models, rules or settings are approved by a person.",
        ),
        ({"automation": "paused", "automation_note": ": holiday"}, WAIT, "The automation is paused: holiday."),
        ({"automation": "taken_over"}, WAIT, "The automation is taken over."),
        ({"held_by": "Sales is holding sends."}, WAIT, "Sales is holding sends."),
        ({"is_enabled": False}, WAIT, "The email channel is switched off."),
        ({"problem": "There is no sender."}, WAIT, "There is no sender."),
        ({"address": ""}, WAIT, "Nobody knows the address."),
    ],
)
def test_what_keeps_a_message_says_why_and_what_becomes_of_it(changes: dict[str, Any], then: Then, reason: str) -> None:
    hold = why_not(replace(READY, **changes))
    assert hold is not None
    assert (hold.then, hold.reason) == (then, reason)
    assert hold.until == (NOW + LOOK_AGAIN if then is WAIT else None)


@pytest.mark.parametrize("automation", ["paused", "taken_over"])
def test_a_mail_by_hand_leaves_from_an_item_that_a_person_holds(automation: str) -> None:
    assert why_not(replace(READY, is_manual=True, is_output_current=False, automation=automation)) is None


def test_a_mail_by_hand_does_not_leave_from_a_closed_item() -> None:
    hold = why_not(replace(READY, is_manual=True, automation="closed"))
    assert hold is not None
    assert hold.then is WITHDRAW


def test_what_a_rule_approved_leaves_once_its_configuration_is_proven() -> None:
    assert why_not(replace(READY, is_by_person=False, is_proven=True)) is None


def test_what_reaches_no_person_heeds_neither_lists_nor_night_nor_first_sends() -> None:
    machine = replace(
        READY,
        reaches_person=False,
        address="",
        is_by_person=False,
        replied_since=True,
        suppressed_as="lena@example.com",
        quiet_from=time(0),
        quiet_to=time(23, 59),
    )
    assert why_not(machine) is None


def test_the_rate_limit_waits_until_the_oldest_of_the_minute_is_past() -> None:
    minute = [NOW - timedelta(seconds=s) for s in (5, 20, 50)]
    assert why_not(replace(READY, per_minute=4, minute=minute)) is None
    hold = why_not(replace(READY, per_minute=3, minute=minute))
    assert hold is not None
    assert hold.until == NOW + timedelta(seconds=10)


def test_the_daily_cap_waits_until_there_is_room_again() -> None:
    day = [NOW - timedelta(hours=h) for h in (1, 2, 23)]
    assert why_not(replace(READY, daily_cap=4, day=day)) is None
    hold = why_not(replace(READY, daily_cap=2, day=day))
    assert hold is not None
    assert hold.until == NOW + timedelta(hours=22)
    assert "2 have left in 24 hours" in hold.reason


def test_quiet_hours_are_those_of_the_persons_zone() -> None:
    quiet = replace(READY, quiet_from=time(20), quiet_to=time(8))
    assert why_not(replace(quiet, zones=("Europe/Berlin",))) is None  # 13:00 there
    hold = why_not(replace(quiet, zones=("Asia/Tokyo",)))  # 21:00 there
    assert hold is not None
    assert hold.until == datetime(2026, 3, 4, 23, 0, tzinfo=UTC)
    assert "Asia/Tokyo" in hold.reason


def test_what_ends_a_message_for_good_comes_before_what_it_waits_for() -> None:
    hold = why_not(replace(READY, automation="closed", held_by="Held.", replied_since=True))
    assert hold is not None
    assert hold.then is WITHDRAW
