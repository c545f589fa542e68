"""Doing a step anew: the page that says what it means, and the doing."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Member, Soul
from runs import reruns
from runs.access import access_of, get_visible, require, signed_in
from runs.allowed import can_rerun
from runs.models import AgentRun, Trigger
from runs.views.answers import answer
from runs.views.controls import step_url

Role = Member.Role


@signed_in
@require_safe
def step_rerun(request: HttpRequest, pk: int) -> HttpResponse:
    """What would be made again, what stays, what was sent; and the SOUL and model to choose."""
    run = get_visible(request, AgentRun.objects.select_related("agent", "item", "trigger"), pk=pk)
    access_of(request).give_departments([run, run.item, run.agent])
    require(request, run.department_id, Role.OPERATOR)
    found = reruns.preview(run, now=timezone.now())
    kinds = {trigger.pk: trigger for trigger in Trigger.objects.filter(pk__in=[t for _, t in found.new if t])}
    context = {
        "access": access_of(request),
        "run": run,
        "allowed": can_rerun(run, access_of(request)),
        "preview": found,
        "new": [(key, kinds.get(trigger_id) if trigger_id else None) for key, trigger_id in found.new],
        "souls": reruns.souls_for(run.agent),
        "models": reruns.models_for(run.agent),
        "back": step_url(run),
    }
    return render(request, "runs/rerun.html", context)


@signed_in
@require_POST
def step_rerun_start(request: HttpRequest, pk: int) -> HttpResponse:
    """Do it, with the SOUL and the model that were chosen, if it still means what the person was shown."""
    run = get_visible(request, _runs(), pk=pk)
    user = require(request, run.department_id, Role.OPERATOR)
    number, model = request.POST.get("soul", ""), request.POST.get("model", "")
    soul = Soul.objects.filter(agent=run.agent_id, number=int(number)).first() if _is_number(number) else None
    if number and soul is None:
        return answer(request, "There is no such SOUL.", changed=False, url=step_url(run))
    reason = request.POST.get("reason", "").strip()
    seen = request.POST.get("seen", "")
    allowed, again = reruns.rerun(run=run, user=user, soul=soul, model=model, reason=reason, seen=seen)
    if again is None:
        look = reverse("runs:step_rerun", args=[run.pk]) if allowed.reason == reruns.CHANGED else step_url(run)
        return answer(request, allowed.reason, changed=False, url=look)
    text = f"{run.agent.title} is done again; what was made from it follows."
    return answer(request, text, changed=True, url=step_url(again))


def _runs() -> QuerySet[AgentRun]:
    return AgentRun.objects.select_related("agent", "item__department", "pipeline_run", "trigger", "soul")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 9
