"""Erasing a person: a page that says what goes and what stays, and the deed, with a word typed by whoever does it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from agents.models import Member
from leads import erasing
from leads.models import Lead
from runs.access import access_of, get_visible, require, signed_in
from runs.erasure import can_erase
from runs.views.answers import answer

Role = Member.Role


@signed_in
@require_safe
def lead_erase(request: HttpRequest, pk: int) -> HttpResponse:
    """What erasing the person would do."""
    lead = _get_lead(request, pk)
    require(request, lead.department_id, Role.ADMINISTRATOR)
    return _page(request, lead)


@signed_in
@require_POST
def lead_erase_now(request: HttpRequest, pk: int) -> HttpResponse:
    """Erase the person, if ``word`` is what the page asked for; else the page again with what was typed."""
    lead = _get_lead(request, pk)
    user = require(request, lead.department_id, Role.ADMINISTRATOR)
    if request.POST.get("word", "").strip().casefold() != erasing.word_of(lead).casefold():
        return _page(request, lead, wrong=f"Nothing was erased: type “{erasing.word_of(lead)}”.")
    done = erasing.erase_lead(lead=lead, user=user, reason=request.POST.get("reason", "").strip())
    if not done:
        return _page(request, lead, wrong=f"Nothing was erased. {done.reason}")
    text = "The person is erased. Nobody writes to the address again."
    return answer(request, text, changed=True, url=reverse("leads:detail", args=[lead.pk]))


def _get_lead(request: HttpRequest, pk: int) -> Lead:
    return get_visible(request, Lead.objects.select_related("item__department", "department"), pk=pk)


def _page(request: HttpRequest, lead: Lead, *, wrong: str = "") -> HttpResponse:
    access = access_of(request)
    context = {
        "access": access,
        "lead": lead,
        "allowed": can_erase(lead.item, access),
        "foreseen": erasing.foresee(lead),
        "word": erasing.word_of(lead),
        "typed": request.POST.get("word", ""),
        "reason": request.POST.get("reason", ""),
        "wrong": wrong,
    }
    return render(request, "leads/erase.html", context, status=422 if wrong else 200)
