"""What a person does, one action one POST URL: retry a step, answer a review, say that a mail was sent."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from agents.models import Member
from runs import control, reviews
from runs.access import get_visible, require, signed_in
from runs.models import AgentRun, Output, Review
from runs.views.answers import answer

Role = Member.Role


@signed_in
@require_POST
def step_retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Have a failed agent run tried again."""
    run = get_visible(request, AgentRun.objects.select_related("agent", "pipeline_run"), pk=pk)
    user = require(request, run.department_id, Role.OPERATOR)
    changed = control.retry_agent_run(run=run, user=user, reason=request.POST.get("reason", ""))
    if changed:
        text = f"{run.agent.title} is queued again, with all its tries."
    else:
        text = f"{run.agent.title} was not retried: it has not failed, or somebody was first."
    run.refresh_from_db(fields=["pipeline_run"])
    url = f"{reverse('runs:detail', args=[run.pipeline_run_id])}?step={run.pk}"
    return answer(request, text, changed=changed, url=url)


@signed_in
@require_POST
def review_approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that the output a review asks about is right as it is."""
    review = get_visible(request, Review.objects.select_related("item", "item__department"), pk=pk)
    user = require(request, review.department_id, Role.REVIEWER)
    changed = reviews.approve(review=review, user=user, note=request.POST.get("note", ""))
    return _answered(request, review, changed, "Approved. Nothing is sent by itself: send it and mark it as sent.")


@signed_in
@require_POST
def review_reject(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that the output a review asks about must not be used, and why."""
    review = get_visible(request, Review.objects.select_related("item", "item__department"), pk=pk)
    user = require(request, review.department_id, Role.REVIEWER)
    reason = request.POST.get("reason", "").strip()
    if not reason:
        return _answered(request, review, False, "Say why: the reason stays with the draft.", asked=True)
    changed = reviews.reject(review=review, user=user, reason=reason)
    return _answered(request, review, changed, "Rejected. It stays on record, and nothing is written by itself.")


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


def _answered(request: HttpRequest, review: Review, changed: bool, text: str, *, asked: bool = False) -> HttpResponse:
    if not changed and not asked:
        review.refresh_from_db()
        who = f" by {review.answered_by}" if review.answered_by else ""
        why = f" {review.answer_note}" if review.status == Review.Status.WITHDRAWN else ""
        text = f"This question is {review.get_status_display()} already{who}.{why} Nothing was changed."
    url = review.item.get_absolute_url() if review.item else "/"
    return answer(request, text, changed=changed, url=url)
