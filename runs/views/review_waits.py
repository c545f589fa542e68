"""Snoozing a question, waking it, and comparing what is being typed with what an agent wrote."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from agents.models import Member
from runs import snoozing
from runs.access import get_visible, require, signed_in
from runs.allowed import Allowed, no
from runs.database import now as database_now
from runs.models import Review
from runs.payloads import texts_of
from runs.questions import read_review
from runs.views.diffs import diff_texts, unchecked_sentences
from runs.views.review_flow import judge

MOST_COMPARED = 20_000
"""So many characters are compared while somebody types."""


@signed_in
@require_POST
def review_snooze(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a question off the list: ``until`` is a choice; a local time in ``at`` counts before it.

    ``stays``: somebody has begun to write on the card, so it must not go.
    """
    review = get_visible(request, Review.objects.select_related("department"), pk=pk)
    now, zone = database_now(), ZoneInfo(review.department.time_zone)
    until = snoozing.read_until(request.POST.get("until", ""), request.POST.get("at", ""), now=now, zone=zone)
    text = ""
    if until is not None:
        cut = snoozing.cut_to_deadline(until, review.deadline, now)
        text = f"Snoozed until {snoozing.local_time(cut, review.department)}."
        if cut < until:
            text += " No longer, because then its deadline is near."
    stays = bool(request.POST.get("stays"))
    if stays:
        text += " What you have written is not saved: it stays on this page."

    def decide(fresh: Review, user: User) -> Allowed:
        if until is None:
            return no("Say until when.")
        return snoozing.snooze(review=fresh, user=user, until=until)

    return judge(request, pk, text, decide, stays=stays, is_answer=False)


@signed_in
@require_POST
def review_wake(request: HttpRequest, pk: int) -> HttpResponse:
    """Put a snoozed question back onto the list."""
    text = "It is back on the list."
    return judge(request, pk, text, lambda r, user: snoozing.wake(review=r, user=user), stays=True)


@signed_in
@require_POST
def review_compare(request: HttpRequest, pk: int) -> HttpResponse:
    """What an edit changes in one text, word by word, and which of its sentences no check has seen. Stores nothing."""
    review = get_visible(request, Review.objects.all(), pk=pk)
    require(request, review.department_id, Member.Role.REVIEWER)
    review = read_review(pk)
    texts = texts_of(review.department.spec, review.output) if review.output is not None else {}
    name = next((name for name in texts if f"text_{name}" in request.POST), "")
    was, now = texts.get(name, ""), request.POST.get(f"text_{name}", "").replace("\r\n", "\n")
    context = {"name": name, "is_same": was == now, "is_long": len(was) + len(now) > MOST_COMPARED}
    if not context["is_same"] and not context["is_long"]:
        context |= {"pieces": diff_texts(was, now), "unchecked": unchecked_sentences(was, now)}
    return render(request, "runs/_review_compare.html", context)
