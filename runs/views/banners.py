"""What must be seen on every page, from the rows of the departments that are shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from agents.models import Department


@dataclass(frozen=True, slots=True)
class Banner:
    """One sentence of news, what follows from it, and when it is looked at again."""

    colour: str
    title: str
    text: str
    at: datetime | None = None


_STATES = {
    Department.State.DRAINING: "What is running is finished; nothing new starts.",
    Department.State.HOLDING_SENDS: "Agents work on, but nothing leaves the house.",
    Department.State.STOPPED: "Nothing starts until an administrator switches it on again.",
}


def find_banners(departments: Iterable[Department]) -> list[Banner]:
    """The news of these departments, the worst first."""
    found = []
    for department in departments:
        if department.stopped_by_error:
            found.append(
                Banner(
                    "bad",
                    f"{department}: the line stands still.",
                    f"{department.stopped_by_error} Runs wait and lose nothing.",
                    department.next_probe_at,
                )
            )
        if department.state != Department.State.RUNNING:
            label = department.get_state_display()
            found.append(Banner("warning", f"{department} is {label}.", _STATES[Department.State(department.state)]))
    return sorted(found, key=lambda banner: banner.colour)
