"""What the card of a question fetches in the background says whose page it is, as everything htmx asks for does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Request, expect

from runs.models import Review
from tests.browser.cards import LIMIT_SECONDS, answers, wait_until_ahead
from tests.browser.conftest import Visit
from tests.engine import wait_for

pytestmark = pytest.mark.browser
Open = Callable[..., Visit]


def test_the_next_card_and_the_answer_say_for_whom(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page, asked = opened.page, list[Request]()
    page.on("request", lambda request: asked.append(request))
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("a")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    wait_for(lambda: answers()[0] == "approve", "it is saved", LIMIT_SECONDS)
    person = page.locator("body").get_attribute("data-person")
    fetched = [one for one in asked if one.url.endswith("/panel/") or one.method == "POST"]
    assert {one.method for one in fetched} == {"GET", "POST"}
    assert {one.headers.get("kontor-person") for one in fetched} == {person}
    assert {one.headers.get("kontor-department") for one in fetched} == {drafts[0].department.slug}
