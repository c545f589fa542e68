"""Tags that people give: read, written down, looked at by the router; the mark of the suppressed is not theirs."""

from __future__ import annotations

import pytest
from django.urls import reverse

from runs.models import Action, Item
from runs.tagging import MAX_TAGS, change_tags, read_tags
from tests import factories
from tests.engine import in_threads
from tests.runs.scene import HTMX, make_scene

pytestmark = pytest.mark.django_db


def test_tags_are_read_once_each_in_their_order() -> None:
    assert read_tags(" fair ,big  customer,, fair,x") == ["fair", "big customer", "x"]


def test_tags_are_changed_written_down_and_the_item_is_looked_at_again() -> None:
    item, user = factories.make_item(tags=["old", "kept"]), factories.make_user()
    assert change_tags(item=item, user=user, add=["new", "fair"], remove=["old"])
    item.refresh_from_db()
    assert item.tags == ["kept", "new", "fair"]
    assert item.route_due_at is not None
    action = Action.objects.get()
    assert (action.verb, action.before) == ("set_tags", {"tags": ["old", "kept"]})
    assert action.after == {"tags": ["kept", "new", "fair"]}
    assert not change_tags(item=item, user=user, add=["new"], remove=["old"])
    assert Action.objects.count() == 1, "the second time changes nothing"


def test_the_mark_of_a_suppressed_person_is_neither_given_nor_taken() -> None:
    item, user = factories.make_item(tags=["suppressed", "a"]), factories.make_user()
    assert change_tags(item=item, user=user, add=["b"], remove=["a", "suppressed"])
    item.refresh_from_db()
    assert item.tags == ["suppressed", "b"]
    other = factories.make_item(item.department)
    refused = change_tags(item=other, user=user, add=["suppressed"])
    assert "suppression list" in refused.reason
    other.refresh_from_db()
    assert other.tags == []


@pytest.mark.parametrize("tags", [["x" * 41], [f"t{index}" for index in range(MAX_TAGS + 1)]])
def test_too_long_and_too_many_are_refused(tags: list[str]) -> None:
    item = factories.make_item()
    assert not change_tags(item=item, user=factories.make_user(), add=tags)
    assert Item.objects.get(pk=item.pk).tags == []


def test_of_too_many_tags_some_can_still_be_taken_away() -> None:
    item, user = factories.make_item(tags=[f"t{index}" for index in range(MAX_TAGS + 2)]), factories.make_user()
    assert change_tags(item=item, user=user, remove=["t0"])
    assert not change_tags(item=item, user=user, add=["t0"])


def test_a_form_opened_before_somebody_else_gave_a_tag_does_not_take_it_away() -> None:
    scene = make_scene()
    Item.objects.filter(pk=scene.lead.pk).update(tags=["theirs", "both"])
    url = reverse("runs:item_tags", args=[scene.lead.pk])
    scene.client(scene.operator).post(url, {"add": "mine", "remove": "both"})
    assert Item.objects.get(pk=scene.lead.pk).tags == ["theirs", "mine"]


@pytest.mark.django_db(transaction=True)
def test_nobody_loses_a_tag_to_those_who_change_tags_at_once() -> None:
    item, users = factories.make_item(tags=["a", "b"]), [factories.make_user(f"u{index}") for index in range(6)]

    def change(index: int) -> bool:
        return bool(change_tags(item=item, user=users[index], add=[f"of-{index}"], remove=["a"] if index % 2 else []))

    assert in_threads(change, 6) == [True] * 6
    item.refresh_from_db()
    assert sorted(item.tags) == ["b", *(f"of-{index}" for index in range(6))]
    assert Action.objects.filter(verb="set_tags").count() == 6


def test_setting_tags_is_a_post_of_an_operator() -> None:
    scene = make_scene()
    url = reverse("runs:item_tags", args=[scene.lead.pk])
    assert scene.client(scene.operator).get(url).status_code == 405
    assert scene.client(None).post(url).status_code == 302
    for user in (scene.viewer, scene.reviewer, scene.stranger):
        assert scene.client(user).post(url, {"add": "x"}).status_code == 404
    answer = scene.client(scene.operator).post(url, {"add": "x, y"}, headers=HTMX)
    assert "The tags are changed." in answer.content.decode()
    page = scene.client(scene.operator).get(f"/leads/{scene.lead.pk}/").content.decode()
    assert '<input type="hidden" name="remove" value="y">' in page
    assert scene.client(scene.operator).post(url, {"remove": "y"})["Location"] == f"/leads/{scene.lead.pk}/"
    assert Item.objects.get(pk=scene.lead.pk).tags == ["x"]
    assert "Write a tag first." in scene.client(scene.operator).post(url, {}, headers=HTMX).content.decode()
