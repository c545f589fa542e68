"""The review queue by keyboard and on a phone: the next card at once, a live diff, snooze, undo, and two people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Dialog, Page, Route, expect

from agents.models import Department, Member
from runs.models import DraftGroup, OutboxMessage, Review
from runs.questions import read_review
from runs.reviews import approve
from runs.snoozing import snooze
from tests.browser.cards import LIMIT_SECONDS, answers, wait_until_ahead
from tests.browser.conftest import Visit
from tests.engine import make_due, make_office, wait_for
from tests.factories import (
    agent_of,
    make_lead,
    make_log_entry,
    make_message,
    make_user,
)
from tests.simulator_fixture import SimulatorServer
from tests.test_end_to_end import worker

pytestmark = pytest.mark.browser
Open = Callable[..., Visit]


def test_every_answer_is_two_keys_and_the_next_card_comes(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open("/reviews/")
    page.get_by_role("link", name="Start with the first").click()
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    page.keyboard.press("k")
    expect(page.locator("h1")).to_have_text("Send mail 0?")
    page.keyboard.press("a")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    assert page.url.split("?")[0].endswith(f"/reviews/{drafts[1].pk}/")
    page.keyboard.press("n")
    page.keyboard.type("Shorter.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    page.keyboard.press("r")
    page.keyboard.type("Not now.")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Is a meeting right?")
    wait_for(lambda: answers() == ["approve", "send_back", "reject", ""], "all are saved", LIMIT_SECONDS)
    undo = page.get_by_role("button", name="Undo")
    undo.wait_for()
    last = Review.objects.get(ask="Is a meeting right?").item
    assert last is not None
    with page.expect_response(lambda response: "/panel/" in response.url and "answered=" in response.url):
        make_log_entry(last, text="The card is fetched anew.")
    undo.wait_for()
    page.keyboard.press("u")
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    wait_for(lambda: answers()[2] == "", "the answer is taken back", LIMIT_SECONDS)
    assert opened.complaints == []


def test_the_menu_counts_what_is_still_open(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    badge = page.locator(".k-side .k-badge")
    expect(badge).to_have_text("4 open")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("a")
    expect(badge).to_have_text("3 open")
    expect(page.locator(".k-top .k-badge")).to_have_text("3 open")
    assert opened.complaints == []


def test_an_edit_shows_what_it_changes_while_it_is_typed(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    page.keyboard.press("e")
    body = page.get_by_label("Body")
    expect(body).to_be_focused()
    body.fill(body.input_value().replace("1,200 consignments", "1,300 consignments"))
    shown = page.locator("#compared-body")
    expect(shown.locator("del")).to_have_text("1,200")
    expect(shown.locator("ins")).to_have_text("1,300")
    page.keyboard.press("Control+Enter")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    wait_for(lambda: answers()[0] == "approve_edited", "the answer is saved", LIMIT_SECONDS)
    assert "1,300" in str(OutboxMessage.objects.get().rendered)
    opened.open(f"/reviews/{drafts[0].pk}/")
    expect(page.locator("#review-changes ins").first).to_have_text("1,300")
    assert opened.complaints == []


@pytest.mark.looks
@pytest.mark.parametrize("width", [375, 1440])
def test_list_and_card_fit_the_window(drafts: list[Review], visit: Open, width: int) -> None:
    opened = visit(width=width)
    for path in ("/reviews/", f"/reviews/{drafts[0].pk}/", f"/reviews/{drafts[3].pk}/"):
        opened.open(path)
        assert opened.overflow() <= 0, path
    assert opened.complaints == []


def test_a_refresh_does_not_take_away_what_is_being_typed(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    page.keyboard.press("n")
    page.keyboard.type("Half a sen")
    page.evaluate("document.dispatchEvent(new CustomEvent('kontor:changed', {bubbles: true}))")
    item = drafts[0].item
    assert item is not None
    with page.expect_response("**/panel/**"):
        make_message(item, "note", body="Somebody has called.")
        page.evaluate("document.dispatchEvent(new CustomEvent('kontor:changed', {bubbles: true}))")
    expect(page.locator("textarea[name=note]")).to_have_value("Half a sen")


def test_a_refresh_does_not_change_what_somebody_has_chosen(drafts: list[Review], visit: Open) -> None:
    make_user("zoe", department=Department.objects.get())
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    whom = page.get_by_label("Who shall look at it")
    whom.select_option("zoe")
    with page.expect_response("**/panel/**"):
        page.evaluate("document.dispatchEvent(new CustomEvent('kontor:changed', {bubbles: true}))")
    opened.until("() => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")
    assert whom.input_value() == "zoe"
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("zoe looks at it").wait_for()


def test_a_refresh_does_not_change_a_filter_before_it_is_used(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open("/reviews/")
    page.get_by_label("Kind").select_option("draft")
    item = drafts[0].item
    assert item is not None
    with page.expect_response(
        lambda answer: answer.url.endswith("/reviews/") and "kontor-refresh" in answer.request.headers
    ):
        make_log_entry(item, text="Something happened.", at=timezone.now())
    opened.until("() => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")
    assert page.get_by_label("Kind").input_value() == "draft"
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/reviews/?*kind=draft*")
    expect(page.get_by_label("Kind")).to_have_value("draft")


def test_who_has_switched_keys_off_answers_nothing_by_a_letter(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    page.get_by_role("link", name="switch off").click()
    page.get_by_label("Letters are keys in this browser").uncheck()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Your account is saved.").wait_for()
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    assert page.get_by_text("(a)").is_hidden()
    assert page.get_by_text("keys: j k").is_hidden()
    address = page.url
    for key in "jaz/":
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.tagName") == "BODY"
    assert page.url == address
    page.get_by_role("button", name="Approve", exact=True).click()  # pressed later than the letters, and answered later
    wait_for(lambda: any(answers()), "the answer", LIMIT_SECONDS)
    assert answers() == ["approve", "", "", ""]


# --- Snooze, groups, absences ---------------------------------------------------------------------------------


def test_two_keys_snooze_and_the_list_of_the_snoozed_wakes(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[1].pk}/")
    wait_until_ahead(page, "Send mail 1?")
    page.keyboard.press("z")
    expect(page.get_by_label("Back on the list")).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    expect(page.locator("#messages")).to_contain_text("Snoozed until")
    opened.open("/reviews/")
    expect(page.get_by_role("link", name="Send mail 1?")).to_have_count(0)
    page.get_by_label("Snoozed").check()
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="Send mail 1?").click()
    page.get_by_role("button", name="Wake it").click()
    expect(page.locator("#messages")).to_contain_text("It is back on the list.")
    drafts[1].refresh_from_db()
    assert drafts[1].snoozed_until is None
    assert opened.complaints == []


def test_what_is_no_answer_takes_nothing_away_that_was_begun(drafts: list[Review], visit: Open) -> None:
    make_user("zoe", department=Department.objects.get())
    page = (opened := visit()).page
    opened.open(f"/reviews/{drafts[1].pk}/")
    wait_until_ahead(page, "Send mail 1?")
    page.keyboard.press("e")
    page.locator("#text-subject").fill("Mine")
    page.locator("textarea[name=note]").fill("Half a sen")

    def it_stays() -> None:
        expect(page.locator("h1")).to_have_text("Send mail 1?")
        expect(page.locator("#text-subject")).to_have_value("Mine")
        expect(page.locator("#text-subject")).to_be_visible()
        expect(page.locator("textarea[name=note]")).to_have_value("Half a sen")

    page.get_by_role("button", name="I look at it").click()
    expect(page.locator("#review-assignee")).to_contain_text("You look at it.")
    it_stays()
    page.get_by_role("button", name="Release").click()
    expect(page.locator("#review-assignee")).to_contain_text("Nobody looks at it yet.")
    it_stays()
    page.get_by_label("Who shall look at it").select_option("zoe")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#review-assignee")).to_contain_text("zoe looks at it.")
    it_stays()
    page.locator("details[data-open=z] summary").click()
    page.get_by_label("Back on the list").select_option("at")
    page.get_by_role("button", name="Snooze", exact=True).click()
    expect(page.locator("#messages")).to_contain_text("Say until when.")
    expect(page.get_by_label("Back on the list")).to_be_visible()
    it_stays()
    page.get_by_label("Back on the list").select_option("hours")
    page.get_by_role("button", name="Snooze", exact=True).click()
    expect(page.locator("#review-snoozed")).to_contain_text("Snoozed: back on the list")
    expect(page.get_by_label("Back on the list")).to_have_count(0)
    it_stays()
    page.get_by_role("button", name="Wake it").click()
    expect(page.locator("#messages")).to_contain_text("It is back on the list.")
    it_stays()
    assert opened.complaints == []


def test_a_begun_card_is_not_left_without_asking(drafts: list[Review], visit: Open) -> None:
    page = (opened := visit()).page
    opened.open(f"/reviews/{drafts[1].pk}/")
    wait_until_ahead(page, "Send mail 1?")
    page.keyboard.press("n")
    page.keyboard.type("Half a sen")
    page.keyboard.press("Escape")
    asked: list[str] = []
    leaves: list[bool] = []

    def decide(dialog: Dialog) -> None:
        asked.append(dialog.type)
        (dialog.accept if leaves else dialog.dismiss)()

    def are_asked(times: int) -> None:
        wait_for(lambda: bool(page.evaluate("1")) and len(asked) == times, "they are asked", LIMIT_SECONDS)

    page.on("dialog", decide)
    for times, key in enumerate("jk", start=1):
        page.keyboard.press(key)
        are_asked(times)
        expect(page.locator("h1")).to_have_text("Send mail 1?")
        expect(page.locator("textarea[name=note]")).to_have_value("Half a sen")
    page.get_by_role("link", name="Overview").first.click()
    are_asked(3)
    expect(page.locator("textarea[name=note]")).to_have_value("Half a sen")
    leaves.append(True)
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    page.keyboard.press("k")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    assert asked == ["beforeunload"] * 4, "nothing is asked where nothing was begun"
    assert opened.complaints == []


def stay_on(page: Page) -> list[str]:
    """Refuse whatever the browser asks; the list is filled with what it has asked."""
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", refuse)
    return asked


@pytest.mark.parametrize("menu", ["select[name=tier]", "#code-reject"])
def test_a_choice_in_a_menu_is_begun_too(drafts: list[Review], visit: Open, menu: str) -> None:
    page = (opened := visit()).page
    opened.open(f"/reviews/{drafts[1].pk}/")
    wait_until_ahead(page, "Send mail 1?")
    chosen = page.locator("#review").locator(menu)
    before = chosen.input_value()
    index = chosen.evaluate("menu => [...menu.options].findIndex((option) => !option.defaultSelected)")
    asked = stay_on(page)
    chosen.select_option(index=index)
    chosen.press("Escape")
    page.keyboard.press("j")
    wait_for(lambda: bool(page.evaluate("1")) and asked == ["beforeunload"], "they are asked", LIMIT_SECONDS)
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    assert chosen.input_value() != before
    chosen.select_option(before)
    chosen.press("Escape")
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    assert asked == ["beforeunload"], "chosen as it was: nothing is begun"


def test_what_was_begun_for_one_answer_is_not_thrown_away_by_another(drafts: list[Review], visit: Open) -> None:
    page = (opened := visit()).page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("a")
    wait_until_ahead(page, "Send mail 1?")
    page.locator(f"#answered-{drafts[0].pk}").wait_for()
    page.keyboard.press("n")
    page.keyboard.type("please shorter")
    page.keyboard.press("Escape")
    asked: list[str] = []
    does_accept: list[bool] = []

    def decide(dialog: Dialog) -> None:
        asked.append(dialog.message)
        (dialog.accept if does_accept else dialog.dismiss)()

    def are_asked(times: int) -> None:
        wait_for(lambda: bool(page.evaluate("1")) and len(asked) == times, "they are asked", LIMIT_SECONDS)

    page.on("dialog", decide)
    for times, key in enumerate("au", start=1):
        page.keyboard.press(key)
        are_asked(times)
        expect(page.locator("h1")).to_have_text("Send mail 1?")
        expect(page.locator("textarea[name=note]")).to_have_value("please shorter")
    assert answers() == ["approve", "", "", ""]
    does_accept.append(True)
    page.keyboard.press("a")
    wait_until_ahead(page, "Send mail 2?")
    wait_for(lambda: answers()[1] == "approve", "the answer is saved", LIMIT_SECONDS)
    assert asked == ["What you have begun for another answer would be lost. Go on without it?"] * 3
    page.keyboard.press("n")
    page.keyboard.type("Warmer.")
    page.keyboard.press("Control+Enter")
    wait_for(lambda: answers()[2] == "send_back", "its own answer is saved", LIMIT_SECONDS)
    assert len(asked) == 3, "nothing is asked where what was begun is sent"
    assert opened.complaints == []


def test_a_correction_that_was_made_is_not_begun_any_more(drafts: list[Review], visit: Open) -> None:
    page = (opened := visit()).page
    opened.open(f"/reviews/{drafts[1].pk}/")
    wait_until_ahead(page, "Send mail 1?")
    tier = page.locator("#review select[name=tier]")
    index = tier.evaluate("menu => [...menu.options].findIndex((option) => !option.defaultSelected)")
    tier.select_option(index=index)
    page.locator("#review form").filter(has=page.locator("select[name=tier]")).get_by_role("button").click()
    expect(page.locator("#messages")).to_contain_text("Corrected.")
    expect(page.locator("#review select[name=tier]")).to_have_count(0)  # it is written again, and asked anew
    asked = stay_on(page)
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    assert asked == []


def test_a_refused_snooze_keeps_its_form_open(drafts: list[Review], visit: Open) -> None:
    page = (opened := visit()).page
    opened.open(f"/reviews/{drafts[1].pk}/")
    wait_until_ahead(page, "Send mail 1?")
    page.keyboard.press("z")
    page.get_by_label("Back on the list").select_option("at")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#messages")).to_contain_text("Say until when.")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    expect(page.get_by_label("Back on the list")).to_be_visible()
    expect(page.get_by_label("Back on the list")).to_have_value("at")


def test_what_was_done_is_said_although_the_page_has_heard_of_it_before(drafts: list[Review], visit: Open) -> None:
    assert snooze(review=drafts[1], user=User.objects.get(), until=timezone.now() + timedelta(hours=4))
    opened = visit()
    page = opened.page
    with page.expect_response("**/panel/**"):
        opened.open(f"/reviews/{drafts[1].pk}/")
    held: list[Route] = []
    page.route("**/wake/", lambda route: held.append(route))
    page.get_by_role("button", name="Wake it").click()
    wait_for(lambda: bool(page.evaluate("1")) and bool(held), "it is on its way", LIMIT_SECONDS)
    # The answer is ready, and the page is told of what it did before it arrives.
    with page.expect_response(lambda response: "/panel/" in response.url and "Snooze <span" in response.text()):
        answer = held[0].fetch()
    held[0].fulfill(response=answer)
    expect(page.locator("#messages")).to_contain_text("It is back on the list.")
    expect(page.get_by_role("button", name="Wake it")).to_have_count(0)
    assert opened.complaints == []


def test_drafts_that_are_alike_are_ticked_and_approved_one_by_one(drafts: list[Review], visit: Open) -> None:
    department = Department.objects.get()
    fields = {"agent": agent_of(department, "formatter"), "purpose": "item", "signature": [1]}
    group = DraftGroup.objects.create(department=department, used_at=timezone.now(), **fields)
    Review.objects.filter(pk__in=[review.pk for review in drafts[:3]]).update(group=group)
    opened = visit()
    page = opened.page
    opened.open("/reviews/")
    page.get_by_role("link", name=re.compile("3 drafts are alike")).click()
    expect(page.locator("section.k-card")).to_have_count(3)
    page.get_by_label("Tick all").check()
    page.get_by_role("button", name="Approve those that are ticked").click()
    expect(page.locator("#messages")).to_contain_text("2 approved.")
    expect(page.locator("section.k-card")).to_have_count(1)
    assert answers() == ["", "approve", "approve", ""], "the first is of high risk"
    assert opened.complaints == []


def test_on_a_phone_the_answers_stay_in_sight(drafts: list[Review], visit: Open) -> None:
    opened = visit(width=375)
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    bar = page.get_by_role("navigation", name="Answers")
    expect(bar).to_be_in_viewport()
    box = bar.get_by_role("button", name="Approve").bounding_box()
    assert box is not None
    assert box["height"] >= 44
    for name, field in (("Approve with changes", "#text-subject"), ("Send back", "textarea[name=note]")):
        bar.get_by_role("link", name=name).click()
        expect(page.locator(field)).to_be_in_viewport()
        expect(page.locator(field)).to_be_focused()
    bar.get_by_role("button", name="Approve").click()
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    wait_for(lambda: answers()[0] == "approve", "the answer is saved", LIMIT_SECONDS)
    for path in ("/outbox/", f"/outbox/{OutboxMessage.objects.get().pk}/", "/account/away/", "/actions/"):
        opened.open(path)
        assert opened.overflow() <= 0, path
    assert opened.complaints == []


def test_somebody_says_that_they_are_away_and_comes_back(olga: Any, visit: Open) -> None:
    make_user("rudi", department=Department.objects.get(), role=Member.Role.REVIEWER, password="a-password")
    opened = visit()
    page = opened.page
    opened.open("/account/away/")
    page.get_by_label("Last day").fill(f"{timezone.now() + timedelta(days=9):%Y-%m-%d}")
    page.get_by_label("Who covers").select_option("rudi")
    page.get_by_role("button", name="Note it").click()
    expect(page.locator("#messages")).to_contain_text("rudi finds your questions")
    expect(page.locator("#away")).to_contain_text("covered by rudi")
    page.get_by_role("button", name="I am back").click()
    expect(page.locator("#away")).to_contain_text("You are not away")
    assert opened.complaints == []


# --- With a worker --------------------------------------------------------------------------------------------


@pytest.fixture
def at_work(transactional_db: None, simulator: SimulatorServer, tmp_path: Path) -> Iterator[Department]:
    """A department whose leads a worker process works on."""
    department = make_office()
    log = tmp_path / "worker.log"
    log.touch()
    with worker(simulator, log):
        yield department
    print(log.read_text(errors="replace")[-5_000:])


def test_a_mail_goes_back_with_a_note_and_the_new_one_is_edited_and_approved(at_work: Department, visit: Open) -> None:
    make_user("rita", department=at_work, role=Member.Role.REVIEWER, password="a-password")
    item = make_lead(at_work, attributes={"Industry": "Furniture", "Number of Employees": "420"}).item
    make_due(item)
    opened = visit("rita")
    page = opened.page
    asked = Review.objects.filter(item=item, kind="draft", status="open")
    wait_for(asked.exists, "the first mail waits for approval", LIMIT_SECONDS)
    first = asked.get()
    opened.open(f"/reviews/{first.pk}/")
    page.keyboard.press("n")
    page.keyboard.type("Shorter, please.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(f"#answered-{first.pk}")).to_contain_text("Sent back:")
    wait_for(asked.exclude(pk=first.pk).exists, "the new mail waits for approval", LIMIT_SECONDS)
    second = asked.get()
    opened.open(f"/reviews/{second.pk}/")
    expect(page.locator("#review-rounds")).to_contain_text("Shorter, please.")
    page.keyboard.press("e")
    body = page.get_by_label("Body")
    body.fill(f"{body.input_value()}\nP.S. We halve your costs.")
    expect(page.locator("#compared-body li").last).to_have_text("We halve your costs.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(f"#answered-{second.pk}")).to_contain_text("Approved with changes:")
    message = OutboxMessage.objects.get(item=item)
    assert "We halve your costs." in message.rendered["body"]
    assert message.approved_by is not None
    assert opened.complaints == []


def test_what_is_typed_stays_when_somebody_else_answers_first(drafts: list[Review], visit: Open) -> None:
    anna = make_user("anna", department=Department.objects.get())
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    page.keyboard.press("e")
    body = page.get_by_label("Body")
    body.fill("My own words.")
    assert approve(review=read_review(drafts[0].pk), user=anna)
    expect(page.locator("#review")).to_contain_text("by anna")
    expect(body).to_be_visible()
    expect(body).to_have_value("My own words.")
    body.press("Control+Enter")
    expect(page.get_by_text("This question is answered already by anna")).to_be_visible()
    expect(page.locator("#review-typed")).to_contain_text("My own words.")
    expect(body).to_have_count(0)
    assert answers()[0] == "approve"
