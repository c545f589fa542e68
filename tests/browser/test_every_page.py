"""Every page of the installation in Chromium, whoever wrote it: accessible, without complaints, and light to load.

The pages come from the URL table of tests/test_access_walk.py, so a new one is looked at without being named here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.urls import reverse

from agents.models import Member
from tests.browser.conftest import Visit
from tests.test_access_walk import Place, address, closed_routes, make_place

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
MOST_KILOBYTES = 350
HEAVY = (
    *("runs:overview", "leads:list", "leads:detail", "runs:list", "runs:detail", "runs:live", "runs:reviews"),
    *("runs:costs", "runs:agents", "runs:system"),
)
NOT_PAGES = {"logout"}
SHARES = 4
"""In how many tests the pages are looked at: each is well within a test's time on a slow machine."""


@pytest.fixture
def place(site: str, settings: Any, tmp_path: Path) -> Place:
    """Something on every page, and anna, who may see all of them."""
    made = make_place(settings, tmp_path)
    anna = made.administrator
    anna.set_password("a-password")
    anna.is_staff = True
    anna.save()
    return made


@pytest.fixture
def anna(place: Place, visit: Open) -> Visit:
    return visit("anna")


def find_pages(place: Place) -> Iterator[tuple[str, str]]:
    """Name and address of whatever answers anna with a whole page."""
    client = place.scene.client(place.administrator)
    for route in closed_routes():
        url = address(route, place)
        if route.name in NOT_PAGES or url is None:
            continue
        response = client.get(url)
        is_html = response.status_code == 200 and response["Content-Type"].startswith("text/html")
        if is_html and not response.streaming and b"<html" in response.content[:500]:
            yield route.name, url


@pytest.mark.looks
@pytest.mark.parametrize("share", range(SHARES))
def test_every_page_is_accessible_in_both_themes_and_fits_a_phone(share: int, place: Place, anna: Visit) -> None:
    pages, wrong = list(find_pages(place)), []
    # A colour that is half-way from one theme to the other is nobody's.
    anna.page.emulate_media(reduced_motion="reduce")
    assert {"runs:overview", "leads:detail", "runs:detail", "runs:review", "runs:live"} <= {name for name, _ in pages}
    for name, url in pages[share::SHARES]:
        wrong += [f"{name} {fault}" for fault in find_faults(anna, url)]
    assert not wrong, "\n".join(wrong)


def find_faults(visit: Visit, url: str) -> list[str]:
    """What is wrong with one page: for axe in both themes, on a phone, and in the console."""
    page, wrong = visit.page, []
    visit.complaints.clear()
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(visit.site + url)
    for scheme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.bsTheme = theme }", scheme)
        wrong += [f"{url}, {scheme}: {violation}" for violation in find_violations(visit)]
    page.set_viewport_size({"width": 375, "height": 800})
    page.evaluate(LAID_OUT)
    if (pixels := visit.overflow()) > 0:
        wrong.append(f"{url}: {pixels} px wider than a phone because of {page.evaluate(TOO_WIDE)}")
    return wrong + [f"{url}: {complaint}" for complaint in visit.complaints]


def find_violations(visit: Visit) -> list[str]:
    """What axe finds, a sentence each, with the first place where it is so."""
    found = Axe().run(visit.page, options=RULES).response["violations"]
    return [f"{one['id']}: {one['help']} ({len(one['nodes'])}: {one['nodes'][0]['html'][:160]})" for one in found]


@pytest.mark.looks
def test_axe_would_find_something(place: Place, anna: Visit) -> None:
    anna.page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert any(violation.startswith("button-name") for violation in find_violations(anna))


@pytest.mark.looks
def test_the_first_load_of_a_page_is_light(place: Place, visit: Open, tmp_path: Path, settings: Any) -> None:
    """The page as it is transferred, and each file it asked for as ``collectstatic`` compresses it."""
    anna = visit("anna")
    sizes = compressed_sizes(tmp_path, settings)
    too_heavy = []
    for name in HEAVY:
        url = next(url for known, url in find_pages(place) if known == name)
        seen: dict[str, int] = {}
        listener = lambda response, seen=seen: seen.update({response.url: 0})  # noqa: E731
        anna.page.on("response", listener)
        session = anna.page.context.new_cdp_session(anna.page)
        session.send("Network.clearBrowserCache")
        body = anna.page.goto(anna.site + url)
        assert body is not None
        assert body.headers.get("content-encoding") == "gzip", url
        anna.page.wait_for_load_state("load")
        anna.page.remove_listener("response", listener)
        files = [address.split("/static/")[1] for address in seen if "/static/" in address]
        assert "css/kontor.css" in files
        weight = sum(sizes[file] for file in files) + body.request.sizes()["responseBodySize"]
        if weight > MOST_KILOBYTES * 1000:
            too_heavy.append(f"{name}: {weight / 1000:.0f} KB, {sorted((sizes[f], f) for f in files)[-4:]}")
    assert not too_heavy, "\n".join(too_heavy)


def compressed_sizes(folder: Path, settings: Any) -> dict[str, int]:
    """How many bytes a browser gets of each static file, after ``collectstatic`` has compressed what it can."""
    settings.STATIC_ROOT = folder / "static"
    call_command("collectstatic", interactive=False, verbosity=0)
    names = json.loads((settings.STATIC_ROOT / "staticfiles.json").read_text())["paths"]
    found = {}
    for name, hashed in names.items():
        file = settings.STATIC_ROOT / hashed
        packed = file.with_name(file.name + ".gz")
        found[name] = (packed if packed.exists() else file).stat().st_size
    # The site under test serves the sources, by their own names.
    staticfiles_storage.hashed_files.clear()  # type: ignore[attr-defined]
    return found


def test_the_admin_works_under_the_policy(place: Place, visit: Open) -> None:
    place.administrator.is_superuser = True
    place.administrator.save()
    opened = visit("anna")
    soul = place.scene.department.agents.get(slug="writer").souls.get(status="published")
    for path in (
        reverse("admin:index"),
        reverse("admin:agents_agent_changelist"),
        reverse("admin:agents_agent_change", args=[soul.agent_id]),
        reverse("admin:agents_soul_change", args=[soul.pk]),
        reverse("admin:agents_department_change", args=[place.scene.department.pk]),
        reverse("admin:runs_item_changelist"),
    ):
        opened.page.goto(opened.site + path)
        opened.page.locator("#content").wait_for()
    assert opened.complaints == []


def test_a_script_or_style_that_slips_into_a_page_is_refused(place: Place, anna: Visit) -> None:
    anna.page.goto(f"{anna.site}{reverse('runs:live')}")
    anna.page.evaluate(SLIP)
    anna.until("document.getElementById('slipped') !== null")
    assert anna.page.evaluate("window.hasSlipped") is None
    assert anna.page.evaluate("getComputedStyle(document.getElementById('slipped')).color") != "rgb(1, 2, 3)"
    assert any("Content Security Policy" in complaint for complaint in anna.complaints)


@pytest.mark.looks
def test_a_viewer_gets_the_same_quality(place: Place, visit: Open) -> None:
    viewer = place.scene.viewer
    assert viewer.memberships.get().role == Member.Role.VIEWER
    viewer.set_password("a-password")
    viewer.save()
    opened, wrong = visit("vera"), []
    lead = reverse("leads:detail", args=[place.scene.lead.pk])
    for url in ("/", lead, reverse("runs:reviews"), reverse("runs:live"), reverse("runs:agents")):
        opened.page.goto(opened.site + url)
        wrong += [f"{url}: {violation}" for violation in find_violations(opened)]
    assert not wrong, "\n".join(wrong)
    assert opened.complaints == []


SLIP = """() => {
  const box = document.createElement("div");
  box.innerHTML = '<p id="slipped" style="color: rgb(1, 2, 3)" onclick="window.hasSlipped = 1">x</p>';
  const script = document.createElement("script");
  script.textContent = "window.hasSlipped = 1";
  document.querySelector("main").append(box, script);
  document.getElementById("slipped").click();
}"""
LAID_OUT = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((node) => node.getBoundingClientRect().right > window.innerWidth + 1 && node.checkVisibility())
  .slice(0, 3).map((node) => node.outerHTML.slice(0, 120))"""
