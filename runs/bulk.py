"""One verb on many: item by item, each in a transaction of its own, with progress, abort and what was left out.

A bulk action is taken up again by the next minute if its worker dies. Which verbs there are is registered by the
modules that know them: ``runs.selections`` for what a filter has chosen, ``runs.incidents`` for failures of one cause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, transaction
from django_q.tasks import async_task

from agents.models import Department
from runs.allowed import YES, Allowed, no
from runs.database import now as database_now
from runs.models import Action, BulkAction

logger = logging.getLogger(__name__)
CARRY_ON = "runs.tasks.carry_on_bulk"
AT_ONCE_SECONDS = 2.0
"""So long a person waits for the page; what is left the queue does."""
QUEUE_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Target:
    """What a verb is done to next: ``row`` for the verb, its item, and where to go on afterwards."""

    row: Any
    item_id: int
    cursor: Sequence[int]


@dataclass(frozen=True, slots=True)
class Verb:
    """How a verb works on many. ``find`` gives the first target behind the cursor in ``arguments["after"]``."""

    slug: str
    label: str
    find: Callable[[BulkAction], Target | None]
    do: Callable[[BulkAction, Any], Allowed]


_verbs: dict[str, Verb] = {}


def register(verb: Verb) -> None:
    """Make a verb known."""
    _verbs[verb.slug] = verb


def label_of(bulk: BulkAction) -> str:
    """The verb in words."""
    return _verbs[bulk.verb].label if bulk.verb in _verbs else bulk.verb.replace("_", " ").capitalize()


def begin(
    *,
    department: Department,
    user: User,
    verb: str,
    selection: Mapping[str, Any],
    arguments: Mapping[str, Any],
    total: int = 0,
    ids: Sequence[int] = (),
    target: str = "",
) -> BulkAction:
    """Write down a bulk action; the caller has it worked on by ``work_on`` once this is committed.

    ``ids`` are the items if they are settled now; else ``total`` is how many there will be.
    """
    reason, total = str(arguments.get("reason", ""))[:300], len(ids) or total
    bulk = BulkAction.objects.create(
        department=department,
        user=user,
        verb=verb,
        selection={**selection, "ids": list(ids)} if ids else dict(selection),
        arguments={**arguments, "reason": reason},
        total=total,
    )
    Action.objects.create(
        department=department,
        bulk=bulk,
        user=user,
        verb=verb,
        target=target or f"bulk:{bulk.pk}",
        after={"selection": dict(selection), "total": total},
        reason=reason,
    )
    return bulk


def work_on(bulk: BulkAction) -> BulkAction:
    """Do as much of it as a person may wait for, and leave the rest to the queue; the row as it is then."""
    if not carry_on(bulk.pk, seconds=AT_ONCE_SECONDS):
        async_task(CARRY_ON, bulk.pk)
    bulk.refresh_from_db()
    return bulk


def carry_on(bulk_id: int, *, seconds: float = QUEUE_SECONDS) -> bool:
    """Go on until it is through or the time is up. True if nothing is left for us."""
    until = time.monotonic() + seconds
    while _step(bulk_id):
        if time.monotonic() >= until:
            return False
    return True


def queue_unfinished() -> None:
    """Have bulk actions taken up again whose worker died; called each minute. Who is at work on one goes on alone."""
    running = BulkAction.objects.filter(status=BulkAction.Status.RUNNING, verb__in=_verbs)
    for pk in running.order_by("pk").values_list("pk", flat=True):
        async_task(CARRY_ON, pk)


def can_abort(bulk: BulkAction) -> Allowed:
    """Stop a bulk action under way."""
    return YES if bulk.status == BulkAction.Status.RUNNING else no(f"It is {bulk.get_status_display()} already.")


def abort(*, bulk: BulkAction, user: User) -> bool:
    """Stop a bulk action under way: what is done stays done. False if it had ended."""
    rows = BulkAction.objects.filter(pk=bulk.pk, status=BulkAction.Status.RUNNING)
    with transaction.atomic():
        if not rows.update(status=BulkAction.Status.ABORTED, ended_at=database_now()):
            return False
        Action.objects.create(
            department_id=bulk.department_id, bulk=bulk, user=user, verb="abort_bulk", target=f"bulk:{bulk.pk}"
        )
    return True


def _step(bulk_id: int) -> bool:
    """One target of a bulk action. False: nothing is left, or somebody else is at it.

    The bulk action's row is the lock, before the item's: its cursor says from where on.
    """
    with transaction.atomic():
        rows = BulkAction.objects.filter(pk=bulk_id).select_related("user", "department").defer("selection")
        bulk = rows.select_for_update(skip_locked=True, of=("self",)).first()
        if bulk is None or bulk.status != BulkAction.Status.RUNNING or bulk.verb not in _verbs:
            return False
        verb = _verbs[bulk.verb]
        target = verb.find(bulk)
        if target is None:
            bulk.status, bulk.ended_at = BulkAction.Status.DONE, database_now()
            bulk.save(update_fields=["status", "ended_at"])
            return False
        answer = _do(verb, bulk, target)
        bulk.done += answer.ok
        if not answer:
            bulk.refused[str(target.item_id)] = answer.reason
        bulk.arguments["after"] = list(target.cursor)
        bulk.save(update_fields=["done", "refused", "arguments"])
    return True


def _do(verb: Verb, bulk: BulkAction, target: Target) -> Allowed:
    """Do it to one target; an error of ours leaves it out and stops nothing."""
    try:
        with transaction.atomic():
            return verb.do(bulk, target.row)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        logger.exception("item %s was left out of %s", target.item_id, bulk.verb)
        return no(f"An error in Kontor: {type(error).__name__}.")
