"""Alerts: the list of those that are open, each with since when, who was told or is next, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from agents.statements import Among, Statement
from runs.access import Access, access_of, may_see_system, signed_in
from runs.models import Alert, AlertDelivery
from runs.runbook import section_of, url_of
from runs.views.answers import show
from runs.views.paging import read_page

Status = AlertDelivery.Status
_WORDS = {
    Status.SENT: "told",
    Status.QUEUED: "is told",
    Status.SENDING: "is being told",
    Status.FAILED: "not told",
}


@dataclass(frozen=True, slots=True)
class Telling:
    """The latest delivery to one target: ``at`` when it was, or is to be."""

    target: str
    words: str
    at: datetime | None
    is_failed: bool
    is_ahead: bool
    error: str


@dataclass(frozen=True, slots=True)
class ShownAlert:
    """One alert."""

    alert: Alert
    tellings: Sequence[Telling]
    runbook_url: str
    link: str
    """The page to look at; empty where whoever asks may not see it."""


@signed_in
@require_safe
def alert_list(request: HttpRequest) -> HttpResponse:
    """The open alerts that concern whoever asks, the newest first."""
    access, sees_system = access_of(request), may_see_system(request)
    page = read_page(request, open_alerts(access, sees_system=sees_system))
    alerts = show_alerts(page.rows, sees_system=sees_system)
    context = {"access": access, "page": page, "alerts": alerts, "may_see_system": sees_system}
    return show(request, "runs/alerts.html", "runs/_alerts.html", context)


def open_alerts(access: Access, *, sees_system: bool) -> QuerySet[Alert]:
    """Those of the departments shown; those of the whole installation for whoever sees the system."""
    mine = Q(department__in=access.ids)
    alerts = Alert.objects.filter(mine | Q(department=None) if sees_system else mine, state=Alert.State.OPEN)
    return alerts.select_related("department")


def show_alerts(alerts: Sequence[Alert], *, sees_system: bool) -> list[ShownAlert]:
    """The same as pages show them, in one query. ``sees_system``: whether links to the System page lead anywhere."""
    found: dict[int, dict[str, AlertDelivery]] = {alert.pk: {} for alert in alerts}
    for delivery in _DELIVERIES.objects(alerts=found) if found else ():
        found[delivery.alert_id].setdefault(delivery.target, delivery)
    return [_show(alert, found[alert.pk].values(), sees_system) for alert in alerts]


_DELIVERIES = Statement(lambda: AlertDelivery.objects.filter(Among("alert_id", "alerts")).order_by("-pk"))


def _show(alert: Alert, latest: Iterable[AlertDelivery], sees_system: bool) -> ShownAlert:
    link = alert.link if sees_system or not alert.link.startswith(reverse("runs:system")) else ""
    return ShownAlert(alert, [_telling(delivery) for delivery in latest], url_of(section_of(alert)), link)


def _telling(delivery: AlertDelivery) -> Telling:
    status = Status(delivery.status)
    is_ahead = status == Status.QUEUED
    # An error of an earlier try stands on a delivery that is tried again.
    return Telling(
        target="the process log" if delivery.target == "log" else delivery.target.removeprefix("email:"),
        words=_WORDS[status],
        at=delivery.due_at if is_ahead else delivery.ended_at,
        is_failed=status == Status.FAILED,
        is_ahead=is_ahead,
        error=delivery.error if status != Status.SENT else "",
    )
