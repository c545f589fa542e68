"""Answers on their way: the next card at once, keys faster than the server, answers that are lost or refused late."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Dialog, Page, Route, expect

from agents.models import Department, Member
from runs import reviews
from runs.models import Action, OutboxMessage, Review, SendBack
from tests.browser.cards import LIMIT_SECONDS, answers, wait_until_ahead
from tests.browser.conftest import Visit, Web
from tests.engine import wait_for
from tests.factories import make_log_entry, make_user
from tests.runs.desk import make_drafted

pytestmark = pytest.mark.browser
Open = Callable[..., Visit]
NEXT_CARD_MS = 100
"""So long after the key the next card stands there, most of the time also where everything else runs beside it."""

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
        expect(page.locator(f"#answered-{drafts[number].pk}")).to_contain_text("Approved:")
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
    expect(page.locator(f"#answered-{drafts[0].pk}")).to_contain_text("Approved:")
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
    expect(page.locator(f"#answered-{drafts[0].pk}")).to_contain_text("Approved:")
    expect(page.locator("h1")).to_have_text("Send mail 1?")
    page.keyboard.press("a")
    wait_for(lambda: answers()[1] == "approve", "the second is answered", LIMIT_SECONDS)
    assert answers() == ["approve", "approve", "", "", ""]


def sign_out(page: Page) -> None:
    page.context.clear_cookies(name="sessionid")


def sign_in_anew(page: Page) -> None:
    """Their tab has a new token by now, and this page, which was not looked at, still the old one."""
    page.context.clear_cookies(name="csrftoken")
    page.context.add_cookies([{"name": "csrftoken", "value": "n" * 32, "url": page.url}])


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
        (sign_out, "Not saved, because you were signed out"),
        (sign_in_anew, "Not saved, because you were signed out"),
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


# --- Late ---------------------------------------------------------------------------------------------------


def hold(page: Page, review: Review) -> list[Route]:
    """What is answered to this question stays on its way; the requests that wait."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        if route.request.method != "POST":
            return route.fallback()
        held.append(route)
        return None

    page.route(f"**/reviews/{review.pk}/*/", keep)
    return held


def fail_late(route: Route, review: Review) -> None:
    route.fulfill(status=500, body="It is broken.")


def refuse_late(route: Route, review: Review) -> None:
    assert reviews.reject(review=review, user=make_user("rudi"), reason="Not to her.")
    route.continue_()


@pytest.mark.parametrize(
    ("end", "said", "found"),
    [
        (fail_late, "The server did not answer as it should.", ["", "approve", "approve", ""]),
        (refuse_late, "answered already by rudi: rejected", ["reject", "approve", "approve", ""]),
    ],
)
def test_an_answer_that_fails_after_the_next_ones_names_its_question_and_leads_back_to_what_was_typed(
    drafts: list[Review], visit: Open, end: Callable[[Route, Review], None], said: str, found: list[str]
) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    held = hold(page, drafts[0])
    page.keyboard.press("n")
    page.keyboard.type("Shorter, and warmer.")
    page.keyboard.press("Control+Enter")
    for number in (1, 2):
        wait_until_ahead(page, f"Send mail {number}?")
        page.keyboard.press("a")
        expect(page.locator(f"#answered-{drafts[number].pk}")).to_contain_text("Approved:")
    note = page.locator("#review-notes a")
    expect(note).to_have_text("Saving your answer to: Send mail 0?")
    assert answers() == ["", "approve", "approve", ""]
    end(held.pop(), drafts[0])
    expect(note).to_contain_text(said)
    expect(note).to_contain_text("Send mail 0?")
    expect(note).to_be_in_viewport()
    expect(page.locator("h1")).to_have_text("Is a meeting right?")
    assert answers() == found
    page.unroute(f"**/reviews/{drafts[0].pk}/*/")
    note.click()
    expect(page.locator("h1")).to_have_text("Send mail 0?")
    expect(note).to_have_count(0)
    assert f"/reviews/{drafts[0].pk}/" in page.url
    text = page.locator("textarea[name=note]")
    if found[0]:
        expect(page.locator("#review")).to_contain_text("Rejected by rudi")
        expect(text).to_have_value("Shorter, and warmer.")
        return
    expect(text).to_have_value("Shorter, and warmer.")
    text.focus()
    page.keyboard.press("Control+Enter")
    wait_for(lambda: answers()[0] == "send_back", "the second try is saved", LIMIT_SECONDS)
    expect(note).to_have_count(0)
    assert SendBack.objects.latest("pk").note == "Shorter, and warmer."


def test_an_answer_to_a_text_that_was_replaced_meanwhile_is_refused_once_and_what_was_typed_stays(
    drafts: list[Review], visit: Open
) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("r")
    page.keyboard.type("Too pushy.")
    rudi = make_user("rudi")
    assert reviews.approve_edited(review=drafts[0], user=rudi, changes={"subject": "Another subject"})
    assert reviews.undo(review=drafts[0], user=rudi)
    reason = page.locator("#reason-reject")
    # The card shows the new text by now; what somebody types is about what they began to read.
    expect(page.locator("#review")).to_contain_text("Another subject")
    reason.press("Enter")
    expect(page.locator("#messages")).to_contain_text("It is about another text than the one that you were shown.")
    expect(page.locator("h1")).to_have_text("Send mail 0?")
    expect(reason).to_have_value("Too pushy.")
    assert answers()[0] == ""
    reason.press("Enter")
    wait_for(lambda: answers()[0] == "reject", "the second look counts", LIMIT_SECONDS)
    assert Review.objects.get(pk=drafts[0].pk).answer_note == "Too pushy."


def test_an_edit_that_is_refused_stays_through_the_next_refresh(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("e")
    page.locator("#text-subject").fill("Mine")
    page.locator("#text-body").fill("")
    page.locator("#text-body").press("Control+Enter")
    expect(page.locator("#messages")).to_contain_text("at least 1 character")
    expect(page.locator("#text-subject")).to_have_value("Mine")
    item = drafts[0].item
    assert item is not None
    with page.expect_response("**/panel/**"):
        make_log_entry(item, text="Something happened.", at=timezone.now())
    opened.until("() => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")
    expect(page.locator("#text-subject")).to_have_value("Mine")
    expect(page.locator("#text-body")).to_have_value("")


def test_a_late_failure_is_in_sight_wherever_one_reads(drafts: list[Review], visit: Open) -> None:
    opened = visit(width=375)
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    held = hold(page, drafts[0])
    page.keyboard.press("a")
    wait_until_ahead(page, "Send mail 1?")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    opened.until("scrollY > 300")
    fail_late(held.pop(), drafts[0])
    note = page.locator("#review-notes a")
    expect(note).to_contain_text("Send mail 0?")
    expect(note).to_be_in_viewport(ratio=1)
    assert opened.overflow() <= 0


# --- The tab is closed ----------------------------------------------------------------------------------------


class Gate:
    """The server has an answer in its hands, and goes on with it when it is opened."""

    def __init__(self) -> None:
        self.begun, self.opened, self.ended = threading.Event(), threading.Event(), threading.Event()

    def wait(self, event: threading.Event, what: str) -> None:
        assert event.wait(LIMIT_SECONDS), f"{what}: not within {LIMIT_SECONDS} s"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds every edited approval at the door of the service."""
    gate, real = Gate(), reviews.approve_edited

    def approve_edited(**options: Any) -> Any:
        gate.begun.set()
        gate.wait(gate.opened, "the gate is opened")
        try:
            return real(**options)
        finally:
            gate.ended.set()

    monkeypatch.setattr(reviews, "approve_edited", approve_edited)
    yield gate
    gate.opened.set()


def edit_and_send(page: Page, body: str) -> None:
    page.keyboard.press("e")
    page.get_by_label("Body").fill(body)
    page.keyboard.press("Control+Enter")


@pytest.mark.parametrize("word", ["hello ", "üßäö "], ids=["kept alive", "too long for that"])
def test_a_tab_that_is_closed_while_the_server_works_on_the_answer_changes_nothing_of_it(
    drafts: list[Review], visit: Open, gate: Gate, word: str
) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    body = (word * 990).strip()
    edit_and_send(page, body)
    gate.wait(gate.begun, "the server has the answer")
    page.close()
    gate.opened.set()
    gate.wait(gate.ended, "the server is through with it")
    wait_for(lambda: answers()[0] == "approve_edited", "the answer is saved", LIMIT_SECONDS)
    review = Review.objects.select_related("edited", "answered_by").get(pk=drafts[0].pk)
    assert review.edited is not None
    assert (review.edited.payload["body"], review.edited.verdict) == (body, "approved")
    message = OutboxMessage.objects.get()
    assert (message.output, message.approved_by) == (review.edited, review.answered_by)
    assert Action.objects.filter(target=f"review:{review.pk}").count() == 1
    again = visit()
    again.open("/reviews/")
    expect(again.page.get_by_role("link", name="Send mail 0?")).to_have_count(0)
    again.open(f"/reviews/{drafts[0].pk}/")
    expect(again.page.locator("#review")).to_contain_text("Approved with changes by olga")


def test_a_tab_that_is_closed_while_the_server_is_away_leaves_the_question_as_it_was(
    drafts: list[Review], web: Web, visit: Open
) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    web.stop()
    page.keyboard.press("a")
    page.close()
    web.start()
    again = visit()
    again.open("/reviews/")
    again.page.get_by_role("link", name="Start with the first").click()
    wait_until_ahead(again.page, "Send mail 0?")
    assert answers() == ["", "", "", ""]
    assert not OutboxMessage.objects.exists()
    assert not Action.objects.exists()


def test_a_tab_that_is_closed_with_the_key_still_takes_the_answer_along(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    page.keyboard.press("a")
    page.close()
    wait_for(lambda: answers()[0] == "approve", "the answer is saved", LIMIT_SECONDS)
    assert answers() == ["approve", "", "", ""]
    assert OutboxMessage.objects.count() == 1


def test_somebody_who_closes_the_tab_meanwhile_is_asked_first(drafts: list[Review], visit: Open) -> None:
    opened = visit()
    page = opened.page
    opened.open(f"/reviews/{drafts[0].pk}/")
    wait_until_ahead(page, "Send mail 0?")
    held = hold(page, drafts[0])
    page.keyboard.press("a")
    wait_until_ahead(page, "Send mail 1?")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.close(run_before_unload=True)
    opened.until("document.querySelector('#review-notes a') !== null")
    wait_for(lambda: bool(page.evaluate("1")) and asked == ["beforeunload"], "they are asked", LIMIT_SECONDS)
    held.pop().continue_()
    wait_for(lambda: bool(page.evaluate("1")) and answers()[0] == "approve", "the answer is saved", LIMIT_SECONDS)
    expect(page.locator("#review-notes a")).to_have_count(0)
