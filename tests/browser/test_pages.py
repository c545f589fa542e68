"""What only a browser shows: layout, colours, the console, and pages that follow by themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Budget
from runs.models import AgentRun, Item, Review
from tests import factories
from tests.browser.conftest import WAIT_MS, Visit

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
WIDTHS = (1440, 375)


def _lead_with_work(department: Any) -> Item:
    lead = factories.make_lead(
        department,
        name="Chloé Dubois-Lefèvre-with-a-rather-long-name",
        status="drafted",
        company="Ünïcode & Söhne GmbH",
    )
    item = lead.item
    item.tags = ["lang:de", "country:DE"]
    item.save()
    # Before the draft: what comes in after it takes its question back.
    came_in = timezone.now() - timedelta(hours=1)
    factories.make_message(item, "in", trigger=factories.make_trigger(item, "reply"), at=came_in)
    for slug, key in (("intake", "intake"), ("qualifier", "qualification"), ("fact_checker", "fact_check")):
        run = factories.make_agent_run(item, slug, status="done")
        factories.make_tool_call(factories.make_model_call(run))
        factories.make_output(item, key, agent_run=run)
        factories.make_log_entry(item, pipeline_run=run.pipeline_run, agent_run=run, text=f"{slug} wrote {key}.")
    factories.make_review(item, output=factories.make_output(item, "email"))
    factories.make_agent_run(item, "writer", status="running")
    factories.make_agent_run(item, "strategist", status="failed")
    return item


def test_a_wrong_password_is_refused_in_words(olga: Any, visit: Open) -> None:
    opened = visit()
    opened.page.get_by_label("Account of olga").click()
    opened.page.get_by_role("button", name="Sign out").click()
    opened.page.get_by_label("Name").fill("olga")
    opened.page.get_by_label("Password").fill("wrong")
    opened.page.get_by_role("button", name="Sign in").click()
    opened.page.get_by_text("This name and password do not belong together.").wait_for()


@pytest.mark.looks
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways_or_complains(olga: Any, visit: Open, width: int, scheme: str) -> None:
    item = _lead_with_work(olga.memberships.get().department)
    for _ in range(5):
        factories.make_lead(item.department)
    run = item.pipeline_runs.get()
    opened = visit(width=width, scheme=scheme)
    paths = [
        "/",
        "/leads/",
        f"/leads/{item.pk}/",
        f"/leads/{item.pk}/?tab=why",
        "/leads/run/preview/",
        "/runs/",
        "/live/",
    ]
    for tab in ("error", "input", "output", "reasoning", "attempts", "cost"):
        paths.append(f"/runs/{run.pk}/?step={run.agent_runs.order_by('pk').first().pk}&tab={tab}")  # type: ignore[union-attr]
    for path in paths:
        opened.open(path)
        assert opened.overflow() <= 0, path
        assert opened.page.locator("html").get_attribute("data-bs-theme") == scheme
    assert opened.complaints == []


@pytest.mark.looks
def test_text_can_be_read_in_both_themes(olga: Any, visit: Open) -> None:
    item = _lead_with_work(olga.memberships.get().department)
    for scheme in ("light", "dark"):
        opened = visit(scheme=scheme)
        for path in ("/", f"/leads/{item.pk}/", f"/runs/{item.pipeline_runs.get().pk}/"):
            opened.open(path)
            assert opened.page.evaluate(LOW_CONTRAST) == [], (scheme, path)


def test_the_theme_can_be_switched_and_is_remembered(olga: Any, visit: Open) -> None:
    opened = visit(scheme="light")
    root = opened.page.locator("html")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = opened.page.evaluate(ground)
    opened.page.get_by_label("Light or dark").click()
    assert root.get_attribute("data-bs-theme") == "dark"
    assert opened.page.evaluate(ground) != light
    opened.page.reload()
    assert root.get_attribute("data-bs-theme") == "dark"


def test_the_lead_page_follows_without_reloading(olga: Any, visit: Open) -> None:
    department = olga.memberships.get().department
    item = factories.make_lead(department, name="Lena").item
    opened = visit()
    opened.open(f"/leads/{item.pk}/")
    opened.page.evaluate("window.isTheSamePage = true")
    run = factories.make_agent_run(item, "intake", status="running")
    factories.make_log_entry(item, kind="started", agent_run=run)
    opened.page.locator(".k-step", has_text="Intake Classifier").get_by_text("running").wait_for()
    AgentRun.objects.filter(pk=run.pk).update(
        status="done", lease_token=None, lease_expires_at=None, ended_at=timezone.now()
    )
    factories.make_output(item, "intake", agent_run=run)
    factories.make_log_entry(item, kind="output", agent_run=run, text="Intake Classifier wrote intake.")
    opened.page.locator(".k-pre", has_text="Wants to know whether 1,200 freight").wait_for()
    assert opened.page.evaluate("window.isTheSamePage") is True
    assert opened.complaints == []


def test_a_refresh_keeps_what_a_person_is_doing(olga: Any, visit: Open, settings: Any) -> None:
    settings.SIMULATED = True
    item = _lead_with_work(olga.memberships.get().department)
    opened = visit()
    opened.open(f"/leads/{item.pk}/?tab=timeline")
    body = opened.page.locator("textarea[name=body]")
    body.fill("Half a sentence that")
    opened.page.locator(".k-more > summary").first.click()
    factories.make_log_entry(item, text="Something else happened.")
    opened.page.get_by_text("Something else happened.").wait_for()
    assert body.input_value() == "Half a sentence that"
    assert opened.page.evaluate("document.querySelector('.k-more').open") is True


def test_a_failed_refresh_clears_nothing_and_says_how_old_the_page_is(olga: Any, visit: Open) -> None:
    item = _lead_with_work(olga.memberships.get().department)
    opened = visit()
    opened.open(f"/leads/{item.pk}/?tab=timeline")
    opened.page.route("**/panel/**", lambda route: route.fulfill(status=503, body="away"))
    factories.make_log_entry(item, text="Nobody will see this yet.")
    opened.page.locator("#live[data-state=down]").wait_for()
    assert "last update" in opened.page.locator("#live").inner_text()
    assert opened.page.get_by_role("heading", name="Chloé").is_visible()
    opened.page.unroute("**/panel/**")
    opened.page.get_by_text("Nobody will see this yet.").wait_for()
    opened.page.locator("#live[data-state=live]").wait_for()


def test_a_question_is_answered_without_leaving_the_page(olga: Any, visit: Open) -> None:
    item = _lead_with_work(olga.memberships.get().department)
    opened = visit()
    opened.open(f"/leads/{item.pk}/")
    opened.page.get_by_role("button", name="Approve").click()
    opened.page.get_by_text("Approved. It leaves the house after the undo time.").wait_for()
    opened.page.get_by_role("heading", name="Approved, not sent yet").wait_for()
    opened.page.get_by_role("button", name="Approve").wait_for(state="detached")
    opened.page.get_by_role("button", name="I sent it by hand").click()
    opened.page.get_by_text("Noted as sent.").wait_for()
    assert opened.complaints == []


def test_steps_and_tabs_of_a_run_change_in_place_and_in_the_address(olga: Any, visit: Open) -> None:
    item = _lead_with_work(olga.memberships.get().department)
    run = item.pipeline_runs.get()
    step = run.agent_runs.get(agent__slug="intake")
    opened = visit()
    opened.open(f"/runs/{run.pk}/")
    opened.page.locator(f"#step-{run.agent_runs.get(agent__slug='strategist').pk}-error").wait_for()
    opened.page.locator(f"#lane-{step.pk}").click()
    opened.page.locator(f"#step-{step.pk}-output").wait_for()
    opened.page.get_by_role("link", name="Attempts", exact=True).click()
    opened.page.get_by_text("Exact request and response").click()
    opened.page.get_by_text("Request as JSON", exact=True).click()
    exact = opened.page.locator("pre[id$=-request]", has_text='"max_tokens": 3000')
    exact.wait_for()
    assert opened.page.url.endswith(f"?step={step.pk}&tab=attempts")
    opened.page.evaluate("scrollTo(0, 0)")  # Who has scrolled is told instead: the page stands still.
    factories.make_log_entry(item, pipeline_run=run, text="The log goes on.")
    opened.page.get_by_text("The log goes on.").wait_for()
    assert exact.is_visible()
    assert opened.complaints == []


def test_the_list_is_filtered_while_typing_and_walked_by_keys(olga: Any, visit: Open) -> None:
    department = olga.memberships.get().department
    for name in ("Anna Apfel", "Berta Birne", "Carla Kirsche"):
        factories.make_lead(department, name=name)
    opened = visit()
    opened.open("/leads/")
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("birne")
    opened.page.get_by_text("Anna Apfel").wait_for(state="detached")
    assert "q=birne" in opened.page.url
    opened.page.go_back()
    opened.page.get_by_text("Anna Apfel").wait_for()
    opened.open("/leads/")
    opened.page.keyboard.press("j")
    opened.page.keyboard.press("j")
    assert opened.page.evaluate("document.activeElement.textContent") == "Berta Birne"
    opened.page.keyboard.press("Enter")
    opened.page.get_by_role("heading", name="Berta Birne").wait_for(timeout=WAIT_MS)


def test_the_menu_of_a_narrow_screen_opens_by_keyboard_and_closes_by_escape(olga: Any, visit: Open) -> None:
    opened = visit(width=375)
    menu = opened.page.get_by_label("Menu", exact=True)
    menu.focus()
    opened.page.keyboard.press("Enter")
    link = opened.page.locator(".k-nav-narrow").get_by_role("link", name="Runs")
    link.wait_for()
    opened.page.keyboard.press("Escape")
    link.wait_for(state="hidden")
    assert menu.evaluate("node => node === document.activeElement") is True


# Every visible piece of text against the ground it lies on; WCAG 2.2 asks for 4.5, or 3 where text is large.
LOW_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => colour.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const style = getComputedStyle(node);
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || node.closest("[disabled], svg")) continue;
    const [a, b] = [light(rgba(style.color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const text = walker.currentNode.textContent.trim().slice(0, 40);
    if (ratio < (isLarge ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${text}`);
  }
  return found;
}
"""


def test_a_long_address_in_a_heading_and_the_form_of_a_budget_have_room(olga: Any, visit: Open) -> None:
    olga.memberships.update(role="administrator")
    department = olga.memberships.get().department
    ask = "Was the first mail to somebody.with.a.long.name@a-company-with-a-long-name.example sent?"
    review = Review.objects.create(department=department, kind="unsure_send", ask=ask)
    budget = Budget.objects.create(department=department, period="day", limit_usd=1)
    opened = visit(width=375)
    opened.open(f"/reviews/{review.pk}/")
    assert opened.overflow() <= 0
    for width in (375, 1440):
        opened.page.set_viewport_size({"width": width, "height": 900})
        opened.open("/costs/")
        opened.page.locator(f"#budget-{budget.pk} summary").click()
        forms = opened.page.locator(f"#budget-{budget.pk} form").all()
        assert len(forms) == 2
        for box in (form.bounding_box() for form in forms):
            assert box is not None
            assert (box["width"] > 300, box["x"] >= 0, box["x"] + box["width"] <= width) == (True, True, True)
    assert opened.complaints == []
