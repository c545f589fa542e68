"""What is so for every page: who may see it, what it contains, and that its parts are the same wherever they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.urls import reverse

from runs.access import Access
from tests.runs.scene import HTMX, Scene, make_scene, settled

pytestmark = pytest.mark.django_db

PAGES: dict[str, Callable[[Scene], str]] = {
    "overview": lambda s: reverse("runs:overview"),
    "runs": lambda s: reverse("runs:list"),
    "run": lambda s: reverse("runs:detail", args=[s.run.pk]),
    "call": lambda s: reverse("runs:call", args=[s.call.pk]),
    "live": lambda s: reverse("runs:live"),
    "leads": lambda s: reverse("leads:list"),
    "lead": lambda s: reverse("leads:detail", args=[s.lead.pk]),
    "why": lambda s: reverse("leads:detail", args=[s.lead.pk]) + "?tab=why",
    "conversation": lambda s: reverse("leads:detail", args=[s.lead.pk]) + "?tab=conversation",
    "timeline": lambda s: reverse("leads:detail", args=[s.lead.pk]) + "?tab=timeline",
    "cost": lambda s: reverse("leads:detail", args=[s.lead.pk]) + "?tab=cost",
    "preview": lambda s: reverse("leads:run_preview"),
}
PARTS: dict[str, tuple[Callable[[Scene], str], Callable[[Scene], str]]] = {
    "overview": (PAGES["overview"], lambda s: reverse("runs:overview_panel")),
    "runs": (PAGES["runs"], PAGES["runs"]),
    "run": (PAGES["run"], lambda s: reverse("runs:panel", args=[s.run.pk])),
    "call": (PAGES["call"], PAGES["call"]),
    "live": (PAGES["live"], PAGES["live"]),
    "leads": (PAGES["leads"], PAGES["leads"]),
    "lead": (PAGES["lead"], lambda s: reverse("leads:panel", args=[s.lead.pk])),
    "why": (PAGES["why"], lambda s: reverse("leads:panel", args=[s.lead.pk]) + "?tab=why"),
    "conversation": (PAGES["conversation"], lambda s: reverse("leads:panel", args=[s.lead.pk]) + "?tab=conversation"),
    "timeline": (PAGES["timeline"], lambda s: reverse("leads:panel", args=[s.lead.pk]) + "?tab=timeline"),
    "cost": (PAGES["cost"], lambda s: reverse("leads:panel", args=[s.lead.pk]) + "?tab=cost"),
}
OF_ONE_DEPARTMENT = ("run", "call", "lead", "why", "conversation", "timeline", "cost")


@pytest.mark.parametrize("name", PAGES)
def test_a_member_sees_the_page(name: str) -> None:
    scene = make_scene()
    response = scene.client(scene.operator).get(PAGES[name](scene))
    assert response.status_code == 200
    assert b"<h1" in response.content


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_is_sent_to_the_login_page(name: str) -> None:
    scene = make_scene()
    url = PAGES[name](scene)
    response = scene.client(None).get(url)
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("login"))


@pytest.mark.parametrize("name", PARTS)
def test_htmx_without_a_session_is_told_to_go_to_the_login_page(name: str) -> None:
    scene = make_scene()
    response = scene.client(None).get(PARTS[name][1](scene), headers=HTMX)
    assert response.status_code == 401
    assert response["HX-Redirect"] == reverse("login")


@pytest.mark.parametrize("name", OF_ONE_DEPARTMENT)
def test_rows_of_another_department_do_not_exist(name: str) -> None:
    scene = make_scene()
    client = scene.client(scene.stranger)
    assert client.get(PAGES[name](scene)).status_code == 404
    assert client.get(PARTS[name][1](scene), headers=HTMX).status_code == 404


@pytest.mark.parametrize("name", ["overview", "runs", "live", "leads"])
def test_lists_leave_out_other_departments(name: str) -> None:
    scene = make_scene()
    mine = scene.client(scene.operator).get(PAGES[name](scene)).content.decode()
    theirs = scene.client(scene.stranger).get(PAGES[name](scene)).content.decode()
    assert scene.lead.name in mine
    assert scene.lead.name not in theirs


@pytest.mark.parametrize("name", PARTS)
def test_the_part_is_what_the_page_shows(name: str) -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    page_url, part_url = (url(scene) for url in PARTS[name])
    # Ages are part of the text, so time stands still.
    with time_machine.travel(scene.run.started_at, tick=False):
        page = client.get(page_url).content.decode()
        part = client.get(part_url, headers=HTMX).content.decode()
    assert "<html" not in part
    assert settled(part)
    assert settled(part) in settled(page)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_changes_names_itself_and_where_it_comes_from(name: str) -> None:
    scene = make_scene()
    part = scene.client(scene.operator).get(PARTS[name][1](scene), headers=HTMX).content.decode()
    if name == "call":  # A call that was finished never changes.
        assert f'id="call-{scene.call.pk}"' in part
        return
    live = re.search(r'<div id="[^"]+"[^>]*data-live="[^"]+"\s+data-live-url="([^"]+)"', part)
    assert live is not None
    assert scene.client(scene.operator).get(live.group(1).replace("&amp;", "&"), headers=HTMX).status_code == 200


@pytest.mark.parametrize("name", PAGES)
def test_a_strict_content_security_policy_would_refuse_nothing(name: str) -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(PAGES[name](scene)).content.decode()
    assert not re.findall(r"<script(?![^>]*\ssrc=)", html)
    assert not re.findall(r"\sstyle=", html)
    assert "<style" not in html
    assert not re.findall(r"<[^>]+\son[a-z]+=", html)
    assert "javascript:" not in html


@pytest.mark.parametrize("path", ["/", "/login/", "/admin/login/", "/nowhere/", "/events/"])
def test_every_answer_says_what_a_browser_must_not_load(path: str) -> None:
    response = make_scene().client(None).get(path)
    policy = dict(part.split(" ", 1) for part in response["Content-Security-Policy"].split("; "))
    assert policy["script-src"] == policy["style-src"] == policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("name", PAGES)
def test_every_id_is_there_once(name: str) -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(PAGES[name](scene)).content.decode()
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert sorted(ids) == sorted(set(ids))


def test_a_page_restored_from_history_is_whole() -> None:
    scene = make_scene()
    headers = {**HTMX, "HX-History-Restore-Request": "true"}
    response = scene.client(scene.operator).get(reverse("leads:list"), headers=headers)
    assert b"<html" in response.content


def test_the_department_is_chosen_by_the_address_and_remembered() -> None:
    scene = make_scene()
    scene.operator.is_superuser = True
    scene.operator.save()
    client = scene.client(scene.operator)
    assert scene.lead.name in client.get(reverse("leads:list")).content.decode()
    assert scene.lead.name not in client.get(reverse("leads:list"), {"department": "other"}).content.decode()
    assert scene.lead.name not in client.get(reverse("leads:list")).content.decode()
    assert scene.lead.name in client.get(reverse("leads:list"), {"department": "all"}).content.decode()


def test_a_department_one_is_not_a_member_of_does_not_exist() -> None:
    scene = make_scene()
    response = scene.client(scene.operator).get(reverse("leads:list"), {"department": "other"})
    assert response.status_code == 404
    assert b"Not found" in response.content


def test_a_person_without_departments_sees_an_empty_overview() -> None:
    scene = make_scene()
    scene.stranger.memberships.all().delete()
    response = scene.client(scene.stranger).get(reverse("runs:overview"))
    assert response.status_code == 200
    assert scene.lead.name not in response.content.decode()


def test_the_banner_says_that_answers_are_simulated(settings: Any) -> None:
    scene = make_scene()
    url = reverse("runs:overview")
    settings.SIMULATED = True
    assert "Answers are simulated" in scene.client(scene.viewer).get(url).content.decode()
    settings.SIMULATED = False
    assert "Answers are simulated" not in scene.client(scene.viewer).get(url).content.decode()


def test_a_line_that_stands_still_is_on_every_page() -> None:
    scene = make_scene()
    scene.department.stopped_by_error = "The API refuses the key in ACME_KEY (401)."
    scene.department.save()
    for name in ("overview", "lead", "live"):
        html = scene.client(scene.viewer).get(PAGES[name](scene)).content.decode()
        assert "the line stands still" in html
        assert "ACME_KEY" in html


def test_roles_include_the_lower_ones() -> None:
    access = Access((), {7: "reviewer"})
    assert access.can(7, "viewer")
    assert access.can(7, "reviewer")
    assert not access.can(7, "operator")
    assert not access.can(8, "viewer")


def test_what_the_router_knows_of_an_output_is_named_as_in_the_rules() -> None:
    scene = make_scene()
    scene.lead.item.outputs.filter(key="intake").update(facets={"category": "lead"})
    html = scene.client(scene.viewer).get(PAGES["why"](scene)).content.decode()
    assert "Intake · kind of message lead" in html
