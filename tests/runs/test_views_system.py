"""The system page and the page after a restore: who may see them, what they say, what can be done there."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Member, ModelState
from runs import restore
from runs.models import Action, Alert, AlertDelivery, OutboxMessage, ShiftSlot
from runs.views import system
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene, settled

pytestmark = pytest.mark.django_db

PAGES = {"system": "runs:system", "restore": "runs:system_restore"}
PANELS = {"system": "runs:system_panel", "restore": "runs:system_restore_panel"}


def make_administrator(scene: Scene) -> User:
    """Somebody who administers the scene's department."""
    return factories.make_user("ada", department=scene.department, role=Member.Role.ADMINISTRATOR)


def make_restored(scene: Scene) -> OutboxMessage:
    """One unsent message, and a restore after it."""
    OutboxMessage.objects.all().delete()
    other = factories.make_lead(scene.department, name="Otto Berg")
    message = factories.make_outbox(other.item)
    restore.after_restore(user=None, reason="Test.")
    return message


@pytest.mark.parametrize("name", [*PAGES.values(), *PANELS.values()])
def test_administrators_and_staff_see_it_and_others_do_not(name: str) -> None:
    scene = make_scene()
    staff = factories.make_user("sam")
    User.objects.filter(pk=staff.pk).update(is_staff=True)
    staff.refresh_from_db()
    assert scene.client(make_administrator(scene)).get(reverse(name)).status_code == 200
    assert scene.client(staff).get(reverse(name)).status_code == 200
    assert scene.client(scene.operator).get(reverse(name)).status_code == 404
    assert scene.client(None).get(reverse(name))["Location"].startswith(reverse("login"))
    assert scene.client(None).get(reverse(name), headers=HTMX).status_code == 401


def test_the_navigation_leads_there_for_those_who_may_see_it() -> None:
    scene = make_scene()
    link = f'href="{reverse("runs:system")}"'
    assert link in scene.client(make_administrator(scene)).get(reverse("runs:overview")).content.decode()
    assert link not in scene.client(scene.operator).get(reverse("runs:overview")).content.decode()


@pytest.mark.parametrize("name", PAGES)
def test_the_part_is_what_the_page_shows(name: str) -> None:
    scene = make_scene()
    make_restored(scene)
    client = scene.client(make_administrator(scene))
    with time_machine.travel(timezone.now(), tick=False):
        page = client.get(reverse(PAGES[name])).content.decode()
        part = client.get(reverse(PANELS[name]), headers=HTMX).content.decode()
    assert "<html" not in part
    assert settled(part) in settled(page)
    live = re.search(r'data-live="([^"]+)" data-live-url="([^"]+)"', part)
    assert live is not None
    assert "kind:restored" in live.group(1).split()
    assert "all" not in live.group(1).split(), "most lines of the log change nothing here"
    assert live.group(2) == reverse(PANELS[name])


def test_it_shows_workers_leases_and_what_was_healed() -> None:
    scene = make_scene()
    now = timezone.now()
    ShiftSlot.objects.create(number=1, token=uuid4(), worker="host:77", started_at=now, heartbeat_at=now, in_flight=3)
    ShiftSlot.objects.create(number=2, token=uuid4(), worker="gone:1", heartbeat_at=now - timedelta(minutes=5))
    factories.make_log_entry(scene.lead.item, kind="lost", text="Its lease ran out, queued again.")
    factories.make_log_entry(kind="healed", text="The queue's cluster has died.")
    text = scene.client(make_administrator(scene)).get(reverse("runs:system")).content.decode()
    assert "host:77" in text
    assert re.search(r'id="slot-1".*?at work', text, re.DOTALL)
    assert re.search(r'id="slot-2".*?empty', text, re.DOTALL)
    assert "Its lease ran out, queued again." in text
    assert "The queue&#x27;s cluster has died." in text
    assert "lost, being recovered" in text
    assert "in trouble" in text


def test_it_shows_breakers_with_their_history() -> None:
    scene = make_scene()
    until = timezone.now() + timedelta(minutes=2)
    ModelState.objects.create(model="claude-x", breaker="open", closed_until=until, reason="Overloaded.")
    ModelState.objects.create(model="claude-y", closed_until=until, reason="Rate limited.")
    factories.make_log_entry(kind="breaker", text="claude-x is not working.")
    text = scene.client(make_administrator(scene)).get(reverse("runs:system")).content.decode()
    assert re.search(r"claude-x.*?not working.*?Overloaded\.", text, re.DOTALL)
    assert re.search(r"claude-y.*?takes no calls.*?Rate limited\.", text, re.DOTALL)
    assert "claude-x is not working." in text


def test_it_shows_alerts_and_to_whom_they_could_not_be_delivered() -> None:
    scene = make_scene()
    now = timezone.now()
    alert = Alert.objects.create(
        department=scene.department, key="k", kind="failure", text="The Writer failed.", first_at=now, last_at=now
    )
    AlertDelivery.objects.create(alert=alert, target="slack", status="failed", due_at=now, error="Name not found.")
    text = scene.client(make_administrator(scene)).get(reverse("runs:system")).content.decode()
    assert "The Writer failed." in text
    assert "not told: slack" in text
    assert f"{reverse('runs:runbook')}#an-agent-failed-for-good" in text
    assert "Name not found." in text


def test_it_says_when_the_line_stands_still() -> None:
    scene = make_scene()
    Department.objects.filter(pk=scene.department.pk).update(stopped_by_error="The key is not accepted.")
    text = scene.client(make_administrator(scene)).get(reverse("runs:system_panel")).content.decode()
    assert "The API does not accept the key of" in text
    assert "The key is not accepted." in text
    assert f"{reverse('runs:runbook')}#the-line-stands-still" in text


def test_an_alert_says_who_knows_and_who_is_told_next() -> None:
    scene = make_scene()
    now = timezone.now()
    alert = Alert.objects.create(
        department=scene.department, key="failure:x", kind="failure", text="Failed.", first_at=now, last_at=now, count=3
    )
    deliveries = AlertDelivery.objects
    deliveries.create(alert=alert, target="email:ops@acme.example", status="sent", due_at=now, ended_at=now)
    deliveries.create(alert=alert, target="email:ops@acme.example", status="queued", due_at=now + timedelta(minutes=20))
    deliveries.create(alert=alert, target="slack", status="sent", due_at=now, ended_at=now - timedelta(minutes=3))
    text = scene.client(make_administrator(scene)).get(reverse("runs:system_panel")).content.decode()
    assert re.search(r"ops@acme\.example\s+is told\s+<time[^>]*>in 19 min", text)
    assert re.search(r"told: slack <time[^>]*>3 min ago", text)
    assert "3 times" in text


def test_nothing_of_other_departments_is_shown() -> None:
    scene = make_scene()
    make_restored(scene)
    factories.make_log_entry(scene.lead.item, kind="lost", text="Its lease ran out, queued again.")
    Alert.objects.create(
        department=scene.department,
        key="k",
        kind="failure",
        text="Secret.",
        first_at=timezone.now(),
        last_at=timezone.now(),
    )
    for name in PAGES.values():
        text = scene.client(scene.stranger).get(reverse(name)).content.decode()
        assert scene.lead.name not in text
        assert "lease ran out" not in text
        assert "Secret." not in text
        assert "lena@example.com" not in text


def test_the_number_of_queries_does_not_grow_with_the_rows(django_assert_max_num_queries: Any) -> None:
    scene = make_scene()
    client = scene.client(make_administrator(scene))
    client.get(reverse("runs:system"))
    lost = timezone.now() - timedelta(seconds=40)
    for number in range(8):
        item = factories.make_lead(scene.department).item
        factories.make_agent_run(item, status="running", lease_expires_at=lost)
        factories.make_log_entry(item, kind="lost", text=f"Lost {number}.")
        ModelState.objects.create(model=f"claude-{number}")
    with django_assert_max_num_queries(28):
        client.get(reverse("runs:system"))


def test_old_lines_of_a_long_log_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    old = factories.make_log_entry(kind="healed", text="Long ago.")
    factories.make_log_entry(pk=old.pk + 50, kind="healed", text="Just now.")
    monkeypatch.setattr(system, "RECENT_LINES", 20)
    text = scene.client(make_administrator(scene)).get(reverse("runs:system")).content.decode()
    assert "Just now." in text
    assert "Long ago." not in text


# --- After a restore -----------------------------------------------------------------------------------------


def test_it_says_what_to_check_and_what_is_unsure() -> None:
    scene = make_scene()
    make_restored(scene)
    text = scene.client(make_administrator(scene)).get(reverse("runs:system_restore")).content.decode()
    assert "knows nothing of what happened between" in text
    assert "lena@example.com" in text
    assert "Otto Berg" in text
    assert "holding sends now" in text


def test_without_a_restore_it_says_so() -> None:
    scene = make_scene()
    text = scene.client(make_administrator(scene)).get(reverse("runs:system_restore")).content.decode()
    assert "Nothing is held because of a restore." in text


URLS: dict[str, Callable[[Scene, OutboxMessage], str]] = {
    "release": lambda s, m: reverse("runs:restore_release", args=[s.department.pk]),
    "settle": lambda s, m: reverse("runs:unsure_settle", args=[m.pk]),
}


def _changes(scene: Scene, message: OutboxMessage) -> tuple[str, str, int]:
    scene.department.refresh_from_db()
    message.refresh_from_db()
    return scene.department.state, message.status, Action.objects.count()


@pytest.mark.parametrize("name", URLS)
def test_an_action_works_once_and_redirects_a_plain_form(name: str) -> None:
    scene = make_scene()
    message = make_restored(scene)
    client = scene.client(make_administrator(scene))
    before = _changes(scene, message)
    response = client.post(URLS[name](scene, message), {"sent": "yes"})
    assert response.status_code == 302
    assert client.get(response["Location"]).status_code == 200
    after = _changes(scene, message)
    assert after != before
    again = client.post(URLS[name](scene, message), {"sent": "no"}, headers=HTMX)
    assert "already" in again.content.decode()
    assert _changes(scene, message) == after


@pytest.mark.parametrize("name", URLS)
def test_an_action_answers_htmx_with_a_message(name: str) -> None:
    scene = make_scene()
    message = make_restored(scene)
    response = scene.client(make_administrator(scene)).post(URLS[name](scene, message), {"sent": "no"}, headers=HTMX)
    assert response["HX-Trigger"] == "kontor:changed"
    assert 'data-colour="success"' in response.content.decode()
    assert "<html" not in response.content.decode()


@pytest.mark.parametrize("name", URLS)
def test_an_action_is_refused_to_everybody_else(name: str) -> None:
    scene = make_scene()
    message = make_restored(scene)
    before = _changes(scene, message)
    url = URLS[name](scene, message)
    assert scene.client(make_administrator(scene)).get(url).status_code == 405
    assert scene.client(scene.operator).post(url, {"sent": "yes"}).status_code == 404
    assert scene.client(scene.stranger).post(url, {"sent": "yes"}).status_code == 404
    assert scene.client(None).post(url, {"sent": "yes"})["Location"].startswith(reverse("login"))
    assert _changes(scene, message) == before


def test_an_unsure_message_needs_a_yes_or_a_no() -> None:
    scene = make_scene()
    message = make_restored(scene)
    before = _changes(scene, message)
    scene.client(make_administrator(scene)).post(URLS["settle"](scene, message))
    assert _changes(scene, message) == before
