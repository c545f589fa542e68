"""One question with what answering it looks at, in a fixed number of queries."""

from __future__ import annotations

from typing import Any

import pytest

from runs.models import Review
from runs.questions import find_review, read_review
from tests.factories import make_review
from tests.runs.desk import make_drafted

pytestmark = pytest.mark.django_db


def test_it_comes_with_all_that_its_answers_rest_on(django_assert_num_queries: Any) -> None:
    pk = make_drafted().pk
    find_review(pk)
    with django_assert_num_queries(2):
        review = read_review(pk)
        output, item = review.output, review.item
        assert output is not None
        assert item is not None
        assert output.agent_run is not None
        assert output.item is item
        assert item.department is review.department
        assert (output.trigger, review.edited, review.assignee) == (None, None, None)
        assert output.agent_run.agent.department_id == item.department_id
        assert output.agent_run.pipeline_run.item_id == item.pk
    orm = Review.objects.get(pk=pk)
    assert review == orm
    assert (review.output, review.item, review.agent_run) == (orm.output, orm.item, orm.agent_run)


def test_one_about_no_item_has_none(django_assert_num_queries: Any) -> None:
    department = make_drafted().department
    review = Review.objects.create(department=department, kind=Review.Kind.INCIDENT, ask="Again?")
    found = read_review(review.pk)
    assert (found.item, found.output, found.agent_run, found.department) == (None, None, None, department)


def test_one_that_is_gone_is_none() -> None:
    item = make_drafted().item
    assert item is not None
    review = make_review(item)
    pk = review.pk
    review.delete()
    assert find_review(pk) is None
    with pytest.raises(Review.DoesNotExist):
        read_review(pk)
