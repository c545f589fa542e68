"""What the queue may call. Thin: parse, call one service. The names are constants beside their callers."""

from __future__ import annotations

from uuid import UUID

import uvloop
from django.db import connection
from django_q.tasks import async_task

from agents.spec import kinds
from runs import (
    agent_health,
    alert_delivery,
    bulk,
    checks,
    control,
    cost_rollups,
    examples,  # noqa: F401 - registers a verb for many
    gate_alerts,
    incidents,  # noqa: F401 - registers verbs for many
    pings,
    restore,
    review_deadlines,
    schedules,
    selections,  # noqa: F401 - registers verbs for many
    sending,
    slots,
    spending,
    staleness,
    status_counts,
    tryout_claims,
    undecided,
)
from runs.housekeeping import do_each
from runs.releases import newer_migrations
from runs.shift import Shift, worker_name
from runs.stopping import is_stopping
from runs.tryout_desk import TryOutDesk


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
    jobs = (
        schedules.run_due,
        slots.ensure_shifts,
        control.resume_due,
        bulk.queue_unfinished,
        gate_alerts.close_budget_alerts,
        review_deadlines.look_after_reviews,
        spending.warn_of_budgets,
        staleness.mark_older_souls,
        sending.queue_due,
        alert_delivery.queue_due,
        cost_rollups.roll_up,
        tryout_claims.look_after,
        checks.abandon_checks,
        agent_health.count_hours,
        undecided.watch_undecided,
        status_counts.count_statuses,
    )
    is_well = do_each(jobs)
    do_each(spec.every_minute for spec in kinds() if spec.every_minute is not None)
    if is_well:
        pings.send_ping()


def deliver_alerts() -> None:
    """Take alerts to people. Queued when one is raised, and part of every minute in case that was lost."""
    alert_delivery.deliver_due()


def carry_on_bulk(bulk_id: int) -> None:
    """Go on with a bulk action that takes longer than a page may; queues itself again while there is more."""
    if not bulk.carry_on(bulk_id):
        async_task(bulk.CARRY_ON, bulk_id)


def send_due() -> None:
    """Send what may leave the house. Queued by shifts when something is due; each minute sees to it as well."""
    sending.send_due(worker=worker_name())


def carry_out_try_outs() -> None:
    """Carry out what people want to try. Queued with each, and each minute while one is left."""
    if newer_migrations() or is_stopping():
        return
    # As in a shift: its own thread talks to the database.
    connection.close()
    uvloop.run(_try_out())


async def _try_out() -> None:
    await TryOutDesk().run()
