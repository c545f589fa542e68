"""Pages that follow: the live page, lists that stand still while they are read, and a server that goes away."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Route

from leads.models import Lead
from runs.models import Item, LogEntry
from runs.switches import switch_installation
from tests import factories
from tests.browser.conftest import WAIT_MS, Visit, Web
from tests.engine import wait_for

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]


@pytest.fixture
def item(olga: Any) -> Item:
    return factories.make_lead(olga.memberships.get().department, name="Lena Lerche").item


def write(item: Item, text: str, **values: Any) -> LogEntry:
    """A line that is written now."""
    return factories.make_log_entry(item, text=text, at=timezone.now(), **values)


def write_many(item: Item, number: int, kind: str = "decision") -> None:
    now = timezone.now()
    LogEntry.objects.bulk_create(
        LogEntry(item=item, department=item.department, kind=kind, text=f"Line {each}.", at=now)
        for each in range(number)
    )


def first_line(visit: Visit) -> str:
    return visit.page.locator("#live-lines li[data-row]").first.inner_text()


def test_a_line_appears_by_itself_at_the_top(item: Item, visit: Open) -> None:
    write(item, "It was quiet.")
    opened = visit()
    opened.open("/live/")
    write(item, "Something happened.")
    opened.page.get_by_text("Something happened.").wait_for()
    assert "Something happened." in first_line(opened)
    assert opened.complaints == []


def test_only_what_fits_the_filter_appears(item: Item, visit: Open) -> None:
    opened = visit()
    opened.open("/live/?kind=sent")
    write(item, "Decided.", kind="decision")
    write(item, "A mail left.", kind="sent")
    opened.page.get_by_text("A mail left.").wait_for()
    assert opened.page.get_by_text("Decided.").count() == 0


def test_a_filter_is_chosen_without_a_button_and_is_in_the_address(item: Item, visit: Open) -> None:
    write(item, "Decided.", kind="decision")
    write(item, "A mail left.", kind="sent")
    opened = visit()
    opened.open("/live/")
    opened.page.get_by_label("Kind").select_option("sent")
    opened.page.wait_for_url("**/live/?*kind=sent*")
    opened.page.get_by_text("A mail left.").wait_for()
    assert opened.page.get_by_text("Decided.").count() == 0


def test_a_paused_page_counts_what_waits_and_shows_it_when_resumed(item: Item, visit: Open) -> None:
    write(item, "Before.")
    opened = visit()
    opened.open("/live/")
    opened.page.keyboard.press("p")
    opened.page.get_by_role("button", name="Resume").wait_for()
    for number in range(3):
        write(item, f"While paused {number}.")
    news = opened.page.get_by_role("button", name="3 new lines, show")
    news.wait_for()
    assert opened.page.get_by_text("While paused").count() == 0
    opened.page.get_by_role("button", name="Resume").click()
    opened.page.get_by_text("While paused 2.").wait_for()
    news.wait_for(state="hidden")
    assert opened.page.get_by_text("While paused").count() == 3
    assert opened.complaints == []


def hold_next(opened: Visit) -> list[Route]:
    """The next refresh of the lines stays on its way; it is in the list from then on."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        if held or "kontor-refresh" not in route.request.headers:
            return route.fallback()
        held.append(route)
        return None

    opened.page.route("**/live/**", keep)
    return held


@pytest.mark.parametrize("reads_by", ["pause", "scrolling"])
def test_a_refresh_that_is_under_way_when_somebody_begins_to_read_moves_nothing_and_is_counted(
    item: Item, visit: Open, reads_by: str
) -> None:
    write_many(item, 60)
    opened = visit()
    page = opened.page
    with page.expect_response(lambda answer: "/live/" in answer.url and "kontor-refresh" in answer.request.headers):
        opened.open("/live/")  # a page looks once by itself, at the lines and at what stands beside them
    held = hold_next(opened)
    write(item, "Before reading.")
    wait_for(lambda: bool(page.evaluate("1")) and bool(held), "the lines are asked for", WAIT_MS / 1000)
    if reads_by == "pause":
        page.keyboard.press("p")
        page.get_by_role("button", name="Resume").wait_for()
    else:
        page.evaluate("scrollTo(0, 700)")
        opened.until("scrollY > 500")
    write(item, "While reading.")
    page.get_by_role("button", name=re.compile("^[12] new lines?, show")).wait_for()
    with page.expect_response(lambda response: "/live/" in response.url):
        held[0].continue_()
    page.get_by_role("button", name="2 new lines, show").wait_for()
    assert page.get_by_text(re.compile("(Before|While) reading")).count() == 0
    page.get_by_role("button", name="2 new lines, show").click()
    page.get_by_text("Before reading.").wait_for()
    page.get_by_text("While reading.").wait_for()
    page.get_by_role("button", name=re.compile("show$")).wait_for(state="hidden")
    assert opened.complaints == []


def test_a_badge_that_comes_does_not_hide_lines_that_do_not(item: Item, visit: Open) -> None:
    opened = visit()
    page = opened.page
    with page.expect_response(lambda answer: "/live/" in answer.url and "kontor-refresh" in answer.request.headers):
        opened.open("/live/")  # a page looks once by itself, at the lines and at what stands beside them
    held = hold_next(opened)
    write(item, "A person is asked.", kind="review")
    with page.expect_response("**/reviews/open/"):
        wait_for(lambda: bool(page.evaluate("1")) and bool(held), "the lines are asked for", WAIT_MS / 1000)
        held[0].fulfill(status=500)
    page.get_by_text(re.compile("reconnecting")).wait_for()
    with page.expect_response("**/reviews/open/"):
        page.evaluate(
            """() => { const part = document.getElementById("open-reviews");
            htmx.ajax("GET", part.dataset.liveUrl, { source: part, target: part, swap: "morph:outerHTML",
              headers: { "Kontor-Refresh": "event" } }); }"""
        )
    assert page.locator("#live").get_attribute("data-state") == "down"


def test_lines_wait_while_a_reader_has_scrolled_and_nothing_moves(item: Item, visit: Open) -> None:
    write_many(item, 80)
    opened = visit()
    opened.open("/live/")
    opened.page.evaluate("scrollTo(0, 700)")
    line = opened.page.get_by_text("Line 40.")
    opened.until("scrollY > 500")
    before = line.bounding_box()
    write(item, "Something new.")
    opened.page.get_by_role("button", name="1 new line, show").wait_for()
    assert line.bounding_box() == before
    opened.page.get_by_role("button", name="1 new line, show").click()
    opened.page.get_by_text("Something new.").wait_for()
    opened.until("scrollY === 0")


def test_a_thousand_lines_a_minute_cost_few_requests_and_a_bounded_page(item: Item, visit: Open) -> None:
    opened = visit()
    opened.open("/live/")
    asked: list[str] = []
    opened.page.on("request", lambda request: asked.append(request.url) if "/live/" in request.url else None)
    for _ in range(6):
        write_many(item, 170)
        opened.page.wait_for_timeout(1_000)  # ten times as many as a thousand a minute
    write(item, "The last of many.")
    opened.page.get_by_text("The last of many.").wait_for()
    assert opened.page.locator("#live-lines li[data-row]").count() <= 100
    assert 1 <= len(asked) <= 10
    assert opened.complaints == []


def test_a_list_stands_still_while_it_is_read(item: Item, visit: Open) -> None:
    for number in range(60):
        factories.make_lead(item.department, name=f"Lead {number:02}")
    opened = visit()
    opened.open("/leads/")
    opened.page.evaluate("scrollTo(0, 600)")
    opened.until("scrollY > 400")
    row = opened.page.locator("[data-row]").nth(30)
    name = row.locator("[data-row-link]").inner_text()
    before = row.bounding_box()
    fresh = factories.make_lead(item.department, name="Quite New")
    write(fresh.item, "A lead came in.")
    news = opened.page.get_by_role("button", name=re.compile("^1 change, show"))
    news.wait_for()
    assert row.bounding_box() == before
    assert row.locator("[data-row-link]").inner_text() == name
    news.click()
    opened.page.get_by_text("Quite New").wait_for()
    news.wait_for(state="hidden")


def test_a_server_that_goes_away_is_said_and_the_page_recovers_by_itself(
    web: Web, item: Item, visit: Open, settings: Any
) -> None:
    settings.SIMULATED = True  # a lead then has a field to write in
    opened = visit()
    opened.open(f"/leads/{item.pk}/")
    opened.page.evaluate("window.isTheSamePage = true")
    note = opened.page.locator("textarea[name=body]")
    note.fill("Half a sentence that")
    web.stop()
    opened.page.locator("#live[data-state=down]").wait_for()
    said = opened.page.locator("#live")
    assert re.search(r"reconnecting, last update \d+ s ago", said.inner_text())
    before = said.inner_text()
    opened.until("text => document.getElementById('live').innerText !== text", before)
    assert opened.page.get_by_role("heading", name="Lena Lerche").is_visible()
    Lead.objects.filter(item=item).update(name="Lena Neumann")
    Item.objects.filter(pk=item.pk).update(title="Lena Neumann")
    write(item, "This happened while nobody could see it.")
    web.start()
    opened.page.locator("#live[data-state=live]").wait_for(timeout=3 * WAIT_MS)
    opened.page.get_by_role("heading", name="Lena Neumann").wait_for()
    assert opened.page.evaluate("window.isTheSamePage") is True
    assert note.input_value() == "Half a sentence that"


def test_a_part_that_polls_by_itself_is_shown_and_its_failure_is_said_until_it_comes(item: Item, visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open("/agents/")
    poll = "document.body.dispatchEvent(new CustomEvent('kontor:changed', { bubbles: true }))"
    page.route("**/agents/panel/", lambda route: route.fulfill(status=500))
    page.evaluate(poll)
    page.locator("#live[data-state=down]").wait_for()
    with page.expect_response("**/reviews/open/"):
        write(item, "A person is asked.", kind="review")  # what comes does not hide it
    assert page.locator("#live").get_attribute("data-state") == "down"
    page.unroute("**/agents/panel/")
    page.route("**/agents/panel/", lambda route: route.fulfill(body='<div id="agents">A new one works here.</div>'))
    page.evaluate(poll)
    page.get_by_text("A new one works here.").wait_for()
    page.locator("#live[data-state=live]").wait_for()
    assert [each for each in opened.complaints if "500" not in each] == []


def test_a_page_that_stays_open_says_that_all_was_stopped_and_that_it_runs_again(item: Item, visit: Open) -> None:
    ada = factories.make_user("ada", is_superuser=True)
    opened = visit()
    opened.open("/leads/")
    switch_installation(user=ada, state="stopped", reason="Wrong price list")
    opened.page.get_by_role("alert").get_by_text("Wrong price list").wait_for()
    switch_installation(user=ada, state="running")
    opened.page.get_by_text("Wrong price list").wait_for(state="detached")
    assert opened.complaints == []
