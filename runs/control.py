"""What a person does to an item or a run. One function a verb, one Action row each.

Each returns ``Allowed``: true if it was done, else why not. Who asks too late is refused like anybody else, because
the rule is asked again under the item's lock. ``user`` None: Kontor did it by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, transaction

from agents.spec import kind
from runs import allowed, dispatch, log
from runs.allowed import YES, Allowed, no
from runs.calls import abandon_calls
from runs.closing import wind_up, wind_up_closed
from runs.commits import lock_items
from runs.database import now as database_now
from runs.failure_reviews import RETRY, answer_run
from runs.models import (
    Action,
    AgentRun,
    BulkAction,
    Item,
    Output,
    PipelineRun,
    Trigger,
)
from runs.outputs import cancel_run
from runs.staff import load_staff
from runs.triggers import record_resume

logger = logging.getLogger(__name__)
Automation = Item.Automation
BATCH = 100


@dataclass(frozen=True, slots=True)
class _Move:
    """One way to switch an item's automation: to what, when it may be, and how the log tells it."""

    to: str
    may: Callable[[Item], Allowed]
    told: str


_MOVES = {
    "pause": _Move(Automation.PAUSED, allowed.can_pause, "paused it"),
    "resume": _Move(Automation.ACTIVE, allowed.can_resume, "lets it go on"),
    "take_over": _Move(Automation.TAKEN_OVER, allowed.can_take_over, "took it over"),
    "hand_back": _Move(Automation.ACTIVE, allowed.can_hand_back, "handed it back"),
    "close": _Move(Automation.CLOSED, allowed.can_close, "closed it"),
    "reopen": _Move(Automation.ACTIVE, allowed.can_reopen, "reopened it"),
}


# --- Items ----------------------------------------------------------------------------------------------------


def pause_item(
    *, item: Item, user: User, reason: str = "", until: datetime | None = None, bulk: BulkAction | None = None
) -> Allowed:
    """Have nothing further start on the item, until a time or until somebody resumes it."""
    return _switch("pause", item, user, reason, until, bulk)


def resume_item(*, item: Item, user: User, reason: str = "", bulk: BulkAction | None = None) -> Allowed:
    """Let a paused item go on: the router looks at what is wanted now."""
    return _switch("resume", item, user, reason, None, bulk)


def take_over_item(
    *, item: Item, user: User, reason: str = "", until: datetime | None = None, bulk: BulkAction | None = None
) -> Allowed:
    """Do the work on the item by hand, until a time or until it is handed back."""
    return _switch("take_over", item, user, reason, until, bulk)


def hand_back_item(*, item: Item, user: User, reason: str = "", bulk: BulkAction | None = None) -> Allowed:
    """Give an item that was taken over back to the department."""
    return _switch("hand_back", item, user, reason, None, bulk)


def close_item(
    *, item: Item, user: User, reason: str = "", until: datetime | None = None, bulk: BulkAction | None = None
) -> Allowed:
    """End the work on the item: what waits is cancelled, what is asked and what was to be sent is withdrawn."""
    return _switch("close", item, user, reason, until, bulk)


def reopen_item(*, item: Item, user: User, reason: str = "", bulk: BulkAction | None = None) -> Allowed:
    """Take the work on a closed item up again; a final text that was never sent is asked about again."""
    return _switch("reopen", item, user, reason, None, bulk)


def resume_due() -> int:
    """Let items go on whose time has come; how many. Called every few seconds, by several workers at once."""
    waiting = Item.objects.exclude(automation=Automation.ACTIVE).filter(automation_until__lte=database_now())
    count = 0
    for pk in waiting.order_by("automation_until").values_list("pk", flat=True)[:BATCH]:
        try:
            count += _resume_alone(pk)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            # One that cannot go on, because its kind is not installed for example, must not stop a shift.
            logger.exception("item %s cannot go on by itself", pk, extra={"item": pk})
    return count


def _resume_alone(pk: int) -> bool:
    with transaction.atomic():
        now = database_now()
        item = lock_items({pk})[pk]
        if item.automation == Automation.ACTIVE or item.automation_until is None or item.automation_until > now:
            return False  # somebody was first, or has chosen another time
        text = f"It goes on by itself, as said when it was {item.get_automation_display()}."
        was_closed = item.automation == Automation.CLOSED
        _write_automation(item, Automation.ACTIVE, None, "", None)
        log.write([log.item_entry(item, "automation", text, at=now)])
        _go_on(item, None, text, was_closed=was_closed, now=now)
    return True


def _switch(verb: str, item: Item, user: User, reason: str, until: datetime | None, bulk: BulkAction | None) -> Allowed:
    move = _MOVES[verb]
    with transaction.atomic():
        now = database_now()
        item = lock_items({item.pk})[item.pk]
        if not (answer := move.may(item)):
            return answer
        if until is not None and until <= now:
            return no("The time at which it goes on by itself has to lie ahead.")
        before = {"automation": item.automation, "until": item.automation_until and item.automation_until.isoformat()}
        was_closed = item.automation == Automation.CLOSED
        _write_automation(item, move.to, user, reason, until)
        after = {"automation": item.automation, "until": until and until.isoformat()}
        act(item, user, verb, reason=reason, before=before, after=after, bulk=bulk)
        text = f"{user} {move.told}{f' until {until:%Y-%m-%d %H:%M} UTC' if until else ''}{_because(reason)}"
        log.write([log.item_entry(item, "automation", text, at=now)])
        if move.to == Automation.ACTIVE:
            _go_on(item, user, reason, was_closed=was_closed, now=now)
        elif move.to == Automation.CLOSED:
            log.write(wind_up(item, user, text, now))
    return YES


def _write_automation(item: Item, to: str, user: User | None, reason: str, until: datetime | None) -> None:
    item.automation, item.automation_until = to, until
    item.automation_by = user if to != Automation.ACTIVE else None
    item.automation_reason = reason[:300] if to != Automation.ACTIVE else ""
    item.save(update_fields=["automation", "automation_by", "automation_reason", "automation_until", "changed_at"])


def _go_on(item: Item, user: User | None, reason: str, *, was_closed: bool, now: datetime) -> None:
    record_resume(item=item, payload={"reason": reason}, user=user)
    if not was_closed:
        return
    # Closing took back what was asked about the final text. Whether it may leave is asked again.
    final = item.outputs.filter(is_current=True, key=kind(item.department.kind).final_key)
    unsent = [o for o in final.filter(verdict=Output.Verdict.NONE).select_related("trigger") if not allowed.has_left(o)]
    staff = load_staff()
    settings = staff.desks[item.department_id].department.settings
    events = [(item, o, dispatch.output_event("written", o, o.trigger, settings)) for o in unsent]
    log.write(dispatch.route([item], staff, now=now, events=events))


# --- Agent runs -----------------------------------------------------------------------------------------------


def cancel_agent_run(*, run: AgentRun, user: User, reason: str = "", bulk: BulkAction | None = None) -> Allowed:
    """Stop one step: its worker loses the token and closes the stream. Its item is paused.

    Without the pause the rules would want the same step again at once. What it has cost so far is booked.
    """
    with transaction.atomic():
        now = database_now()
        item = lock_items({run.item_id})[run.item_id]
        held = AgentRun.objects.select_for_update(of=("self",)).select_related("agent").get(pk=run.pk)
        if answer := allowed.can_cancel(held):
            _cancel(item, [held], user, reason, now, bulk)
    return answer


def cancel_item(*, item: Item, user: User, reason: str = "", bulk: BulkAction | None = None) -> Allowed:
    """Stop every step that waits or is under way on an item, and pause it."""
    with transaction.atomic():
        now = database_now()
        item = lock_items({item.pk})[item.pk]
        if not (answer := allowed.can_cancel_steps(item)):
            return answer
        active = item.agent_runs.filter(status__in=AgentRun.ACTIVE).select_related("agent")
        runs = list(active.select_for_update(of=("self",)).order_by("pk"))
        _cancel(item, runs, user, reason, now, bulk)
    return YES


def _cancel(
    item: Item, runs: Sequence[AgentRun], user: User, reason: str, now: datetime, bulk: BulkAction | None
) -> None:
    why = f"Cancelled by {user}{_because(reason)}"
    for run in runs:
        before = {"status": run.status, "attempt": run.attempt}
        log.write([cancel_run(run, why, now)])
        act(item, user, "cancel", f"agent_run:{run.pk}", reason=reason, before=before, bulk=bulk)
    if item.automation == Automation.ACTIVE:
        names = ", ".join(dict.fromkeys(run.agent.title for run in runs))
        _write_automation(item, Automation.PAUSED, user, f"{names} cancelled. {reason}".strip(), None)
        log.write([log.item_entry(item, "automation", f"{why} The item is paused, or it would start again.", at=now)])
    log.write(wind_up_closed([item], now))
    # All at once and last: budgets come after runs, and in id order, whichever run reserved in which.
    abandon_calls([run.pk for run in runs], now=now, error=why)


def retry_agent_run(*, run: AgentRun, user: User | None, reason: str = "", bulk: BulkAction | None = None) -> Allowed:
    """Have what a failed agent run was to do tried again, by a new run.

    The trigger it worked for is open again, because what was wanted for it is wanted again.
    """
    with transaction.atomic():
        now = database_now()
        item = lock_items({run.item_id})[run.item_id]
        run = AgentRun.objects.select_for_update(of=("self",)).select_related("agent").get(pk=run.pk)
        run.item = item
        if not (answer := allowed.can_retry(run)):
            return answer
        reopen_trigger(run.trigger_id)
        answer_run(run, answer=RETRY, user=user, now=now)
        before = {"status": run.status, "cause": run.cause, "failures": run.failures}
        # What failed stays as it was, in the pipeline run in which it failed: a retry is a run of its own.
        run.status = AgentRun.Status.SUPERSEDED
        run.save(update_fields=["status"])
        why = f"{user or 'Somebody'} wants it tried again."
        again = queue_again(run, item, why, now, cause="retry", incident_id=run.incident_id)
        if not AgentRun.objects.filter(item=item, status=AgentRun.Status.FAILED).exists():
            item.flag = ""
        item.route_due_at = now
        item.save(update_fields=["flag", "route_due_at", "changed_at"])
        after = {"agent_run": again.pk, "status": again.status}
        act(item, user, "retry", f"agent_run:{run.pk}", reason=reason, before=before, after=after, bulk=bulk)
        text = f"{run.agent.title} is tried again, asked by {user or 'nobody'}."
        log.write([log.run_entry(again, "retry", text, at=now)])
    return YES


def retry_item(*, item: Item, user: User, reason: str = "", bulk: BulkAction | None = None) -> Allowed:
    """Have everything that has failed on an item tried again."""
    failed = item.agent_runs.filter(status=AgentRun.Status.FAILED).order_by("pk")
    done = [retry_agent_run(run=run, user=user, reason=reason, bulk=bulk) for run in failed]
    return next((answer for answer in done if answer), done[0] if done else no("Nothing has failed."))


# --- Shared with reruns ---------------------------------------------------------------------------------------


def queue_again(run: AgentRun, item: Item, why: str, now: datetime, *, cause: str, **fields: Any) -> AgentRun:
    """A new run of the same agent for the same occasion, with the same pins unless told otherwise."""
    pins = {"pinned_soul_id": run.pinned_soul_id, "pinned_model": run.pinned_model}
    # The pipeline run that is under way, or a new one: a run that ended stays ended.
    pipeline, _ = PipelineRun.objects.get_or_create(
        item=item, status=PipelineRun.Status.ACTIVE, defaults={"cause": cause, "started_at": now}
    )
    return AgentRun.objects.create(
        department_id=run.department_id,
        item=item,
        agent_id=run.agent_id,
        trigger_id=run.trigger_id,
        pipeline_run=pipeline,
        why=why[:300],
        priority=Item.Priority.PERSON,
        due_at=now,
        queued_at=now,
        **{**pins, **fields},
    )


def reopen_trigger(trigger_id: int | None) -> None:
    """What was handled wants an answer again."""
    if trigger_id is not None:
        Trigger.objects.filter(pk=trigger_id, status=Trigger.Status.HANDLED).update(
            status=Trigger.Status.OPEN, settled_at=None, settled_note=""
        )


def act(
    item: Item,
    user: User | None,
    verb: str,
    target: str = "",
    *,
    reason: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    bulk: BulkAction | None = None,
) -> None:
    """The Action row of one thing done to one item."""
    Action.objects.create(
        department_id=item.department_id,
        item=item,
        bulk=bulk,
        user=user,
        verb=verb,
        target=target,
        reason=reason[:300],
        before=before or {},
        after=after or {},
    )


def _because(reason: str) -> str:
    return f": {reason.rstrip('.')}." if reason else "."
