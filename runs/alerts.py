"""Alerts: what a person must hear of, once for each cause, and whether they were told.

An alert is written in the transaction of what it tells; ``runs.alert_delivery`` takes it to people afterwards, so
that no transaction waits for a mail server.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import IntegrityError, connection, transaction
from django_q.tasks import async_task

from agents.models import Department
from runs.channels import CHANNELS
from runs.database import now as database_now
from runs.escalation import targets_for_agent, targets_for_department
from runs.models import AgentRun, Alert, AlertDelivery, Item

logger = logging.getLogger(__name__)
DELIVER_ALERTS = "runs.tasks.deliver_alerts"
LOG = "log"
NOBODY = "nobody"
"""The target of an alert for which there is nobody to tell: it fails, and pages show that."""


def raise_alert(
    *,
    kind: str,
    department: Department | None,
    text: str,
    key: str,
    link: str,
    next_step: str,
    item: Item | None = None,
    agent_run: AgentRun | None = None,
) -> Alert:
    """Write down that this has happened (again), and have it told; ``key`` says what is the same alert.

    ``text`` says what, ``next_step`` what happens now, ``link`` is a path. Trouble of an agent run goes along its
    agent's chain of command, everything else to the administrators. Belongs into the transaction of what it
    tells, and locks the alert until its end: whoever raises the same key is alone.
    """
    now = database_now()
    alert = lock_alert(department, key)
    if alert is None:
        alert, is_new = _create_or_lock(department, key, kind=kind, text=text, first_at=now, last_at=now)
    else:
        is_new = False
    alert.count += not is_new
    alert.text, alert.next_step, alert.link, alert.last_at = text, next_step[:300], link[:300], now
    alert.item, alert.agent_run = item, agent_run
    alert.save(update_fields=["count", "text", "next_step", "link", "last_at", "item", "agent_run"])
    _plan_deliveries(alert, now)
    return alert


def lock_alert(department: Department | None, key: str) -> Alert | None:
    """The open alert of this key, locked; None if there is none. After items, runs and budgets in the lock order."""
    rows = Alert.objects.filter(department=department, key=key, state=Alert.State.OPEN)
    return rows.select_for_update(of=("self",)).first()


def close_alert(*, department: Department | None, key: str) -> bool:
    """It is over. Whoever has heard of it hears no more; who has not is still told that it was. False if not open."""
    with transaction.atomic():
        alert = lock_alert(department, key)
        if alert is None:
            return False
        alert.state, alert.closed_at = Alert.State.CLOSED, database_now()
        alert.save(update_fields=["state", "closed_at"])
        told = alert.deliveries.filter(status=AlertDelivery.Status.SENT).values("target")
        alert.deliveries.filter(status=AlertDelivery.Status.QUEUED, target__in=told).delete()
    return True


def repeat_after(target: str) -> timedelta:
    """How long the same alert is not told again to this target."""
    channel = CHANNELS.get(target.partition(":")[0])
    return timedelta(seconds=channel.repeat_seconds if channel else 3_600)


def _create_or_lock(
    department: Department | None, key: str, *, kind: str, text: str, first_at: datetime, last_at: datetime
) -> tuple[Alert, bool]:
    """A new open alert, or the one that somebody else made at the same moment, locked; whether it is new."""
    while True:
        try:
            with transaction.atomic():
                return Alert.objects.create(
                    department=department, key=key, kind=kind, text=text, first_at=first_at, last_at=last_at
                ), True
        except IntegrityError:
            alert = lock_alert(department, key)
            if alert is not None:
                return alert, False


def _plan_deliveries(alert: Alert, now: datetime) -> None:
    """One delivery on its way to every target; where it was told already, not before the channel repeats itself."""
    rows = alert.deliveries.order_by("pk").values_list("target", "status", "ended_at")
    pending = {target for target, status, _ in rows if status in AlertDelivery.PENDING}
    if pending:
        return  # what is on its way tells the latest text and count
    last = {target: ended_at for target, _, ended_at in rows if ended_at is not None}
    AlertDelivery.objects.bulk_create(
        AlertDelivery(alert=alert, target=target, due_at=_due(target, last.get(target), now))
        for target in _targets(alert)
    )
    if connection.in_atomic_block:
        transaction.on_commit(_queue, robust=True)


def _due(target: str, last: datetime | None, now: datetime) -> datetime:
    return now if last is None else max(now, last + repeat_after(target))


def _targets(alert: Alert) -> Sequence[str]:
    if alert.agent_run is not None:
        people = targets_for_agent(alert.agent_run.agent)
    else:
        people = targets_for_department(alert.department)
    return list(dict.fromkeys([LOG, *(people or [NOBODY])]))


def _queue() -> None:
    """Have the queue deliver soon. If that fails, the minute's task does."""
    async_task(DELIVER_ALERTS)
