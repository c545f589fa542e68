"""What a run that has failed for good asks a person: one question of its own, or one for many of the same cause.

The alert of a cause is its lock: whoever holds it is alone with the questions about that cause, so that two shifts
that fail at once make one incident. It comes after items and runs, and before reviews, in the lock order.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.urls import reverse

from agents.causes import Cause
from agents.models import Department
from runs import alerts
from runs.models import AgentRun, Alert, Item, Review

TOGETHER = timedelta(hours=1)
"""A failure of the same cause on another item within this makes an incident of an open question."""
DEADLINE = timedelta(days=1)
SINGLE_KINDS = (Review.Kind.FAILURE, Review.Kind.REFUSAL)
RETRY, ACCEPT = "retry", "accept"


def cause_of(run: AgentRun) -> str:
    """What makes failures the same: the agent and the cause."""
    return f"{run.agent.slug}:{run.cause}"


def alert_key(cause: str) -> str:
    """The key of the alert about failures of this cause."""
    return f"failure:{cause}"


def open_failure(run: AgentRun, item: Item, now: datetime) -> Review:
    """The question about a failed run, asked, joined or made into an incident. Item and run must be locked.

    Sets ``run.incident``, which the caller saves.
    """
    cause, title = cause_of(run), run.agent.title
    alert = alerts.raise_alert(
        kind=Alert.Kind.FAILURE,
        department=run.department,
        key=alert_key(cause),
        text=f"{title} failed for good on {item.title}: {Cause(run.cause).label}. {run.error}"[:1_000],
        item=item,
        agent_run=run,
        link=item.get_absolute_url(),
        next_step="The work goes on without it. It stands until somebody retries it or goes on without it for good.",
    )
    same = Review.objects.filter(department=run.department, cause=cause, status=Review.Status.OPEN)
    incident = same.filter(kind=Review.Kind.INCIDENT).first()
    if incident is None:
        recent = same.filter(kind__in=SINGLE_KINDS, created_at__gte=now - TOGETHER)
        incident = recent.exclude(item=item).order_by("pk").first()
    review = _ask(run, item, now) if incident is None else _join(incident, run, alert)
    run.incident = review
    return review


def lock_cause(run_or_review: AgentRun | Review) -> None:
    """Be alone with the questions about this cause until the transaction ends. Before any of them is changed."""
    cause = run_or_review.cause if isinstance(run_or_review, Review) else cause_of(run_or_review)
    alerts.lock_alert(run_or_review.department, alert_key(cause))


def answer_run(run: AgentRun, *, answer: str, user: User | None, now: datetime, note: str = "") -> None:
    """One failed run was retried, or is gone without: its own question is answered.

    An incident is over when the last of its runs is dealt with. The run must be locked, its status not yet changed.
    """
    lock_cause(run)
    own = Review.objects.filter(agent_run=run, output=None, status=Review.Status.OPEN).exclude(kind="incident")
    own.update(**_answered(answer, user, now, note))
    if run.incident_id is not None:
        incident = Review.objects.filter(pk=run.incident_id, kind=Review.Kind.INCIDENT, status=Review.Status.OPEN)
        if not unanswered(run.incident_id).exclude(pk=run.pk).exists():
            incident.update(**_answered(answer, user, now, note))
    close_if_over(run.department, cause_of(run))


def close_review(review: Review, *, answer: str, user: User | None, now: datetime, note: str = "") -> bool:
    """Answer an open question about failures; False if somebody was first. Locks the cause."""
    lock_cause(review)
    rows = Review.objects.filter(pk=review.pk, status=Review.Status.OPEN)
    if not rows.update(**_answered(answer, user, now, note)):
        return False
    close_if_over(review.department, review.cause)
    return True


def close_if_over(department: Department, cause: str) -> None:
    """Close the alert of a cause about which nothing is asked any more. The cause must be locked."""
    if not Review.objects.filter(department=department, cause=cause, status=Review.Status.OPEN).exists():
        alerts.close_alert(department=department, key=alert_key(cause))


def unanswered(review_id: int) -> QuerySet[AgentRun]:
    """The failed runs for which a question stands."""
    return AgentRun.objects.filter(incident_id=review_id, status=AgentRun.Status.FAILED)


def _ask(run: AgentRun, item: Item, now: datetime) -> Review:
    cause = Cause(run.cause)
    return Review.objects.create(
        department_id=run.department_id,
        item=item,
        agent_run=run,
        kind=Review.Kind.REFUSAL if cause is Cause.REFUSAL else Review.Kind.FAILURE,
        cause=cause_of(run),
        ask=(f"{run.agent.title} could not do its work on {item.title} ({cause.label}). Retry, or go on without it?")[
            :500
        ],
        risk=2,
        deadline=now + DEADLINE,
        at_deadline=Review.AtDeadline.ESCALATE,
    )


def _join(review: Review, run: AgentRun, alert: Alert) -> Review:
    """Count the run in an incident; a question about one item becomes an incident by this."""
    if run.incident_id == review.pk:
        return review  # it was counted when it failed before
    title = run.agent.title
    review.kind, review.count, review.risk = Review.Kind.INCIDENT, review.count + 1, 3
    review.item = review.agent_run = None
    review.ask = (
        f"{title} has failed on {review.count} items for the same reason ({Cause(run.cause).label}). "
        "Retry them all, or go on without it on all of them?"
    )
    review.save(update_fields=["kind", "count", "risk", "item", "agent_run", "ask"])
    alert.text = f"{title} has failed for good on {review.count} items: {Cause(run.cause).label}. {run.error}"[:1_000]
    alert.link = reverse("runs:incident", args=[review.pk])
    alert.save(update_fields=["text", "link"])
    return review


def _answered(answer: str, user: User | None, now: datetime, note: str) -> dict[str, object]:
    return {
        "status": Review.Status.ANSWERED,
        "answer": answer,
        "answer_note": note,
        "answered_by": user,
        "answered_at": now,
    }
