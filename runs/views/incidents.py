"""Failures of one cause: the page of an incident, and the answers to it and to single failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import BigIntegerField
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from agents.models import Agent, Member
from agents.statements import Given, Statement
from runs import incidents
from runs.access import access_of, get_visible, may_see_system, require, signed_in
from runs.incident_export import KINDS, export_incident, export_run, file_name
from runs.models import AgentRun, BulkAction, PipelineRun, Review
from runs.runbook import section_of_cause, url_of
from runs.views.answers import answer
from runs.views.exports import send_file

Role = Member.Role
SHOWN_RUNS = 100
ERROR_LETTERS = 200
_GONE = "This question is {status} already{who}. Nothing was changed."


@dataclass(frozen=True, slots=True)
class Affected:
    """One agent run that an incident stands for, as a row of its page. ``missing``: what its pipeline run lacked."""

    pk: int
    item: str
    item_url: str
    missing: str
    agent: str
    run_url: str
    state: str
    error: str


@signed_in
@require_safe
def incident(request: HttpRequest, pk: int) -> HttpResponse:
    """What has failed for the same reason, on which items, and what can be done about all of them."""
    return render(request, "runs/incident.html", incident_context(request, pk))


@signed_in
@require_safe
def incident_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The changing part of the incident's page, which is all of it."""
    return render(request, "runs/_incident.html", incident_context(request, pk))


def incident_context(request: HttpRequest, pk: int) -> dict[str, Any]:
    """The question, the agent runs it stands for, and how far its answer has got."""
    rows = Review.objects.filter(kind__in=KINDS).select_related("department", "answered_by")
    review = get_visible(request, rows, pk=pk)
    access = access_of(request)
    return {
        "access": access,
        "review": review,
        "runs": _affected(review),
        "shown_runs": SHOWN_RUNS,
        "failed": AgentRun.objects.filter(incident=review, status=AgentRun.Status.FAILED).count(),
        "bulk": _bulk_of(review),
        "runbook_url": url_of(section_of_cause(review.cause)),
        "can_export": review.kind in KINDS and access.can(review.department_id, Role.OPERATOR),
        "can_retry": review.status == Review.Status.OPEN and access.can(review.department_id, Role.OPERATOR),
        "can_accept": review.status == Review.Status.OPEN and access.can(review.department_id, Role.REVIEWER),
    }


def _affected(review: Review) -> list[Affected]:
    """The first of them, in two queries. Of hundreds only what is shown is read: whole rows take ten times as long."""
    rows = _AFFECTED.rows(limit=SHOWN_RUNS, incident=review.pk)
    titles = {agent.pk: agent.title for agent in Agent.objects.filter(pk__in={row[1] for row in rows}).only("job")}
    page = review.department.spec.item_url_name
    return [
        Affected(
            pk=pk,
            item=title,
            item_url=reverse(page, args=[item_id]),
            missing=missing,
            agent=titles[agent_id],
            run_url=f"{reverse('runs:detail', args=[run_id])}?step={pk}",
            state=AgentRun.Status(status).label,
            error=error if len(error) <= ERROR_LETTERS else f"{error[: ERROR_LETTERS - 1]}…",
        )
        for pk, agent_id, status, error, item_id, title, run_id, missing in rows
        if agent_id in titles  # else the run was erased since
    ]


_AFFECTED = Statement(
    lambda: (
        AgentRun.objects.filter(incident_id=Given("incident", BigIntegerField()))
        .order_by("item_id", "pk")
        .values_list(
            *("pk", "agent_id", "status", Left("error", ERROR_LETTERS + 1)),
            *("item_id", "item__title", "pipeline_run_id", "pipeline_run__missing"),
        )
    )
)


@signed_in
@require_POST
def incident_retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Have every run of an incident tried again."""
    review = get_visible(request, _incidents(), pk=pk)
    user = require(request, review.department_id, Role.OPERATOR)
    bulk = incidents.retry_all(review=review, user=user, reason=request.POST.get("reason", ""))
    return _answered_all(request, review, bulk, "queued again")


@signed_in
@require_POST
def incident_accept(request: HttpRequest, pk: int) -> HttpResponse:
    """Go on without it on every item of an incident."""
    review = get_visible(request, _incidents(), pk=pk)
    user = require(request, review.department_id, Role.REVIEWER)
    bulk = incidents.accept_all(review=review, user=user, reason=request.POST.get("reason", "").strip())
    return _answered_all(request, review, bulk, "settled without it")


@signed_in
@require_POST
def incident_export(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Everything about it as a zip file, without secrets. By POST, because that somebody took it is written down."""
    rows = Review.objects.filter(kind__in=KINDS).select_related("department")
    review = get_visible(request, rows, pk=pk)
    user = require(request, review.department_id, Role.OPERATOR)
    pieces = export_incident(review=review, user=user, sees_system=may_see_system(request))
    return send_file(request, pieces, name=file_name(review), content_type="application/zip")


@signed_in
@require_POST
def run_export(request: HttpRequest, pk: int) -> HttpResponseBase:
    """The same of one pipeline run, whatever has become of it."""
    rows = PipelineRun.objects.select_related("item__department")
    run = get_visible(request, rows, path="item__department_id", pk=pk)
    user = require(request, run.item.department_id, Role.OPERATOR)
    pieces = export_run(run=run, user=user, sees_system=may_see_system(request))
    return send_file(request, pieces, name=file_name(run), content_type="application/zip")


@signed_in
@require_POST
def review_accept(request: HttpRequest, pk: int) -> HttpResponse:
    """Go on without what one agent could not do on one item."""
    reviews = Review.objects.filter(kind__in=incidents.ACCEPTABLE).select_related(
        "department", "item", "item__department", "agent_run__agent"
    )
    review = get_visible(request, reviews, pk=pk)
    user = require(request, review.department_id, Role.REVIEWER)
    changed = incidents.accept(review=review, user=user, reason=request.POST.get("reason", "").strip())
    text = "Noted: the work goes on without it." if changed else _gone(review)
    return answer(request, text, changed=changed, url=review.item.get_absolute_url() if review.item else "/")


def _incidents() -> Any:
    return Review.objects.filter(kind=Review.Kind.INCIDENT).select_related("department")


def _bulk_of(review: Review) -> BulkAction | None:
    rows = BulkAction.objects.filter(department_id=review.department_id, verb__in=incidents.VERBS.values())
    return rows.filter(selection__incident=review.pk).order_by("-pk").first()


def _answered_all(request: HttpRequest, review: Review, bulk: BulkAction | None, done: str) -> HttpResponse:
    url = reverse("runs:incident", args=[review.pk])
    if bulk is None:
        return answer(request, _gone(review), changed=False, url=url)
    rest = "" if bulk.status == BulkAction.Status.DONE else "; the rest follows in the background"
    return answer(request, f"{bulk.done} of {bulk.total} {done}{rest}.", changed=True, url=url)


def _gone(review: Review) -> str:
    review.refresh_from_db()
    who = f" by {review.answered_by}" if review.answered_by else ""
    return _GONE.format(status=review.get_status_display(), who=who)
