"""Snoozing, waking, comparing, drafts that are alike, and absences, in a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Member
from leads.models import Lead
from runs import reviews
from runs.models import Absence, Action, DraftGroup, EditPattern, OutboxMessage, Output, Review
from runs.sendable import address_of
from tests.factories import PAYLOADS, agent_of, make_department, make_user
from tests.runs.desk import mail_of, make_drafted
from tests.runs.scene import HTMX, settled

pytestmark = pytest.mark.django_db


@dataclass(slots=True)
class Office:
    """A department with its people, a stranger, and three drafts that are alike, the last one of high risk."""

    department: Department
    people: dict[str, User]
    group: DraftGroup
    drafts: list[Review]

    def client(self, name: str) -> Client:
        client = Client()
        if name != "nobody":
            client.force_login(self.people[name])
        return client


@pytest.fixture
def office() -> Office:
    department = make_department(time_zone="Europe/Berlin")
    roles = Member.Role
    people = {
        name: make_user(name, department=department, role=role)
        for name, role in (("vera", roles.VIEWER), ("rudi", roles.REVIEWER), ("olga", roles.OPERATOR))
    }
    people["stan"] = make_user("stan", department=make_department(slug="other"), role=roles.ADMINISTRATOR)
    group = DraftGroup.objects.create(
        department=department,
        agent=agent_of(department, "formatter"),
        purpose="item",
        signature=[1],
        used_at=timezone.now(),
    )
    drafts = [make_drafted(department) for _ in range(3)]
    for number, review in enumerate(drafts):
        body = f"Dear person {number},\n\nyou ship 1,200 consignments a month.\n\nMara Lindqvist"
        Output.objects.filter(reviews=review).update(payload={**PAYLOADS["email"], "body": body})
        Review.objects.filter(pk=review.pk).update(group=group, ask=f"Send mail {number}?")
    Review.objects.filter(pk=drafts[2].pk).update(risk=3)
    return Office(department, people, group, drafts)


@dataclass(frozen=True, slots=True)
class Post:
    """One form: its address and what a person fills in."""

    url: Callable[[Office], str]
    data: Callable[[Office], dict[str, Any]]
    is_of_card: bool = True


def days(start: int, end: int) -> dict[str, str]:
    today = timezone.now().date()
    return {"from": f"{today + timedelta(days=start)}", "to": f"{today + timedelta(days=end)}"}


def ticked(drafts: Sequence[Review]) -> dict[str, Any]:
    """What the page of drafts that are alike sends: what is ticked, and which text to which address was shown."""
    data: dict[str, Any] = {"review": [review.pk for review in drafts]}
    for review in Review.objects.filter(pk__in=data["review"]).select_related("item__department"):
        assert review.item is not None
        data |= {f"output_{review.pk}": review.output_id, f"to_{review.pk}": address_of(review.item)}
    return data


POSTS = {
    "snooze": Post(lambda o: reverse("runs:review_snooze", args=[o.drafts[0].pk]), lambda o: {"until": "hours"}),
    "wake": Post(lambda o: reverse("runs:review_wake", args=[o.drafts[1].pk]), lambda o: {}),
    "group_approve": Post(
        lambda o: reverse("runs:review_group_approve", args=[o.group.pk]),
        lambda o: ticked(o.drafts),
        is_of_card=False,
    ),
}


@pytest.fixture(autouse=True)
def asleep(office: Office, request: pytest.FixtureRequest) -> None:
    """The question that is woken sleeps."""
    if "wake" in request.node.name:
        Review.objects.filter(pk=office.drafts[1].pk).update(snoozed_until=timezone.now() + timedelta(hours=2))


def changes() -> tuple[Any, ...]:
    return (
        list(Review.objects.order_by("pk").values_list("pk", "status", "answer", "snoozed_until")),
        list(Output.objects.order_by("pk").values_list("pk", "verdict")),
        list(Absence.objects.order_by("pk").values_list("pk", "ends_at")),
        OutboxMessage.objects.count(),
        Action.objects.count(),
    )


@pytest.mark.parametrize("name", POSTS)
def test_it_works_and_redirects_a_plain_form(office: Office, name: str) -> None:
    post, before, client = POSTS[name], changes(), office.client("rudi")
    response = client.post(post.url(office), {**post.data(office), "queue": ""})
    assert response.status_code == 302
    assert client.get(response["Location"]).status_code == 200
    assert changes() != before
    assert Action.objects.filter(user=office.people["rudi"]).exists()


@pytest.mark.parametrize("name", POSTS)
def test_to_htmx_it_answers_with_a_part(office: Office, name: str) -> None:
    post = POSTS[name]
    response = office.client("rudi").post(post.url(office), {**post.data(office), "queue": ""}, headers=HTMX)
    html = response.content.decode()
    assert "<html" not in html
    assert ('id="review"' in html) is post.is_of_card
    assert "k-message" in html


@pytest.mark.parametrize("name", POSTS)
def test_a_second_time_changes_nothing_and_says_so(office: Office, name: str) -> None:
    post, client = POSTS[name], office.client("rudi")
    client.post(post.url(office), post.data(office))
    after = changes()
    html = client.post(post.url(office), post.data(office), headers=HTMX).content.decode()
    assert changes() == after
    assert 'data-colour="warning"' in html


@pytest.mark.parametrize("name", POSTS)
def test_get_is_refused(office: Office, name: str) -> None:
    assert office.client("rudi").get(POSTS[name].url(office)).status_code == 405


@pytest.mark.parametrize("name", POSTS)
@pytest.mark.parametrize("who", ["vera", "stan", "nobody"])
def test_who_may_not_changes_nothing(office: Office, name: str, who: str) -> None:
    before = changes()
    response = office.client(who).post(POSTS[name].url(office), POSTS[name].data(office))
    assert response.status_code == (302 if who == "nobody" else 404)
    assert changes() == before


# --- Snoozing -------------------------------------------------------------------------------------------------


def asks(html: str) -> list[str]:
    return [part.split(">", 1)[1].split("<")[0] for part in html.split("data-row-link")[1:]]


def test_a_snoozed_question_is_on_a_list_of_its_own(office: Office) -> None:
    client = office.client("rudi")
    Review.objects.update(group=None)
    response = client.post(POSTS["snooze"].url(office), {"until": "tomorrow", "queue": ""}, headers=HTMX)
    assert "Snoozed until " in response.content.decode()
    assert "9:00 (Europe/Berlin)." in response.content.decode()
    url = reverse("runs:reviews")
    assert sorted(asks(client.get(url).content.decode())) == ["Send mail 1?", "Send mail 2?"]
    html = client.get(url, {"snoozed": "1"}).content.decode()
    assert asks(html) == ["Send mail 0?"]
    assert "back <time" in html
    card = client.get(reverse("runs:review", args=[office.drafts[0].pk])).content.decode()
    assert "Snoozed: back on the list" in card
    assert f'action="{reverse("runs:review_wake", args=[office.drafts[0].pk])}"' in card


def test_a_snooze_that_is_cut_says_so(office: Office) -> None:
    Review.objects.update(deadline=timezone.now() + timedelta(hours=2))
    html = office.client("rudi").post(POSTS["snooze"].url(office), {"until": "monday"}, headers=HTMX).content.decode()
    assert "because then its deadline is near" in html


def test_a_snooze_beside_something_that_was_begun_leaves_its_card_there(office: Office) -> None:
    post, data = POSTS["snooze"], {"until": "hours", "queue": "", "stays": "1"}
    response = office.client("rudi").post(post.url(office), data, headers=HTMX)
    html = response.content.decode()
    assert f"/reviews/{office.drafts[0].pk}/panel/" in html
    assert "Snoozed: back on the list" in html
    assert "What you have written is not saved" in html
    assert response["Kontor-Done"] == "1"


@pytest.mark.parametrize("data", [{}, {"until": "at"}, {"until": "at", "at": "<b>"}, {"until": "x", "at": "9999"}])
def test_rubbish_snoozes_nothing(office: Office, data: dict[str, str]) -> None:
    before = changes()
    html = office.client("rudi").post(POSTS["snooze"].url(office), data, headers=HTMX).content.decode()
    assert "Say until when." in html
    assert changes() == before


# --- Comparing ------------------------------------------------------------------------------------------------


def test_what_an_edit_changes_is_shown_while_it_is_typed_and_nothing_is_stored(office: Office) -> None:
    url, before = reverse("runs:review_compare", args=[office.drafts[0].pk]), changes()
    body = mail_of(office.drafts[0]).payload["body"].replace("1,200", "1,300")
    html = office.client("rudi").post(url, {"text_body": body}).content.decode()
    assert "<del>1,200</del>" in html
    assert "<ins>1,300</ins>" in html
    assert "<li>you ship 1,300 consignments a month.</li>" in html
    assert office.client("rudi").post(url, {"text_body": body.replace("1,300", "1,200")}).content.decode().strip() == ""
    assert "too long" in office.client("rudi").post(url, {"text_body": "x" * 30_000}).content.decode()
    assert "&lt;script&gt;" in office.client("rudi").post(url, {"text_body": "<script>"}).content.decode()
    assert office.client("rudi").post(url, {}).content.decode().strip() == ""
    assert office.client("vera").post(url, {"text_body": body}).status_code == 404
    assert office.client("stan").post(url, {"text_body": body}).status_code == 404
    assert office.client("rudi").get(url).status_code == 405
    assert changes() == before


# --- Drafts that are alike ------------------------------------------------------------------------------------


def test_on_the_list_they_are_one_row_with_their_number(office: Office) -> None:
    html = office.client("rudi").get(reverse("runs:reviews")).content.decode()
    assert asks(html) == ["Send mail 2?"]
    assert "3 drafts are alike" in html
    walk = office.client("rudi").get(reverse("runs:reviews"), {"group": office.group.pk}).content.decode()
    assert len(asks(walk)) == 3


def test_each_one_shows_what_is_its_own_and_what_has_no_source(office: Office) -> None:
    mail = mail_of(office.drafts[1])
    Output.objects.filter(pk=mail.pk).update(payload={**mail.payload, "removed_claims": []})
    html = office.client("rudi").get(reverse("runs:review_group", args=[office.group.pk])).content.decode()
    assert "Dear person 0," in html
    assert "<ins>1,</ins>" in html
    assert html.count("no source: We save 20 %") == 1, "in the others it was taken out"
    assert "High risk: look at it by itself." in html
    assert html.count('name="review"') == 2
    seen = office.client("vera").get(reverse("runs:review_group", args=[office.group.pk])).content.decode()
    assert 'name="review"' not in seen


def test_each_is_approved_by_itself_and_what_may_not_be_stays(office: Office) -> None:
    post = POSTS["group_approve"]
    html = office.client("rudi").post(post.url(office), post.data(office), headers=HTMX).content.decode()
    assert "2 approved." in html
    assert "High risk: look at it by itself." in html
    assert list(Review.objects.order_by("pk").values_list("answer", flat=True)) == ["approve", "approve", ""]
    assert Action.objects.filter(verb="approve").count() == 2
    assert OutboxMessage.objects.count() == 2


def test_only_what_is_ticked_and_of_the_group_is_approved(office: Office) -> None:
    stranger = make_drafted(office.department)
    url = POSTS["group_approve"].url(office)
    for chosen in ([], [stranger.pk], ["x", "-1", str(10**30)]):
        assert "Nothing was" in office.client("rudi").post(url, {"review": chosen}, headers=HTMX).content.decode()
    assert (
        "Load the page again"
        in office.client("rudi").post(url, {"review": [office.drafts[0].pk]}, headers=HTMX).content.decode()
    )
    office.client("rudi").post(url, ticked(office.drafts[:1]))
    assert list(Review.objects.order_by("pk").values_list("answer", flat=True)) == ["approve", "", "", ""]


def test_a_text_that_came_in_the_place_of_what_was_shown_is_not_approved(office: Office) -> None:
    rudi, shown = office.people["rudi"], ticked(office.drafts)
    first, client = office.drafts[0], office.client("rudi")
    card = client.get(reverse("runs:review", args=[first.pk])).content.decode()
    assert f'name="output" value="{shown[f"output_{first.pk}"]}"' in card
    # The question of the same number asks about another text once an edit was taken back.
    assert reviews.approve_edited(review=first, user=rudi, changes={"body": "Quite another mail."})
    assert reviews.undo(review=Review.objects.get(pk=first.pk), user=rudi)
    Lead.objects.filter(item=office.drafts[1].item).update(email="somebody.else@example.com")
    html = client.post(POSTS["group_approve"].url(office), shown, headers=HTMX).content.decode()
    assert "Nothing was approved." in html
    assert "another text than the one that you were shown" in html
    assert "it goes to somebody.else@example.com now" in html
    one = {"queue": "", "output": shown[f"output_{first.pk}"]}
    html = client.post(reverse("runs:review_approve", args=[first.pk]), one, headers=HTMX).content.decode()
    assert "another text than the one that you were shown" in html
    assert set(Review.objects.values_list("answer", flat=True)) == {""}
    html = client.post(POSTS["group_approve"].url(office), ticked(office.drafts), headers=HTMX).content.decode()
    assert "2 approved." in html


def test_the_panel_is_what_the_page_shows_in_a_fixed_number_of_queries(
    office: Office, django_assert_max_num_queries: Any
) -> None:
    client = office.client("rudi")
    url = reverse("runs:review_group_panel", args=[office.group.pk])
    page = client.get(reverse("runs:review_group", args=[office.group.pk])).content.decode()
    assert settled(client.get(url).content.decode()) in settled(page)
    for _ in range(10):
        Review.objects.filter(pk=make_drafted(office.department).pk).update(group=office.group)
    with django_assert_max_num_queries(35):
        client.get(url)
    assert office.client("stan").get(url).status_code == 404


# --- The card's place in the queue ----------------------------------------------------------------------------


def test_the_next_card_is_fetched_ahead_and_its_answer_replaces_the_address(office: Office) -> None:
    client, first = office.client("rudi"), office.drafts[2]
    html = client.get(reverse("runs:review", args=[first.pk])).content.decode()
    ahead = html.split('data-ahead="')[1].split('"')[0]
    assert ahead == reverse("runs:review", args=[office.drafts[0].pk])
    last = client.get(reverse("runs:review", args=[office.drafts[1].pk])).content.decode()
    assert f'data-ahead="{reverse("runs:review", args=[first.pk])}"' in last, "after the last one comes the first"
    url = reverse("runs:review_approve", args=[first.pk])
    response = client.post(url, {"queue": ""}, headers={**HTMX, "Kontor-Ahead": "1"})
    assert response["HX-Replace-Url"] == f"{ahead}?answered={first.pk}"
    assert response["Kontor-Done"] == "1"
    assert "HX-Push-Url" not in response
    again = client.post(url, {"queue": ""}, headers={**HTMX, "Kontor-Ahead": "1"})
    assert again["Kontor-Done"] == "0"
    assert "answered already by rudi" in again.content.decode()


# --- Absences -------------------------------------------------------------------------------------------------


def test_a_person_is_away_and_the_card_says_who_covers(office: Office) -> None:
    rudi = office.client("rudi")
    response = rudi.post(reverse("runs:away_plan"), {**days(0, 3), "cover": "olga", "note": "Sardinia"}, headers=HTMX)
    assert "Noted: olga finds your questions" in response.content.decode()
    absence = Absence.objects.get()
    assert (absence.user, absence.cover, absence.note) == (office.people["rudi"], office.people["olga"], "Sardinia")
    Review.objects.filter(pk=office.drafts[0].pk).update(assignee=office.people["rudi"])
    card = office.client("olga").get(reverse("runs:review", args=[office.drafts[0].pk])).content.decode()
    assert "for rudi, away, back on" in card
    assert "covered by olga" in card
    assert asks(office.client("olga").get(reverse("runs:reviews"), {"assignee": "mine"}).content.decode()) == [
        "Send mail 0?"
    ]
    back = timezone.now().date() + timedelta(days=4)
    assert (
        f"back on {back:%a} {back.day} {back:%b %Y}, covered by olga" in rudi.get(reverse("runs:away")).content.decode()
    )
    hers = office.client("olga").get(reverse("runs:away")).content.decode()
    assert "You cover for" in hers
    assert 'id="away" class="k-stack" hx-ext="morph" data-live="none"' in hers, "no line of the log is of an absence"


@pytest.mark.parametrize(
    "data",
    [{}, {"cover": "olga"}, {**days(0, 3), "cover": "vera"}, {"from": "x", "to": "9999-12-31", "cover": "olga"}],
)
def test_rubbish_plans_nothing(office: Office, data: dict[str, str]) -> None:
    before = changes()
    html = office.client("rudi").post(reverse("runs:away_plan"), data, headers=HTMX).content.decode()
    assert 'data-colour="warning"' in html
    assert changes() == before


def test_only_ones_own_absence_can_be_ended_and_once(office: Office) -> None:
    office.client("rudi").post(reverse("runs:away_plan"), {**days(0, 3), "cover": "olga"})
    absence = Absence.objects.get()
    url = reverse("runs:away_end", args=[absence.pk])
    for who in ("olga", "stan"):
        assert office.client(who).post(url).status_code == 404
    assert office.client("rudi").get(url).status_code == 405
    assert office.client("rudi").post(url).status_code == 302
    after = changes()
    assert "over already" in office.client("rudi").post(url, headers=HTMX).content.decode()
    assert changes() == after


def test_the_part_is_what_the_page_shows(office: Office) -> None:
    client, url = office.client("rudi"), reverse("runs:away")
    assert settled(client.get(url, headers=HTMX).content.decode()) in settled(client.get(url).content.decode())


# --- What people change ---------------------------------------------------------------------------------------


def test_the_figures_say_what_people_change_again_and_again(office: Office) -> None:
    EditPattern.objects.create(
        department=office.department,
        agent=agent_of(office.department, "writer"),
        user=office.people["rudi"],
        day=timezone.now().date(),
        kind="removed",
        place="opening",
        digest="1",
        text="Hope this <finds> you well",
        count=9,
    )
    html = office.client("vera").get(reverse("runs:reviews")).content.decode()
    assert "People removed “Hope this &lt;finds&gt; you well” 9 times." in html
    assert "Hope this" not in office.client("stan").get(reverse("runs:reviews")).content.decode()


def test_the_day_somebody_is_back_is_that_of_the_department(office: Office) -> None:
    Department.objects.update(time_zone="Europe/Berlin")
    rudi, olga = office.client("rudi"), office.client("olga")
    rudi.post(reverse("runs:away_plan"), {"from": "2031-11-24", "to": "2031-11-25", "cover": "olga"})
    assert Action.objects.get(verb="plan_absence").after["back_on"] == "Wed 26 Nov 2031"
    Absence.objects.update(starts_at=timezone.now())
    Review.objects.update(assignee=office.people["rudi"])
    card = olga.get(reverse("runs:review", args=[office.drafts[0].pk])).content.decode()
    assert "for rudi, away, back on Wed 26 Nov" in card
    assert "rudi, away, back on Wed 26 Nov</option>" in card
    assert "for rudi, away, back on Wed 26 Nov" in olga.get(f"{reverse('runs:reviews')}?assignee=mine").content.decode()
    rudi.post(reverse("runs:away_end", args=[Absence.objects.get().pk]))
    assert Action.objects.get(verb="end_absence").after["back_on"] == "Wed 26 Nov 2031"
