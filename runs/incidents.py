"""Answers to questions about failures: retry, or go on without it, for one item or for all of an incident.

The first answer wins. An incident's answer is a bulk action; see ``runs.bulk``.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q

from runs import bulk, control, log
from runs.allowed import YES, Allowed, no
from runs.commits import lock_items
from runs.database import now as database_now
from runs.failure_reviews import ACCEPT, RETRY, answer_run, close_review, unanswered
from runs.models import Action, AgentRun, BulkAction, Item, Review

VERBS = {RETRY: "retry_all", ACCEPT: "accept_all"}
ACCEPTABLE = (Review.Kind.FAILURE, Review.Kind.REFUSAL, Review.Kind.DEGRADED)
"""Questions about one item that "go on without it" answers."""


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


def _answer_all(review: Review, answer: str, user: User, reason: str) -> BulkAction | None:
    with transaction.atomic():
        now = database_now()
        if review.kind != Review.Kind.INCIDENT or not close_review(
            review, answer=answer, user=user, now=now, note=reason
        ):
            return None
        started = bulk.begin(
            department=review.department,
            user=user,
            verb=VERBS[answer],
            selection={"incident": review.pk},
            arguments={"reason": reason, "after": [0, 0]},
            total=unanswered(review.pk).count(),
            target=f"review:{review.pk}",
        )
    return bulk.work_on(started)


def _next_run(answer: BulkAction) -> bulk.Target | None:
    item_id, pk = answer.arguments["after"]
    later = Q(item_id__gt=item_id) | Q(item_id=item_id, pk__gt=pk)
    runs = unanswered(answer.selection["incident"]).filter(later)
    run = runs.select_related("agent", "department").order_by("item_id", "pk").first()
    return bulk.Target(run, run.item_id, [run.item_id, run.pk]) if run is not None else None


def _retry(answer: BulkAction, run: AgentRun) -> Allowed:
    return control.retry_agent_run(run=run, user=answer.user, reason=answer.arguments["reason"], bulk=answer)


def _accept_run(answer: BulkAction, run: AgentRun) -> Allowed:
    now, user, reason = database_now(), answer.user, answer.arguments["reason"]
    item = lock_items({run.item_id})[run.item_id]
    held = AgentRun.objects.select_for_update(of=("self",)).select_related("agent", "department").get(pk=run.pk)
    if held.status != AgentRun.Status.FAILED:
        return no("Somebody was first.")
    answer_run(held, answer=ACCEPT, user=user, now=now, note=reason)
    _unflag(item)
    _note_acceptance(item, held, user, reason, answer)
    return YES


def _unflag(item: Item) -> None:
    """The locked item's flag goes when nothing is asked about its failures any more."""
    failed = item.agent_runs.filter(status=AgentRun.Status.FAILED, incident__status=Review.Status.OPEN)
    if item.flag and not failed.exists():
        item.flag = ""
        item.save(update_fields=["flag", "changed_at"])


def _note_acceptance(item: Item, what: Review | AgentRun, user: Any, reason: str, many: BulkAction | None) -> None:
    target = f"review:{what.pk}" if isinstance(what, Review) else f"agent_run:{what.pk}"
    Action.objects.create(
        department_id=item.department_id,
        item=item,
        bulk=many,
        user=user,
        verb="accept_failure",
        target=target,
        reason=reason[:300],
    )
    run = what.agent_run if isinstance(what, Review) else what
    title = run.agent.title if run is not None else "an agent"
    text = f"{user} goes on without what {title} could not do{f': {reason}' if reason else '.'}"
    log.write([log.item_entry(item, "answer", text, at=database_now(), agent_run_id=run.pk if run else None)])


bulk.register(bulk.Verb(VERBS[RETRY], "Retry all of an incident", _next_run, _retry))
bulk.register(bulk.Verb(VERBS[ACCEPT], "Go on without it on all of an incident", _next_run, _accept_run))
