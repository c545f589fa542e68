"""The leads in a real browser: found by search, why one did not run, filters, ticks that stay, views, editing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from leads.models import Lead
from runs.models import Item, SavedView
from tests import factories
from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser
Open = Callable[..., Visit]


def test_a_lead_is_found_and_says_why_it_did_not_run_within_three_clicks(olga: Any, visit: Open) -> None:
    department = olga.memberships.get().department
    for index in range(60):
        factories.make_lead(department, name=f"Somebody {index}")
    lead = factories.make_lead(department, name="Ben Turner", company="Nowhere", status="nurturing")
    payload = {**factories.PAYLOADS["qualification"], "tier": "Cold", "score": 12}
    factories.make_output(lead.item, payload=payload)
    for index in range(60):
        factories.make_lead(department, name=f"Later {index}")
    opened = visit()
    opened.open("/leads/")
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("turner")
    opened.page.get_by_role("link", name="Ben Turner").click()
    opened.page.get_by_role("link", name="Why", exact=True).click()
    rule = opened.page.locator("tr", has_text="Write to good leads")
    rule.get_by_text("its tier is Cold").wait_for()
    opened.page.get_by_text("No rule wants anything of it as it stands").wait_for()
    assert opened.page.url.endswith(f"/leads/{lead.pk}/?tab=why")
    opened.page.go_back()
    opened.page.locator(".k-output > summary", has_text="Qualification").wait_for()
    assert opened.complaints == []


def test_tabs_change_in_place_and_what_is_open_stays_open(olga: Any, visit: Open) -> None:
    item = factories.make_lead(olga.memberships.get().department).item
    factories.make_output(item)
    factories.make_output(item, "intake")
    opened = visit()
    opened.open(f"/leads/{item.pk}/")
    opened.page.evaluate("window.isTheSamePage = true")
    card = opened.page.locator(".k-output", has_text="Intake")
    card.locator("summary").first.click()
    card.locator(".k-pre", has_text="Wants to know whether").wait_for()
    factories.make_log_entry(item, text="Something happened.")
    factories.make_output(item, "research")
    factories.make_log_entry(item, text="Something else happened.")
    opened.page.locator(".k-output", has_text="Research").wait_for()
    assert card.evaluate("node => node.open") is True
    opened.page.get_by_role("link", name="Timeline", exact=True).click()
    opened.page.get_by_text("Something else happened.").wait_for()
    assert opened.page.evaluate("window.isTheSamePage") is True
    assert opened.complaints == []


@pytest.mark.parametrize("tab", ["timeline", "conversation"])
def test_a_tab_stands_still_while_it_is_read(olga: Any, visit: Open, tab: str) -> None:
    item = factories.make_lead(olga.memberships.get().department).item
    for number in range(30):
        factories.make_log_entry(item, text=f"Line {number}.")
        factories.make_message(item, "note", body=f"Note {number}.")
    opened = visit()
    opened.open(f"/leads/{item.pk}/?tab={tab}")
    rows = opened.page.locator("li[data-row]")
    rows.nth(9).evaluate("row => scrollTo(0, row.getBoundingClientRect().top)")
    opened.until("document.querySelector('li[data-row]').getBoundingClientRect().top < 0")
    row = opened.page.locator(f"#{rows.nth(12).get_attribute('id')}")
    text, before = _without_age(row.inner_text()), row.bounding_box()
    Item.objects.filter(pk=item.pk).update(flag="Somebody should look at this.")
    factories.make_log_entry(item, text="Something happened.", at=timezone.now())
    news = opened.page.get_by_role("button", name=re.compile("^1 change, show"))
    news.wait_for()
    assert (_without_age(row.inner_text()), row.bounding_box()) == (text, before)
    assert opened.page.get_by_text("Somebody should look at this.").count() == 0
    news.click()
    opened.page.get_by_text("Somebody should look at this.").wait_for()
    news.wait_for(state="hidden")
    assert opened.complaints == []


def _without_age(text: str) -> str:
    """Ages go on: that is no change."""
    return re.sub(r"\b(just now|\d+ (s|min) ago)", "", text)


def test_filters_are_set_by_keyboard_and_taken_away_one_by_one(olga: Any, visit: Open) -> None:
    department = olga.memberships.get().department
    factories.make_lead(department, name="Hanna Hot", owner=olga, flag="Look here.")
    factories.make_lead(department, name="Carla Cold")
    opened = visit(width=375)
    opened.open("/leads/")
    opened.page.get_by_text("More filters").focus()
    opened.page.keyboard.press("Enter")
    opened.page.locator("#owner").select_option("me")
    opened.page.get_by_text("Carla Cold").wait_for(state="detached")
    opened.page.locator("input[name=flag]").check()
    opened.page.get_by_label("Without: Flagged").wait_for()
    assert opened.page.url.endswith("/leads/?owner=me&flag=yes")
    assert opened.overflow() <= 0
    opened.page.get_by_label("Without: Mine").click()
    opened.page.wait_for_url(re.compile(r"\?flag=yes$"))
    opened.page.get_by_text("Hanna Hot").wait_for()
    opened.page.get_by_role("link", name="Clear all").click()
    opened.page.get_by_text("Carla Cold").wait_for()
    assert opened.complaints == []


def test_ticks_stay_while_the_list_goes_on_and_choose_what_is_acted_on(olga: Any, visit: Open) -> None:
    department = olga.memberships.get().department
    leads = [factories.make_lead(department, name=name) for name in ("Anna", "Berta", "Carla")]
    opened = visit()
    opened.open("/leads/")
    opened.page.get_by_label("Tick Anna").check()
    opened.page.get_by_label("Tick Carla").check()
    with opened.page.expect_response(lambda response: "/leads/" in response.url):
        factories.make_log_entry(leads[1].item, text="Something happened.")
    assert opened.page.get_by_label("Tick Anna").is_checked()
    opened.page.get_by_role("button", name="Act on those ticked").click()
    opened.page.get_by_role("heading", name="2 leads at once").wait_for()
    opened.page.get_by_role("button", name="Do it to 2").click()
    opened.page.get_by_text("2 of 2 done").first.wait_for()
    assert sorted(Item.objects.filter(automation="paused").values_list("title", flat=True)) == ["Anna", "Carla"]


def test_a_downloaded_file_has_every_lead(olga: Any, visit: Open) -> None:
    lead = factories.make_lead(olga.memberships.get().department, name="Jürgen Weiß")
    opened = visit()
    opened.open("/leads/")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("link", name="1 as CSV").click()
    lines = download.value.path().read_text("utf-8").splitlines()
    assert (len(lines), lines[1].split(",")[0]) == (2, lead.name)
    assert opened.complaints == []


def test_a_view_is_saved_and_opened(olga: Any, visit: Open) -> None:
    department = olga.memberships.get().department
    factories.make_lead(department, name="Anna", status="contacted")
    factories.make_lead(department, name="Berta")
    opened = visit()
    opened.open("/leads/?status=contacted&sort=name")
    opened.page.locator("#leads-views > summary").click()
    opened.page.get_by_label("Save this view as").fill("In outreach")
    opened.page.get_by_role("button", name="Save view").click()
    opened.page.get_by_text("Saved as “In outreach”.").wait_for()
    assert SavedView.objects.get().params == {"status": "contacted", "sort": "name"}
    opened.open("/leads/?all=1")
    opened.page.locator("#leads-views > summary").click()
    opened.page.get_by_role("link", name="In outreach").click()
    opened.page.get_by_text("Berta").wait_for(state="detached")
    assert opened.complaints == []


def test_owner_tags_and_fields_are_changed_on_the_page(olga: Any, visit: Open) -> None:
    lead = factories.make_lead(olga.memberships.get().department, name="Anna")
    opened = visit()
    opened.open(f"/leads/{lead.pk}/")
    opened.page.locator(f"#owner-{lead.pk} > summary").click()
    opened.page.get_by_role("button", name="Assign to me").click()
    opened.page.get_by_text("It is olga's now.").wait_for()
    opened.page.locator(f"#tags-{lead.pk} > summary").click()
    field = opened.page.get_by_label("New tags, with commas between")
    field.fill("fair, big")
    opened.page.get_by_role("button", name="Add", exact=True).click()
    opened.page.locator(".k-tag", has_text="fair").wait_for()
    expect(field).to_have_value("")
    opened.page.get_by_role("button", name="Take away fair").click()
    opened.page.locator(".k-tag", has_text="fair").wait_for(state="detached")
    opened.page.locator(".k-tag", has_text="big").wait_for()
    opened.page.get_by_role("link", name="Edit", exact=True).click()
    opened.page.get_by_label("Company").fill("Amsel Werke")
    opened.page.get_by_role("button", name="Save").click()
    opened.page.get_by_text("Changed: company.").wait_for()
    lead.refresh_from_db()
    assert (lead.owner, lead.company, Item.objects.get(pk=lead.pk).tags) == (olga, "Amsel Werke", ["big"])
    assert opened.complaints == []


def test_who_was_slower_keeps_what_they_typed_and_sees_what_the_other_wrote(olga: Any, visit: Open) -> None:
    lead = factories.make_lead(olga.memberships.get().department, name="Anna", company="Amsel", title="Buyer")
    opened = visit()
    opened.open(f"/leads/{lead.pk}/edit/")
    opened.page.get_by_label("Company").fill("Amsel Werke")
    Lead.objects.filter(pk=lead.pk).update(company="Amsel AG", title="Head of buying")
    opened.page.get_by_role("button", name="Save").click()
    opened.page.get_by_text("Nothing was saved yet, and what you typed is still here.").wait_for()
    expect(opened.page.get_by_label("Company")).to_have_value("Amsel Werke")
    opened.page.locator("q", has_text="Amsel AG").wait_for()
    expect(opened.page.get_by_label("Title")).to_have_value("Head of buying")
    opened.page.get_by_role("button", name="Save").click()
    opened.page.get_by_text("Changed: company.").wait_for()
    lead.refresh_from_db()
    assert (lead.company, lead.title) == ("Amsel Werke", "Head of buying")
    assert opened.complaints == []


def test_a_person_is_erased_after_their_address_was_typed(olga: Any, visit: Open) -> None:
    olga.memberships.update(role="administrator")
    lead = factories.make_lead(olga.memberships.get().department, name="Anna Amsel", email="anna@amsel.example")
    opened = visit()
    opened.open(f"/leads/{lead.pk}/")
    opened.page.get_by_role("link", name="Erase", exact=True).click()
    opened.page.get_by_label("Type anna@amsel.example").fill("anna@amsel.example")
    opened.page.get_by_role("button", name="Erase the person").click()
    opened.page.get_by_text("The person is erased.").wait_for()
    opened.page.get_by_text("The person was erased").first.wait_for()
    assert opened.page.get_by_text("anna@amsel.example").count() == 0
    assert opened.complaints == []
