"""What a person does to a run. One function a verb, one Action row each."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction

from runs import log
from runs.database import now as database_now
from runs.failure_reviews import RETRY, answer_run
from runs.models import Action, AgentRun, BulkAction, Item, PipelineRun, Trigger


def retry_agent_run(*, run: AgentRun, user: User | None, reason: str = "", bulk: BulkAction | None = None) -> bool:
    """Have what a failed agent run was to do tried again, by a new run. False if it has not failed, or not any more.

    The trigger it worked for is open again, because what was wanted for it is wanted again.
    """
    with transaction.atomic():
        now = database_now()
        item = Item.objects.select_for_update().get(pk=run.item_id)
        run = AgentRun.objects.select_for_update(of=("self",)).select_related("agent").get(pk=run.pk)
        if run.status != AgentRun.Status.FAILED:
            return False
        if run.trigger_id is not None:
            Trigger.objects.filter(pk=run.trigger_id, status=Trigger.Status.HANDLED).update(
                status=Trigger.Status.OPEN, settled_at=None, settled_note=""
            )
        answer_run(run, answer=RETRY, user=user, now=now)
        before = {"status": run.status, "cause": run.cause, "failures": run.failures}
        # What failed stays as it was, in the pipeline run in which it failed: a retry is a run of its own.
        run.status = AgentRun.Status.SUPERSEDED
        run.save(update_fields=["status"])
        again = AgentRun.objects.create(
            department_id=run.department_id,
            item=item,
            agent_id=run.agent_id,
            trigger_id=run.trigger_id,
            pipeline_run=_active_pipeline(item, now),
            why=f"{user or 'Somebody'} wants it tried again."[:300],
            priority=Item.Priority.PERSON,
            incident_id=run.incident_id,
            due_at=now,
            queued_at=now,
        )
        if not AgentRun.objects.filter(item=item, status=AgentRun.Status.FAILED).exists():
            item.flag = ""
        item.route_due_at = now
        item.save(update_fields=["flag", "route_due_at", "changed_at"])
        Action.objects.create(
            department_id=item.department_id,
            item=item,
            bulk=bulk,
            user=user,
            verb="retry",
            target=f"agent_run:{run.pk}",
            before=before,
            after={"agent_run": again.pk, "status": again.status},
            reason=reason[:300],
        )
        log.write(
            [log.run_entry(again, "retry", f"{run.agent.title} is tried again, asked by {user or 'nobody'}.", at=now)]
        )
    return True


def _active_pipeline(item: Item, now: datetime) -> PipelineRun:
    """The pipeline run that is under way on the locked item, or a new one: a run that ended stays ended."""
    run, _ = PipelineRun.objects.get_or_create(
        item=item, status=PipelineRun.Status.ACTIVE, defaults={"cause": "retry", "started_at": now}
    )
    return run
