"""From one question to the next: the card that page, panel and answer share, and what an answer is followed by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import Resolver404, resolve, reverse

from agents.models import Member
from runs import questions, review_queue
from runs.access import access_of, get_visible, require
from runs.allowed import Allowed, no, why_at_rest
from runs.answerable import can_undo
from runs.database import now as database_now
from runs.models import Item, Review
from runs.payloads import Unfit
from runs.review_queue import Filters
from runs.views.answers import answer as answer_page
from runs.views.answers import is_htmx
from runs.views.review_buttons import LOOP, after_work, waits_in_outbox
from runs.views.review_card import card_context

Role = Member.Role
Decide = Callable[[Review, User], Allowed]


def judge(
    request: HttpRequest,
    pk: int,
    text: str,
    decide: Decide,
    *,
    role: str = Role.REVIEWER,
    stays: bool = False,
    is_answer: bool = True,
) -> HttpResponse:
    """One answer: who may, the service, and then the next question; ``stays``: the same one again.

    ``is_answer`` False: there is nothing to take back, as the question is still open.
    """
    rows = Review.objects.select_related("item__department", "department", "output__trigger", "output__item", "outbox")
    review = get_visible(request, rows, pk=pk)
    user = require(request, review.department_id, role)
    try:
        done = decide(review, user)
    except Unfit as error:
        done = no(str(error))
    said = f"{text} {leaving(questions.read_review(pk))}".rstrip() if done else f"{done.reason} Nothing was changed."
    stays = stays or not done
    return _go_on(
        request, review, said, bool(done), stays=stays, answered=review.pk if is_answer and not stays else None
    )


def leaving(review: Review) -> str:
    """What becomes of it after the answer, in sentences; empty where the answer alone says it."""
    work = after_work(review, review.answer)
    if work and review.item is not None and review.item.automation != Item.Automation.ACTIVE:
        return why_at_rest(review.item)
    if work == LOOP:
        return LOOP
    if review.kind != Review.Kind.DRAFT or review.answer not in Review.APPROVALS:
        return ""
    return waits_in_outbox(review) or "It leaves the house after the undo time."


def _go_on(
    request: HttpRequest, review: Review, text: str, is_done: bool, *, stays: bool, answered: int | None
) -> HttpResponse:
    filters = review_queue.read_filters(QueryDict(request.POST.get("queue", "")))
    if not is_done and not is_htmx(request) and (typed := _typed(request)):
        messages.warning(request, text)
        context = card_of(request, questions.read_review(review.pk), filters, given=request.POST.dict())
        return render(request, "runs/review.html", {**context, "typed": typed}, status=409)
    if "queue" not in request.POST:
        url = review.item.get_absolute_url() if review.item else reverse("runs:reviews")
        return answer_page(request, text, changed=is_done, url=url)
    if answered is None:  # or the next card begins with what was answered, and the way back
        messages.add_message(request, messages.SUCCESS if is_done else messages.WARNING, text)
    target = review.pk if stays else _ahead(request) or _next(request, review, filters)
    url = address_of(target, filters, answered)
    if not is_htmx(request):
        return redirect(url)
    # What was typed and refused is typed again by static/js/reviews.js, so that no refresh takes it for the server's;
    # where there is no form any more, it is shown.
    context = card_of(request, questions.find_review(target) if target else None, filters, answered=answered)
    if not is_done and target == review.pk and context["review"].status != Review.Status.OPEN:
        context["typed"] = _typed(request)
    response = render(request, "runs/_review_next.html", context)
    # Where the next card stands there already (static/js/reviews.js), its address does too.
    response["HX-Replace-Url" if request.headers.get("Kontor-Ahead") else "HX-Push-Url"] = url
    response["Kontor-Done"] = "1" if is_done else "0"
    return response


def find_asked(request: HttpRequest, pk: int) -> Review:
    """A question of a department that the person may see, with what its card needs; else 404."""
    review = questions.find_review(pk)
    if review is None or review.department_id not in {department.pk for department in access_of(request).departments}:
        raise Http404("There is no such question.")
    return review


def card_of(
    request: HttpRequest,
    review: Review | None,
    filters: Filters,
    *,
    answered: int | None = None,
    given: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The card's context; without a question the end of the queue.

    ``next`` and ``previous`` are the neighbours, ``ahead`` is what an answer is followed by.
    """
    shown: dict[str, Any] = {"filters": filters, "queue": query_of(filters), "answered": None, "review": None}
    if answered is not None:
        shown["answered"] = questions.read_review(answered)
        shown["answered_leaving"] = leaving(shown["answered"])
        shown["answered_undo"] = can_undo(shown["answered"], access_of(request), now=database_now())
    if review is None:
        return {"access": access_of(request), **shown}
    user = user_of(request)
    context = {**shown, **card_context(request, review, user, given=given)}
    asked = (access_of(request).ids, filters, user)
    following, before = review_queue.find_neighbours(*asked, review_queue.place_of(review))
    ahead = following
    if following is None and before is not None:
        ahead = _first_but(request, review, filters)
    for name, found in (("next", following), ("previous", before), ("ahead", ahead)):
        context[name] = address_of(found, filters) if found is not None else ""
    return context


def _typed(request: HttpRequest) -> list[str]:
    """The texts of a form that came without scripts: a redirect would lose them."""
    names = [name for name in request.POST if name in ("note", "reason") or name.startswith("text_")]
    return [text for name in names if (text := request.POST[name].strip())]


def _ahead(request: HttpRequest) -> int | None:
    """The question whose card stands there already; a key pressed meanwhile is meant for it, whatever came between."""
    try:
        pk = resolve(urlsplit(request.headers.get("Kontor-Ahead", "")).path).kwargs.get("pk")
    except (Resolver404, ValueError):
        return None
    ids = [department.pk for department in access_of(request).departments]
    return pk if pk is not None and Review.objects.filter(pk=pk, department__in=ids).exists() else None


def _next(request: HttpRequest, review: Review, filters: Filters) -> int | None:
    """The question behind the one that was answered, else the first of the queue; None if it is empty."""
    asked, place = (access_of(request).ids, filters, user_of(request)), review_queue.place_of(review)
    behind = review_queue.find_open(*asked, limit=1, behind=place)
    return behind[0] if behind else _first_but(request, review, filters)


def _first_but(request: HttpRequest, review: Review, filters: Filters) -> int | None:
    found = review_queue.find_open(access_of(request).ids, filters, user_of(request), limit=2)
    return next((pk for pk in found if pk != review.pk), None)


def address_of(pk: int | None, filters: Filters, answered: int | None = None) -> str:
    """The page of a question, or the list, with the filters kept. ``answered``: what can be taken back there."""
    query = QueryDict(mutable=True)
    query.update(filters.values)
    if answered is not None:
        query["answered"] = str(answered)
    path = reverse("runs:review", args=[pk]) if pk is not None else reverse("runs:reviews")
    return f"{path}?{query.urlencode()}" if query else path


def answered_of(request: HttpRequest) -> int | None:
    """The question that was answered just before, for its undo bar; only one that the person may see."""
    text = request.GET.get("answered", "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        return None
    ids = [department.pk for department in access_of(request).departments]
    found = Review.objects.filter(pk=int(text), department__in=ids, status=Review.Status.ANSWERED)
    return int(text) if found.exists() else None


def query_of(filters: Filters) -> str:
    """The filters as a query string without the question mark."""
    query = QueryDict(mutable=True)
    query.update(filters.values)
    return query.urlencode()


def user_of(request: HttpRequest) -> User:
    """Who asks; only somebody who is signed in comes so far."""
    assert isinstance(request.user, User)
    return request.user
