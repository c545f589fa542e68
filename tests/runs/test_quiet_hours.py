"""Countries, zones and the end of quiet hours, over midnight and over the change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, time

import pytest

from runs.quiet_hours import quiet_until, zones_of


@pytest.mark.parametrize(
    ("country", "zones"),
    [
        ("DE", ("Europe/Berlin",)),
        ("germany", ("Europe/Berlin",)),
        (" fr ", ("Europe/Paris",)),
        ("United Kingdom", ("Europe/London",)),
        ("US", ("America/New_York", "America/Los_Angeles")),
        ("Atlantis", ()),
        ("", ()),
    ],
)
def test_a_country_is_known_by_code_and_by_name(country: str, zones: tuple[str, ...]) -> None:
    assert zones_of(country) == zones


def at(day: int, hour: int, minute: int = 0, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        (at(4, 18, 59), None),  # 19:59 in Berlin
        (at(4, 19), at(5, 7)),  # 20:00
        (at(4, 23, 30), at(5, 7)),  # half past midnight
        (at(5, 6, 59), at(5, 7)),
        (at(5, 7), None),
        (at(28, 22), at(29, 6)),  # the night in which summer time begins
    ],
)
def test_quiet_hours_around_midnight(now: datetime, until: datetime | None) -> None:
    assert quiet_until(now, time(20), time(8), ("Europe/Berlin",)) == until


def test_quiet_hours_within_one_day() -> None:
    assert quiet_until(at(4, 12), time(12), time(14), ("UTC",)) == at(4, 14)
    assert quiet_until(at(4, 14), time(12), time(14), ("UTC",)) is None


def test_a_wide_country_is_quiet_while_it_is_quiet_at_one_of_its_ends() -> None:
    zones = zones_of("US")
    assert quiet_until(at(4, 13, 30), time(20), time(8), zones) == at(4, 16)  # 8:30 in New York, 5:30 in Los Angeles
    assert quiet_until(at(4, 17), time(20), time(8), zones) is None


def test_without_quiet_hours_it_is_never_quiet() -> None:
    assert quiet_until(at(4, 3), None, None, ("UTC",)) is None
    assert quiet_until(at(4, 3), time(8), time(8), ("UTC",)) is None
