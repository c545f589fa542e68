"""Whose rows a request is about when somebody has several tabs open, and what a stranger's page is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agents.models import Member
from tests import factories

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
REFRESH = {**HTMX, "Kontor-Refresh": "event"}


@dataclass
class Tabs:
    """A person of two departments, each with one lead: ``Anna`` of sales, ``Berta`` of other."""

    client: Client

    def leads(self, query: str = "", **headers: str) -> set[str]:
        """Whose names the list shows."""
        text = self.client.get(reverse("leads:list") + query, headers=headers).content.decode()
        return {name for name in ("Anna", "Berta") if name in text}

    def remembered(self) -> Any:
        """The department that the session knows of."""
        return self.client.session.get("department")


@pytest.fixture
def tabs() -> Tabs:
    sales, other = factories.make_department(), factories.make_department(slug="other")
    user = factories.make_user("tina", department=sales)
    Member.objects.create(user=user, department=other, role=Member.Role.OPERATOR)
    factories.make_lead(sales, name="Anna")
    factories.make_lead(other, name="Berta")
    client = Client()
    client.force_login(user)
    return Tabs(client)


def test_a_refresh_does_not_choose_a_department_for_the_other_tabs(tabs: Tabs) -> None:
    assert tabs.leads("?department=other") == {"Berta"}
    assert tabs.leads("?department=sales", **REFRESH) == {"Anna"}
    assert tabs.remembered() == "other"
    assert tabs.leads() == {"Berta"}


def test_a_page_gets_its_own_department_after_another_tab_has_chosen_another(tabs: Tabs) -> None:
    page = tabs.client.get(reverse("leads:list") + "?department=sales").content.decode()
    assert '"Kontor-Department": "sales"' in page
    tabs.leads("?department=other")
    assert tabs.leads(**{**REFRESH, "Kontor-Department": "sales"}) == {"Anna"}
    assert tabs.leads(**{**HTMX, "Kontor-Department": "all"}) == {"Anna", "Berta"}
    assert tabs.remembered() == "other"


def test_a_page_of_a_department_that_is_closed_to_the_person_gets_no_other_rows(tabs: Tabs) -> None:
    headers = {**REFRESH, "Kontor-Department": "amselwerk"}
    assert tabs.client.get(reverse("leads:list"), headers=headers).status_code == 404


@pytest.mark.parametrize("headers", [REFRESH, HTMX])
def test_a_page_of_somebody_else_is_told_so_and_shows_nothing(tabs: Tabs, headers: dict[str, str]) -> None:
    """Another tab has signed in as another person: what the first has typed must not give way to what these may see."""
    address = reverse("leads:list")
    tina, zoe = User.objects.get(username="tina"), factories.make_user("zoe")
    assert f'"Kontor-Person": "{tina.pk}"' in tabs.client.get(address).content.decode()
    assert tabs.leads(**headers, **{"Kontor-Person": str(tina.pk)}) == {"Anna", "Berta"}
    response = tabs.client.get(address, headers={**headers, "Kontor-Person": str(zoe.pk)})
    assert (response.status_code, response.content, "HX-Redirect" in response.headers) == (401, b"", False)
    response = tabs.client.post(reverse("runs:review_approve", args=[1]), headers={**HTMX, "Kontor-Person": "999999"})
    assert response.status_code == 401


def test_the_session_is_written_only_when_the_choice_is_another(tabs: Tabs) -> None:
    def writes(query: str, **headers: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            tabs.leads(query, **headers)
        return sum(" django_session" in each["sql"].replace('"', " ") and "UPDATE" in each["sql"] for each in queries)

    assert writes("?department=other") == 1
    assert writes("?department=other") == 0
    assert writes("?department=sales", **REFRESH) == 0


def test_a_part_that_shows_one_department_asks_again_only_for_what_happens_there(tabs: Tabs) -> None:
    department = factories.make_department(slug="third")
    Member.objects.create(user=User.objects.get(), department=department, role=Member.Role.OPERATOR)
    for name in (
        "leads:list",
        "runs:list",
        "runs:steps",
        "runs:reviews",
        "runs:outbox",
        "runs:actions",
        "runs:overview",
    ):
        one = tabs.client.get(reverse(name) + "?department=third").content.decode()
        assert f'data-live="department:{department.pk}"' in one, name
        assert 'data-live="all"' not in one, name
        assert 'data-live="all"' in tabs.client.get(reverse(name) + "?department=all").content.decode(), name


@pytest.mark.parametrize("method", ["refresh", "form"])
def test_a_page_in_which_somebody_may_be_typing_is_not_sent_away_when_the_session_has_ended(method: str) -> None:
    url = reverse("runs:overview_panel")
    asked = Client().get(url, headers=REFRESH) if method == "refresh" else Client().post(url, headers=HTMX)
    assert asked.status_code == 401
    assert "HX-Redirect" not in asked


def test_somebody_who_has_to_sign_in_comes_back_to_the_page(tabs: Tabs) -> None:
    page = "http://testserver/leads/?tier=Hot"
    told = Client().get(reverse("leads:list"), headers={**HTMX, "HX-Current-URL": page})
    assert told.status_code == 401
    assert told["HX-Redirect"] == f"{reverse('login')}?next=/leads/%3Ftier%3DHot"


@pytest.mark.django_db
def test_the_alerts_page_is_not_fetched_again_for_whatever_happens() -> None:
    user = factories.make_user(department=factories.make_department())
    client = Client()
    client.force_login(user)
    html = client.get(reverse("runs:alerts")).content.decode()
    assert 'id="alerts" class="k-stack" hx-ext="morph" data-live="kind:alert"' in html
    assert "data-changing" in html
