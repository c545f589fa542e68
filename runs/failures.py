"""What follows from a failed attempt: again later, wait, or give up and ask a person. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.causes import Cause

MAX_FAILURES = 4
"""The first try and three retries."""
MAX_LOST_LEASES = 3
BACKOFF_SECONDS = 5
BUSY_SECONDS = 15
GIVE_UP_WAITING = timedelta(hours=24)
PROBE_SECONDS = 60
LINE_STANDS = "The line stands still until the API accepts the department's key again."
"""What every run says that waits for a key: reopening the line finds them by this."""

COUNTED = frozenset({Cause.TRANSIENT, Cause.TIMEOUT, Cause.INTERNAL})
"""Causes that count as a failure of the run and are tried again."""
BUSY = frozenset({Cause.RATE_LIMITED, Cause.OVERLOADED})
"""Causes that are the model's: no failure is counted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``due_at`` None means that the run has failed for good. ``waiting_for`` is one sentence for a page."""

    due_at: datetime | None
    waiting_for: str = ""
    is_counted: bool = False


def judge(
    cause: Cause,
    *,
    failures: int,
    waiting_since: datetime | None,
    retry_after_seconds: float | None,
    cap_seconds: float,
    now: datetime,
    spread: random.Random,
) -> Verdict:
    """Decide about an attempt that ended with ``cause`` after ``failures`` counted ones before it."""
    if cause in COUNTED:
        count = failures + 1
        if count >= MAX_FAILURES:
            return Verdict(None, is_counted=True)
        due = now + timedelta(seconds=backoff(count, spread))
        return Verdict(due, f"Try {count + 1} of {MAX_FAILURES} at {due:%H:%M:%S} UTC: {cause.label}.", True)
    if cause in BUSY:
        if waiting_since is not None and now - waiting_since > GIVE_UP_WAITING:
            return Verdict(None)
        due = now + timedelta(seconds=busy_seconds(retry_after_seconds, cap_seconds) + spread.random())
        return Verdict(due, f"The model is busy ({cause.label}); again at {due:%H:%M:%S} UTC.")
    if cause is Cause.ACCOUNT:
        due = now + timedelta(seconds=PROBE_SECONDS)
        return Verdict(due, LINE_STANDS)
    # A refusal, an answer that does not fit after its repairs, a request the API refuses: trying again changes nothing.
    return Verdict(None)


def busy_seconds(retry_after_seconds: float | None, cap_seconds: float) -> float:
    """How long a busy model is left alone: as long as it says, but no longer than the cap."""
    return min(BUSY_SECONDS if retry_after_seconds is None else retry_after_seconds, cap_seconds)


def backoff(count: int, spread: random.Random) -> float:
    """Seconds before the try after ``count`` failures: 5, 20, 80, each times 0.75 to 1.25."""
    return float(BACKOFF_SECONDS * 4 ** (count - 1) * (0.75 + spread.random() / 2))
