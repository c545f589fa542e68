"""The page of those nobody writes to: what one sees of it, and who changes it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from agents.models import Member
from runs import suppressions
from runs.models import Action, Item, Suppression
from tests.factories import make_lead, make_outbox, make_user
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene() -> Scene:
    return make_scene()


@pytest.fixture
def ada(scene: Scene) -> User:
    return make_user("ada", department=scene.department, role=Member.Role.ADMINISTRATOR)


def add(scene: Scene, user: User, address: str, note: str = "Asked by phone.") -> str:
    data = {"address": address, "note": note}
    response = scene.client(user).post(reverse("runs:suppression_add"), data, headers=HTMX)
    return response.content.decode()


def test_an_administrator_adds_an_address_in_its_normal_form_once(scene: Scene, ada: User) -> None:
    assert "Nobody writes to" in add(scene, ada, " Ann@Example.COM ")
    assert "already" in add(scene, ada, "ann@example.com")
    row = Suppression.objects.get()
    assert (row.address, row.author, row.note) == ("ann@example.com", ada, "Asked by phone.")
    assert Action.objects.get().verb == "suppress"


@pytest.mark.parametrize(("address", "note"), [("ann", "Why."), ("", "Why."), ("ann@example.com", "")])
def test_what_is_no_address_or_has_no_reason_is_refused(scene: Scene, ada: User, address: str, note: str) -> None:
    add(scene, ada, address, note)
    assert not Suppression.objects.exists()


def test_lifting_takes_a_reason_and_is_written_down(scene: Scene, ada: User) -> None:
    row = Suppression.objects.create(address="ann@example.com", reason="opt_out", item=scene.lead.item)
    url = reverse("runs:suppression_lift", args=[row.pk])
    scene.client(ada).post(url)
    assert Suppression.objects.exists()
    scene.client(ada).post(url, {"reason": "She asked for mails again."})
    assert not Suppression.objects.exists()
    action = Action.objects.get()
    assert (action.verb, action.before["reason"], action.department) == (
        "lift_suppression",
        "opt_out",
        scene.department,
    )
    assert scene.client(ada).post(url, {"reason": "Again."}).status_code == 404


def test_an_operator_changes_nothing(scene: Scene) -> None:
    row = Suppression.objects.create(address="ann@example.com", reason="manual", item=scene.lead.item)
    client = scene.client(scene.operator)
    assert client.post(reverse("runs:suppression_add"), {"address": "b@x.example", "note": "x"}).status_code == 404
    assert client.post(reverse("runs:suppression_lift", args=[row.pk]), {"reason": "x"}).status_code == 404
    assert client.get(reverse("runs:suppression_add")).status_code == 405


def test_the_administrator_of_another_department_neither_sees_nor_lifts_an_entry(scene: Scene) -> None:
    row = Suppression.objects.create(address="ann@example.com", reason="opt_out", item=scene.lead.item)
    client = scene.client(scene.stranger)
    assert "ann@example.com" not in client.get(reverse("runs:suppressions")).content.decode()
    assert client.post(reverse("runs:suppression_lift", args=[row.pk]), {"reason": "x"}).status_code == 404


def test_the_list_is_searched(scene: Scene, ada: User) -> None:
    for address in ("ann@example.com", "@other.example"):
        Suppression.objects.create(address=address, reason="manual", item=scene.lead.item)
    page = scene.client(ada).get(reverse("runs:suppressions"), {"q": "other"}).content.decode()
    assert "@other.example" in page
    assert "ann@example.com" not in page


def test_who_is_lifted_from_the_list_may_really_be_written_to(scene: Scene, ada: User) -> None:
    item, other = scene.lead.item, make_lead(scene.department).item
    Item.objects.filter(pk__in=(item.pk, other.pk)).update(tags=["suppressed", "lang:en"])
    make_outbox(other, address="Ann@Example.com")
    row = Suppression.objects.create(address="ann@example.com", reason="opt_out", item=item)
    assert suppressions.lift(suppression=row, user=ada, reason="She asked for mails again.")
    for each in (item, other):
        each.refresh_from_db()
        assert each.tags == ["lang:en"]
        assert each.route_due_at is not None
