"""What the queue may call. Thin: parse, call one service. The names are constants beside their callers."""

from __future__ import annotations

import logging
from uuid import UUID

import uvloop
from django.db import connection
from django_q.tasks import async_task

from agents.spec import kinds
from runs import alert_delivery, gate_alerts, incidents, pings, restore, schedules, slots, staleness
from runs.releases import newer_migrations
from runs.shift import Shift, worker_name
from runs.stopping import is_stopping

logger = logging.getLogger(__name__)


def hold_shift(number: int, token: str) -> None:
    """Run a shift at a slot, unless this task was presented before or the place is for a newer release's worker."""
    if newer_migrations():
        slots.leave(number, UUID(token))
        return
    if is_stopping() or not slots.take(number, UUID(token), worker=worker_name()):
        return
    # The shift's own thread talks to the database; this process's connection would only idle.
    connection.close()
    uvloop.run(_run(number, UUID(token)))


async def _run(number: int, token: UUID) -> None:
    await Shift(number, token).run()


def every_minute() -> None:
    """What the clock starts: due schedules, shifts for slots that everybody else missed, what a lost task left."""
    # Before anything else: a database that was restored must not start schedules as if nothing had happened.
    restore.keep_marker()
    schedules.run_due()
    slots.ensure_shifts()
    incidents.queue_unfinished()
    gate_alerts.close_budget_alerts()
    staleness.mark_older_souls()
    alert_delivery.queue_due()
    for spec in kinds():
        if spec.every_minute is None:
            continue
        try:
            spec.every_minute()
        except Exception:
            logger.exception("the housekeeping of %s failed; it is tried again in a minute", spec.kind)
    pings.send_ping()


def deliver_alerts() -> None:
    """Take alerts to people. Queued when one is raised, and part of every minute in case that was lost."""
    alert_delivery.deliver_due()


def carry_on_bulk(bulk_id: int) -> None:
    """Go on with a bulk action that takes longer than a page may; queues itself again while there is more."""
    if not incidents.carry_on(bulk_id):
        async_task(incidents.CARRY_ON, bulk_id)
