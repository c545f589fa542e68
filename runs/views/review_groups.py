"""Drafts that are alike: what differs between them, and approving them together, each by an answer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Member
from runs import questions, reviews
from runs.access import Access, access_of, get_visible, require, signed_in
from runs.allowed import Allowed, no
from runs.answerable import can_approve_together
from runs.models import DraftGroup, Output, Review
from runs.payloads import texts_of
from runs.send_situation import held_by
from runs.views.answers import CHANGED_EVENT, is_htmx
from runs.views.diffs import Piece, diff_texts
from runs.views.forms import read_number
from runs.views.review_buttons import resting
from runs.views.review_card import Claim, claims_of

AT_ONCE = 25
"""So many drafts are shown, and can be approved, together."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a draft in pieces: what is not in the first draft is new."""

    name: str
    pieces: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Draft:
    """One of the drafts, as it differs from the first. ``unsupported``: its claims without a source."""

    review: Review
    texts: Sequence[Text]
    unsupported: Sequence[Claim]
    address: str
    allowed: Allowed
    is_first: bool


@signed_in
@require_safe
def review_group(request: HttpRequest, pk: int) -> HttpResponse:
    """The open drafts of a group: the first in full, of the others what is different."""
    group = get_visible(request, DraftGroup.objects.select_related("agent", "department"), pk=pk)
    return render(request, "runs/review_group.html", _context(request, group))


@signed_in
@require_safe
def review_group_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The same without the page around it."""
    group = get_visible(request, DraftGroup.objects.select_related("agent", "department"), pk=pk)
    return render(request, "runs/_review_group.html", _context(request, group))


@signed_in
@require_POST
def review_group_approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve the drafts that are ticked, one by one: what may not be approved stays, and it is said why."""
    group = get_visible(request, DraftGroup.objects.select_related("agent", "department"), pk=pk)
    user = require(request, group.department_id, Member.Role.REVIEWER)
    chosen = [number for text in request.POST.getlist("review") if (number := read_number(text)) is not None]
    rows = Review.objects.filter(pk__in=chosen[:AT_ONCE], group=group).select_related("item")
    access, done, left, rest = access_of(request), 0, [], []
    for review in rows.order_by("pk"):
        allowed = can_approve_together(questions.read_review(review.pk), access)
        # What was read is approved: not a text that has come in its place, nor to another address.
        output_id, to = read_number(request.POST.get(f"output_{review.pk}", "")), request.POST.get(f"to_{review.pk}")
        if output_id is None or to is None:
            allowed = no("It is not said which text was read. Load the page again.")
        allowed = reviews.approve(review=review, user=user, to=to, output_id=output_id) if allowed else allowed
        done += bool(allowed)
        left += [] if allowed else [f"{review.item}: {allowed.reason}"]
        rest += [f"{review.item}"] if allowed and resting(review.item) else []
    held = held_by(group.department)
    then = f"They wait in the outbox: {held}" if held else "They leave the house after the undo time."
    text = f"{done} approved. {then}" if done else "Nothing was approved."
    text += f" Only once their automation goes on: {', '.join(rest)}." if rest else ""
    text += f" Not approved: {' '.join(left)}" if left else ""
    text = text if chosen else "Tick the drafts that you have read and that are right. Nothing was changed."
    messages.add_message(request, messages.SUCCESS if done and not left else messages.WARNING, text)
    if not is_htmx(request):
        return redirect(reverse("runs:review_group", args=[pk]))
    response = render(request, "_messages.html")
    response["HX-Trigger"] = CHANGED_EVENT
    return response


def _context(request: HttpRequest, group: DraftGroup) -> dict[str, object]:
    access = access_of(request)
    rows = Review.objects.filter(group=group, status=Review.Status.OPEN).exclude(snoozed_until__gt=timezone.now())
    related = (
        "item__department",
        "output__item__department",
        "output__trigger",
        "department",
        "answered_by",
        "by_rule",
    )
    found = list(rows.select_related(*related).order_by("pk")[: AT_ONCE + 1])
    return {
        "access": access,
        "group": group,
        "drafts": _drafts(found[:AT_ONCE], access),
        "is_more": len(found) > AT_ONCE,
        "at_once": AT_ONCE,
        "can_answer": access.can(group.department_id, Member.Role.REVIEWER),
    }


def _drafts(rows: Sequence[Review], access: Access) -> list[Draft]:
    sources = {pk for review in rows if review.output is not None for pk in review.output.made_from}
    behind = {output.pk: output for output in Output.objects.filter(pk__in=sources)}
    found: list[Draft] = []
    first: dict[str, str] = {}
    items = [review.item_id for review in rows if review.item_id is not None]
    fields = rows[0].department.spec.load_fields(items) if rows else {}
    for review in rows:
        output = review.output
        texts = texts_of(review.department.spec, output) if output is not None else {}
        first = first or texts
        shown = [Text(name, diff_texts(first.get(name, ""), text)) for name, text in texts.items()]
        made_from = [behind[pk] for pk in (output.made_from if output is not None else ()) if pk in behind]
        claims = [claim for claim in claims_of(output, made_from) if not claim.is_supported and not claim.is_removed]
        address = str(fields.get(review.item_id or 0, {}).get(review.department.spec.address_field) or "")
        allowed = can_approve_together(review, access, address=address)
        found.append(Draft(review, shown, claims, address, allowed, is_first=not found))
    return found
