"""What a person does, one action one POST URL: switch an item, retry or cancel a step, say that a mail was sent."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from agents.models import Member
from runs import control, reviews
from runs.access import get_visible, require, signed_in
from runs.allowed import Allowed
from runs.models import AgentRun, Item, Output
from runs.views.answers import answer
from runs.views.forms import read_moment

Role = Member.Role


@signed_in
@require_POST
def item_pause(request: HttpRequest, pk: int) -> HttpResponse:
    """Have nothing further start on an item."""
    return _switch(request, pk, control.pause_item, "Paused. A step under way is finished; nothing further starts.")


@signed_in
@require_POST
def item_resume(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a paused item go on."""
    return _switch(request, pk, control.resume_item, "It goes on: the router looks at what is wanted now.")


@signed_in
@require_POST
def item_take_over(request: HttpRequest, pk: int) -> HttpResponse:
    """Do the work on an item by hand."""
    return _switch(request, pk, control.take_over_item, "It is yours: nothing starts until it is handed back.")


@signed_in
@require_POST
def item_hand_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Give an item back to the department."""
    return _switch(request, pk, control.hand_back_item, "Handed back. Agents see what was done meanwhile.")


@signed_in
@require_POST
def item_close(request: HttpRequest, pk: int) -> HttpResponse:
    """End the work on an item."""
    return _switch(request, pk, control.close_item, "Closed. Nothing waits on it any more.")


@signed_in
@require_POST
def item_reopen(request: HttpRequest, pk: int) -> HttpResponse:
    """Take the work on a closed item up again."""
    return _switch(request, pk, control.reopen_item, "Reopened: the router looks at what is wanted now.")


@signed_in
@require_POST
def item_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop every step of an item, and pause it."""
    return _switch(request, pk, control.cancel_item, "Cancelled. The item is paused, or it would start again.")


@signed_in
@require_POST
def step_retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Have a failed agent run tried again."""
    run = get_visible(request, _runs(), pk=pk)
    user = require(request, run.department_id, Role.OPERATOR)
    allowed = control.retry_agent_run(run=run, user=user, reason=_reason(request))
    text = f"{run.agent.title} is queued again, with all its tries." if allowed else allowed.reason
    return answer(request, text, changed=allowed.ok, url=step_url(run))


@signed_in
@require_POST
def step_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop an agent run that waits or is under way, and pause its item."""
    run = get_visible(request, _runs(), pk=pk)
    user = require(request, run.department_id, Role.OPERATOR)
    allowed = control.cancel_agent_run(run=run, user=user, reason=_reason(request))
    done = f"{run.agent.title} is cancelled. The item is paused, or it would start again."
    return answer(request, done if allowed else allowed.reason, changed=allowed.ok, url=step_url(run))


@signed_in
@require_POST
def output_sent(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that an approved output was sent by hand."""
    outputs = Output.objects.select_related("item", "item__department")
    output = get_visible(request, outputs, path="item__department_id", pk=pk)
    user = require(request, output.item.department_id, Role.OPERATOR)
    changed = reviews.mark_sent(output=output, user=user)
    if changed:
        text = "Noted as sent. Follow-ups count from now."
    else:
        text = "Not noted: it is not approved, or it was noted as sent before."
    return answer(request, text, changed=changed, url=output.item.get_absolute_url())


def step_url(run: AgentRun) -> str:
    """The page of the pipeline run at this step."""
    return f"{reverse('runs:detail', args=[run.pipeline_run_id])}?step={run.pk}"


def _runs() -> QuerySet[AgentRun]:
    return AgentRun.objects.select_related("agent", "item", "pipeline_run")


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()


def _switch(request: HttpRequest, pk: int, do: Callable[..., Allowed], done: str) -> HttpResponse:
    item = get_visible(request, Item.objects.select_related("department", "automation_by"), pk=pk)
    user = require(request, item.department_id, Role.OPERATOR)
    until, problem = read_moment(request.POST.get("until", ""), item.department)
    if problem:
        return answer(request, problem, changed=False, url=item.get_absolute_url())
    options = {"until": until} if until is not None and do in _UNTIL else {}
    allowed = do(item=item, user=user, reason=_reason(request), **options)
    return answer(request, done if allowed else allowed.reason, changed=allowed.ok, url=item.get_absolute_url())


_UNTIL = (control.pause_item, control.take_over_item, control.close_item)
