"""The navigation: what a person may follow, where they are, and what waits."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from agents.models import Department, Member
from tests import factories
from tests.runs.scene import Scene, make_scene

pytestmark = pytest.mark.django_db

FOR_EVERYBODY = [
    "Overview",
    "Leads",
    "Reviews",
    "Runs",
    "Live",
    "Agents",
    "Rules",
    "Outbox",
    "Settings",
    "Costs",
    "Actions",
]


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def side(scene: Scene, user: User, path: str = "/") -> str:
    """The navigation at the side of a page."""
    html = scene.client(user).get(path).content.decode()
    found = re.search(r'<aside class="k-side">.*?</aside>', html, re.DOTALL)
    assert found
    return found[0]


def labels(html: str) -> list[str]:
    """The words of the links, without what waits there."""
    links = re.findall(r'<li>\s*<a href="[^"]+"[^>]*>(.*?)</a>', html, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", re.sub(r"<span data-open-reviews>.*", "", link)).strip() for link in links]


def test_everybody_has_the_pages_of_the_department(scene: Scene) -> None:
    for user in (scene.viewer, scene.reviewer, scene.operator):
        assert labels(side(scene, user)) == FOR_EVERYBODY


def test_system_is_for_administrators_and_the_admin_for_staff(scene: Scene) -> None:
    anna = factories.make_user("anna", department=scene.department, role=Member.Role.ADMINISTRATOR)
    assert labels(side(scene, anna)) == [*FOR_EVERYBODY, "System"]
    anna.is_staff = True
    anna.save()
    assert labels(side(scene, anna)) == [*FOR_EVERYBODY, "System", "Admin"]


def test_the_groups_have_names_for_screen_readers(scene: Scene) -> None:
    assert re.findall(r'<ul aria-label="(\w+)"', side(scene, scene.viewer)) == ["Work", "Team", "Accounts"]


@pytest.mark.parametrize(("name", "label"), [("overview", "Overview"), ("live", "Live"), ("list", "Runs")])
def test_the_page_that_is_shown_is_marked_and_no_other(scene: Scene, name: str, label: str) -> None:
    html = side(scene, scene.viewer, reverse(f"runs:{name}"))
    marked = re.findall(r'<a href="([^"]+)" aria-current="page"', html)
    assert marked == [reverse(f"runs:{name}")]
    assert label in html


def test_open_questions_are_counted(scene: Scene) -> None:
    badge = r'Reviews<span data-open-reviews> <span class="k-badge">2<span class="k-hidden"> open</span>'
    assert re.search(badge, side(scene, scene.viewer))
    scene.department.reviews.all().delete()
    assert "k-badge" not in side(scene, scene.viewer)


def test_a_stranger_has_none(scene: Scene) -> None:
    assert "k-side" not in scene.client(None).get(reverse("login")).content.decode()


def departments(scene: Scene, path: str) -> list[str]:
    """Where the choice of a department leads from a page: the path that a browser makes of each link."""
    html = scene.client(scene.operator).get(path).content.decode()
    found = re.search(r'<ul class="k-pop" aria-label="Departments">.*?</ul>', html, re.DOTALL)
    assert found, path
    return [urljoin(path, link) for link in re.findall(r'href="([^"]*)"', found[0])]


def test_the_choice_of_a_department_stays_on_a_list_and_leads_from_a_page_of_one_to_the_overview(scene: Scene) -> None:
    other = Department.objects.get(slug="other")
    Member.objects.create(user=scene.operator, department=other, role=Member.Role.VIEWER)
    writer = scene.department.agents.get(slug="writer")
    queries = ["?department=all", f"?department={scene.department.slug}", "?department=other"]
    lists = [reverse(f"runs:{name}") for name in ("overview", "reviews", "list", "steps", "outbox", "costs", "actions")]
    for path in (*lists, reverse("runs:alerts"), reverse("leads:list")):
        assert sorted(departments(scene, path)) == sorted(path + query for query in queries)
    ones = [
        reverse("runs:output_new", args=[scene.lead.pk]) + "?key=email",
        reverse("runs:agent", args=[writer.pk]),
        reverse("runs:soul_history", args=[writer.pk]),
        reverse("leads:import"),
        reverse("leads:detail", args=[scene.lead.pk]),
    ]
    for path in ones:
        assert sorted(departments(scene, path)) == sorted(f"/{query}" for query in queries)
    client = scene.client(scene.operator)
    for path in (*lists, *ones):
        for link in departments(scene, path):
            assert client.get(link, follow=True).status_code == 200, (path, link)
        client.get("/?department=all")
