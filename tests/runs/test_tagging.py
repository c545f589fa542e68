"""Tags that people give: read, written down, looked at by the router; the mark of the suppressed is not theirs."""

from __future__ import annotations

import pytest
from django.urls import reverse

from runs.models import Action, Item
from runs.tagging import MAX_TAGS, read_tags, set_tags
from tests import factories
from tests.runs.scene import HTMX, make_scene

pytestmark = pytest.mark.django_db


def test_tags_are_read_once_each_in_their_order() -> None:
    assert read_tags(" fair ,big  customer,, fair,x") == ["fair", "big customer", "x"]


def test_tags_are_set_written_down_and_the_item_is_looked_at_again() -> None:
    item, user = factories.make_item(tags=["old"]), factories.make_user()
    assert set_tags(item=item, user=user, tags=["new", "fair"])
    item.refresh_from_db()
    assert item.tags == ["new", "fair"]
    assert item.route_due_at is not None
    action = Action.objects.get()
    assert (action.verb, action.before, action.after) == ("set_tags", {"tags": ["old"]}, {"tags": ["new", "fair"]})
    assert not set_tags(item=item, user=user, tags=["new", "fair"])
    assert Action.objects.count() == 1


def test_the_mark_of_a_suppressed_person_is_neither_given_nor_taken() -> None:
    item, user = factories.make_item(tags=["suppressed", "a"]), factories.make_user()
    assert set_tags(item=item, user=user, tags=["b"])
    item.refresh_from_db()
    assert item.tags == ["suppressed", "b"]
    other = factories.make_item(item.department)
    refused = set_tags(item=other, user=user, tags=["suppressed"])
    assert "suppression list" in refused.reason
    other.refresh_from_db()
    assert other.tags == []


@pytest.mark.parametrize("tags", [["x" * 41], [f"t{index}" for index in range(MAX_TAGS + 1)]])
def test_too_long_and_too_many_are_refused(tags: list[str]) -> None:
    item = factories.make_item()
    assert not set_tags(item=item, user=factories.make_user(), tags=tags)
    assert Item.objects.get(pk=item.pk).tags == []


def test_setting_tags_is_a_post_of_an_operator() -> None:
    scene = make_scene()
    url = reverse("runs:item_tags", args=[scene.lead.pk])
    assert scene.client(scene.operator).get(url).status_code == 405
    assert scene.client(None).post(url).status_code == 302
    for user in (scene.viewer, scene.reviewer, scene.stranger):
        assert scene.client(user).post(url, {"tags": "x"}).status_code == 404
    answer = scene.client(scene.operator).post(url, {"tags": "x, y"}, headers=HTMX)
    assert "The tags are set." in answer.content.decode()
    assert scene.client(scene.operator).post(url, {"tags": "x"})["Location"] == f"/leads/{scene.lead.pk}/"
    assert Item.objects.get(pk=scene.lead.pk).tags == ["x"]
