"""The doors in a real browser: readable for everybody in both themes, on a phone, without complaints."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Visit
from tests.browser.test_every_page import find_violations

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_signing_in_are_accessible_and_fit_a_phone(
    scheme: Any, olga: Any, browser: Browser, site: str, settings: Any
) -> None:
    settings.EMAIL_IS_CONFIGURED = True
    context = browser.new_context(viewport={"width": 375, "height": 800}, color_scheme=scheme)
    door = Visit(context.new_page(), site)
    door.page.on("console", lambda m: door.complaints.append(m.text) if m.type in ("error", "warning") else None)
    door.page.goto(f"{site}/login/")
    wrong = find_violations(door)
    door.page.get_by_role("link", name="Get a new password").click()
    door.page.get_by_role("heading", name="Get a new password").wait_for()
    wrong += find_violations(door)
    door.page.get_by_label("E-mail address").fill("olga@example.com")
    door.page.get_by_role("button", name="Send the link").click()
    door.page.get_by_role("heading", name="Look into your mail").wait_for()
    wrong += find_violations(door)
    door.page.goto(f"{site}/password/reset/nobody/token/")
    door.page.get_by_role("heading", name="This link does not hold").wait_for()
    wrong += find_violations(door)
    assert door.overflow() <= 0
    assert wrong + door.complaints == []
    context.close()
