"""Alerts as pages show them: since when, who was told, who is told next, and the section of the runbook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from runs.models import Alert, AlertDelivery
from runs.runbook import section_of, url_of

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


def show_alert(alert: Alert, deliveries: Iterable[AlertDelivery]) -> ShownAlert:
    """``deliveries``: those of the alert, the newest first."""
    latest: dict[str, AlertDelivery] = {}
    for delivery in deliveries:
        latest.setdefault(delivery.target, delivery)
    return ShownAlert(alert, [_telling(delivery) for delivery in latest.values()], url_of(section_of(alert)))


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
