"""What a question can be answered with, and what is read to know it."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from runs import suppressions
from runs.answerable import can_answer, can_approve_together, offers_of
from runs.models import Item, OutboxMessage, Review
from runs.questions import read_review
from runs.reviews import approve, approve_edited, reject
from tests.factories import make_lead, make_review, make_user
from tests.runs.desk import make_drafted
from tests.runs.scene import make_scene

pytestmark = pytest.mark.django_db
Answer = Review.Answer
LEAVING = (Answer.APPROVE, Answer.APPROVE_EDITED)


def test_whether_it_may_leave_is_read_once_for_all_answers() -> None:
    review = read_review(make_scene().review.pk)
    with CaptureQueriesContext(connection) as found:
        offers = {offer.answer: offer.allowed for offer in offers_of(review)}
    assert all(offers[answer] for answer in LEAVING)
    assert sum('FROM "runs_suppression"' in query["sql"] for query in found) == 1


def test_it_is_read_anew_whenever_it_is_asked() -> None:
    scene = make_scene()
    review = read_review(scene.review.pk)
    assert all(can_answer(review, answer) for answer in LEAVING)
    suppressions.suppress(address=scene.lead.email, reason="opt_out")
    refused = [offer.allowed for offer in offers_of(review) if offer.answer in LEAVING]
    assert refused == [can_answer(review, answer) for answer in LEAVING]
    assert [allowed.reason for allowed in refused] == [
        "The person's address is on the list of those nobody writes to."
    ] * 2


def test_a_mail_of_a_closed_item_is_not_approved() -> None:
    review = make_drafted()
    Item.objects.update(automation="closed", automation_reason="They bought elsewhere.")
    rita = make_user("rita", department=review.department)
    why = "It is closed. Reopen it first."
    refused = [offer.allowed.reason for offer in offers_of(read_review(review.pk)) if offer.answer in LEAVING]
    assert refused == [why, why]
    assert can_approve_together(read_review(review.pk)).reason == why
    assert approve(review=review, user=rita).reason == why
    assert approve_edited(review=review, user=rita, changes={"subject": "Freight"}).reason == why
    review.refresh_from_db()
    assert review.status == Review.Status.OPEN
    assert not OutboxMessage.objects.exists()
    assert reject(review=review, user=rita, reason="They bought elsewhere."), "what sends nothing is still answered"


def test_only_work_on_one_item_can_be_taken_over() -> None:
    item = make_lead().item
    about_item = make_review(item, kind="budget", cause="loop", output=None)
    about_none = Review.objects.create(kind="budget", department=item.department, cause="budget of nobody", ask="?")
    answers = [[offer.answer for offer in offers_of(review)] for review in (about_item, about_none)]
    assert answers == [[Answer.DISMISS, Answer.TAKE_OVER], [Answer.DISMISS]]
    assert "is not answered like that" in can_answer(about_none, Answer.TAKE_OVER).reason
