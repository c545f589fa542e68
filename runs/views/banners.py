"""What must be seen on every page: what stands still, and news that did not reach the people it was for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max

from agents.models import Department
from runs.models import Alert, AlertDelivery


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
    departments, found = list(departments), []
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
    return sorted([*found, *_find_untold(departments)], key=lambda banner: banner.colour)


def _find_untold(departments: list[Department]) -> list[Banner]:
    """One banner about all open alerts that could not be delivered: who is not told must see it here."""
    failed = AlertDelivery.objects.filter(
        alert__department__in=departments,
        alert__state=Alert.State.OPEN,
        status=AlertDelivery.Status.FAILED,
    )
    news = failed.aggregate(alerts=Count("alert", distinct=True), latest=Max("pk"))
    if not news["alerts"]:
        return []
    latest = AlertDelivery.objects.select_related("alert").get(pk=news["latest"])
    title = "An alert was not delivered." if news["alerts"] == 1 else f"{news['alerts']} alerts were not delivered."
    return [Banner("bad", title, f"{latest.error} It says: {latest.alert.text}")]
