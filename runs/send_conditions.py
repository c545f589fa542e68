"""Whether a message may leave now, and if not, why, until when, and what becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import Enum

from runs.models import Item
from runs.quiet_hours import quiet_until

LOOK_AGAIN = timedelta(seconds=60)
"""What waits for a person is looked at again after this, and promptly when somebody changes something."""
MINUTE, DAY = timedelta(minutes=1), timedelta(hours=24)


class Then(Enum):
    """What becomes of a message that may not leave now."""

    WAIT = "wait"
    WITHDRAW = "withdraw"
    ASK = "ask"
    """It goes back to a person, who sees why."""


@dataclass(frozen=True, slots=True)
class Hold:
    """``reason`` is a sentence; ``until`` when it is looked at again, for ``WAIT``."""

    then: Then
    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that decides, as plain values. ``zones`` are those of the item's person."""

    now: datetime
    channel: str
    address: str
    reaches_person: bool = True
    is_new_address: bool = False
    """Whether nobody knew the address when the message was approved."""
    is_manual: bool = False
    is_by_person: bool = True
    """Whether a person approved it, not a rule or a policy."""
    is_proven: bool = False
    automation: str = Item.Automation.ACTIVE
    automation_note: str = ""
    is_output_current: bool = True
    is_output_approved: bool = True
    replied_since: bool = False
    held_by: str = ""
    """Why department or installation send nothing; empty if they do."""
    is_enabled: bool = True
    problem: str = ""
    """Why the channel cannot send as it is set up; empty if it can."""
    suppressed_as: str = ""
    suppressed_why: str = ""
    per_minute: int = 0
    daily_cap: int = 0
    minute: Sequence[datetime] = ()
    """When the last messages of this channel left, newest first, at most ``per_minute``; likewise ``day``."""
    day: Sequence[datetime] = ()
    quiet_from: time | None = None
    quiet_to: time | None = None
    zones: Sequence[str] = ("UTC",)


def why_not(s: Situation) -> Hold | None:
    """The first reason why the message may not leave; None if it may. What ends it for good comes first."""
    return _for_good(s) or _back_to_person(s) or _not_yet(s)


def _for_good(s: Situation) -> Hold | None:
    if s.automation == Item.Automation.CLOSED:
        return Hold(Then.WITHDRAW, f"It is closed{s.automation_note}.")
    if not s.is_manual and not s.is_output_current:
        return Hold(Then.WITHDRAW, "What was approved has been replaced.")
    if not s.is_manual and not s.is_output_approved:
        return Hold(Then.WITHDRAW, "It is not approved any more.")
    if s.reaches_person and s.suppressed_as:
        return Hold(Then.WITHDRAW, f"{s.suppressed_as} is on the list of those nobody writes to: {s.suppressed_why}.")
    return None


def _back_to_person(s: Situation) -> Hold | None:
    if not s.reaches_person:
        return None
    if s.is_new_address:
        return Hold(Then.ASK, f"Nobody knew the address when it was approved; {s.address} came in since.")
    if s.replied_since:
        return Hold(Then.ASK, "A reply came in after it was approved.")
    if not s.is_by_person and not s.is_proven:
        text = "The first mails after a change of SOULs, models, rules or settings are approved by a person."
        return Hold(Then.ASK, text)
    return None


def _not_yet(s: Situation) -> Hold | None:
    later = s.now + LOOK_AGAIN
    if not s.is_manual and s.automation != Item.Automation.ACTIVE:
        label = Item.Automation(s.automation).label
        return Hold(Then.WAIT, f"The automation is {label}{s.automation_note}.", later)
    if s.held_by:
        return Hold(Then.WAIT, s.held_by, later)
    if not s.is_enabled:
        return Hold(Then.WAIT, f"The {s.channel} channel is switched off.", later)
    if s.problem:
        return Hold(Then.WAIT, s.problem, later)
    if not s.address and s.reaches_person:
        return Hold(Then.WAIT, "Nobody knows the address.", later)
    return _paced(s)


def _paced(s: Situation) -> Hold | None:
    if s.daily_cap and len(s.day) >= s.daily_cap:
        text = f"{s.daily_cap} have left in 24 hours, which is the most."
        return Hold(Then.WAIT, text, s.day[s.daily_cap - 1] + DAY)
    if s.per_minute and len(s.minute) >= s.per_minute:
        text = f"{s.per_minute} have left in a minute, which is the most."
        return Hold(Then.WAIT, text, s.minute[s.per_minute - 1] + MINUTE)
    if s.reaches_person and (until := quiet_until(s.now, s.quiet_from, s.quiet_to, s.zones)) is not None:
        return Hold(Then.WAIT, f"It is too early or too late where the person lives ({s.zones[0]}).", until)
    return None
