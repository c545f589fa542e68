"""A person in charge, in a real browser: the bar of a lead, forms, previews and switches, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from runs import control, selections, switches
from runs.models import AgentRun, BulkAction, Item, Output
from tests import factories
from tests.browser.conftest import Visit
from tests.engine import make_office, wait_for
from tests.runs.test_outputs import made_all

pytestmark = pytest.mark.browser


@pytest.fixture
def item(transactional_db: None) -> Item:
    """A lead for which everything is made, in an office whose administrator is ada."""
    office = make_office()
    factories.make_user("ada", department=office, role="administrator", password="a-password")
    item = factories.make_lead(office, status="drafted").item
    made_all(item)
    return item


def automation_of(item: Item) -> str:
    return Item.objects.get(pk=item.pk).automation


def test_a_lead_is_paused_and_resumed_from_its_bar(item: Item, visit: Callable[..., Visit]) -> None:
    ada = visit("ada")
    ada.open(item.get_absolute_url())
    bar = ada.page.get_by_role("group", name="Automation of this lead")
    bar.locator("summary", has_text="Pause").click()
    form = bar.locator("details[open] form")
    form.get_by_label("Why").fill("On holiday")
    form.get_by_role("button", name="Pause").click()
    ada.page.get_by_text("Nothing further starts", exact=False).first.wait_for()
    wait_for(lambda: automation_of(item) == "paused", "it is paused")
    # The part of the page that changed has come by itself.
    bar.locator("summary", has_text="Resume").wait_for()
    bar.locator("summary", has_text="Resume").click()
    bar.locator("details[open] form").get_by_role("button", name="Resume").click()
    wait_for(lambda: automation_of(item) == "active", "it goes on")
    assert ada.complaints == []


def test_an_output_is_edited_in_its_form_and_the_change_is_shown(item: Item, visit: Callable[..., Visit]) -> None:
    ada = visit("ada")
    ada.open(f"{reverse('runs:output_new', args=[item.pk])}?key=research")
    ada.page.get_by_label("Company summary").fill("Makes packaging machines and conveyors.")
    ada.page.locator("[name=f-facts-2-statement]").fill("A plant in Poland")
    ada.page.locator("[name=f-facts-2-source]").fill("website")
    ada.page.get_by_role("button", name="Save").click()
    ada.page.get_by_text("Research 2 is yours").wait_for()
    mine = Output.objects.get(item=item, key="research", is_current=True)
    assert len(mine.payload["facts"]) == 3
    ada.page.get_by_role("link", name="what changed").first.click()
    ada.page.locator("ins", has_text="conveyors").first.wait_for()
    assert ada.complaints == []


@pytest.mark.looks
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (375, "dark"), (375, "light"), (1440, "dark")])
def test_the_pages_fit_and_complain_of_nothing(
    item: Item, visit: Callable[..., Visit], width: int, scheme: Any
) -> None:
    ada = User.objects.get(username="ada")
    office = item.department
    switches.switch_department(department=office, user=ada, state="holding_sends", reason="The price list is checked.")
    started = selections.start(department=office, user=ada, verb="pause", chosen={"status": "drafted"}, reason="List")
    assert isinstance(started, BulkAction)
    control.resume_item(item=item, user=ada)
    step = AgentRun.objects.get(item=item, agent__slug="researcher")
    new = f"{reverse('runs:bulk_new')}?department={office.slug}&status=drafted"
    pages = [
        item.get_absolute_url(),
        f"{reverse('runs:detail', args=[step.pipeline_run_id])}?step={step.pk}",
        reverse("runs:step_rerun", args=[step.pk]),
        reverse("runs:by_hand", args=[item.pk]),
        f"{reverse('runs:output_new', args=[item.pk])}?key=research",
        reverse("runs:switches"),
        f"{reverse('leads:list')}?status=drafted",
        new,
        reverse("runs:bulk", args=[started.pk]),
        reverse("runs:bulk_list"),
    ]
    seen = visit("ada", width=width, scheme=scheme)
    for url in pages:
        seen.open(url)
        assert seen.overflow() <= 0, url
        for menu in seen.page.locator(".k-verbs details > summary").all():
            if menu.is_visible():
                menu.click()
                assert seen.overflow() <= 0, f"{url}: {menu.inner_text()}"
                seen.page.keyboard.press("Escape")
    assert seen.complaints == []
