"""What a question can be answered with, and what is read to know it."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from runs import suppressions
from runs.answerable import can_answer, offers_of
from runs.models import Review
from runs.questions import read_review
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
