"""The pages of one lead, and running the pipeline on the leads that the list shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import BigIntegerField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from agents.models import Member
from agents.statements import Among, Given, Statement
from leads import editing
from leads.cleaning import LIMITS
from leads.filters import Filters, describe_filters, filter_leads, find_owners, read_filters
from leads.models import Lead
from runs.access import access_of, require, signed_in
from runs.allowed import can_record_reply
from runs.facts import SUPPRESSED_TAG
from runs.models import Item
from runs.triggers import record_reply, request_run
from runs.views.answers import answer, show
from runs.views.cards import build_fields
from runs.views.estimates import estimate_run
from runs.views.forms import read_number
from runs.views.items import item_context
from runs.wording import in_words

Role = Member.Role
FACTS = ("email", "company", "title", "phone", "website", "country", "source", "external_id")
MAX_RUN = 20_000
"""The most leads one press of "Run pipeline" marks due; a larger number is done from the command line."""


@signed_in
@require_safe
def lead_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One lead: its head, its pipeline, and one of the tabs; to htmx the part that changes, which is all of it."""
    return show(request, "leads/detail.html", "leads/_lead.html", _lead_context(request, pk))


@signed_in
@require_safe
def lead_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The changing part of the lead page."""
    return render(request, "leads/_lead.html", _lead_context(request, pk))


@signed_in
@require_safe
def lead_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The form for the lead's fields."""
    lead = _get_lead(request, pk)
    require(request, lead.department_id, Role.OPERATOR)
    return _edit_form(request, lead, {name: getattr(lead, name) for name in editing.FIELDS}, {})


@signed_in
@require_POST
def lead_save(request: HttpRequest, pk: int) -> HttpResponse:
    """Write the lead's fields; a form that does not fit comes back with what is wrong beside each."""
    lead = _get_lead(request, pk)
    user = require(request, lead.department_id, Role.OPERATOR)
    values, wrong = editing.read_fields(request.POST)
    if wrong:
        return _edit_form(request, lead, values, wrong)
    reason = request.POST.get("reason", "").strip()
    seen = request.POST.get("seen", "")
    done = editing.edit_lead(lead=lead, user=user, values=values, seen=seen, reason=reason)
    if done.theirs:
        return _edit_form(request, lead, editing.keep_typed(values, done.theirs, seen), {}, done)
    if done.refused:
        return _edit_form(request, lead, values, {done.refused: done.answer.reason})
    if not done.answer:
        url = reverse("leads:edit", args=[lead.pk])
        return answer(request, done.answer.reason, changed=False, url=url)
    text = f"Changed: {', '.join(done.fields)}."
    if done.made_from:
        keys = ", ".join(in_words(key) for key in done.made_from)
        text += f" Made from what it said before: {keys}. Nothing runs by itself; rerun what should be made anew."
    return answer(request, text, changed=True, url=reverse("leads:detail", args=[lead.pk]))


@signed_in
@require_POST
def lead_owner(request: HttpRequest, pk: int) -> HttpResponse:
    """Give the lead to a member of the department: ``owner`` is a person's number, ``me`` or empty."""
    lead = _get_lead(request, pk)
    user = require(request, lead.department_id, Role.OPERATOR)
    url, chosen = reverse("leads:detail", args=[lead.pk]), request.POST.get("owner", "")
    owner = user if chosen == "me" else User.objects.filter(pk=read_number(chosen) or 0).first()
    if chosen and owner is None:
        return answer(request, "There is no such person.", changed=False, url=url)
    done = editing.assign_owner(lead=lead, user=user, owner=owner)
    said = f"It is {owner}'s now." if owner else "It is nobody's now."
    return answer(request, said if done else done.reason, changed=done.ok, url=url)


@signed_in
@require_safe
def run_preview(request: HttpRequest) -> HttpResponse:
    """What "Run pipeline" would do to the chosen leads, and what it can cost at most."""
    access, filters = access_of(request), read_filters(request.GET).fixed(request.user.pk)
    operated = _operated(request, filters)
    if filters.params:
        items = Item.objects.filter(pk__in=filter_leads(access, filters, departments=operated).values("pk"))
    else:
        # All that a department of this kind works on are leads: no need to look each of them up.
        sales = [each.pk for each in access.departments if each.pk in operated and each.kind == "sales"]
        items = Item.objects.filter(department__in=sales)
    context = {
        "access": access,
        "filters": filters,
        "chosen": describe_filters(filters, access),
        "estimate": estimate_run(items),
        "max_run": MAX_RUN,
    }
    return render(request, "leads/run.html", context)


@signed_in
@require_POST
def run(request: HttpRequest) -> HttpResponse:
    """Mark the chosen leads due. The filters come as in the preview; without any, all leads are meant."""
    filters = read_filters(request.POST).fixed(request.user.pk)
    departments = _operated(request, filters)
    if filters.problems:
        return answer(request, " ".join(filters.problems), changed=False, url=reverse("leads:list"))
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
    if not (may := can_record_reply(lead.item)):
        return answer(request, may.reason, changed=False, url=url)
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
    """The departments in which the person may run the pipeline; 404 if there is none. One lead is found in any.

    A form names the department that its page showed, or ``all``: another one may have been chosen elsewhere since.
    """
    access = access_of(request)
    everywhere = [department.pk for department in access.departments]
    slug = request.POST.get("department")
    if filters.item or slug == "all":
        ids = everywhere
    elif slug is None:
        ids = access.ids
    else:
        ids = [department.pk for department in access.departments if department.slug == slug]
    found = [pk for pk in ids if access.can(pk, Role.OPERATOR)]
    if not found:
        raise Http404("Running the pipeline takes the role of an operator.")
    return found


def _get_lead(request: HttpRequest, pk: int) -> Lead:
    """A lead of a department that the person may see, else 404."""
    access = access_of(request)
    leads = _LEADS.objects(lead=pk, departments=[department.pk for department in access.departments])
    if not leads:
        raise Http404("There is no such lead.")
    access.give_departments([leads[0], leads[0].item])
    return leads[0]


_LEADS = Statement(
    lambda: Lead.objects.filter(
        Among("department_id", "departments"), pk=Given("lead", BigIntegerField())
    ).select_related("item__automation_by", "owner")
)


def _edit_form(
    request: HttpRequest,
    lead: Lead,
    values: Mapping[str, str],
    wrong: Mapping[str, str],
    conflict: editing.Edited | None = None,
) -> HttpResponse:
    """``conflict``: somebody else was faster; what they wrote stands beside what was typed."""
    theirs = conflict.theirs if conflict else {}
    readers = editing.readers_of_fields(lead.department)
    fields = [
        {
            "name": name,
            "value": values[name],
            "limit": LIMITS[name],
            "is_long": name == "message",
            "readers": readers[name],
            "wrong": wrong.get(name, ""),
            "has_theirs": name in theirs,
            "theirs": theirs.get(name, ""),
            "is_both": name in theirs and theirs[name] != values[name],
        }
        for name in editing.FIELDS
    ]
    context = {
        "access": access_of(request),
        "lead": lead,
        "fields": fields,
        "wrong": wrong,
        "conflict": conflict.answer.reason if conflict else "",
        "reason": request.POST.get("reason", ""),
        # A form that comes back keeps what it was made from: somebody may have changed the lead meanwhile. One that
        # shows what they wrote is made from that.
        "seen": (conflict.seen if conflict else request.POST.get("seen")) or editing.state_of_fields(lead),
    }
    return render(request, "leads/edit.html", context)


def _lead_context(request: HttpRequest, pk: int) -> dict[str, Any]:
    lead = _get_lead(request, pk)
    access = access_of(request)
    return {
        "lead": lead,
        "person_fields": build_fields({name: getattr(lead, name) for name in FACTS}),
        "attributes": build_fields(lead.attributes if isinstance(lead.attributes, dict) else {}),
        "can_simulate": can_simulate(),
        "can_reply": can_record_reply(lead.item, access).ok,
        "can_edit": editing.can_edit_lead(lead, access),
        "can_erase": access.can(lead.department_id, Role.ADMINISTRATOR) and not lead.item.is_erased,
        "candidates": find_owners([lead.department_id]),
        "own_tags": [tag for tag in lead.item.tags if tag != SUPPRESSED_TAG],
        "delivery_id": uuid4().hex,
        "dom_id": f"lead-{lead.pk}",
        "opening": lead.message,
        **item_context(request, lead.item),
    }
