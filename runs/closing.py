"""Nothing waits on a closed item: when it is closed, and when a step that was in flight then has ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.contrib.auth.models import User

from runs.failure_reviews import ACCEPT, SINGLE_KINDS, close_review
from runs.models import AgentRun, Item, LogEntry, OutboxMessage, Output, PipelineRun, Review
from runs.outputs import cancel_run, keep_silent

CLOSED = "The item is closed."


def wind_up(item: Item, user: User | None, why: str, now: datetime) -> list[LogEntry]:
    """Waiting runs, open questions and unsent messages of a closed, locked item come to an end.

    A step in flight finishes, and its pipeline run ends after it. Returns log lines, not yet written.
    """
    waiting = item.agent_runs.filter(status=AgentRun.Status.QUEUED).select_related("agent")
    entries = [cancel_run(run, why, now) for run in waiting.select_for_update(of=("self",)).order_by("pk")]
    unsent = OutboxMessage.objects.filter(item=item, status=OutboxMessage.Status.PENDING)
    taken_back = Output.objects.filter(outbox__in=unsent)
    keep_silent(list(taken_back.values_list("pk", flat=True)), why, now)
    taken_back.update(verdict=Output.Verdict.NONE)
    unsent.update(status=OutboxMessage.Status.WITHDRAWN, reason=why[:300], waiting_for="")
    asked = Review.objects.filter(item=item, status=Review.Status.OPEN)
    for review in asked.filter(kind__in=SINGLE_KINDS).order_by("cause"):
        close_review(review, answer=ACCEPT, user=user, now=now, note=why)
    asked.exclude(kind=Review.Kind.UNSURE_SEND).update(status=Review.Status.WITHDRAWN, answer_note=why, answered_at=now)
    if not item.agent_runs.filter(status=AgentRun.Status.RUNNING).exists():
        item.pipeline_runs.filter(status=PipelineRun.Status.ACTIVE).update(
            status=PipelineRun.Status.CANCELLED, ended_at=now
        )
    item.flag = ""
    item.save(update_fields=["flag"])
    return entries


def wind_up_closed(items: Iterable[Item], now: datetime) -> list[LogEntry]:
    """Of these locked items wind up the closed ones: a step that was in flight has just come to an end.

    Returns log lines, not yet written.
    """
    closed = [item for item in items if item.automation == Item.Automation.CLOSED]
    return [entry for item in closed for entry in wind_up(item, None, CLOSED, now)]
