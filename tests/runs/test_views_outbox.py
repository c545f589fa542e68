"""The outbox page and its actions: what works, for whom, and what a second time does."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Installation, Member
from leads.models import Lead
from runs import reviews
from runs.models import Action, Item, OutboxMessage, Review, Trigger
from tests.factories import make_lead, make_outbox, make_output, make_review, make_user
from tests.runs.desk import make_drafted
from tests.runs.mailing import make_channel
from tests.runs.scene import HTMX, Scene, make_scene, settled

pytestmark = pytest.mark.django_db
Status = OutboxMessage.Status


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def row_of(scene: Scene, status: str = "pending", **fields: Any) -> OutboxMessage:
    return make_outbox(scene.lead.item, output=scene.output, status=status, **fields)


def post(scene: Scene, name: str, row: OutboxMessage, user: Any = None, **data: str) -> Any:
    return scene.client(user or scene.operator).post(reverse(f"runs:{name}", args=[row.pk]), data)


def status_of(row: OutboxMessage) -> str:
    row.refresh_from_db()
    return row.status


ACTIONS = [
    ("outbox_withdraw", "pending", {}, "withdrawn"),
    ("outbox_by_hand", "pending", {}, "sent"),
    ("outbox_by_hand", "failed", {}, "sent"),
    ("outbox_settle", "unknown", {"sent": "yes"}, "sent"),
    ("outbox_settle", "unknown", {"sent": "no"}, "pending"),
]


@pytest.mark.parametrize(("name", "before", "data", "after"), ACTIONS)
def test_an_operator_may_and_a_second_time_changes_nothing(
    scene: Scene, name: str, before: str, data: dict[str, str], after: str
) -> None:
    row = row_of(scene, before)
    assert post(scene, name, row, **data).status_code == 302
    assert status_of(row) == after
    count = Action.objects.count()
    assert count == 1
    response = scene.client(scene.operator).post(reverse(f"runs:{name}", args=[row.pk]), data, headers=HTMX)
    assert b"Nothing was changed" in response.content
    assert Action.objects.count() == count


@pytest.mark.parametrize("changes", [{}, {"body": "Dear Ms Weber,\n\nmy own words."}])
def test_with_the_message_its_approval_is_taken_back_also_one_with_changes(
    scene: Scene, changes: dict[str, str]
) -> None:
    make_channel(scene.department)
    review = make_drafted(scene.department)
    approved = reviews.approve_edited(review=review, user=scene.operator, changes=changes)
    assert approved, approved.reason
    row = OutboxMessage.objects.get()
    assert post(scene, "outbox_withdraw", row).status_code == 302
    assert status_of(row) == "withdrawn"
    review.refresh_from_db()
    assert (review.status, review.output_id) == ("open", row.output_id)
    assert row.output is not None
    assert row.output.verdict == "none"
    assert not Trigger.objects.filter(kind="decision", status="open").exists()


@pytest.mark.parametrize(("name", "before", "data", "after"), ACTIONS)
def test_others_may_not(scene: Scene, name: str, before: str, data: dict[str, str], after: str) -> None:
    row = row_of(scene, before)
    for user in (scene.viewer, scene.reviewer, scene.stranger):
        assert post(scene, name, row, user, **data).status_code == 404
    assert scene.client(scene.operator).get(reverse(f"runs:{name}", args=[row.pk])).status_code == 405
    assert scene.client(None).post(reverse(f"runs:{name}", args=[row.pk])).status_code == 302
    assert status_of(row) == before


@pytest.mark.parametrize("status", ["sending", "sent", "unknown", "withdrawn"])
def test_what_has_left_is_not_taken_back(scene: Scene, status: str) -> None:
    row = row_of(scene, status)
    post(scene, "outbox_withdraw", row)
    assert status_of(row) == status


def test_an_unsure_message_is_settled_only_by_an_answer(scene: Scene) -> None:
    row = row_of(scene, "unknown")
    post(scene, "outbox_settle", row, sent="perhaps")
    assert status_of(row) == "unknown"


def test_the_answer_closes_the_question(scene: Scene) -> None:
    row = row_of(scene, "unknown")
    review = Review.objects.create(
        department=scene.department, item=row.item, outbox=row, kind="unsure_send", ask="Was it sent?"
    )
    post(scene, "outbox_settle", row, sent="yes")
    review.refresh_from_db()
    assert (review.status, review.answer, review.answered_by) == ("answered", "was_sent", scene.operator)


def test_another_is_sent_only_for_a_reason_and_only_once_at_a_time(scene: Scene) -> None:
    row = row_of(scene, "sent")
    scene.output.verdict = "approved"
    scene.output.save()
    post(scene, "outbox_again", row)
    assert OutboxMessage.objects.count() == 1
    post(scene, "outbox_again", row, reason="It was lost.")
    again = OutboxMessage.objects.get(key=f"{row.key}:again-2")
    assert (again.status, again.approved_by) == ("pending", scene.operator)
    assert again.rendered["headers"]["Message-ID"] != row.rendered.get("headers", {}).get("Message-ID")
    post(scene, "outbox_again", row, reason="Again.")
    assert OutboxMessage.objects.count() == 2


def test_before_another_is_sent_the_page_says_to_which_address(scene: Scene) -> None:
    row = row_of(scene, "sent", address="lena@old.example")
    scene.output.verdict = "approved"
    scene.output.save()
    Lead.objects.filter(pk=row.item_id).update(email="lena@new.example")
    client = scene.client(scene.operator)
    page = client.get(reverse("runs:outbox_message", args=[row.pk])).content.decode()
    assert "It goes to <b>lena@new.example</b>, the address that is known now." in page
    assert "The first one went to lena@old.example." in page
    assert "Send another" not in client.get(reverse("runs:outbox")).content.decode(), "nobody sees there what was sent"
    url = reverse("runs:outbox_again", args=[row.pk])
    said = client.post(url, {"reason": "She has moved."}, headers=HTMX).content.decode()
    assert "Another one waits to be sent to lena@new.example. The first one went to lena@old.example." in said


def test_the_page_says_what_waits_and_filters(scene: Scene) -> None:
    row_of(scene, "pending", waiting_for="There is no email channel.")
    page = scene.client(scene.viewer).get(reverse("runs:outbox"))
    assert "There is no email channel." in page.content.decode()
    assert "I sent it by hand" not in page.content.decode()
    filtered = scene.client(scene.operator).get(reverse("runs:outbox"), {"status": "sent"})
    assert "No message fits these filters." in filtered.content.decode()
    part = scene.client(scene.operator).get(reverse("runs:outbox"), headers=HTMX).content.decode()
    assert part.strip().startswith('<div id="outbox"')
    assert "I sent it by hand" in part


def test_the_list_asks_as_much_for_many_rows_as_for_one(scene: Scene, django_assert_max_num_queries: Any) -> None:
    for number in range(12):
        row_of(scene, "pending", key=f"key-{number}", purpose="first_mail")
    client = scene.client(scene.operator)
    client.get(reverse("runs:outbox"))
    with django_assert_max_num_queries(11):
        client.get(reverse("runs:outbox"))


def pages_of(scene: Scene, row: OutboxMessage) -> list[str]:
    """Where it is said when a message leaves: the list, its page, and that of its lead."""
    urls = (reverse("runs:outbox"), reverse("runs:outbox_panel", args=[row.pk]), scene.lead.item.get_absolute_url())
    return [scene.client(scene.operator).get(url, headers=HTMX).content.decode() for url in urls]


def make_approved(scene: Scene, **fields: Any) -> OutboxMessage:
    scene.output.verdict = "approved"
    scene.output.save()
    return row_of(scene, **{"release_at": timezone.now() + timedelta(minutes=5), **fields})


LEAVES = re.compile(r"(?<!not )leaves (by itself )?<time", re.IGNORECASE)


def test_a_mail_that_nothing_holds_leaves(scene: Scene) -> None:
    row = make_approved(scene)
    assert [bool(LEAVES.search(html)) for html in pages_of(scene, row)] == [True] * 3


@pytest.mark.parametrize(
    ("state", "item", "said"),
    [
        ("holding_sends", {}, "It waits in the outbox: Sales is holding sends: Trade fair."),
        (
            "running",
            {"automation": "paused", "automation_reason": "Call first"},
            "It waits in the outbox until the automation goes on. It is paused by olga: Call first.",
        ),
        (
            "running",
            {"automation": "taken_over"},
            "It waits in the outbox until the automation goes on. It is taken over by olga.",
        ),
    ],
)
def test_a_mail_that_is_held_is_never_said_to_leave(scene: Scene, state: str, item: dict[str, str], said: str) -> None:
    Department.objects.filter(pk=scene.department.pk).update(state=state, state_reason="Trade fair")
    if item:
        Item.objects.filter(pk=scene.lead.pk).update(automation_by=scene.operator, **item)
    row = make_approved(scene)
    for html in pages_of(scene, row):
        assert said in html
        assert not LEAVES.search(html)
    row.waiting_for = "Sales is holding sends."
    row.release_at = timezone.now()
    row.save()
    for html in pages_of(scene, row):
        assert re.search(r"looked at again <time", html)
        assert not LEAVES.search(html)


def test_what_the_installation_holds_is_not_said_to_leave(scene: Scene) -> None:
    Installation.objects.update_or_create(pk=Installation.read().pk, defaults={"state": "holding_sends"})
    row = make_approved(scene)
    for html in pages_of(scene, row):
        assert "It waits in the outbox: The installation is" in html
        assert not LEAVES.search(html)


def test_a_mail_by_hand_leaves_while_the_lead_is_paused(scene: Scene) -> None:
    Item.objects.filter(pk=scene.lead.pk).update(automation="paused")
    row = row_of(scene, release_at=timezone.now() + timedelta(minutes=5))
    OutboxMessage.objects.filter(pk=row.pk).update(output=None)
    assert [bool(LEAVES.search(html)) for html in pages_of(scene, row)[:2]] == [True] * 2


def test_paused_leads_take_one_query_more_however_many(scene: Scene, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        item = make_lead(scene.department, automation="paused").item
        Item.objects.filter(pk=item.pk).update(automation_by=scene.operator)
        make_outbox(item, key=f"key-{number}")
    client = scene.client(scene.operator)
    client.get(reverse("runs:outbox"))
    with django_assert_max_num_queries(12):
        assert client.get(reverse("runs:outbox")).content.decode().count("It is paused by olga.") == 5


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "sent"}, ["b"]),
        ({"channel": "crm"}, ["c"]),
        ({"q": "LENA@"}, ["a"]),
        ({"q": "nobody at all"}, []),
        ({"day": "2026-03-02"}, ["b"]),
        ({"status": "x", "channel": "x", "day": "2026-02-31", "q": " "}, ["a", "b", "c"]),
        ({"day": "9999-12-31"}, ["a", "b", "c"]),
    ],
)
def test_filters_are_in_the_address(scene: Scene, query: dict[str, str], found: list[str]) -> None:
    other = make_lead(scene.department).item
    row_of(scene, key="a", rendered={"subject": "a"})
    # Where the person is it is the second of March already; where the department is, it is not.
    approved_at = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    Department.objects.filter(pk=scene.department.pk).update(time_zone="America/New_York")
    values = {"address": "x@example.com", "output": make_output(other, "email")}
    make_outbox(other, key="b", rendered={"subject": "b"}, status="sent", approved_at=approved_at, **values)
    make_outbox(other, key="c", rendered={"subject": "c"}, channel="crm", **values)
    client = scene.client(scene.viewer)
    client.cookies["kontor-zone"] = "Europe/Berlin"
    html = client.get(reverse("runs:outbox"), query).content.decode()
    assert sorted(re.findall(r"data-row-link href=[^>]*>(\w)<", html)) == found


@pytest.mark.parametrize("query", [{"q": "lena"}, {"channel": "crm"}, {"day": "2026-03-02", "status": "sent"}])
def test_no_number_beside_a_state_is_of_other_messages_than_listed(scene: Scene, query: dict[str, str]) -> None:
    row_of(scene, "sent")
    client = scene.client(scene.viewer)
    for each, number in (({}, 1), ({"status": "failed"}, 1), (query, None)):
        counts = {count.status: count.number for count in client.get(reverse("runs:outbox"), each).context["counts"]}
        assert counts["sent"] == number
    html = client.get(reverse("runs:outbox"), query).content.decode()
    chips = html[html.index('aria-label="Filter by state"') :]
    assert "<b>" not in chips[: chips.index("</ul>")]
    assert "None" not in chips[: chips.index("</ul>")]


def test_an_item_is_found_by_its_title(scene: Scene) -> None:
    row_of(scene)
    client = scene.client(scene.viewer)
    html = client.get(reverse("runs:outbox"), {"q": scene.lead.name[:6].upper()}).content.decode()
    assert html.count("data-row-link") == 1


def test_what_is_unsure_stands_first_and_says_what_to_do(scene: Scene) -> None:
    row_of(scene, "unknown", key="a", rendered={"subject": "Unsure one"})
    row_of(scene, key="b", rendered={"subject": "Later one"})
    html = scene.client(scene.operator).get(reverse("runs:outbox")).content.decode()
    assert html.index("Look into the sent folder") < html.index("Unsure one") < html.index("Later one")
    assert "outbox-unsure" not in scene.client(scene.operator).get(reverse("runs:outbox"), {"q": "x"}).content.decode()


def test_of_many_that_are_unsure_the_first_stand_above_and_lead_to_the_rest(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.views.outbox.UNSURE_ROWS", 1)
    row_of(scene, "unknown", key="a")
    client = scene.client(scene.operator)
    assert "All that are unsure" not in client.get(reverse("runs:outbox")).content.decode()
    row_of(scene, "unknown", key="b")
    html = client.get(reverse("runs:outbox")).content.decode()
    assert html.count('-unsure" data-row') == 1
    assert '<a href="?status=unknown">All that are unsure</a>' in html


def test_counts_stop_counting_and_say_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.views.outbox.MOST_COUNTED", 2)
    for number in range(3):
        row_of(scene, key=f"key-{number}")
    html = scene.client(scene.viewer).get(reverse("runs:outbox")).content.decode()
    assert "Waiting to be sent <b>2+</b>" in html
    assert "Sent <b>0</b>" in html


# --- One message ----------------------------------------------------------------------------------------------


def test_a_message_shows_exactly_what_leaves_and_what_became_of_it(scene: Scene) -> None:
    now = timezone.now()
    rendered = {
        "subject": "Freight <b>",
        "body": "Dear Lena",
        "from": "Mara <mara@x.example>",
        "to": "lena@example.com",
        "headers": {"Message-ID": "<1@x>"},
    }
    row = row_of(
        scene,
        "sent",
        rendered=rendered,
        approved_by=scene.reviewer,
        approved_at=now - timedelta(hours=3),
        sent_at=now - timedelta(hours=2),
        ended_at=now - timedelta(hours=2),
        bounced_at=now - timedelta(hours=1),
        error="550 gone",
        worker="host:1",
    )
    html = scene.client(scene.viewer).get(reverse("runs:outbox_message", args=[row.pk])).content.decode()
    for text in ("Freight &lt;b&gt;", "Dear Lena", "Mara &lt;mara@x.example&gt;", "&lt;1@x&gt;"):
        assert text in html
    order = [html.index(text) for text in ("Approved by rudi", "by host:1", "550 gone</span>")]
    assert order == sorted(order)
    assert "It came back. 550 gone" in html


def test_its_page_says_what_people_did_and_were_asked(scene: Scene) -> None:
    row = row_of(scene, "unknown", error="Connection cut.")
    make_review(row.item, outbox=row, kind="unsure_send", ask="Was it sent?")
    client = scene.client(scene.operator)
    client.post(reverse("runs:outbox_settle", args=[row.pk]), {"sent": "no"})
    html = client.get(reverse("runs:outbox_message", args=[row.pk])).content.decode()
    assert "A person was asked" in html
    assert "olga: settle unsure" in html
    assert "had not been sent, says olga." in html


@pytest.mark.parametrize("status", Status.values)
def test_every_state_has_a_page_whose_part_is_what_it_shows(
    scene: Scene, status: str, django_assert_max_num_queries: Any
) -> None:
    row = row_of(scene, status)
    client = scene.client(scene.operator)
    page = client.get(reverse("runs:outbox_message", args=[row.pk])).content.decode()
    with django_assert_max_num_queries(16):
        panel = client.get(reverse("runs:outbox_panel", args=[row.pk])).content.decode()
    assert settled(panel) in settled(page)
    assert ("Look into the sent folder" in page) is (status == "unknown")
    for name in ("outbox_message", "outbox_panel"):
        assert scene.client(scene.stranger).get(reverse(f"runs:{name}", args=[row.pk])).status_code == 404


def test_another_that_cannot_be_sent_says_why(scene: Scene) -> None:
    row = row_of(scene, "sent")
    response = scene.client(scene.operator).post(
        reverse("runs:outbox_again", args=[row.pk]), {"reason": "Lost."}, headers=HTMX
    )
    assert b"Nothing that is approved is left to send." in response.content
    assert OutboxMessage.objects.count() == 1


class TestTestMails:
    def test_an_administrator_sends_one_to_themselves(
        self, scene: Scene, settings: Any, mailoutbox: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.EMAIL_IS_CONFIGURED = True
        monkeypatch.setattr("runs.sending_domain.look_up", lambda name: ())
        channel = make_channel(scene.department)
        user = make_user("ada", department=scene.department, role=Member.Role.ADMINISTRATOR)
        url = reverse("runs:channel_test", args=[channel.pk])
        response = scene.client(user).post(url, headers=HTMX)
        assert [mail.to for mail in mailoutbox] == [[user.email]]
        text = response.content.decode()
        assert "A test is on its way" in text
        assert "has no SPF record" in text
        channel.refresh_from_db()
        assert channel.tested_at is not None
        assert Action.objects.get().verb == "send_test"

    def test_an_operator_may_not(self, scene: Scene) -> None:
        channel = make_channel(scene.department)
        url = reverse("runs:channel_test", args=[channel.pk])
        assert scene.client(scene.operator).post(url).status_code == 404

    def test_without_a_mail_server_it_says_so(self, scene: Scene) -> None:
        channel = make_channel(scene.department)
        user = make_user("ada", department=scene.department, role=Member.Role.ADMINISTRATOR)
        response = scene.client(user).post(reverse("runs:channel_test", args=[channel.pk]), headers=HTMX)
        assert "No mail server is configured" in response.content.decode()
