"""Answers to questions about failures: retry, or go on without it, for one item or for all of an incident.

The first answer wins. An incident's answer is a bulk action: it goes item by item, each in a transaction of its
own, shows how far it is, can be stopped, and is taken up again by the next minute if its worker dies.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q
from django_q.tasks import async_task

from runs import control, log
from runs.commits import lock_items
from runs.database import now as database_now
from runs.failure_reviews import ACCEPT, RETRY, answer_run, close_review, unanswered
from runs.models import Action, AgentRun, BulkAction, Item, Review

logger = logging.getLogger(__name__)
CARRY_ON = "runs.tasks.carry_on_bulk"
VERBS = {RETRY: "retry_all", ACCEPT: "accept_all"}
ACCEPTABLE = (Review.Kind.FAILURE, Review.Kind.REFUSAL, Review.Kind.DEGRADED)
"""Questions about one item that "go on without it" answers."""
AT_ONCE_SECONDS = 2.0
"""So long a person waits for the page; what is left the queue does."""
QUEUE_SECONDS = 40.0


def retry_all(*, review: Review, user: User, reason: str = "") -> BulkAction | None:
    """Have every run of an incident tried again. None if somebody has answered it before."""
    return _answer_all(review, RETRY, user, reason)


def accept_all(*, review: Review, user: User, reason: str) -> BulkAction | None:
    """Go on without it on every item of an incident, for good. None if somebody has answered it before."""
    return _answer_all(review, ACCEPT, user, reason)


def accept(*, review: Review, user: User, reason: str) -> bool:
    """Go on without what one agent could not do on one item. False if the question was answered before.

    The run stays failed; the item's flag goes with its last open question.
    """
    if review.item_id is None or review.kind not in ACCEPTABLE:
        return False
    with transaction.atomic():
        now = database_now()
        item = lock_items({review.item_id})[review.item_id]
        if not close_review(review, answer=ACCEPT, user=user, now=now, note=reason):
            return False
        _unflag(item)
        _note_acceptance(item, review, user, reason, None)
    return True


def carry_on(bulk_id: int, *, seconds: float = QUEUE_SECONDS) -> bool:
    """Go on with an incident's answer until it is through or the time is up. True if nothing is left for us."""
    until = time.monotonic() + seconds
    while _step(bulk_id):
        if time.monotonic() >= until:
            return False
    return True


def queue_unfinished() -> None:
    """Have answers taken up again whose worker died; called each minute. Who is at work on one goes on alone."""
    running = BulkAction.objects.filter(status=BulkAction.Status.RUNNING, verb__in=VERBS.values())
    for pk in running.order_by("pk").values_list("pk", flat=True):
        async_task(CARRY_ON, pk)


def abort(*, bulk: BulkAction, user: User) -> bool:
    """Stop an answer under way: what is done stays done. False if it had ended."""
    rows = BulkAction.objects.filter(pk=bulk.pk, status=BulkAction.Status.RUNNING)
    with transaction.atomic():
        if not rows.update(status=BulkAction.Status.ABORTED, ended_at=database_now()):
            return False
        Action.objects.create(department_id=bulk.department_id, bulk=bulk, user=user, verb="abort_bulk")
    return True


def _answer_all(review: Review, answer: str, user: User, reason: str) -> BulkAction | None:
    with transaction.atomic():
        now = database_now()
        if review.kind != Review.Kind.INCIDENT or not close_review(
            review, answer=answer, user=user, now=now, note=reason
        ):
            return None
        bulk = BulkAction.objects.create(
            department_id=review.department_id,
            user=user,
            verb=VERBS[answer],
            selection={"incident": review.pk},
            arguments={"reason": reason[:300], "after": [0, 0]},
            total=unanswered(review.pk).count(),
        )
        Action.objects.create(
            department_id=review.department_id,
            bulk=bulk,
            user=user,
            verb=VERBS[answer],
            target=f"review:{review.pk}",
            reason=reason[:300],
        )
    if not carry_on(bulk.pk, seconds=AT_ONCE_SECONDS):
        async_task(CARRY_ON, bulk.pk)
    bulk.refresh_from_db()
    return bulk


def _step(bulk_id: int) -> bool:
    """One item of a bulk action. False: nothing is left, or somebody else is at it.

    The bulk action's row is the lock, before the item's: its cursor says from which run on, by item.
    """
    with transaction.atomic():
        rows = BulkAction.objects.filter(pk=bulk_id).select_related("user")
        bulk = rows.select_for_update(skip_locked=True, of=("self",)).first()
        if bulk is None or bulk.status != BulkAction.Status.RUNNING:
            return False
        run = _next_run(bulk)
        if run is None:
            bulk.status, bulk.ended_at = BulkAction.Status.DONE, database_now()
            bulk.save(update_fields=["status", "ended_at"])
            return False
        refused = _do(bulk, run)
        bulk.done += not refused
        if refused:
            bulk.refused[str(run.item_id)] = refused
        bulk.arguments["after"] = [run.item_id, run.pk]
        bulk.save(update_fields=["done", "refused", "arguments"])
    return True


def _do(bulk: BulkAction, run: AgentRun) -> str:
    """Retry or accept one run; why it was left out, empty if it was not."""
    reason: str = bulk.arguments["reason"]
    try:
        with transaction.atomic():
            if bulk.verb == VERBS[RETRY]:
                changed = control.retry_agent_run(run=run, user=bulk.user, reason=reason, bulk=bulk)
            else:
                changed = _accept_run(run, bulk.user, reason, bulk)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        logger.exception("agent run %s was left out of %s", run.pk, bulk.verb)
        return f"An error in Kontor: {type(error).__name__}."
    return "" if changed else "Somebody was first."


def _next_run(bulk: BulkAction) -> AgentRun | None:
    item_id, pk = bulk.arguments["after"]
    later = Q(item_id__gt=item_id) | Q(item_id=item_id, pk__gt=pk)
    runs = unanswered(bulk.selection["incident"]).filter(later)
    return runs.select_related("agent", "department").order_by("item_id", "pk").first()


def _accept_run(run: AgentRun, user: Any, reason: str, bulk: BulkAction) -> bool:
    now = database_now()
    item = lock_items({run.item_id})[run.item_id]
    held = AgentRun.objects.select_for_update(of=("self",)).select_related("agent", "department").get(pk=run.pk)
    if held.status != AgentRun.Status.FAILED:
        return False
    answer_run(held, answer=ACCEPT, user=user, now=now, note=reason)
    _unflag(item)
    _note_acceptance(item, held, user, reason, bulk)
    return True


def _unflag(item: Item) -> None:
    """The locked item's flag goes when nothing is asked about its failures any more."""
    failed = item.agent_runs.filter(status=AgentRun.Status.FAILED, incident__status=Review.Status.OPEN)
    if item.flag and not failed.exists():
        item.flag = ""
        item.save(update_fields=["flag", "changed_at"])


def _note_acceptance(item: Item, what: Review | AgentRun, user: Any, reason: str, bulk: BulkAction | None) -> None:
    target = f"review:{what.pk}" if isinstance(what, Review) else f"agent_run:{what.pk}"
    Action.objects.create(
        department_id=item.department_id,
        item=item,
        bulk=bulk,
        user=user,
        verb="accept_failure",
        target=target,
        reason=reason[:300],
    )
    run = what.agent_run if isinstance(what, Review) else what
    title = run.agent.title if run is not None else "an agent"
    text = f"{user} goes on without what {title} could not do{f': {reason}' if reason else '.'}"
    log.write([log.item_entry(item, "answer", text, at=database_now(), agent_run_id=run.pk if run else None)])
