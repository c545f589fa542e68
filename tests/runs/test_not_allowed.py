"""A form that is sent after the session has ended, and an address that only takes forms."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import make_department, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def olga() -> User:
    return make_user("olga", department=make_department(), password="a-password")


def after_signing_in(came_from: str | None) -> str:
    """Where somebody gets who sends a form signed out, and then signs in."""
    client = Client()
    headers = {"Referer": came_from} if came_from is not None else {}
    sent = client.post(reverse("runs:view_save"), {"name": "Mine"}, headers=headers)
    assert sent.status_code == 302
    login = urlsplit(sent["Location"])
    there = client.post(login.path, {"username": "olga", "password": "a-password", **next_of(login.query)})
    assert there.status_code == 302
    return there["Location"]


def next_of(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


def test_who_signs_in_after_sending_a_form_is_back_on_its_page(olga: User) -> None:
    assert after_signing_in("http://testserver/leads/?status=new") == "/leads/?status=new"


@pytest.mark.parametrize("came_from", [None, "https://elsewhere.example/leads/", "javascript:alert(1)"])
def test_without_a_page_of_ours_they_are_on_the_overview(olga: User, came_from: str | None) -> None:
    assert after_signing_in(came_from) == reverse("runs:overview")


def test_an_address_that_only_takes_forms_says_what_to_do(olga: User) -> None:
    client = Client()
    client.force_login(olga)
    response = client.get(reverse("runs:view_save"))
    assert (response.status_code, response["Allow"]) == (405, "POST")
    html = response.content.decode()
    assert "go back to that page" in html
    assert reverse("runs:overview") in html
    assert client.put(reverse("runs:view_save")).content == b""
    assert b"<html" not in Client().get(reverse("runs:mail_events", args=["sales"])).content


@pytest.mark.parametrize("is_signed_in", [True, False])
def test_a_form_from_before_somebody_signed_in_anew_is_refused_in_words(olga: User, is_signed_in: bool) -> None:
    client = Client(enforce_csrf_checks=True)
    if is_signed_in:
        client.force_login(olga)
    response = client.post(reverse("runs:view_save"), {"name": "Mine", "csrfmiddlewaretoken": "x" * 32})
    assert response.status_code == 403
    html = response.content.decode()
    assert "Nothing was changed: load the page anew." in html
    assert "copy what you have written, load the page anew" in html
    assert ("Sign out" in html) is is_signed_in
