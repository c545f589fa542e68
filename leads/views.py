"""The pages of leads: the list, one lead, why the router decides as it does, and running the pipeline."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from agents.models import Member
from leads.listing import TIERS, Filters, count_by_status, describe_filters, filter_leads, read_filters, read_rows
from leads.models import Lead
from runs.access import access_of, get_visible, require, signed_in
from runs.models import Item
from runs.triggers import record_reply, request_run
from runs.views.answers import answer, show
from runs.views.cards import build_fields
from runs.views.estimates import estimate_run
from runs.views.items import item_context, why_context
from runs.views.paging import read_page

Role = Member.Role
FACTS = ("email", "company", "title", "phone", "website", "country", "source", "external_id")
MAX_RUN = 20_000
"""The most leads one press of "Run pipeline" marks due; a larger number is done from the command line."""


@signed_in
@require_safe
def lead_list(request: HttpRequest) -> HttpResponse:
    """Leads, newest first; status, tier and text filter by the query string, which is the page's address."""
    access, filters = access_of(request), read_filters(request.GET)
    page = read_page(request, filter_leads(access, filters).select_related("item", "item__department"))
    context = {
        "access": access,
        "filters": filters,
        "tiers": TIERS,
        "page": page,
        "rows": read_rows(page.rows),
        "counts": count_by_status(access, filters),
        "can_operate": any(access.can(pk, Role.OPERATOR) for pk in access.ids),
    }
    return show(request, "leads/list.html", "leads/_list.html", context)


@signed_in
@require_safe
def lead_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One lead: facts, outputs, pipeline, conversation, what happened, what it cost."""
    return render(request, "leads/detail.html", _lead_context(request, pk))


@signed_in
@require_safe
def lead_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The changing part of the lead page, which is all of it."""
    return render(request, "leads/_lead.html", _lead_context(request, pk))


@signed_in
@require_safe
def lead_why(request: HttpRequest, pk: int) -> HttpResponse:
    """What the router would decide now, rule by rule; to htmx the part that the lead page opens in place."""
    lead = _get_lead(request, pk)
    return show(request, "leads/why.html", "leads/_why.html", {"lead": lead, **why_context(request, lead.item)})


@signed_in
@require_safe
def run_preview(request: HttpRequest) -> HttpResponse:
    """What "Run pipeline" would do to the chosen leads, and what it can cost at most."""
    access, filters = access_of(request), read_filters(request.GET)
    leads = filter_leads(access, filters, departments=_operated(request, filters))
    context = {
        "access": access,
        "filters": filters,
        "chosen": describe_filters(filters, access),
        "estimate": estimate_run(Item.objects.filter(pk__in=leads.values("pk"))),
        "max_run": MAX_RUN,
    }
    return render(request, "leads/run.html", context)


@signed_in
@require_POST
def run(request: HttpRequest) -> HttpResponse:
    """Mark the chosen leads due. The filters come as in the preview; without any, all leads are meant."""
    filters = read_filters(request.POST)
    departments = _operated(request, filters)
    leads = filter_leads(access_of(request), filters, departments=departments)
    ids = list(leads.order_by("-pk").values_list("pk", flat=True)[: MAX_RUN + 1])
    url = reverse("leads:detail", args=[filters.item]) if filters.item else reverse("leads:list")
    if len(ids) > MAX_RUN:
        text = f"These are more than {MAX_RUN:,} leads. Narrow the filters, or use manage.py run_pipeline."
        return answer(request, text, changed=False, url=url)
    user = require(request, departments[0], Role.OPERATOR)
    count = request_run(items=ids, user=user, reason=request.POST.get("reason", "").strip())
    if not count:
        return answer(request, "No lead was marked due: none is open for the department.", changed=False, url=url)
    noun = "lead" if count == 1 else "leads"
    return answer(request, f"{count:,} {noun} marked due. Only what is missing is made.", changed=True, url=url)


@signed_in
@require_POST
def simulate_reply(request: HttpRequest, pk: int) -> HttpResponse:
    """Pretend that the lead has written. For demonstrations: it does not exist where answers are real."""
    if not can_simulate():
        raise Http404("Replies are simulated only where answers are.")
    lead = _get_lead(request, pk)
    require(request, lead.item.department_id, Role.OPERATOR)
    url = reverse("leads:detail", args=[lead.pk])
    body = request.POST.get("body", "").strip()
    if not body:
        return answer(request, "Write what the lead answers.", changed=False, url=url)
    record_reply(
        item=lead.item,
        body=body[:20_000],
        subject=request.POST.get("subject", "").strip()[:500],
        address=lead.email,
        source="simulated",
        # The form's own number: pressing the button twice is one reply.
        delivery_id=request.POST.get("delivery_id", "")[:100] or uuid4().hex,
    )
    return answer(request, "The reply is recorded. The Reply Handler reads it next.", changed=True, url=url)


def can_simulate() -> bool:
    """Whether replies may be simulated here."""
    return bool(settings.SIMULATED or settings.DEBUG)


def _operated(request: HttpRequest, filters: Filters) -> list[int]:
    """The departments in which the person may run the pipeline; 404 if there is none. One lead is found in any."""
    access = access_of(request)
    ids = [department.pk for department in access.departments] if filters.item else access.ids
    found = [pk for pk in ids if access.can(pk, Role.OPERATOR)]
    if not found:
        raise Http404("Running the pipeline takes the role of an operator.")
    return found


def _get_lead(request: HttpRequest, pk: int) -> Lead:
    return get_visible(request, Lead.objects.select_related("item", "item__department", "owner"), pk=pk)


def _lead_context(request: HttpRequest, pk: int) -> dict[str, Any]:
    lead = _get_lead(request, pk)
    return {
        "lead": lead,
        "facts": build_fields({name: getattr(lead, name) for name in FACTS}),
        "attributes": build_fields(lead.attributes if isinstance(lead.attributes, dict) else {}),
        "can_simulate": can_simulate(),
        "delivery_id": uuid4().hex,
        **item_context(request, lead.item),
    }
