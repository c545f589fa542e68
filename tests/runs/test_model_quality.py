from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from agents.pricing import sync_prices
from runs.cost_sums import Period
from runs.model_quality import judged_by_model
from runs.models import Item, Review
from tests import factories

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = Period(NOW.date(), NOW.date())
Answer = Review.Answer


@pytest.fixture
def item() -> Item:
    return factories.make_lead().item


def judge(item: Item, models: list[tuple[str, str]], answer: str, **fields: Any) -> None:
    """A person's answer about what a step wrote that asked these models, each with the cause of its failure."""
    run = factories.make_agent_run(item, "writer", status="done", attempt=1)
    for model, cause in models:
        factories.make_model_call(run, model_asked=model, cause=cause)
    user, _ = User.objects.get_or_create(username="ada")
    values = {"status": Review.Status.ANSWERED, "answer": answer, "answered_by": user, "answered_at": NOW, **fields}
    factories.make_review(item, kind=Review.Kind.DRAFT, agent_run=run, **values)


def test_a_decision_counts_for_the_model_that_answered_last(item: Item) -> None:
    judge(item, [("claude-opus-5-5", "overloaded"), ("claude-sonnet-5-5", "")], Answer.APPROVE)
    judge(item, [("claude-sonnet-5-5", "")], Answer.APPROVE_EDITED)
    judge(item, [("claude-opus-5-5", "")], Answer.REJECT)
    found = judged_by_model([item.department_id], DAY)
    assert {model: (one.decided, one.unchanged_share) for model, one in found.items()} == {
        "claude-sonnet-5-5": (2, 0.5),
        "claude-opus-5-5": (1, 0),
    }


def test_only_what_people_decided_in_the_period_counts(item: Item) -> None:
    asked = [("claude-opus-5-5", "")]
    judge(item, asked, Answer.APPROVE, answered_by=None)
    judge(item, asked, Answer.APPROVE, answered_at=NOW - timedelta(days=1))
    judge(item, asked, Answer.APPROVE, answered_at=NOW.replace(hour=0) + timedelta(days=1))
    judge(item, asked, Answer.DISMISS)
    assert judged_by_model([item.department_id], DAY) == {}
    judge(item, asked, Answer.APPROVE, answered_at=NOW.replace(hour=0))
    assert judged_by_model([item.department_id], DAY)["claude-opus-5-5"].decided == 1
    assert judged_by_model([item.department_id + 1], DAY) == {}


def test_the_page_shows_it_beside_the_price(item: Item, admin_client: Any) -> None:
    sync_prices()
    judge(item, [("claude-opus-5-5", "")], Answer.APPROVE, answered_at=datetime.now(UTC))
    judge(item, [("claude-opus-5-5", "")], Answer.SEND_BACK, answered_at=datetime.now(UTC))
    page = admin_client.get(reverse("runs:costs"), {"period": "today"})
    rows = {model: verdicts for model, *_, verdicts in page.context["what_if"]["single"]}
    assert rows["claude-opus-5-5"].unchanged_share == 0.5
    assert rows["claude-haiku-5-5"] is None
    assert '50 % <span class="k-soft">of 2</span>' in page.content.decode()
