"""The sender's faults in their short form, on the database that the tests run on."""

from __future__ import annotations

import pytest

from tests.factories import make_department
from tests.faults.cases_outbox import FAULTS, POINTS, kill_senders, misbehave
from tests.faults.table import Row, render

pytestmark = pytest.mark.django_db(transaction=True)
TRIES = 2


def assert_good(rows: list[Row], count: int) -> None:
    assert len(rows) == count
    assert all(row.is_good for row in rows), render(rows)


def test_a_sender_killed_at_any_point_sends_nothing_twice_and_loses_nothing() -> None:
    make_department()
    assert_good(kill_senders(TRIES), len(POINTS))


def test_a_mail_server_that_misbehaves_is_given_nothing_twice_and_loses_nothing() -> None:
    make_department()
    assert_good(misbehave(TRIES), len(FAULTS))
