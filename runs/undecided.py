"""Tells people of work that Kontor puts off every minute: items it cannot route, steps it cannot prepare.

Such an item or step says why by itself; but nobody looks at one of a thousand. So there is one alert for each
department and reason, for as long as there is such work.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q
from django.urls import reverse

from agents.models import Department
from runs.alerts import close_alert, raise_alert
from runs.dispatch import UNDECIDED
from runs.models import AgentRun, Alert, Item

PREFIX = "undecided:"
UNPREPARED = "Kontor could not prepare its request:"
_BLOCKED = (
    "This release no longer declares the agent",
    "The agent has no published SOUL",
    "The agent is switched off",
)
_NO_PRICE = " has no price"
"""How ``runs.leases`` and ``agents.pricing`` begin what is written on steps that cannot start as things are set up."""
LOOK = 2_000
"""So many items, and so many steps, are looked at in one go: the reasons are few."""


@dataclass(slots=True)
class Trouble:
    """One reason in one department: how many items, one of them, and the text on it."""

    text: str
    example: Item
    items: set[int]


def watch_undecided() -> int:
    """Raise an alert for each department and reason, close those that are over; called each minute. How many stand."""
    found = find_troubles()
    for (department_id, key), trouble in sorted(found.items()):
        _tell(Department.objects.get(pk=department_id), key, trouble)
    for alert in Alert.objects.filter(state=Alert.State.OPEN, key__startswith=PREFIX).select_related("department"):
        if (alert.department_id, alert.key) not in found:
            close_alert(department=alert.department, key=alert.key)
    return len(found)


def find_troubles() -> dict[tuple[int, str], Trouble]:
    """``{(department id, key of the alert): what}``; two queries."""
    found: dict[tuple[int, str], Trouble] = {}
    counted: defaultdict[tuple[int, str], set[int]] = defaultdict(set)
    for item, text in [*_unrouted(), *_unprepared()]:
        key = (item.department_id, f"{PREFIX}{reason_of(text)}"[:200])
        counted[key].add(item.pk)
        found.setdefault(key, Trouble(text, item, counted[key]))
    return found


def reason_of(text: str) -> str:
    """What makes two of these texts the same: the class of an error, or what is not set up."""
    for beginning in (UNDECIDED, UNPREPARED):
        if text.startswith(beginning):
            kind = "routing" if beginning == UNDECIDED else "preparing"
            return f"{kind} {text.removeprefix(beginning).strip().partition(':')[0]}"
    # The name of a model is part of the reason that it has no price.
    return next((blocked for blocked in _BLOCKED if text.startswith(blocked)), text.partition(". ")[0])


def _unrouted() -> list[tuple[Item, str]]:
    # Closed and paused items are not looked at, so nobody can say whether their reason still holds.
    rows = Item.objects.exclude(flag="").filter(flag__startswith=UNDECIDED, automation=Item.Automation.ACTIVE)
    return [(item, item.flag) for item in rows.select_related("department").order_by("-pk")[:LOOK]]


def _unprepared() -> list[tuple[Item, str]]:
    waits = Q(waiting_for__startswith=UNPREPARED) | Q(waiting_for__contains=_NO_PRICE)
    for blocked in _BLOCKED:
        waits |= Q(waiting_for__startswith=blocked)
    runs = AgentRun.objects.filter(waits, status=AgentRun.Status.QUEUED, item__automation=Item.Automation.ACTIVE)
    rows = runs.select_related("item__department", "agent").order_by("-pk")[:LOOK]
    return [(run.item, f"{run.waiting_for} ({run.agent.title})"[:300]) for run in rows]


def _tell(department: Department, key: str, trouble: Trouble) -> None:
    count = len(trouble.items)
    what = f"{trouble.example}" if count == 1 else f"{count:,} items, such as {trouble.example}"
    text = f"{department}: work on {what} cannot go on. {trouble.text}"[:1_000]
    with transaction.atomic():
        if Alert.objects.filter(department=department, key=key, state=Alert.State.OPEN, text=text).exists():
            return  # nothing new
        raise_alert(
            kind=Alert.Kind.SYSTEM,
            department=department,
            key=key,
            text=text,
            link=trouble.example.get_absolute_url() if count == 1 else reverse("runs:overview"),
            next_step="Each is tried again every minute, and the alert closes when none is left.",
            item=trouble.example if count == 1 else None,
        )
