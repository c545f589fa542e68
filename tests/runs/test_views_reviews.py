"""The review queue in a browser: the list, the card, and every answer as a POST."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Member
from leads.models import Lead
from runs.models import Action, Item, OutboxMessage, Output, Review, SendBack
from runs.zones import COOKIE
from tests.factories import (
    make_agent_run,
    make_department,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_review,
    make_user,
)
from tests.runs.desk import mail_of, make_drafted
from tests.runs.scene import HTMX, settled

pytestmark = pytest.mark.django_db


@dataclass(slots=True)
class Office:
    """A department with its people, a stranger to it, and one question of every kind that is answered here."""

    department: Department
    people: dict[str, User]
    draft: Review
    doubt: Review
    fell: Review
    unsure: Review

    def client(self, name: str) -> Client:
        client = Client()
        if name != "nobody":
            client.force_login(self.people[name])
        return client


@pytest.fixture
def office() -> Office:
    department, other = make_department(), make_department(slug="other")
    roles = Member.Role
    people = {
        name: make_user(name, department=department, role=role)
        for name, role in (("vera", roles.VIEWER), ("rudi", roles.REVIEWER), ("olga", roles.OPERATOR))
    }
    people["stan"] = make_user("stan", department=other, role=roles.ADMINISTRATOR)
    draft = make_drafted(department)
    doubted = make_output(make_lead(department).item, "qualification")
    doubt = make_review(doubted.item, output=doubted, kind="low_confidence", ask="Is Hot right?")
    fell = make_review(make_lead(department).item, kind="fell_through", ask="What shall become of it?")
    message = make_outbox(make_lead(department).item, status="unknown")
    unsure = make_review(message.item, kind="unsure_send", outbox=message, ask="Was it sent?")
    return Office(department, people, draft, doubt, fell, unsure)


@dataclass(frozen=True, slots=True)
class Post:
    """One answer: its address and what a person fills in."""

    url: Callable[[Office], str]
    data: dict[str, str]
    who: str = "rudi"


def _of(name: str, question: str, data: dict[str, str] | None = None, who: str = "rudi") -> Post:
    return Post(lambda o: reverse(f"runs:review_{name}", args=[getattr(o, question).pk]), data or {}, who)


POSTS = {
    "approve": _of("approve", "draft"),
    "approve_edited": _of("approve_edited", "draft", {"text_subject": "Freight", "text_body": "Dear Lena,\r\nhello."}),
    "send_back": _of("send_back", "draft", {"note": "Shorter.", "reason_code": "length"}),
    "reject": _of("reject", "draft", {"reason": "Too pushy.", "reason_code": "tone"}),
    "take_over": _of("take_over", "draft", {"reason": "A friend."}, "olga"),
    "correct": _of("correct", "doubt", {"tier": "Cold"}),
    "dismiss": _of("dismiss", "fell", {"reason": "On holiday."}),
    "was_sent": _of("settle", "unsure", {"sent": "yes"}),
    "not_sent": _of("settle", "unsure", {"sent": "no"}),
    "claim": _of("claim", "draft"),
    "assign": _of("assign", "draft", {"assignee": "olga"}),
    "output_correct": Post(
        lambda o: reverse(
            "runs:output_correct", args=[Output.objects.get(item=o.draft.item_id, key="qualification").pk]
        ),
        {"tier": "Cold"},
    ),
}
ASSIGNING = {"claim", "assign"}


def changes() -> tuple[Any, ...]:
    """Everything that an answer could have changed, in one value."""
    return (
        list(Review.objects.order_by("pk").values_list("pk", "status", "answer", "assignee", "reason_code")),
        list(Output.objects.order_by("pk").values_list("pk", "verdict", "is_current")),
        list(OutboxMessage.objects.order_by("pk").values_list("pk", "status")),
        list(Item.objects.order_by("pk").values_list("pk", "automation")),
        SendBack.objects.count(),
        Action.objects.count(),
    )


@pytest.mark.parametrize("name", POSTS)
def test_it_works_and_redirects_a_plain_form(office: Office, name: str) -> None:
    post, before = POSTS[name], changes()
    client = office.client(post.who)
    response = client.post(post.url(office), {**post.data, "queue": "risk=1"})
    assert response.status_code == 302
    page = client.get(response["Location"])
    assert page.status_code == 200
    assert 'data-colour="success"' in page.content.decode()
    assert changes() != before
    assert Action.objects.filter(user=office.people[post.who]).exists()


@pytest.mark.parametrize("name", [name for name in POSTS if name != "output_correct"])
def test_from_the_queue_the_next_question_comes_in_its_place(office: Office, name: str) -> None:
    post = POSTS[name]
    response = office.client(post.who).post(post.url(office), {**post.data, "queue": ""}, headers=HTMX)
    html = response.content.decode()
    assert response.status_code == 200
    assert "<html" not in html
    assert html.count('id="review"') == 1
    assert 'hx-swap-oob="true"' in html
    assert 'data-colour="success"' in html
    assert response["HX-Push-Url"].startswith("/reviews/")
    answered = post.url(office).split("/")[2]
    assert (f"/reviews/{answered}/panel/" in html) is (name in ASSIGNING)


def test_nobody_is_offered_to_ask_themselves_alone(office: Office) -> None:
    assert 'name="assignee"' in card(office)
    Member.objects.exclude(user__username="rudi").delete()
    assert 'name="assignee"' not in card(office)


def test_one_bar_says_what_was_approved_and_what_becomes_of_it(office: Office) -> None:
    post = POSTS["approve"]
    html = office.client("rudi").post(post.url(office), {"queue": ""}, headers=HTMX).content.decode()
    assert html.count('data-colour="success"') == 1
    bar = html[html.index('data-colour="success"') :].split("</span>")[0]
    assert "Approved: " in bar
    assert "It leaves the house after the undo time." in bar


def test_while_sends_are_held_no_card_or_bar_says_that_a_mail_leaves(office: Office) -> None:
    Department.objects.filter(pk=office.department.pk).update(state="holding_sends", state_reason="A wrong price.")
    assert "It waits in the outbox: Sales is holding" in card(office)
    post = POSTS["approve"]
    html = office.client("rudi").post(post.url(office), {"queue": ""}, headers=HTMX).content.decode()
    assert "It waits in the outbox: Sales is holding sends: A wrong price." in html
    assert "undo time" not in html


@pytest.mark.parametrize("name", POSTS)
def test_elsewhere_it_answers_htmx_with_a_message(office: Office, name: str) -> None:
    post = POSTS[name]
    response = office.client(post.who).post(post.url(office), post.data, headers=HTMX)
    assert response["HX-Trigger"] == "kontor:changed"
    assert 'data-colour="success"' in response.content.decode()


@pytest.mark.parametrize("name", POSTS)
def test_a_second_time_changes_nothing_and_says_so(office: Office, name: str) -> None:
    post = POSTS[name]
    client, url = office.client(post.who), post.url(office)
    client.post(url, post.data)
    after = changes()
    html = client.post(url, {**post.data, "queue": ""}, headers=HTMX).content.decode()
    assert changes() == after
    assert 'data-colour="warning"' in html


@pytest.mark.parametrize("name", POSTS)
def test_get_is_refused(office: Office, name: str) -> None:
    assert office.client("olga").get(POSTS[name].url(office)).status_code == 405


@pytest.mark.parametrize("name", POSTS)
@pytest.mark.parametrize("who", ["vera", "stan", "nobody"])
def test_who_may_not_changes_nothing(office: Office, name: str, who: str) -> None:
    before = changes()
    response = office.client(who).post(POSTS[name].url(office), POSTS[name].data)
    # Who has written something while signed out is shown it again, the others are led to the door.
    assert response.status_code in ((302, 401) if who == "nobody" else (404,))
    assert changes() == before


@pytest.mark.parametrize("data", [{}, {"sent": ""}, {"sent": "perhaps"}])
def test_what_nobody_has_said_is_not_a_no_that_sends_again(office: Office, data: dict[str, str]) -> None:
    before, url = changes(), POSTS["not_sent"].url(office)
    html = office.client("rudi").post(url, {**data, "queue": ""}, headers=HTMX).content.decode()
    assert "Say whether it was sent." in html
    assert changes() == before


def test_the_buttons_about_an_unsure_message_say_what_they_mean(office: Office) -> None:
    html = office.client("rudi").get(reverse("runs:review", args=[office.unsure.pk])).content.decode()
    for answer, value in (("was_sent", "yes"), ("not_sent", "no")):
        form = html.split(f'data-answer="{answer}"')[1].split("</form>")[0]
        assert f'name="sent" value="{value}"' in form


def test_a_reviewer_may_not_take_over(office: Office) -> None:
    assert office.client("rudi").post(POSTS["take_over"].url(office)).status_code == 404


def test_the_second_person_is_told_who_was_first(office: Office) -> None:
    office.client("rudi").post(POSTS["approve"].url(office))
    url = POSTS["reject"].url(office)
    html = office.client("olga").post(url, {"reason": "No.", "queue": ""}, headers=HTMX).content.decode()
    assert "answered already by rudi: approved at " in html


def test_the_second_person_is_told_when_in_their_own_zone(office: Office) -> None:
    office.client("rudi").post(POSTS["approve"].url(office))
    Review.objects.filter(pk=office.draft.pk).update(answered_at=datetime(2026, 7, 1, 22, 30, tzinfo=UTC))
    for zone, at in (("", "2026-07-01 22:30 UTC"), ("Asia/Tokyo", "2026-07-02 07:30 JST")):
        client = office.client("olga")
        client.cookies[COOKIE] = zone
        response = client.post(POSTS["reject"].url(office), {"reason": "No.", "queue": ""}, headers=HTMX)
        assert f"answered already by rudi: approved at {at}." in response.content.decode()


def test_a_correction_names_its_fields_as_the_rules_do(office: Office) -> None:
    sorts = Output.objects.get(item=office.draft.item_id, key="intake")
    assert f'for="sorted-{sorts.pk}-category">Kind of message</label>' in card(office)


@pytest.mark.parametrize("name", ["approve", "approve_edited"])
def test_no_mail_goes_to_an_address_that_was_not_on_the_page(office: Office, name: str) -> None:
    client, item_id = office.client("rudi"), office.draft.item_id
    seen = Lead.objects.get(pk=item_id).email
    pages = [reverse("runs:review", args=[office.draft.pk]), reverse("leads:detail", args=[item_id])]
    for page in pages:
        assert f'name="to" value="{seen}"' in client.get(page).content.decode()
    assert f"To {seen}" in client.get(pages[0]).content.decode()
    Lead.objects.filter(pk=item_id).update(email="somebody.else@example.com")
    data, before = {**POSTS[name].data, "to": seen, "queue": ""}, changes()
    html = client.post(POSTS[name].url(office), data, headers=HTMX).content.decode()
    assert "it goes to somebody.else@example.com now. Look again." in html
    assert changes() == before
    assert 'name="to" value="somebody.else@example.com"' in html
    client.post(POSTS[name].url(office), {**data, "to": "somebody.else@example.com"})
    assert OutboxMessage.objects.get(item=item_id).address == "somebody.else@example.com"


def test_what_was_typed_and_refused_is_not_lost(office: Office) -> None:
    data = {"text_subject": "Mine", "text_body": "", "queue": ""}
    response = office.client("rudi").post(POSTS["approve_edited"].url(office), data)
    html = response.content.decode()
    assert response.status_code == 409
    assert 'value="Mine"' in html
    assert f'id="edit-{office.draft.pk}" open' in html
    assert "Body: String should have at least 1 character." in html
    assert mail_of(office.draft).verdict == "none"


@pytest.mark.parametrize(("name", "has"), [("send_back", ">Shorter.</textarea>"), ("reject", 'value="Too pushy."')])
def test_a_note_that_is_refused_without_scripts_stands_in_its_field_again(office: Office, name: str, has: str) -> None:
    data, before = {**POSTS[name].data, "output": "0", "queue": "risk=1"}, changes()
    response = office.client("rudi").post(POSTS[name].url(office), data)
    html = response.content.decode()
    assert response.status_code == 409
    assert "It is about another text than the one that you were shown." in html
    assert html.count(has) == 1
    assert f'value="{data["reason_code"]}" selected' in html
    assert 'name="queue" value="risk=1"' in html
    assert changes() == before


@pytest.mark.parametrize("queue", [{"queue": ""}, {}])
@pytest.mark.parametrize("name", ["approve_edited", "send_back", "reject"])
def test_who_was_second_gets_what_they_wrote_back(office: Office, name: str, queue: dict[str, str]) -> None:
    office.client("rudi").post(POSTS["approve"].url(office))
    before, data = changes(), POSTS[name].data
    response = office.client("olga").post(POSTS[name].url(office), {**data, **queue})
    html = response.content.decode()
    assert response.status_code == 409
    assert "answered already by rudi: approved at " in html
    assert "What you had written is not saved:" in html
    assert "hello." in html if name == "approve_edited" else next(iter(data.values())) in html
    assert changes() == before


def test_line_ends_are_stored_as_they_were_typed(office: Office) -> None:
    office.client("rudi").post(POSTS["approve_edited"].url(office), POSTS["approve_edited"].data)
    office.draft.refresh_from_db()
    assert office.draft.edited is not None
    assert office.draft.edited.payload["body"] == "Dear Lena,\nhello."


def test_a_rejection_asks_for_a_reason(office: Office) -> None:
    html = office.client("rudi").post(POSTS["reject"].url(office), {"reason": " "}, headers=HTMX).content.decode()
    assert "Say why" in html


def test_an_answer_can_be_taken_back_from_the_next_card(office: Office) -> None:
    client = office.client("rudi")
    html = client.post(POSTS["approve"].url(office), {"queue": ""}, headers=HTMX).content.decode()
    undo = reverse("runs:review_undo", args=[office.draft.pk])
    assert f'action="{undo}"' in html
    html = client.post(undo, {"queue": ""}, headers=HTMX).content.decode()
    assert f'data-live-url="/reviews/{office.draft.pk}/panel/"' in html
    office.draft.refresh_from_db()
    assert office.draft.status == "open"


@pytest.mark.parametrize("who", ["vera", "stan", "nobody"])
def test_who_may_not_take_it_back(office: Office, who: str) -> None:
    office.client("rudi").post(POSTS["approve"].url(office))
    before = changes()
    office.client(who).post(reverse("runs:review_undo", args=[office.draft.pk]))
    assert changes() == before


def test_who_looks_at_it_can_let_go_of_it_and_nobody_else_can(office: Office) -> None:
    office.client("rudi").post(POSTS["claim"].url(office))
    release = reverse("runs:review_release", args=[office.draft.pk])
    office.client("olga").post(release)
    office.draft.refresh_from_db()
    assert office.draft.assignee == office.people["rudi"]
    office.client("rudi").post(release)
    office.draft.refresh_from_db()
    assert office.draft.assignee is None


@pytest.mark.parametrize("to", ["vera", "stan", "somebody", ""])
def test_who_cannot_answer_is_not_asked_to(office: Office, to: str) -> None:
    office.client("rudi").post(reverse("runs:review_assign", args=[office.draft.pk]), {"assignee": to})
    office.draft.refresh_from_db()
    assert office.draft.assignee is None


# --- The list -------------------------------------------------------------------------------------------------


def asks(html: str) -> list[str]:
    """The questions of a list, in their order."""
    return [part.split(">", 1)[1].split("<")[0] for part in html.split("data-row-link")[1:]]


def queue(department: Department, count: int) -> None:
    """Questions of three risks with deadlines in the other order of their ages."""
    item = make_lead(department).item
    for number in range(count):
        deadline = timezone.now() + timedelta(hours=count - number // 3)
        make_review(item, ask=f"Q{number:03}", risk=number % 3 + 1, deadline=deadline)


def test_the_list_is_by_risk_then_deadline(office: Office) -> None:
    Review.objects.all().delete()
    queue(office.department, 9)
    make_review(make_lead(office.department).item, ask="No hurry", risk=3)
    html = office.client("vera").get(reverse("runs:reviews")).content.decode()
    assert asks(html) == ["Q008", "Q005", "Q002", "No hurry", "Q007", "Q004", "Q001", "Q006", "Q003", "Q000"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kind=low_confidence", ["Is Hot right?"]),
        ("risk=2", []),
        ("assignee=mine", ["What shall become of it?"]),
        ("assignee=unassigned&kind=unsure_send", ["Was it sent?"]),
        ("kind=nonsense&risk=9&assignee=x", 4),
    ],
)
def test_filters_are_in_the_address(office: Office, query: str, found: Any) -> None:
    Review.objects.filter(pk=office.fell.pk).update(assignee=office.people["rudi"])
    html = office.client("rudi").get(f"{reverse('runs:reviews')}?{query}").content.decode()
    assert (asks(html) if isinstance(found, list) else len(asks(html))) == found


def test_every_question_is_on_one_page_of_the_list(office: Office, django_assert_max_num_queries: Any) -> None:
    Review.objects.all().delete()
    queue(office.department, 120)
    client, url, seen = office.client("vera"), reverse("runs:reviews"), []
    while url:
        with django_assert_max_num_queries(15):
            html = client.get(url).content.decode()
        seen += asks(html)
        later = html.split('">Later')[0].rsplit('href="', 1)[1] if ">Later" in html else ""
        url = reverse("runs:reviews") + later.replace("&amp;", "&") if later else ""
    assert len(seen) == len(set(seen)) == 120


def test_nobody_sees_the_questions_of_another_department(office: Office) -> None:
    client = office.client("stan")
    assert asks(client.get(reverse("runs:reviews")).content.decode()) == []
    for name in ("review", "review_panel"):
        assert client.get(reverse(f"runs:{name}", args=[office.draft.pk])).status_code == 404


def test_the_badge_is_told_again_for_both_menus(office: Office) -> None:
    html = office.client("rudi").get(reverse("runs:reviews_open"), headers=HTMX).content.decode()
    assert re.search(r'hx-swap-oob="innerHTML:\[data-open-reviews\]"> <span class="k-badge">4<', html)
    assert "k-badge" not in office.client("stan").get(reverse("runs:reviews_open"), headers=HTMX).content.decode()


def test_the_badge_counts_what_is_open(office: Office) -> None:
    html = office.client("vera").get(reverse("runs:reviews")).content.decode()
    assert html.count('class="k-badge">4<') == 2, "in the wide menu and in the narrow one"
    assert 'class="k-badge"' not in office.client("stan").get(reverse("runs:reviews")).content.decode()


# --- The card -------------------------------------------------------------------------------------------------


def card(office: Office, who: str = "rudi", review: Review | None = None) -> str:
    url = reverse("runs:review", args=[(review or office.draft).pk])
    return office.client(who).get(url).content.decode()


def test_the_card_has_the_mail_each_claim_with_its_source_and_what_every_answer_does(office: Office) -> None:
    assert office.draft.item is not None
    make_message(office.draft.item, "in", body="Can you <b>check</b> invoices?", at=timezone.now() - timedelta(days=1))
    html = card(office)
    assert "Your freight invoices" in html
    assert html.index("We save 20 %</") < html.index("You ship 1,200 consignments a month</"), "unsupported first"
    assert "no source" in html
    assert "It leaves the house after the undo time" in html
    assert "Can you &lt;b&gt;check&lt;/b&gt; invoices?" in html
    for name in ("approve", "approve_edited", "send_back", "reject"):
        assert f'action="{POSTS[name].url(office)}"' in html
    assert 'id="why-not-take_over">This takes the role' in html


def test_who_only_looks_sees_why_there_is_nothing_to_press(office: Office) -> None:
    html = card(office, "vera")
    assert f'action="{POSTS["approve"].url(office)}"' not in html
    assert 'id="why-not-approve">This takes the role' in html


def test_a_question_about_a_budget_leads_to_where_it_is_raised(office: Office) -> None:
    review = Review.objects.create(department=office.department, kind="budget", ask="Raise it?")
    html = card(office, review=review)
    assert 'href="/costs/#budgets"' in html
    assert "Look at the overview" not in html


def test_the_card_says_what_is_at_work_and_what_was_sent_back(office: Office) -> None:
    assert office.draft.item is not None
    make_agent_run(office.draft.item, "researcher", status="running")
    SendBack.objects.create(item=office.draft.item, key="draft", note="Warmer, please.", author=office.people["olga"])
    html = card(office)
    assert "At work on it now: Researcher." in html
    assert "Warmer, please." in html
    assert "1 of 3 rounds" in html


def test_an_edited_mail_shows_what_was_changed_and_what_nobody_has_checked(office: Office) -> None:
    body = mail_of(office.draft).payload["body"] + "\n\nWe halve your freight costs."
    office.client("rudi").post(POSTS["approve_edited"].url(office), {"text_body": body})
    html = card(office)
    assert "<ins>" in html
    assert "Nobody has checked:" in html
    assert "<li>We halve your freight costs.</li>" in html
    assert "Approved with changes by rudi" in html


PINNED = ("approve", "approve_edited", "send_back", "reject", "correct")
"""Answers about a text or a classification that stands on the page."""


@pytest.mark.parametrize("name", PINNED)
def test_an_answer_says_which_output_it_is_about_and_is_taken_for_no_other(office: Office, name: str) -> None:
    post = POSTS[name]
    review = office.doubt if name == "correct" else office.draft
    form = card(office, post.who, review).partition(f'action="{post.url(office)}"')[2].partition("</form>")[0]
    assert f'name="output" value="{review.output_id}"' in form
    other, before = make_output(make_lead(office.department).item, "email"), changes()
    client = office.client(post.who)
    data = {**post.data, "queue": "", "output": str(other.pk)}
    html = client.post(post.url(office), data, headers=HTMX).content.decode()
    assert "It is about another text than the one that you were shown. Look again." in html
    assert changes() == before
    client.post(post.url(office), {**data, "output": str(review.output_id)}, headers=HTMX)
    assert changes() != before


@pytest.mark.parametrize("kind", Review.Kind.values)
@pytest.mark.parametrize("status", ["open", "answered", "withdrawn"])
def test_every_kind_of_question_has_a_card(office: Office, kind: str, status: str) -> None:
    is_general = kind in ("budget", "stop_the_line", "incident")
    item = None if is_general else make_lead(office.department).item
    run = make_agent_run(item, "qualifier", status="failed") if item is not None else None
    review = Review.objects.create(
        department=office.department, item=item, agent_run=run, kind=kind, status=status, ask=f"About {kind}?"
    )
    for who in ("vera", "olga"):
        assert f"About {kind}?" in card(office, who, review)


def test_what_no_agent_writes_any_more_can_still_be_looked_at(office: Office) -> None:
    output = make_output(make_lead(office.department).item, "crm_update")
    html = card(office, review=make_review(output.item, output=output))
    assert "There is no text in it that could be edited." in html


def test_the_panel_is_what_the_page_shows(office: Office) -> None:
    client = office.client("rudi")
    for review in (office.draft, office.doubt, office.fell, office.unsure):
        page, panel = (
            re.sub(
                r"<time [^>]*>[^<]*", "<time>", settled(client.get(reverse(name, args=[review.pk])).content.decode())
            )
            for name in ("runs:review", "runs:review_panel")
        )
        assert panel in page


def test_a_card_takes_a_fixed_number_of_queries(office: Office, django_assert_max_num_queries: Any) -> None:
    assert office.draft.item is not None
    client, url = office.client("rudi"), reverse("runs:review_panel", args=[office.draft.pk])
    for number in range(20):
        make_message(office.draft.item, body=f"Mail {number}", at=timezone.now() - timedelta(days=2))
        make_review(office.draft.item, ask=f"Another {number}")
    with django_assert_max_num_queries(21):
        client.get(url)


def test_the_neighbours_keep_the_filters(office: Office) -> None:
    first = make_review(make_lead(office.department).item, ask="First", risk=2, kind="failure")
    second = make_review(make_lead(office.department).item, ask="Second", risk=2, kind="failure")
    html = office.client("rudi").get(f"{reverse('runs:review', args=[first.pk])}?kind=failure").content.decode()
    assert f'data-next="/reviews/{second.pk}/?kind=failure"' in html
    assert 'data-previous=""' in html
