"""The review queue by keyboard and on a phone: the next card at once, a live diff, snooze, undo, and two people."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, Route, expect

from agents.models import Department, Member
from runs.models import DraftGroup, OutboxMessage, Review, SendBack
from tests.browser.conftest import Visit
from tests.engine import make_due, make_office, wait_for
from tests.factories import (
    agent_of,
    make_lead,
    make_log_entry,
    make_message,
    make_output,
    make_review,
    make_trigger,
    make_user,
)
from tests.runs.desk import make_drafted
from tests.simulator_fixture import SimulatorServer
from tests.test_end_to_end import worker

pytestmark = pytest.mark.browser
Open = Callable[..., Visit]
LIMIT_SECONDS = 60
NEXT_CARD_MS = 100
"""So long after the key the next card stands there, most of the time also where everything else runs beside it."""


@pytest.fixture
def drafts(olga: Any) -> list[Review]:
    """Three mails that wait, and a doubt, in this order."""
    department = Department.objects.get()
    found = []
    for number in range(3):
        review = make_drafted(department)
        Review.objects.filter(pk=review.pk).update(
            risk=3 - number, ask=f"Send mail {number}?", deadline=timezone.now() + timedelta(hours=number + 1)
        )
        found.append(review)
    item = found[0].item
    assert item is not None
    make_message(item, "in", body="Can you check 1,200 invoices a month?", at=timezone.now() - timedelta(days=2))
    SendBack.objects.create(item=item, key="draft", note="Warmer, please.", author=olga)
    last = found[2].item
    assert last is not None
    doubted = make_output(last, "crm_update", trigger=make_trigger(last, "decision", status="handled"))
    found.append(make_review(doubted.item, output=doubted, kind="low_confidence", ask="Is a meeting right?"))
    return found


def answers() -> list[str]:
    return list(Review.objects.order_by("pk").values_list("answer", flat=True))


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


# --- No waiting -----------------------------------------------------------------------------------------------

WATCH = """() => {
  window.times = [];
  let pressed = 0, was = "";
  const shown = () => document.querySelector("#review")?.dataset.liveUrl ?? "";
  document.addEventListener("keydown", (event) => {
    if (event.key === "a") [pressed, was] = [performance.now(), shown()];
  }, true);
  const look = () => {
    if (pressed && shown() !== was) { window.times.push(performance.now() - pressed); pressed = 0; }
    requestAnimationFrame(look);
  };
  look();
}"""


def wait_until_ahead(page: Page, asked: str) -> None:
    """The card is there, and the one behind it was fetched."""
    expect(page.locator("h1")).to_have_text(asked)
    page.locator("#review[data-ready]").wait_for()


def test_the_next_card_stands_there_within_a_tenth_of_a_second(olga: Any, visit: Open) -> None:
    department = Department.objects.get()
    reviews = [make_drafted(department) for _ in range(21)]
    for number, review in enumerate(reviews):
        Review.objects.filter(pk=review.pk).update(ask=f"Send mail {number}?")
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{reviews[0].pk}/")
    page.evaluate(WATCH)
    for number in range(20):
        wait_until_ahead(page, f"Send mail {number}?")
        page.keyboard.press("a")
    expect(page.locator("h1")).to_have_text("Send mail 20?")
    wait_for(lambda: Review.objects.filter(answer="approve").count() == 20, "every answer is saved", LIMIT_SECONDS)
    times = sorted(page.evaluate("window.times"))
    assert len(times) == 20
    print(f"from the key to the next card: median {statistics.median(times):.0f} ms, p95 {times[18]:.0f} ms")
    assert statistics.median(times) <= NEXT_CARD_MS, times
    assert opened.complaints == []


def test_keys_that_are_faster_than_the_server_answer_each_its_own_card(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")

    def delay(route: Route) -> None:
        page.wait_for_timeout(400)
        route.continue_()

    page.route("**/approve/", delay)
    for number in range(2):
        expect(page.locator("h1")).to_have_text(f"Send mail {number}?")
        page.keyboard.press("a")
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    # First the page: what delays the answers runs only while Playwright is waited for.
    expect(page.locator("#review-notes a")).to_have_count(0)
    wait_for(lambda: answers()[:2] == ["approve", "approve"], "both answers are saved", LIMIT_SECONDS)
    expect(page.locator("h1")).to_have_text("Send mail 2?")
    assert answers() == ["approve", "approve", "", ""]
    assert opened.complaints == []


def test_an_answer_before_the_next_card_has_arrived_is_confirmed_too(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    page.route("**/panel/**", lambda route: None)  # never arrives
    opened.open(f"/reviews/{drafts[0].pk}/")
    for number in range(2):
        expect(page.locator("h1")).to_have_text(f"Send mail {number}?")
        page.keyboard.press("a")
        page.keyboard.press("a")  # the same card, as long as no other one is there
        expect(page.locator("#messages")).to_contain_text("Approved.")
        expect(page.locator("h1")).to_have_text(f"Send mail {number + 1}?")
    assert page.url.split("?")[0].endswith(f"/reviews/{drafts[2].pk}/")
    assert answers() == ["approve", "approve", "", ""]
    expect(page.locator("#review-notes a")).to_have_count(0)
    page.go_back()
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    assert opened.complaints == []


def test_a_key_that_is_held_down_is_one_answer(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.down("a")
    wait_until_ahead(page, "Send mail 1?")
    for _ in range(3):
        page.keyboard.down("a")
    page.keyboard.up("a")
    wait_for(lambda: answers()[0] == "approve", "the answer is saved", LIMIT_SECONDS)
    expect(page.locator("#messages")).to_contain_text("Approved.")
    assert answers() == ["approve", "", "", ""]


def test_what_comes_between_does_not_take_the_place_of_the_card_that_stands_there(
    drafts: list[Review], visit: Open
) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    between = make_drafted(Department.objects.get())
    Review.objects.filter(pk=between.pk).update(risk=3, ask="Send what came between?")
    page.keyboard.press("a")
    expect(page.locator("#messages")).to_contain_text("Approved.")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    page.keyboard.press("a")
    wait_for(lambda: answers()[1] == "approve", "the second is answered", LIMIT_SECONDS)
    assert answers() == ["approve", "approve", "", "", ""]


def sign_out(page: Page) -> None:
    page.context.clear_cookies(name="sessionid")


def cut_off(page: Page) -> None:
    page.context.set_offline(True)


def break_down(page: Page) -> None:
    page.route("**/approve/", lambda route: route.fulfill(status=500, body="It is broken."))


def lead_to_login(page: Page) -> None:
    page.route("**/approve/", lambda route: route.fulfill(status=200, body="<h1>Sign in</h1>"))


@pytest.mark.parametrize("is_ready", [True, False])
@pytest.mark.parametrize(
    ("strike", "said"),
    [
        (sign_out, "Not saved, because you are signed out"),
        (cut_off, "did not answer as it should"),
        (break_down, "did not answer as it should"),
        (lead_to_login, "did not answer as it should"),
    ],
)
def test_an_answer_that_was_lost_is_never_taken_for_given(
    drafts: list[Review], visit: Open, strike: Callable[[Page], None], said: str, is_ready: bool
) -> None:
    opened = visit()
    page = opened.page
    if not is_ready:
        page.route("**/panel/**", lambda route: None)  # never arrives
    opened.open(f"/reviews/{drafts[0].pk}/")
    if is_ready:
        wait_until_ahead(page, "Send mail 0?")
    strike(page)
    page.keyboard.press("a")
    expect(page.locator("#review-notes")).to_contain_text(said)
    expect(page.locator("#review-notes")).to_contain_text("Send mail 0?")
    expect(page.locator("h1")).to_have_text("Send mail 0?")
    assert f"/reviews/{drafts[0].pk}/" in page.url
    assert answers() == ["", "", "", ""]


def test_of_two_people_the_second_is_told_and_gets_the_card_back(drafts: list[Review], visit: Open) -> None:
    make_user("rudi", department=Department.objects.get(), role=Member.Role.REVIEWER, password="a-password")
    olga, rudi = visit("olga"), visit("rudi")
    path = f"/reviews/{drafts[0].pk}/"
    olga.open(path)
    rudi.open(path)
    wait_until_ahead(rudi.page, "Send mail 0?")
    # Nothing reaches the second window any more but the answer to what is pressed there.
    rudi.page.route("**/panel/**", lambda route: route.abort())
    wait_until_ahead(olga.page, "Send mail 0?")
    olga.page.keyboard.press("a")
    wait_for(lambda: answers()[0] == "approve", "the first answer is saved", LIMIT_SECONDS)
    rudi.page.evaluate("document.querySelector('[data-answer=approve] form').requestSubmit()")
    message = rudi.page.locator("#messages")
    expect(message).to_contain_text("This question is answered already by olga: approved")
    expect(rudi.page.locator("h1")).to_have_text("Send mail 0?")
    assert path in rudi.page.url
    assert OutboxMessage.objects.count() == 1


def test_what_could_not_be_sent_brings_its_card_back_with_what_was_typed(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.route("**/send-back/", lambda route: route.abort())
    page.keyboard.press("n")
    page.keyboard.type("Shorter.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#review-notes")).to_contain_text("The server did not answer as it should.")
    expect(page.locator("h1")).to_have_text("Send mail 0?")
    expect(page.locator("textarea[name=note]")).to_have_value("Shorter.")
    assert answers()[0] == ""
    page.unroute("**/send-back/")
    page.locator("textarea[name=note]").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    wait_for(lambda: answers()[0] == "send_back", "the second try is saved", LIMIT_SECONDS)


def test_back_leads_to_the_card_before(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Send mail 0?")
    assert opened.complaints == []


# --- Snooze, groups, absences ---------------------------------------------------------------------------------


def test_two_keys_snooze_and_the_list_of_the_snoozed_wakes(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[1].pk}/")
    wait_until_ahead(page, "Send mail 1?")
    page.keyboard.press("z")
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
    bar.get_by_role("link", name="Send back").click()
    expect(page.locator("textarea[name=note]")).to_be_in_viewport()
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
    expect(page.locator("#messages")).to_contain_text("Sent back.")
    wait_for(asked.exclude(pk=first.pk).exists, "the new mail waits for approval", LIMIT_SECONDS)
    second = asked.get()
    opened.open(f"/reviews/{second.pk}/")
    expect(page.locator("#review-rounds")).to_contain_text("Shorter, please.")
    page.keyboard.press("e")
    body = page.get_by_label("Body")
    body.fill(f"{body.input_value()}\nP.S. We halve your costs.")
    expect(page.locator("#compared-body li").last).to_have_text("We halve your costs.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#messages")).to_contain_text("With your changes")
    message = OutboxMessage.objects.get(item=item)
    assert "We halve your costs." in message.rendered["body"]
    assert message.approved_by is not None
    assert opened.complaints == []
