"""A page that stays open while its session ends: it says so, keeps what was typed, and goes on after signing in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from playwright.sync_api import Page, expect

from agents.models import Member
from runs.models import Item, Message
from tests import factories
from tests.browser.conftest import Visit
from tests.browser.test_every_page import find_violations

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
TYPED = "Half a sentence that somebody"


@pytest.fixture
def item(olga: Any, settings: Any) -> Item:
    settings.SIMULATED = True  # a lead then has a field to write in
    return factories.make_lead(olga.memberships.get().department, name="Lena Lerche").item


def open_and_type(opened: Visit, item: Item) -> None:
    opened.open(f"/leads/{item.pk}/")
    opened.page.evaluate("window.isTheSamePage = true")
    opened.page.locator("textarea[name=body]").fill(TYPED)


def sign_in(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill("a-password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label(f"Account of {name}").wait_for()


def sign_out_elsewhere(opened: Visit) -> Page:
    """As the person does it in another tab, which then is at the door."""
    tab = opened.page.context.new_page()
    tab.goto(f"{opened.site}/account/")
    tab.get_by_label("Account of olga").click()
    tab.get_by_role("button", name="Sign out").click()
    tab.get_by_role("heading", name="Sign in to Kontor").wait_for()
    return tab


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (375, "dark")])
def test_a_page_whose_session_has_ended_says_so_and_goes_on_after_signing_in_in_another_tab(
    width: int, scheme: str, item: Item, visit: Open
) -> None:
    opened = visit(width=width, scheme=scheme)
    page = opened.page
    open_and_type(opened, item)
    Session.objects.all().delete()
    factories.make_log_entry(item, text="Something happened.", at=timezone.now())
    notice = page.get_by_role("alert").filter(has_text="You were signed out.")
    expect(notice).to_be_visible()
    expect(page.locator("#live")).to_contain_text("signed out, last update")
    assert opened.overflow() <= 0
    assert find_violations(opened) == []
    with page.context.expect_page() as opening:
        notice.get_by_role("link", name="Sign in again").click()
    sign_in(opening.value, "olga")
    factories.make_log_entry(item, text="And on it goes.", at=timezone.now())
    page.bring_to_front()
    expect(notice).to_be_hidden()
    page.locator("#live[data-state=live]").wait_for()
    assert page.evaluate("window.isTheSamePage") is True
    expect(page.locator("textarea[name=body]")).to_have_value(TYPED)
    page.get_by_role("button", name="Receive it").click()
    page.locator("#messages .k-message").wait_for()
    assert Message.objects.get(item=item, direction="in").body == TYPED


def test_an_action_that_comes_too_late_is_not_called_an_error_of_the_server(item: Item, visit: Open) -> None:
    opened = visit()
    page = opened.page
    open_and_type(opened, item)
    Session.objects.all().delete()
    page.get_by_role("button", name="Receive it").click()
    page.get_by_text("You were signed out.").wait_for()
    assert page.get_by_text("The server answered").count() == 0
    expect(page.locator("textarea[name=body]")).to_have_value(TYPED)
    assert not Message.objects.filter(item=item).exists()


def test_a_page_on_which_nothing_is_refreshed_says_it_too(item: Item, visit: Open) -> None:
    opened = visit()
    opened.open("/account/")
    tab = sign_out_elsewhere(opened)
    opened.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    opened.page.get_by_text("You were signed out.").wait_for()
    sign_in(tab, "olga")
    opened.page.get_by_text("You were signed out.").wait_for(state="hidden", timeout=60_000)
    opened.page.locator("#live[data-state=live]").wait_for()


def test_what_one_person_has_typed_is_not_sent_by_another(item: Item, visit: Open) -> None:
    factories.make_user("zoe", department=item.department, password="a-password")
    opened = visit()
    page = opened.page
    open_and_type(opened, item)
    sign_in(sign_out_elsewhere(opened), "zoe")
    page.bring_to_front()
    page.get_by_role("button", name="Receive it").click()
    page.get_by_text("You were signed out.").wait_for()
    page.get_by_role("button", name="Receive it").click()
    expect(page.locator("#messages")).to_have_text(re.compile("Somebody has signed in here since the page"))
    expect(page.locator("textarea[name=body]")).to_have_value(TYPED)
    assert not Message.objects.filter(item=item).exists()


def test_a_page_is_not_refreshed_with_what_somebody_else_may_see(item: Item, visit: Open) -> None:
    factories.make_user("zoe", department=item.department, role=Member.Role.VIEWER, password="a-password")
    opened = visit()
    page = opened.page
    open_and_type(opened, item)
    sign_in(sign_out_elsewhere(opened), "zoe")
    # The page still has olga's stream, which tells of this.
    with page.expect_response(lambda response: "kontor-refresh" in response.request.headers) as refreshed:
        factories.make_log_entry(item, text="Something happened.", at=timezone.now())
    assert refreshed.value.status == 401
    page.get_by_text("You were signed out.").wait_for()
    expect(page.locator("textarea[name=body]")).to_have_value(TYPED)
    expect(page.get_by_role("button", name="Receive it")).to_be_visible()
    page.bring_to_front()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("You were signed out.").wait_for()
    expect(page.locator("textarea[name=body]")).to_have_value(TYPED)


def test_a_form_of_a_page_whose_session_has_ended_is_not_sent(item: Item, visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open("/account/")
    page.evaluate("window.isTheSamePage = true")
    field = page.locator("main form[method=post] :is(input:not([type=hidden]):not([type=checkbox]), select)").first
    before = field.input_value()
    Session.objects.all().delete()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("You were signed out.").wait_for()
    field.evaluate("field => field.form.requestSubmit()")
    assert page.evaluate("window.isTheSamePage") is True
    assert field.input_value() == before


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (375, "dark")])
def test_what_was_written_in_a_form_that_comes_too_late_is_shown_and_behind_the_back_button(
    width: int, scheme: str, olga: Any, visit: Open
) -> None:
    opened = visit(width=width, scheme=scheme)
    page, told = opened.page, re.compile(r"/(banners|reviews/open|events)/")
    opened.open("/account/")
    page.route(told, lambda route: route.abort())  # a page that has heard of it would not send the form
    page.get_by_label("First name").fill("Olga Maria")
    Session.objects.all().delete()
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="Not saved").wait_for()
    page.unroute(told)
    expect(page.get_by_label("First name")).to_have_value("Olga Maria")
    assert opened.overflow() <= 0
    assert find_violations(opened) == []
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Sign in").click()
    sign_in(opening.value, "olga")
    opening.value.close()
    page.go_back()
    page.get_by_role("button", name="Save").wait_for()
    expect(page.get_by_label("First name")).to_have_value("Olga Maria")
    page.locator("#live[data-state=live]").wait_for()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Your account is saved.").wait_for()
    olga.refresh_from_db()
    assert olga.first_name == "Olga Maria"
