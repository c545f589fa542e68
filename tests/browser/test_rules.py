"""Rules and settings in a real browser: written, foreseen, saved, moved by keyboard, disabled; wrong, then right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from agents.models import Department
from runs.models import Rule
from tests import factories
from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser


@pytest.fixture
def office(transactional_db: None) -> Department:
    """A department of which ada is administrator, with three cold leads."""
    office = factories.make_department(schedule="0 */6 * * *")
    factories.make_user("ada", department=office, role="administrator", password="a-password")
    for number in range(3):
        item = factories.make_lead(office, status="nurturing", name=f"Carl Cold {number}").item
        factories.make_output(item, "intake")
        factories.make_output(item, "qualification", facets={"tier": "Cold", "score": 20})
    return office


def order(office: Department) -> list[str]:
    return list(office.rules.order_by("position", "pk").values_list("name", flat=True))


def test_a_rule_is_written_foreseen_tried_saved_moved_and_disabled(
    office: Department, visit: Callable[..., Visit]
) -> None:
    ada = visit("ada")
    page = ada.page
    ada.open(reverse("runs:rules"))
    page.get_by_role("link", name="New rule", exact=True).click()
    page.get_by_label("Name").fill("Write to cold leads")
    page.get_by_label("Nurturing").check()
    page.locator("summary", has_text="What agents found out").click()
    page.get_by_role("group", name="Tier").get_by_label("Cold").check()
    page.get_by_role("group", name="Wanted").get_by_label("email").check()
    page.get_by_text("When the lead is nurturing and its tier is Cold, the email is wanted.").wait_for()

    page.get_by_role("button", name="Find out").click()
    page.get_by_text("3 leads", exact=True).wait_for()
    assert page.get_by_role("link", name="Carl Cold 1").count() == 1

    page.get_by_placeholder("Look for a lead").fill("Carl")
    page.get_by_role("button", name="Carl Cold 2").click()
    page.get_by_text("It would go otherwise.").wait_for()

    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Not saved yet: this would change what happens").wait_for()
    assert not Rule.objects.filter(name="Write to cold leads").exists()
    page.get_by_role("button", name="Save it all the same").click()
    page.get_by_text("“Write to cold leads” is saved.").wait_for()
    assert order(office)[-1] == "Write to cold leads"

    rule = Rule.objects.get(name="Write to cold leads")
    up = page.get_by_role("button", name="Move “Write to cold leads” up")
    up.focus()
    page.keyboard.press("Enter")
    page.get_by_text("is at place 9.").wait_for()
    assert page.evaluate("document.activeElement.id") == f"rule-{rule.pk}-up", "the keyboard stays where it was"
    page.keyboard.press("Enter")
    page.get_by_text("is at place 8.").wait_for()
    assert order(office)[-3] == "Write to cold leads"

    page.locator(f"#rule-{rule.pk}-more").click()
    page.locator(f"#rule-{rule.pk}").get_by_role("link", name="Disable…").click()
    page.get_by_text("For 3 leads this would no longer start").wait_for()
    page.get_by_role("button", name="Disable").click()
    page.get_by_text("“Write to cold leads” is disabled.").wait_for()
    assert not Rule.objects.get(pk=rule.pk).is_enabled
    assert ada.complaints == []


def test_nothing_typed_is_lost_when_a_rule_is_refused(office: Department, visit: Callable[..., Visit]) -> None:
    ada = visit("ada")
    page = ada.page
    ada.open(reverse("runs:rule_new"))
    page.get_by_label("Name").fill("A rule that stops itself")
    page.locator("summary", has_text="What is there").click()
    page.get_by_role("group", name="It lacks").get_by_label("draft").check()
    page.get_by_role("group", name="Wanted").get_by_label("email").check()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("the rule no longer holds because of its clause “lacks”").first.wait_for()
    assert page.get_by_label("Name").input_value() == "A rule that stops itself"
    assert page.get_by_role("group", name="It lacks").get_by_label("draft").is_checked()
    page.get_by_role("button", name="Write it as JSON").click()
    assert '"lacks"' in page.get_by_label("When, as JSON").input_value()
    assert not Rule.objects.filter(name="A rule that stops itself").exists()


def test_a_setting_is_refused_with_a_reason_and_then_saved(office: Department, visit: Callable[..., Visit]) -> None:
    ada = visit("ada")
    page = ada.page
    ada.open(reverse("runs:settings"))
    page.get_by_role("link", name="Schedule").click()
    page.get_by_label("Schedule", exact=True).fill("every morning")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("This is no cron expression.").wait_for()
    assert page.get_by_label("Schedule", exact=True).input_value() == "every morning"
    page.get_by_label("Schedule", exact=True).fill("30 7 * * *")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Schedule: saved.").wait_for()
    office.refresh_from_db()
    assert office.schedule == "30 7 * * *"
    page.get_by_text("Latest changes").wait_for()


@pytest.mark.looks
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_narrow_window(office: Department, visit: Callable[..., Visit], scheme: Any) -> None:
    ada = visit("ada", width=375, scheme=scheme)
    rule = office.rules.all()[0]
    paths = [
        reverse("runs:rules"),
        reverse("runs:rule_edit", args=[rule.pk]),
        f"{reverse('runs:rule_change', args=[rule.pk])}?do=disable",
        reverse("runs:settings"),
        reverse("runs:department_settings", args=[office.slug, "brand"]),
        reverse("runs:account"),
    ]
    for path in paths:
        ada.open(path)
        assert ada.overflow() <= 0, path
    assert ada.complaints == []
