"""Saved views: one's own and shared ones, who may change them, and what another department sees: nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from agents.models import Member
from runs import saved_views
from runs.access import access_for
from runs.models import Action, ListChoice, SavedView
from runs.saved_views import SavableList
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


def _clean(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name == "colour"}


saved_views.register_list(SavableList("things", "leads:list", ("a", "b"), _clean))


def _names(user: User) -> list[str]:
    return [view.name for view in saved_views.views_for(user, "things", access_for(user))]


def test_ones_own_view_is_ones_own_and_a_shared_one_the_departments() -> None:
    scene = make_scene()
    saved_views.save_view(user=scene.operator, list_name="things", name="Mine", params={})
    saved_views.save_view(user=scene.operator, list_name="things", name="Ours", params={}, department=scene.department)
    assert _names(scene.operator) == ["Mine", "Ours"]
    assert _names(scene.viewer) == ["Ours"]
    assert _names(scene.stranger) == []


def test_who_leaves_the_department_keeps_their_own_and_loses_the_shared() -> None:
    scene = make_scene()
    saved_views.save_view(user=scene.viewer, list_name="things", name="Mine", params={})
    saved_views.save_view(user=scene.viewer, list_name="things", name="Ours", params={}, department=scene.department)
    Member.objects.filter(user=scene.viewer).delete()
    assert _names(scene.viewer) == ["Mine"]


def test_only_what_the_list_knows_is_stored_and_the_same_name_is_one_view() -> None:
    user = factories.make_user()
    params = {"colour": "red", "before": "9", "evil": "x"}
    assert saved_views.save_view(
        user=user, list_name="things", name="  My   view ", params=params, columns=["b", "nonsense", "a"]
    )
    view = SavedView.objects.get()
    assert (view.name, view.params, view.columns) == ("My view", {"colour": "red"}, ["a", "b"])
    assert saved_views.save_view(user=user, list_name="things", name="My view", params={"colour": "blue"})
    assert SavedView.objects.get().params == {"colour": "blue"}
    assert not saved_views.save_view(user=user, list_name="things", name="  ", params={})


def test_saving_for_oneself_takes_nothing_from_the_colleagues() -> None:
    scene = make_scene()
    user = scene.operator
    saved_views.save_view(user=user, list_name="things", name="Ours", params={}, department=scene.department)
    refused = saved_views.save_view(user=user, list_name="things", name="Ours", params={"colour": "red"})
    assert "“Ours” is shared with Sales: choose another name" in refused.reason
    assert SavedView.objects.get().params == {}
    assert _names(scene.viewer) == ["Ours"]
    again = {"colour": "blue"}
    assert saved_views.save_view(user=user, list_name="things", name="Ours", params=again, department=scene.department)
    assert SavedView.objects.get().params == again


def test_a_view_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_views, "MAX_VIEWS", 1)
    user = factories.make_user()
    assert saved_views.save_view(user=user, list_name="things", name="one", params={})
    refused = saved_views.save_view(user=user, list_name="things", name="two", params={})
    assert refused.reason == "You keep 1 views already. Delete one first."
    assert saved_views.save_view(user=user, list_name="things", name="one", params={"colour": "red"})


def test_renaming_to_a_name_that_is_taken_or_the_same_is_refused() -> None:
    user = factories.make_user()
    for name in ("one", "two"):
        saved_views.save_view(user=user, list_name="things", name=name, params={})
    view = SavedView.objects.get(name="one")
    for name in ("two", "one", " "):
        assert not saved_views.rename_view(view=view, user=user, name=name)
    assert saved_views.rename_view(view=view, user=user, name="three")
    assert _names(user) == ["three", "two"]


def test_what_is_done_to_a_shared_view_is_written_down_and_to_ones_own_not() -> None:
    scene = make_scene()
    Action.objects.all().delete()
    for department in (None, scene.department):
        saved_views.save_view(user=scene.operator, list_name="things", name="x", params={}, department=department)
        view = SavedView.objects.get()
        saved_views.rename_view(view=view, user=scene.operator, name="y")
        saved_views.delete_view(view=view, user=scene.operator)
        verbs = [action.verb for action in Action.objects.order_by("pk")]
        assert verbs == ([] if department is None else ["share_view", "rename_view", "delete_view"])


def test_a_deleted_view_is_nobodys_beginning() -> None:
    user = factories.make_user()
    saved_views.save_view(user=user, list_name="things", name="x", params={})
    view = SavedView.objects.get()
    assert saved_views.begin_with(user=user, view=view, list_name="things")
    assert not saved_views.begin_with(user=user, view=view, list_name="things")
    saved_views.delete_view(view=view, user=user)
    assert ListChoice.objects.get().default_view is None


def _view(scene: Scene, owner: User, *, is_shared: bool) -> SavedView:
    department = scene.department if is_shared else None
    return SavedView.objects.create(user=owner, department=department, list_name="leads", name="Hot ones")


@pytest.mark.parametrize("name", ["view_rename", "view_delete"])
def test_only_the_owner_and_administrators_change_a_shared_view(name: str) -> None:
    scene = make_scene()
    administrator = factories.make_user("anna", department=scene.department, role=Member.Role.ADMINISTRATOR)
    for user, code in ((scene.viewer, 404), (scene.reviewer, 404), (administrator, 302), (scene.operator, 302)):
        SavedView.objects.all().delete()
        view = _view(scene, scene.operator, is_shared=True)
        assert scene.client(user).post(reverse(f"runs:{name}", args=[view.pk]), {"name": "New"}).status_code == code


@pytest.mark.parametrize("name", ["view_rename", "view_delete", "view_default"])
def test_a_view_one_may_not_see_is_not_there(name: str) -> None:
    scene = make_scene()
    for is_shared, user in ((True, scene.stranger), (False, scene.viewer)):
        SavedView.objects.all().delete()
        view = _view(scene, scene.operator, is_shared=is_shared)
        url = reverse(f"runs:{name}", args=[view.pk])
        assert scene.client(user).post(url, {"name": "New"}).status_code == 404
        assert scene.client(user).get(url).status_code == 405
        assert scene.client(None).post(url).status_code == 302
        assert SavedView.objects.get().name == "Hot ones"


def test_sharing_takes_an_operator_of_that_department() -> None:
    scene = make_scene()
    data = {"list": "leads", "name": "x", "query": "tier=Hot", "share": scene.department.slug}
    url = reverse("runs:view_save")
    said = scene.client(scene.viewer).post(url, data, headers=HTMX).content.decode()
    assert "Sharing a view takes the role of an operator." in said
    assert scene.client(scene.stranger).post(url, data).status_code == 404
    assert not SavedView.objects.exists()
    assert scene.client(scene.operator).post(url, data)["Location"] == "/leads/?tier=Hot"
    assert SavedView.objects.get().department == scene.department


def test_a_list_nobody_knows_is_not_there() -> None:
    scene = make_scene()
    for name in ("view_save", "view_columns"):
        url = reverse(f"runs:{name}")
        assert scene.client(scene.operator).post(url, {"list": "nonsense", "name": "x"}).status_code == 404
        assert scene.client(scene.operator).get(url).status_code == 405
        assert scene.client(None).post(url).status_code == 302
