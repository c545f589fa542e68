"""The buttons of an item: what a person may do to it now, and why not what they may not."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse

from runs import allowed as may
from runs.access import Access
from runs.allowed import Allowed
from runs.models import Item

Automation = Item.Automation


@dataclass(frozen=True, slots=True)
class Verb:
    """One button that opens a small form. ``has_until``: it may hold until a time."""

    name: str
    label: str
    icon: str
    url: str
    allowed: Allowed
    explains: str
    has_until: bool = False
    is_grave: bool = False


_ALL = (
    ("pause", "Pause", "hourglass", may.can_pause, "A step under way is finished. Nothing further starts.", True),
    ("resume", "Resume", "player-play", may.can_resume, "The router looks at what is wanted now.", False),
    ("take_over", "Take over", "user", may.can_take_over, "You do the work. Agents see it when you hand back.", True),
    (
        "hand_back",
        "Hand back",
        "corner-up-left",
        may.can_hand_back,
        "Agents go on from what is there.",
        False,
    ),
    ("reopen", "Reopen", "refresh", may.can_reopen, "The work is taken up again.", False),
    ("cancel", "Cancel steps", "ban", may.can_cancel_steps, "Streams are closed, and the automation is paused.", False),
    ("close", "Close", "x", may.can_close, "What waits is cancelled, what is asked and unsent is taken back.", True),
)
_FIRST = {
    Automation.ACTIVE: ("pause", "take_over"),
    Automation.PAUSED: ("resume", "take_over"),
    Automation.TAKEN_OVER: ("hand_back",),
    Automation.CLOSED: ("reopen",),
}


def item_verbs(item: Item, access: Access) -> tuple[list[Verb], list[Verb]]:
    """The buttons that matter as the item stands, and the others for the menu."""
    verbs = [
        Verb(
            name=name,
            label=label,
            icon=icon,
            url=reverse(f"runs:item_{name}", args=[item.pk]),
            allowed=rule(item, access),
            explains=explains,
            has_until=has_until,
            is_grave=name == "close",
        )
        for name, label, icon, rule, explains, has_until in _ALL
    ]
    first = _FIRST[Automation(item.automation)]
    return [verb for verb in verbs if verb.name in first], [verb for verb in verbs if verb.name not in first]
