"""Signing in and out, and a new password."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import make_department, make_user

pytestmark = pytest.mark.django_db

OLD, NEW = "correct-horse-1", "battery-staple-2"


@pytest.fixture
def olga() -> User:
    return make_user(department=make_department(), password=OLD)


def sign_in(user: User, password: str = OLD) -> Client:
    client = Client()
    response = client.post(reverse("login"), {"username": user.username, "password": password})
    assert response.status_code == 302
    return client


def change(client: Client, **changes: str) -> tuple[int, str]:
    data = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW, **changes}
    response = client.post(reverse("password"), data, follow=True)
    return response.redirect_chain[-1][1] if response.redirect_chain else 200, response.content.decode()


def test_signing_in_leads_to_the_page_that_was_asked_for(olga: User) -> None:
    wanted = reverse("runs:live")
    asked = Client().get(wanted)
    assert asked["Location"] == f"{reverse('login')}?next={wanted}"
    response = Client().post(asked["Location"], {"username": "olga", "password": OLD, "next": wanted})
    assert response["Location"] == wanted


def test_a_wrong_password_and_a_person_who_left_are_told_the_same(olga: User) -> None:
    first = Client().post(reverse("login"), {"username": "olga", "password": "wrong"}).content.decode()
    User.objects.update(is_active=False)
    second = Client().post(reverse("login"), {"username": "olga", "password": OLD}).content.decode()
    assert "do not belong together" in first
    assert "do not belong together" in second


def test_signing_out_takes_a_post_and_ends_the_session(olga: User) -> None:
    client = sign_in(olga)
    assert client.get(reverse("logout")).status_code == 405
    assert client.post(reverse("logout"))["Location"] == reverse("login")
    assert client.get(reverse("runs:live")).status_code == 302


def test_a_new_password_replaces_the_old_one_and_signs_other_browsers_out(olga: User) -> None:
    here, elsewhere = sign_in(olga), sign_in(olga)
    code, html = change(here)
    assert code == 302
    assert "Your password is changed" in html
    assert here.get(reverse("runs:live")).status_code == 200
    assert elsewhere.get(reverse("runs:live")).status_code == 302
    olga.refresh_from_db()
    assert olga.check_password(NEW)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("old_password", "wrong", "entered incorrectly"),
        ("new_password2", "another-one-3", "match"),
        ("new_password2", "", "required"),
    ],
)
def test_a_mistake_is_shown_at_its_field_and_changes_nothing(olga: User, field: str, value: str, said: str) -> None:
    code, html = change(sign_in(olga), **{field: value})
    assert code == 200
    assert said in html
    assert f'id="id_{field}_error"' in html
    olga.refresh_from_db()
    assert olga.check_password(OLD)


def test_strangers_are_sent_to_sign_in_first() -> None:
    response = Client().get(reverse("password"))
    assert response["Location"].startswith(reverse("login"))


def test_the_account_menu_leads_there(olga: User) -> None:
    assert f'href="{reverse("password")}"' in sign_in(olga).get(reverse("runs:overview")).content.decode()


def test_keys_of_one_letter_are_switched_off_and_on_in_a_browser(olga: User) -> None:
    client = sign_in(olga)
    about = {"first_name": "Olga", "last_name": "", "email": "olga@example.com"}
    page = client.get(reverse("runs:account")).content.decode()
    assert 'name="keys" checked' in page
    assert "data-keys" not in page
    page = client.post(reverse("runs:account"), about, follow=True).content.decode()
    assert 'data-keys="off"' in page
    assert 'name="keys" checked' not in page
    assert client.cookies["kontor_keys"]["max-age"] == 365 * 24 * 3600
    page = client.post(reverse("runs:account"), {**about, "keys": "on"}, follow=True).content.decode()
    assert "data-keys" not in page
