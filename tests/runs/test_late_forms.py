"""A form that comes too late: nothing is done, what was written is repeated, and the way on is said."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from agents.models import Department
from runs.late_forms import TOO_LATE
from tests.factories import make_department, make_user

pytestmark = pytest.mark.django_db
TYPED = "Bakeries of the north, with <more> than ten people."


@pytest.fixture
def office() -> Department:
    return make_department()


@pytest.fixture
def ada(office: Department) -> User:
    return make_user("ada", department=office, role="administrator", password="a-password")


def icp_url(office: Department) -> str:
    return reverse("runs:department_settings", args=[office.slug, "icp"])


def test_what_somebody_wrote_who_is_signed_out_is_repeated(office: Department) -> None:
    url, before = icp_url(office), office.settings
    sent = {"icp": TYPED, "word": "one", "old_password": "correct horse", "csrfmiddlewaretoken": "a b"}
    response = Client().post(url, sent, headers={"Referer": f"http://testserver{url}?x=1"})
    assert response.status_code == 401
    html = response.content.decode()
    assert "Bakeries of the north, with &lt;more&gt; than ten people.</textarea>" in html
    assert html.count("<textarea") == 1
    assert "correct horse" not in html
    assert f'href="{reverse("login")}?next={url}%3Fx%3D1" target="_blank"' in html
    office.refresh_from_db()
    assert office.settings == before


def test_who_wrote_nothing_is_led_to_the_door_and_back(office: Department) -> None:
    url = icp_url(office)
    response = Client().post(url, {"word": "one"}, headers={"Referer": f"http://testserver{url}"})
    assert (response.status_code, response["Location"]) == (302, f"{reverse('login')}?next={url}")


@pytest.mark.parametrize("sent", [{}, {"usd": "5", "reason": ""}, {"note": "Good"}])
@pytest.mark.parametrize("referer", ["http://testserver/costs/", "http://elsewhere.example/", ""])
def test_the_door_says_that_nothing_was_done(sent: dict[str, str], referer: str, office: Department) -> None:
    client = Client()
    response = client.post(icp_url(office), sent, headers={"Referer": referer} if referer else {}, follow=True)
    assert [status for _, status in response.redirect_chain] == [302]
    html = response.content.decode()
    assert TOO_LATE in html
    assert "Sign in to see that page." not in html
    assert "Sign in to see that page." in client.get(response.request["PATH_INFO"] + "?next=/costs/").content.decode()


def enforcing() -> Client:
    """A browser whose tokens are looked at, with the cookie of a page that it has opened."""
    client = Client(enforce_csrf_checks=True)
    client.get(reverse("login"))
    return client


def test_the_second_of_two_doors_leads_on_once_somebody_came_in_by_the_first(ada: User) -> None:
    client, door = enforcing(), f"{reverse('login')}?next=/account/"
    token = client.cookies["csrftoken"].value
    client.post(door, {"username": "ada", "password": "a-password", "csrfmiddlewaretoken": token})
    assert client.session["_auth_user_id"] == str(ada.pk)
    late = client.post(door, {"username": "ada", "password": "a-password", "csrfmiddlewaretoken": token}, follow=True)
    assert late.redirect_chain == [(door, 302), ("/account/", 302)]
    assert late.status_code == 200
    assert Client(enforce_csrf_checks=True).post(door, {"username": "ada"}).status_code == 403, "no cookie, no way on"
