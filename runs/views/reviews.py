"""The review queue: the list, the card of one question, and a POST URL for each answer."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe

from agents.models import Member
from agents.statements import Among, Statement
from runs import departures, edit_patterns, review_figures, review_queue, reviews, rewrites
from runs.absences import read_roster
from runs.access import access_of, get_visible, require, signed_in
from runs.allowed import YES, Allowed, no
from runs.answerable import can_judge
from runs.database import now as database_now
from runs.models import Output, Review
from runs.payloads import Unfit, classifications_of, read_corrections
from runs.review_queue import ASSIGNEES, RISKS
from runs.views.answers import answer as answer_page
from runs.views.answers import show
from runs.views.forms import read_number
from runs.views.review_flow import Decide, answered_of, card_of, find_asked, judge, query_of, user_of
from runs.views.review_rows import gather_rows

Role = Member.Role
ROWS = 50


@signed_in
@require_safe
def review_list(request: HttpRequest) -> HttpResponse:
    """Open questions, by risk then deadline; filters and the place in the list are in the address."""
    access, filters, now = access_of(request), review_queue.read_filters(request.GET), database_now()
    roster = read_roster(now)
    place = review_queue.read_place(request.GET.get("after", ""))
    asked = (access.ids, filters, user_of(request))
    # Only the narrow rows are sorted: with thousands of open questions the wide ones take many times as long.
    found = review_queue.find_open(*asked, limit=ROWS + 1, behind=place, roster=roster)
    page = sorted(_SHOWN.objects(reviews=found), key=lambda review: found.index(review.pk))
    access.give_departments(page)
    access.give_departments(review.item for review in page if review.item is not None)
    context = {
        "access": access,
        "filters": filters,
        "rows": gather_rows(page[:ROWS], roster, is_gathered=not filters.group),
        "later": _later(request, page),
        "is_later": place is not None,
        "kinds": Review.Kind.choices,
        "risks": RISKS.items(),
        "assignees": ASSIGNEES.items(),
        "figures": review_figures.read_figures(access.ids, now=now),
        "patterns": edit_patterns.patterns_by_agent(access.ids, now=now),
        "queue": query_of(filters),
    }
    return show(request, "runs/reviews.html", "runs/_reviews.html", context)


@signed_in
@require_safe
def reviews_open(request: HttpRequest) -> HttpResponse:
    """How many questions are open, for the badge of the menu."""
    return render(request, "_open_reviews.html", {"count": review_queue.count_open(access_of(request).ids)})


@signed_in
@require_safe
def review_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One question with everything that is needed to answer it."""
    review, filters = find_asked(request, pk), review_queue.read_filters(request.GET)
    return render(request, "runs/review.html", card_of(request, review, filters, answered=answered_of(request)))


@signed_in
@require_safe
def review_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The card alone."""
    review, filters = find_asked(request, pk), review_queue.read_filters(request.GET)
    return render(request, "runs/_review.html", card_of(request, review, filters, answered=answered_of(request)))


@signed_in
@require_POST
def review_approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that the output a review asks about is right as it is."""
    note = request.POST.get("note", "").strip()
    to, shown = request.POST.get("to"), _shown(request)

    def decide(review: Review, user: User) -> Allowed:
        return reviews.approve(review=review, user=user, note=note, to=to, output_id=shown)

    return judge(request, pk, "Approved.", decide)


@signed_in
@require_POST
def review_approve_edited(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve an output with the texts as they were edited."""
    names = [name for name in request.POST if name.startswith("text_")]
    changes = {name.removeprefix("text_"): _lines(request.POST[name]) for name in names}
    to, shown = request.POST.get("to"), _shown(request)

    def decide(review: Review, user: User) -> Allowed:
        return reviews.approve_edited(review=review, user=user, changes=changes, to=to, output_id=shown)

    return judge(request, pk, "Approved as you left it.", decide)


@signed_in
@require_POST
def review_send_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Have it written again with a note."""
    note, code, shown = request.POST.get("note", "").strip(), _reason_code(request), _shown(request)

    def decide(review: Review, user: User) -> Allowed:
        return rewrites.send_back(review=review, user=user, note=note, reason_code=code, output_id=shown)

    return judge(request, pk, "Sent back. It is written again, and then asked about again.", decide)


@signed_in
@require_POST
def review_reject(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that the output a review asks about must not be used, and why."""
    reason, code, shown = request.POST.get("reason", "").strip(), _reason_code(request), _shown(request)

    def decide(review: Review, user: User) -> Allowed:
        if not reason and not code:
            return no("Say why: the reason stays with the draft.")
        return reviews.reject(review=review, user=user, reason=reason, reason_code=code, output_id=shown)

    return judge(request, pk, "Rejected. It stays on record, and nothing is written by itself.", decide)


@signed_in
@require_POST
def review_correct(request: HttpRequest, pk: int) -> HttpResponse:
    """Correct the classification that a review asks about."""
    reason = request.POST.get("reason", "").strip()

    def decide(review: Review, user: User) -> Allowed:
        output = review.output
        if output is None:
            return no("There is nothing to correct.")
        if not (allowed := can_judge(review, Review.Answer.CORRECT, _shown(request))):
            return allowed
        changes = read_corrections(classifications_of(review.department.spec, output), request.POST)
        return rewrites.correct(output=output, user=user, changes=changes, reason=reason, review=review)

    return judge(request, pk, "Corrected. What follows from it is made again.", decide)


@signed_in
@require_POST
def output_correct(request: HttpRequest, pk: int) -> HttpResponse:
    """Correct how an agent has sorted an item, without having been asked."""
    outputs = Output.objects.select_related("item__department", "trigger")
    output = get_visible(request, outputs, path="item__department_id", pk=pk)
    user = require(request, output.item.department_id, Role.REVIEWER)
    changes = read_corrections(classifications_of(output.item.department.spec, output), request.POST)
    reason = request.POST.get("reason", "").strip()
    try:
        done = rewrites.correct(output=output, user=user, changes=changes, reason=reason)
    except Unfit as error:
        done = no(str(error))
    text = "Corrected. What follows from it is made again." if done else done.reason
    response = answer_page(request, text, changed=bool(done), url=output.item.get_absolute_url())
    response["Kontor-Done"] = "1" if done else "0"  # what was chosen is not begun any more
    return response


@signed_in
@require_POST
def review_take_over(request: HttpRequest, pk: int) -> HttpResponse:
    """Do the work on the item by hand."""
    reason = request.POST.get("reason", "").strip()
    text = "Taken over. Agents stop here until you hand it back."
    decide = _with_reason(reviews.take_over, reason)
    return judge(request, pk, text, decide, role=Role.OPERATOR)


@signed_in
@require_POST
def review_dismiss(request: HttpRequest, pk: int) -> HttpResponse:
    """Nothing is to be done about it."""
    return judge(request, pk, "Put aside.", _with_reason(reviews.dismiss, request.POST.get("reason", "").strip()))


@signed_in
@require_POST
def review_settle(request: HttpRequest, pk: int) -> HttpResponse:
    """Say whether a message that may have been sent was: ``sent`` is ``yes`` or ``no``."""
    said = request.POST.get("sent")

    def decide(review: Review, user: User) -> Allowed:
        if review.outbox is None:
            return no("It is not about a message.")
        # Nothing said must not be taken for a no: it would be sent again.
        if said not in ("yes", "no"):
            return no("Say whether it was sent.")
        done = departures.settle_unknown(message=review.outbox, user=user, was_sent=said == "yes")
        return YES if done else no("Somebody has said so already.")

    return judge(request, pk, "Noted as sent." if said == "yes" else "Noted: it waits to be sent again.", decide)


@signed_in
@require_POST
def review_undo(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an answer back while that is possible."""
    text = "Taken back. The question is open again."
    return judge(request, pk, text, lambda r, user: reviews.undo(review=r, user=user), stays=True)


@signed_in
@require_POST
def review_claim(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that one looks at it oneself."""
    return judge(request, pk, "It is yours.", lambda r, user: review_queue.claim(review=r, user=user), stays=True)


@signed_in
@require_POST
def review_release(request: HttpRequest, pk: int) -> HttpResponse:
    """Say that one does not look at it any more."""
    decide: Decide = lambda r, user: review_queue.release(review=r, user=user)  # noqa: E731
    return judge(request, pk, "Released: anybody may take it.", decide, stays=True)


@signed_in
@require_POST
def review_assign(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask somebody else to look at it."""
    name = request.POST.get("assignee", "")

    def decide(review: Review, user: User) -> Allowed:
        to = User.objects.filter(username=name, memberships__department=review.department_id).first()
        return review_queue.assign(review=review, user=user, to=to) if to else no("Say who shall look at it.")

    return judge(request, pk, f"{name} is asked to look at it.", decide, stays=True)


_SHOWN = Statement(lambda: Review.objects.filter(Among("pk", "reviews")).select_related("item", "assignee").order_by())


def _later(request: HttpRequest, page: list[Review]) -> str:
    if len(page) <= ROWS:
        return ""
    query = request.GET.copy()
    query["after"] = str(review_queue.place_of(page[ROWS - 1]))
    return f"?{query.urlencode()}"


def _with_reason(service: Callable[..., Allowed], reason: str) -> Decide:
    return lambda review, user: service(review=review, user=user, reason=reason)


def _reason_code(request: HttpRequest) -> str:
    code = request.POST.get("reason_code", "")
    return code if code in Review.ReasonCode.values else ""


def _shown(request: HttpRequest) -> int | None:
    """The output that stood on the page: an answer is about no other."""
    return read_number(request.POST.get("output", ""))


def _lines(text: str) -> str:
    """A text as it was typed: browsers send line ends as two characters."""
    return text.replace("\r\n", "\n")
