"""The buttons, forms and pages of a person in charge: every one of them in the same ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents.models import Department
from leads.models import Lead
from runs.access import access_for
from runs.allowed import LEFT_ALREADY, can_close, can_pause, can_reopen, can_resume, can_run
from runs.models import Action, AgentRun, Item, Message, OutboxMessage, Output, Trigger
from runs.reruns import CHANGED, preview
from runs.views.verbs import item_verbs
from tests.factories import PAYLOADS, agent_of, make_outbox, make_soul, make_user
from tests.runs.scene import HTMX, Scene, make_scene, settled

pytestmark = pytest.mark.django_db

ITEM_VERBS = {
    "pause": ("active", "paused"),
    "resume": ("paused", "active"),
    "take_over": ("active", "taken_over"),
    "hand_back": ("taken_over", "active"),
    "close": ("active", "closed"),
    "reopen": ("closed", "active"),
}


def _of_item(name: str) -> Callable[[Scene], str]:
    return lambda scene: reverse(f"runs:{name}", args=[scene.lead.pk])


def _step(name: str, status: str) -> Callable[[Scene], str]:
    def url(scene: Scene) -> str:
        run = AgentRun.objects.filter(item=scene.lead.pk, status=status).order_by("pk").first()
        run = run or AgentRun.objects.filter(item=scene.lead.pk).latest("pk")
        return reverse(f"runs:{name}", args=[run.pk])

    return url


URLS: dict[str, Callable[[Scene], str]] = {
    **{verb: _of_item(f"item_{verb}") for verb in ITEM_VERBS},
    "cancel_all": _of_item("item_cancel"),
    "cancel": lambda s: reverse("runs:step_cancel", args=[AgentRun.objects.get(agent__slug="writer").pk]),
    "rerun": lambda s: reverse("runs:step_rerun_start", args=[s.failed.pk]),
    "note": _of_item("item_note"),
    "reply": _of_item("item_reply"),
    "mail": _of_item("item_mail"),
    "output": _of_item("output_write"),
}
DATA: dict[str, Any] = {
    "reason": "She is on holiday.",
    "text": "Prefers the phone.",
    "subject": "Hello",
    "body": "Yes, gladly.",
    "form": "1",
    "key": "qualification",
    "f-reasoning_summary": "I know her.",
    "f-score": "90",
    "f-tier": "Hot",
    "f-fit_reasons": "Volume\nDate",
    "f-missing_information": "",
    "f-confidence": "high",
}
AGAIN = set(URLS) - {"note", "mail"}
"""What a second press refuses. A note may be written twice; the same mail twice is one mail."""


def _data(name: str, scene: Scene) -> dict[str, Any]:
    return {**DATA, "seen": _seen(scene.failed)} if name == "rerun" else DATA


def _seen(run: AgentRun) -> str:
    """What the page before a rerun puts into its form."""
    return preview(AgentRun.objects.get(pk=run.pk), now=timezone.now()).fingerprint


def _ready(name: str) -> Scene:
    scene = make_scene()
    if name in ITEM_VERBS:
        Item.objects.filter(pk=scene.lead.pk).update(automation=ITEM_VERBS[name][0])
    return scene


def _state() -> tuple[object, ...]:
    return (
        list(Item.objects.order_by("pk").values_list("pk", "automation", "automation_reason")),
        list(AgentRun.objects.order_by("pk").values_list("pk", "status")),
        list(Output.objects.order_by("pk").values_list("pk", "is_current")),
        Message.objects.count(),
        Trigger.objects.count(),
        OutboxMessage.objects.count(),
        Action.objects.count(),
    )


@pytest.mark.parametrize("name", URLS)
def test_it_works_and_redirects_a_plain_form(name: str) -> None:
    scene = _ready(name)
    before = _state()
    client = scene.client(scene.operator)
    response = client.post(URLS[name](scene), _data(name, scene))
    assert response.status_code == 302
    assert client.get(response["Location"].partition("#")[0]).status_code == 200
    assert _state() != before
    assert set(Action.objects.values_list("user", "item")) == {(scene.operator.pk, scene.lead.pk)}


@pytest.mark.parametrize("name", URLS)
def test_htmx_gets_a_message_and_the_page_fetches_its_parts(name: str) -> None:
    scene = _ready(name)
    response = scene.client(scene.operator).post(URLS[name](scene), _data(name, scene), headers=HTMX)
    html = response.content.decode()
    assert (response.status_code, response["HX-Trigger"]) == (200, "kontor:changed")
    assert 'data-colour="success"' in html
    assert "<html" not in html


@pytest.mark.parametrize("name", sorted(AGAIN))
def test_a_second_time_changes_nothing_and_says_why(name: str) -> None:
    scene = _ready(name)
    client, url = scene.client(scene.operator), URLS[name](scene)
    data = _data(name, scene)
    client.post(url, data, headers=HTMX)
    after = _state()
    html = client.post(url, data, headers=HTMX).content.decode()
    assert _state() == after
    assert 'data-colour="warning"' in html


@pytest.mark.parametrize("name", URLS)
def test_get_is_refused(name: str) -> None:
    scene = _ready(name)
    assert scene.client(scene.operator).get(URLS[name](scene)).status_code == 405


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("who", ["viewer", "stranger", "nobody"])
def test_who_may_not_changes_nothing(name: str, who: str) -> None:
    scene = _ready(name)
    before = _state()
    response = scene.client(None if who == "nobody" else getattr(scene, who)).post(URLS[name](scene), DATA)
    assert response.status_code == (302 if who == "nobody" else 404)
    assert _state() == before


@pytest.mark.parametrize("name", sorted(set(URLS) - {"note"}))
def test_a_reviewer_only_takes_notes(name: str) -> None:
    scene = _ready(name)
    assert scene.client(scene.reviewer).post(URLS[name](scene), DATA).status_code == 404


# --- The bar of an item ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["active", "paused", "taken_over", "closed"])
def test_every_button_says_why_it_cannot_be_pressed(state: str) -> None:
    scene = make_scene()
    Item.objects.filter(pk=scene.lead.pk).update(automation=state, automation_by=scene.operator)
    item = Item.objects.select_related("department", "automation_by").get(pk=scene.lead.pk)
    first, more = item_verbs(item, access_for(scene.operator))
    assert first
    assert all(verb.allowed.ok for verb in first)
    assert {verb.name for verb in (*first, *more)} == {*ITEM_VERBS, "cancel"}
    for verb in (*first, *more):
        assert verb.allowed.ok is not bool(verb.allowed.reason)
    html = scene.client(scene.operator).get(reverse("leads:detail", args=[item.pk])).content.decode()
    for verb in (*first, *more):
        assert (f'action="{verb.url}"' in html) is verb.allowed.ok
        assert verb.allowed.reason in html


def test_a_viewer_is_told_which_role_it_takes() -> None:
    scene = make_scene()
    item, access = scene.lead.item, access_for(scene.viewer)
    for rule in (can_pause, can_close, can_run):
        assert rule(item, access).reason == "This takes the role of an operator."
    for rule in (can_resume, can_reopen):
        assert "the department works on it" in rule(item, access).reason, "the state comes before the role"
    html = scene.client(scene.viewer).get(reverse("leads:detail", args=[item.pk])).content.decode()
    assert URLS["pause"](scene) not in html
    assert "This takes the role of an operator." in html


def test_a_pause_may_end_at_a_time_of_the_departments_time_zone() -> None:
    scene = make_scene()
    Department.objects.filter(pk=scene.department.pk).update(time_zone="Europe/Berlin")
    scene.client(scene.operator).post(URLS["pause"](scene), {"until": "2099-07-01T12:00"})
    item = Item.objects.get(pk=scene.lead.pk)
    assert item.automation_until == datetime(2099, 7, 1, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("until", "said"),
    [("tomorrow", "Write the time"), ("0001-01-01T00:00+14:00", "Write the time"), ("2001-01-01T00:00", "lie ahead")],
)
def test_a_time_that_is_none_is_refused(until: str, said: str) -> None:
    scene = make_scene()
    html = scene.client(scene.operator).post(URLS["pause"](scene), {"until": until}, headers=HTMX).content.decode()
    assert said in html
    assert Item.objects.get(pk=scene.lead.pk).automation == "active"


# --- Steps ----------------------------------------------------------------------------------------------------


def test_a_step_offers_what_it_allows() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    failed = reverse("runs:step_rerun", args=[scene.failed.pk])
    html = client.get(reverse("runs:detail", args=[scene.run.pk]), {"step": scene.failed.pk}).content.decode()
    assert failed in html
    assert reverse("runs:step_cancel", args=[scene.failed.pk]) not in html
    waiting = AgentRun.objects.get(agent__slug="writer")
    html = client.get(reverse("runs:detail", args=[scene.run.pk]), {"step": waiting.pk}).content.decode()
    assert reverse("runs:step_cancel", args=[waiting.pk]) in html
    assert "It is queued already. Cancel it first." in html


def test_the_page_before_a_rerun_says_what_it_means_and_offers_souls_and_models() -> None:
    scene = make_scene()
    soul = make_soul(agent_of(scene.department, "qualifier"), number=2, status="retired")
    client = scene.client(scene.operator)
    html = client.get(reverse("runs:step_rerun", args=[scene.failed.pk])).content.decode()
    assert "Will be made again" in html
    assert "number 2, retired" in html
    chosen = {"soul": "2", "model": "", "reason": "Try the old one.", "seen": _seen(scene.failed)}
    assert f'name="seen" value="{chosen["seen"]}"' in html
    response = client.post(URLS["rerun"](scene), chosen)
    again = AgentRun.objects.latest("pk")
    assert response["Location"].endswith(f"?step={again.pk}")
    assert again.pinned_soul == soul
    for wrong in ("9", "x"):
        count = AgentRun.objects.count()
        client.post(URLS["rerun"](scene), {"soul": wrong})
        assert AgentRun.objects.count() == count


@pytest.mark.parametrize("seen", ["", "0" * 16, None])
def test_a_rerun_whose_meaning_was_not_seen_shows_it_first(seen: str | None) -> None:
    scene = make_scene()
    data = {} if seen is None else {"seen": seen}
    before, client = _state(), scene.client(scene.operator)
    response = client.post(URLS["rerun"](scene), data)
    assert response["Location"] == reverse("runs:step_rerun", args=[scene.failed.pk])
    assert CHANGED in client.get(response["Location"]).content.decode()
    assert _state() == before


def test_the_page_before_a_rerun_says_what_was_sent() -> None:
    scene = make_scene()
    email = AgentRun.objects.create(
        department=scene.department,
        item=scene.lead.item,
        agent=agent_of(scene.department, "formatter"),
        pipeline_run=scene.run,
        status="done",
        why="x",
        due_at=timezone.now(),
        queued_at=timezone.now(),
    )
    make_outbox(scene.lead.item, output=scene.output, status="sent")
    html = scene.client(scene.operator).get(reverse("runs:step_rerun", args=[email.pk])).content.decode()
    assert "what was sent stays as it was sent" in html
    assert '<button class="btn btn-primary" type="submit">' not in html


# --- By hand --------------------------------------------------------------------------------------------------


def test_the_page_shows_every_output_that_can_be_entered() -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(reverse("runs:by_hand", args=[scene.lead.pk])).content.decode()
    for key in ("intake", "qualification", "research", "strategy", "draft", "fact_check", "email"):
        assert f"?key={key}" in html
    reply = Trigger.objects.get(kind="reply")
    assert f"?key=draft&amp;trigger={reply.pk}" in html


def test_a_form_that_does_not_fit_comes_back_with_what_was_written_and_what_is_wrong() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    response = client.post(URLS["output"](scene), {**DATA, "f-tier": "Cold", "f-fit_reasons": "Kept as written"})
    html = response.content.decode()
    assert response.status_code == 200
    assert "Not saved: it does not fit." in html
    assert "a score of 90 is Hot" in html
    assert "Kept as written" in html
    assert not Output.objects.filter(key="qualification").exists()


def test_an_output_is_edited_and_the_page_shows_what_changed() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    form = client.get(reverse("runs:output_edit", args=[scene.output.pk])).content.decode()
    assert "Edit the email" in form
    assert re.search(r'name="seen" value="\d+"', form)
    sent = {"key": "email", "seen": scene.output.pk, "f-subject": "A better one", "f-body": "Dear Lena"}
    client.post(URLS["output"](scene), {**DATA, **sent})
    mine = Output.objects.get(key="email", is_current=True)
    assert (mine.payload["subject"], mine.replaces) == ("A better one", scene.output)
    page = client.get(reverse("leads:detail", args=[scene.lead.pk])).content.decode()
    assert "what changed" in page or "A better one" in page
    changes = scene.client(scene.viewer).get(reverse("runs:output_history", args=[mine.pk])).content.decode()
    assert f"<del>{PAYLOADS['email']['subject']}</del>" in changes
    assert "<ins>A better one</ins>" in changes


def test_a_mail_to_an_address_that_was_not_shown_is_refused_and_what_was_typed_stays() -> None:
    scene = make_scene()
    client, seen = scene.client(scene.operator), scene.lead.email
    html = client.get(reverse("runs:by_hand", args=[scene.lead.pk])).content.decode()
    assert f'name="to" value="{seen}"' in html
    Lead.objects.filter(pk=scene.lead.pk).update(email="somebody.else@example.com")
    url, data = URLS["mail"](scene), {"subject": "Hello", "body": "<b>Typed</b> with care", "to": seen}
    html = client.post(url, data).content.decode()
    assert "it goes to somebody.else@example.com now" in html
    assert "&lt;b&gt;Typed&lt;/b&gt; with care" in html
    assert not OutboxMessage.objects.filter(purpose="manual").exists()
    client.post(url, {**data, "to": "somebody.else@example.com"})
    assert OutboxMessage.objects.get(purpose="manual").address == "somebody.else@example.com"


def test_the_page_asks_once_an_occasion_what_has_left() -> None:
    scene = make_scene()
    make_outbox(scene.lead.item, status="sent", output=scene.output)
    with CaptureQueriesContext(connection) as found:
        html = scene.client(scene.operator).get(reverse("runs:by_hand", args=[scene.lead.pk])).content.decode()
    assert html.count(LEFT_ALREADY) == 1, "the mail, and nothing else of the item"
    occasions = 2  # the item, and its reply
    assert sum('FROM "runs_outboxmessage"' in query["sql"] for query in found) <= occasions


def test_a_reply_that_came_yesterday_is_recorded_as_of_yesterday() -> None:
    scene = make_scene()
    at = timezone.now() - timedelta(days=1)
    scene.client(scene.operator).post(URLS["reply"](scene), {**DATA, "at": f"{at:%Y-%m-%dT%H:%M}"})
    message = Message.objects.filter(direction="in").latest("pk")
    assert abs((message.at - at).total_seconds()) < 61


@pytest.mark.parametrize("name", ["note", "pause"])
def test_a_character_that_cannot_be_stored_is_refused(name: str) -> None:
    scene = make_scene()
    data = {"text": "Call\0 her.", "reason": "On\0 holiday."}
    assert scene.client(scene.operator).post(URLS[name](scene), data).status_code == 400
    assert not Action.objects.exists()


@pytest.mark.parametrize("number", ["²", "9" * 5_000])
def test_a_number_that_none_could_have_does_no_harm(number: str) -> None:
    scene = make_scene()
    url = reverse("runs:output_write", args=[scene.lead.pk])
    assert scene.client(scene.operator).post(url, {"key": "email", "seen": number}).status_code in (200, 302)
    assert scene.client(scene.operator).post(url, {"key": "email", "trigger": number}).status_code == 404


@pytest.mark.parametrize(
    "query", ["?key=nothing", "?key=crm_update", "?key=email&trigger=999999", "?key=email&trigger=x"]
)
def test_a_form_for_what_nobody_writes_does_not_exist(query: str) -> None:
    scene = make_scene()
    url = reverse("runs:output_new", args=[scene.lead.pk]) + query
    assert scene.client(scene.operator).get(url).status_code == 404


# --- Switches -------------------------------------------------------------------------------------------------


def test_a_department_is_switched_by_its_administrator_with_a_reason() -> None:
    scene = make_scene()
    ada = make_user("ada", department=scene.department, role="administrator")
    url = reverse("runs:department_switch", args=[scene.department.pk])
    client = scene.client(ada)
    assert "2 steps would be cancelled" in client.get(reverse("runs:switches")).content.decode()
    assert "Say why" in client.post(url, {"state": "stopped"}, headers=HTMX).content.decode()
    assert "Choose" in client.post(url, {"state": "x", "reason": "y"}, headers=HTMX).content.decode()
    html = client.post(url, {"state": "stopped", "reason": "Wrong price list"}, headers=HTMX).content.decode()
    assert "stopped, as ada decided: Wrong price list" in html
    assert not AgentRun.objects.filter(status="running").exists()
    assert (
        "It is stopped already." in client.post(url, {"state": "stopped", "reason": "y"}, headers=HTMX).content.decode()
    )
    page = scene.client(scene.viewer).get(reverse("leads:list")).content.decode()
    assert "Sales is stopped, as ada decided: Wrong price list." in page, "everybody sees it on every page"
    assert client.get(url).status_code == 405
    for user in (scene.operator, scene.viewer, scene.stranger):
        assert scene.client(user).post(url, {"state": "running"}).status_code == 404
    assert client.post(url, {"state": "running"}).status_code == 302
    scene.department.refresh_from_db()
    assert scene.department.state == "running"


def test_the_installation_is_switched_by_a_superuser() -> None:
    scene = make_scene()
    url = reverse("runs:installation_switch")
    ada = make_user("ada", department=scene.department, role="administrator")
    assert (
        "superuser" in scene.client(ada).post(url, {"state": "stopped", "reason": "y"}, headers=HTMX).content.decode()
    )
    assert scene.client(scene.operator).post(url, {"state": "stopped", "reason": "y"}).status_code == 404
    root = scene.client(make_user("root", is_superuser=True))
    html = root.post(url, {"state": "draining", "reason": "Moving house"}, headers=HTMX).content.decode()
    assert "The installation is draining, as root decided: Moving house." in html
    page = scene.client(scene.stranger).get(reverse("leads:list")).content.decode()
    assert "The installation is draining, as root decided: Moving house." in page
    assert "The whole installation" not in scene.client(ada).get(reverse("runs:switches")).content.decode()


def test_fragment_and_page_of_the_lead_agree() -> None:
    scene = make_scene()
    client = scene.client(scene.operator)
    page = settled(client.get(reverse("leads:detail", args=[scene.lead.pk])).content.decode())
    part = settled(client.get(reverse("leads:panel", args=[scene.lead.pk])).content.decode())
    ages = r"just now|\d+ (s|min)( ago)?"
    assert re.sub(ages, "", part) in re.sub(ages, "", page)
