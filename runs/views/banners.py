"""What must be seen on every page: what stands still, and news that did not reach the people it was for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from agents.models import Department, Installation
from agents.statements import Among, Statement
from runs.access import access_of, signed_in
from runs.models import Alert, AlertDelivery
from runs.runbook import url_of
from runs.switches import describe_state


@dataclass(frozen=True, slots=True)
class Banner:
    """One sentence of news, what follows from it, and when it is looked at again."""

    colour: str
    title: str
    text: str
    at: datetime | None = None
    link: str = ""
    link_text: str = ""


_STATES = {
    Department.State.DRAINING: "What is running is finished; nothing new starts.",
    Department.State.HOLDING_SENDS: "Agents work on, but nothing leaves the house.",
    Department.State.STOPPED: "Nothing starts until an administrator switches it on again.",
}


@signed_in
@require_safe
def banners_panel(request: HttpRequest) -> HttpResponse:
    """The banners as they are now, for a page that stays open."""
    return render(request, "_banners.html", banner_context(request))


def banner_context(request: HttpRequest) -> dict[str, Any]:
    """What must be known on every page: simulated answers, a line that stands still, a stopped department."""
    access = access_of(request)
    return {"is_simulated": settings.SIMULATED, "banners": find_banners(access.shown, access.installation)}


def find_banners(departments: Iterable[Department], installation: Installation) -> list[Banner]:
    """The news of these departments and of the installation's switch, the worst first."""
    departments, found = list(departments), []
    if installation.state != Department.State.RUNNING:
        found.append(_switched(installation))
    found += _find_stopped(departments)
    found += [_switched(department) for department in departments if department.state != Department.State.RUNNING]
    return sorted([*found, *_find_untold(departments)], key=lambda banner: banner.colour)


def _find_stopped(departments: list[Department]) -> list[Banner]:
    """One banner for each key that is refused, whatever the number of departments that use it."""
    by_cause: dict[tuple[str, str], list[Department]] = {}
    for department in departments:
        if department.stopped_by_error:
            by_cause.setdefault((department.api_key_env, department.stopped_by_error), []).append(department)
    if not by_cause:
        return []
    told = Alert.objects.filter(kind=Alert.Kind.STOP_THE_LINE, state=Alert.State.OPEN, department__in=departments)
    since = dict(told.values_list("department_id", "first_at"))
    return [_stopped(error, concerned, since) for (_, error), concerned in by_cause.items()]


def _stopped(error: str, concerned: list[Department], told: Mapping[int, datetime]) -> Banner:
    names = ", ".join(str(department) for department in concerned)
    since = [told[department.pk] for department in concerned if department.pk in told]
    probes = [department.next_probe_at for department in concerned if department.next_probe_at is not None]
    return Banner(
        "bad",
        f"{names}: the line stands still.",
        f"{error} Runs wait and lose nothing.{_since(min(since, default=None))}",
        min(probes, default=None),
        url_of("the-line-stands-still"),
        "What to do",
    )


def _switched(held: Department | Installation) -> Banner:
    """Who has switched it to what, why and since when."""
    colour = "bad" if held.state == Department.State.STOPPED else "warning"
    text = f"{_STATES[Department.State(held.state)]}{_since(held.state_since)}"
    return Banner(colour, describe_state(held), text, link=reverse("runs:switches"), link_text="Switches")


def _since(moment: datetime | None) -> str:
    return f" Since {moment:%Y-%m-%d %H:%M} UTC." if moment else ""


_UNTOLD = Statement(
    lambda: (
        AlertDelivery.objects.filter(
            Among("alert__department_id", "departments"),
            alert__state=Alert.State.OPEN,
            status=AlertDelivery.Status.FAILED,
        )
        .order_by()
        .values_list("alert_id")
        .annotate(latest=Max("pk"))
    )
)


def _find_untold(departments: list[Department]) -> list[Banner]:
    """One banner about all open alerts that could not be delivered: who is not told must see it here."""
    failed = dict(_UNTOLD.rows(departments=[department.pk for department in departments]))
    if not failed:
        return []
    latest = AlertDelivery.objects.select_related("alert").get(pk=max(failed.values()))
    title = "An alert was not delivered." if len(failed) == 1 else f"{len(failed)} alerts were not delivered."
    return [Banner("bad", title, f"{latest.error} It says: {latest.alert.text}")]
