"""Takes alerts to people: claims what is due, sends it outside any transaction, writes down what became of it.

At least once: a worker that dies while it sends leaves a lease that runs out, and the alert is sent again. Two
workers never hold the same delivery.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import F, Max, Q
from django.urls import reverse
from django_q.tasks import async_task

from runs import alerts
from runs.channels import CHANNELS, NotDelivered, Notice, Undeliverable, split_target
from runs.database import now as database_now
from runs.models import Alert, AlertDelivery, LogEntry
from runs.runbook import absolute_url, section_of, url_of

logger = logging.getLogger(__name__)
LEASE = timedelta(seconds=90)
"""Longer than a queue task may take."""
SECONDS = 30.0
MAX_ATTEMPTS = 5
BACKOFF_SECONDS = 30
MAX_TOGETHER = 20
"""So many alerts are one message; what is left comes with the next one."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes to one target in one message: deliveries of one department under one lease."""

    target: str
    token: UUID
    deliveries: Sequence[AlertDelivery]


def deliver_due(*, seconds: float = SECONDS) -> int:
    """Send what is due until nothing is or the time is up. Returns the number of deliveries that arrived."""
    until, sent = time.monotonic() + seconds, 0
    _give_up_lost()
    while time.monotonic() < until:
        parcel = claim()
        if parcel is None:
            break
        sent += _send(parcel)
    return sent


def queue_due() -> None:
    """Have the queue deliver what is due, in case the task that was queued with it was lost; called each minute."""
    now = database_now()
    pending = AlertDelivery.objects.filter(status__in=AlertDelivery.PENDING, due_at__lte=now)
    if pending.exists():
        async_task(alerts.DELIVER_ALERTS)


def claim() -> Parcel | None:
    """Take what is due for one target and department, oldest first; None if nothing may be sent now."""
    with transaction.atomic():
        now = database_now()
        due = Q(status=AlertDelivery.Status.QUEUED, due_at__lte=now)
        lost = Q(status=AlertDelivery.Status.SENDING, lease_expires_at__lt=now, attempt__lt=MAX_ATTEMPTS)
        rows = AlertDelivery.objects.filter(due | lost).select_related("alert__department", "alert__item")
        for first in rows.order_by("due_at", "pk")[:200]:
            again_at = _next_opening(first, now)
            if again_at is not None:
                AlertDelivery.objects.filter(pk=first.pk, status=AlertDelivery.Status.QUEUED).update(due_at=again_at)
                continue
            same = rows.filter(target=first.target, alert__department=first.alert.department_id)
            locked = same.order_by("pk").select_for_update(skip_locked=True, of=("self",))
            taken = list(locked[:MAX_TOGETHER])
            if taken:
                return _take(taken, now)
    return None


def compose(deliveries: Iterable[AlertDelivery], department: str) -> Notice:
    """One message about all of them: what, where, since when, how often, what happens next, and a link each."""
    told = [delivery.alert for delivery in deliveries]
    subject = told[0].text.splitlines()[0]
    if len(told) > 1:
        subject = f"{len(told)} alerts: {subject}"
    return Notice(subject, "\n\n".join(_describe(alert) for alert in told), department)


def _next_opening(delivery: AlertDelivery, now: datetime) -> datetime | None:
    """When the target may be told something again; None if now."""
    channel = CHANNELS.get(delivery.target.partition(":")[0])
    gap = timedelta(seconds=channel.gap_seconds if channel else 0)
    others = AlertDelivery.objects.filter(target=delivery.target, alert__department=delivery.alert.department_id)
    if others.filter(status=AlertDelivery.Status.SENDING, lease_expires_at__gte=now).exists():
        return now + timedelta(seconds=1)  # somebody else tells it something at this moment
    last = others.filter(status=AlertDelivery.Status.SENT).aggregate(last=Max("ended_at"))["last"]
    return last + gap if last is not None and last + gap > now else None


def _take(taken: list[AlertDelivery], now: datetime) -> Parcel:
    token = uuid4()
    for delivery in taken:
        delivery.told_count = delivery.alert.count
    AlertDelivery.objects.filter(pk__in=[delivery.pk for delivery in taken]).update(
        status=AlertDelivery.Status.SENDING,
        lease_token=token,
        lease_expires_at=now + LEASE,
        attempt=F("attempt") + 1,
    )
    return Parcel(taken[0].target, token, taken)


def _send(parcel: Parcel) -> int:
    """Send one parcel; how many deliveries arrived."""
    department = parcel.deliveries[0].alert.department
    try:
        if parcel.target == alerts.NOBODY:
            raise Undeliverable("Nobody can be told: give an agent of the chain, or an administrator, an address.")
        channel, address = split_target(parcel.target)
        channel.send(address, compose(parcel.deliveries, department.slug if department else ""))
    except Undeliverable as error:
        _note_failure(parcel, str(error), is_final=True)
    except NotDelivered as error:
        _note_failure(parcel, str(error), is_final=False)
    except Exception as error:
        logger.exception("could not send alerts to %s", parcel.target.partition(":")[0])
        _note_failure(parcel, f"{type(error).__name__} in Kontor; the process log says more.", is_final=False)
    else:
        return _note_success(parcel)
    return 0


def _held(delivery: AlertDelivery, token: UUID) -> AlertDelivery | None:
    """The delivery with its alert, both locked; None if somebody has taken it over.

    One a transaction: whoever raises alerts locks them by their keys, and only one lock is in order with any.
    """
    alert = Alert.objects.select_for_update(of=("self",)).get(pk=delivery.alert_id)
    rows = AlertDelivery.objects.filter(pk=delivery.pk, lease_token=token, status=AlertDelivery.Status.SENDING)
    held = rows.select_for_update(of=("self",)).first()
    if held is not None:
        held.alert = alert
    return held


def _note_success(parcel: Parcel) -> int:
    arrived = 0
    for sent in parcel.deliveries:
        with transaction.atomic():
            now, delivery = database_now(), _held(sent, parcel.token)
            if delivery is None:
                continue
            arrived += 1
            delivery.told_count = sent.told_count
            _end(delivery, AlertDelivery.Status.SENT, "", now)
            if delivery.alert.count > delivery.told_count and delivery.alert.state == Alert.State.OPEN:
                # It has happened again while we were telling of it.
                again = now + alerts.repeat_after(delivery.target)
                AlertDelivery.objects.create(alert=delivery.alert, target=delivery.target, due_at=again)
    return arrived


def _note_failure(parcel: Parcel, error: str, *, is_final: bool) -> None:
    for sent in parcel.deliveries:
        with transaction.atomic():
            now, delivery = database_now(), _held(sent, parcel.token)
            if delivery is None:
                continue
            if is_final or delivery.attempt >= MAX_ATTEMPTS:
                _give_up(delivery, error, now)
                continue
            delivery.status, delivery.error = AlertDelivery.Status.QUEUED, error
            delivery.due_at = now + timedelta(seconds=BACKOFF_SECONDS * 2 ** (delivery.attempt - 1))
            delivery.lease_token = delivery.lease_expires_at = None
            delivery.save(update_fields=["status", "error", "due_at", "lease_token", "lease_expires_at"])


def _give_up_lost() -> None:
    """Deliveries whose senders died again and again are not tried for ever."""
    now = database_now()
    lost = Q(status=AlertDelivery.Status.SENDING, lease_expires_at__lt=now, attempt__gte=MAX_ATTEMPTS)
    for pk in list(AlertDelivery.objects.filter(lost).values_list("pk", flat=True)):
        with transaction.atomic():
            rows = AlertDelivery.objects.filter(lost, pk=pk).select_related("alert")
            delivery = rows.select_for_update(skip_locked=True, of=("self",)).first()
            if delivery is not None:
                _give_up(delivery, f"Its worker died while it was sent, {delivery.attempt} times.", now)


def _give_up(delivery: AlertDelivery, error: str, now: datetime) -> None:
    """It was not delivered and will not be: pages and the log say so."""
    _end(delivery, AlertDelivery.Status.FAILED, error, now)
    channel = delivery.target.partition(":")[0]
    LogEntry.objects.create(
        department_id=delivery.alert.department_id,
        level=LogEntry.Level.ERROR,
        kind="alert",
        text=f"An alert could not be delivered ({channel}). {error} It says: {delivery.alert.text}",
        at=now,
    )


def _end(delivery: AlertDelivery, status: str, error: str, now: datetime) -> None:
    delivery.status, delivery.error, delivery.ended_at = status, error, now
    delivery.lease_token = delivery.lease_expires_at = None
    delivery.save(update_fields=["status", "error", "ended_at", "told_count", "lease_token", "lease_expires_at"])


def _describe(alert: Alert) -> str:
    where = str(alert.department) if alert.department else "the whole installation"
    times = f", {alert.count} times, last at {alert.last_at:%H:%M:%S} UTC" if alert.count > 1 else ""
    lines = [
        alert.text,
        f"Where: {where}{f', {alert.item}' if alert.item and alert.count == 1 else ''}",
        f"Since: {alert.first_at:%Y-%m-%d %H:%M:%S} UTC{times}",
    ]
    if alert.closed_at is not None:
        lines.append(f"Over since {alert.closed_at:%Y-%m-%d %H:%M:%S} UTC.")
    elif alert.next_step:
        lines.append(f"Next: {alert.next_step}")
    if alert.link:
        lines.append(f"Look: {absolute_url(alert.link)}")
    if alert.closed_at is None:
        lines.append(f"What to do: {absolute_url(url_of(section_of(alert)))}")
        lines.append(f"System: {absolute_url(reverse('runs:system'))}")
    return "\n".join(lines)
