"""What tests start on threads ends, or is named."""

from __future__ import annotations

import threading

import pytest

from tests.engine import begin, in_threads, outcome_of


def stand_still(end: threading.Event) -> None:
    end.wait(30)


def break_off(number: int) -> None:
    if number:
        raise LookupError("no such thing")


@pytest.mark.django_db(transaction=True)
def test_a_thread_that_hangs_fails_its_test_at_the_limit_and_shows_where_it_is() -> None:
    end = threading.Event()
    started = begin(lambda: stand_still(end))
    try:
        with pytest.raises(AssertionError, match=r"within 0\.1 s:[\s\S]*in stand_still"):
            outcome_of(started, 0.1)
    finally:
        end.set()
    assert outcome_of(started) is None


@pytest.mark.django_db(transaction=True)
def test_what_a_thread_raises_is_raised() -> None:
    with pytest.raises(LookupError, match="no such thing"):
        in_threads(break_off, 2)
