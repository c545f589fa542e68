"""What the attributes of static/js/page.js and charts.js do, on the pages that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests import factories
from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]


def test_a_chart_is_drawn_from_its_table_which_stays_for_everybody(olga: Any, visit: Open) -> None:
    factories.make_lead(olga.memberships.get().department)
    opened = visit()
    opened.open("/")
    figure = opened.page.locator("figure[data-chart]").first
    canvas = figure.locator("canvas")
    canvas.wait_for()
    assert "The table after it has the figures." in (canvas.get_attribute("aria-label") or "")
    assert figure.locator("details table tbody tr").count() > 1
    assert not figure.locator("table").is_visible()
    figure.get_by_text("As a table").click()
    assert figure.locator("table").is_visible()
    # Another theme, and a refresh that brings the plain table: one chart, and the table still open.
    opened.page.get_by_label("Light or dark").click()
    factories.make_log_entry(factories.make_item(olga.memberships.get().department), text="Something happened.")
    opened.page.wait_for_timeout(1_500)
    assert figure.locator("canvas").count() == 1
    assert figure.locator("table").count() == 1
    assert figure.locator("table").is_visible()
    assert opened.complaints == []


def test_one_tick_ticks_all_and_says_when_only_some_are(olga: Any, visit: Open) -> None:
    for _ in range(3):
        factories.make_lead(olga.memberships.get().department)
    opened = visit()
    opened.open("/leads/")
    everything = opened.page.locator("[data-check-all]").first
    boxes = opened.page.locator("tbody input[type=checkbox]")
    everything.check()
    assert [box.is_checked() for box in boxes.all()] == [True, True, True]
    boxes.nth(1).uncheck()
    assert everything.evaluate("box => [box.checked, box.indeterminate]") == [False, True]
    boxes.nth(1).check()
    assert everything.is_checked()
    assert opened.complaints == []


def test_times_are_those_of_the_browser(olga: Any, visit: Open) -> None:
    item = factories.make_lead(olga.memberships.get().department).item
    factories.make_log_entry(item, text="Midsummer.")
    opened = visit()
    opened.open("/live/")
    zone = opened.page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    cookies = {cookie["name"]: cookie["value"] for cookie in opened.page.context.cookies()}
    assert cookies["kontor-zone"] == zone
    opened.page.evaluate("document.cookie = 'kontor-zone=Asia/Tokyo; path=/'")
    answer = opened.page.request.get(f"{opened.site}/live/")
    assert "JST" in answer.text()
