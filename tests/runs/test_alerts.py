"""Alerts: one for each cause, told along the chain of command, and what is not delivered is on record."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, Department, Member
from runs import alert_delivery, alerts, channels
from runs.alert_delivery import claim, deliver_due
from runs.escalation import targets_for_agent, targets_for_department
from runs.models import Alert, AlertDelivery, LogEntry
from tests.engine import in_threads
from tests.factories import agent_of, make_agent_run, make_department, make_lead, make_user
from tests.runs.scene import make_scene

pytestmark = pytest.mark.django_db
BACKEND = "django.core.mail.backends.locmem.EmailBackend"


@pytest.fixture
def desk(settings: Any) -> Department:
    """A department whose administrator is Anna; mail goes to the test's outbox."""
    settings.EMAIL_IS_CONFIGURED = True
    department = make_department()
    make_user("anna", department=department, role=Member.Role.ADMINISTRATOR)
    return department


def ring(department: Department | None, key: str = "failure:x", **fields: Any) -> Alert:
    values = {"kind": Alert.Kind.SYSTEM, "text": "Something broke.", "link": "/log/", "next_step": "It is tried again."}
    with transaction.atomic():
        return alerts.raise_alert(department=department, key=key, **{**values, **fields})


def targets(alert: Alert) -> list[str]:
    return sorted(alert.deliveries.values_list("target", flat=True))


# --- Who is told ----------------------------------------------------------------------------------------------


def chain(department: Department, *slugs: str) -> list[Agent]:
    """The agents, each reporting to the next one and the last to nobody."""
    team = [agent_of(department, slug) for slug in slugs]
    for agent, boss in zip(team, [*team[1:], None], strict=True):
        agent.reports_to = boss
        agent.save(update_fields=["reports_to"])
    return team


def test_the_nearest_in_the_chain_who_is_named_is_told(desk: Department) -> None:
    low, middle, top = chain(desk, "intake", "qualifier", "strategist")
    top.escalate_channel = "slack"
    top.save()
    assert targets_for_agent(low) == ["slack"]
    middle.escalate_to = make_user("mia")
    middle.escalate_channel = "email:ops@acme.example"
    middle.save()
    low.refresh_from_db()
    assert targets_for_agent(low) == ["email:mia@example.com", "email:ops@acme.example"]


def test_somebody_who_left_or_has_no_address_is_passed_over(desk: Department) -> None:
    low, top = chain(desk, "intake", "qualifier")
    gone = make_user("gone")
    gone.is_active = False
    gone.save()
    low.escalate_to, top.escalate_channel = gone, "log"
    low.save()
    top.save()
    assert targets_for_agent(agent_of(desk, "intake")) == ["log"]


def test_without_anybody_in_the_chain_the_administrators_are_told(desk: Department) -> None:
    low, _ = chain(desk, "intake", "qualifier")
    assert targets_for_agent(low) == ["email:anna@example.com"]


def test_a_chain_that_bites_its_own_tail_ends(desk: Department) -> None:
    first, second = chain(desk, "intake", "qualifier")
    Agent.objects.filter(pk=second.pk).update(reports_to=first)
    assert targets_for_agent(agent_of(desk, "intake")) == ["email:anna@example.com"]


def test_a_chain_never_leads_to_another_client(desk: Department) -> None:
    other = make_department(slug="other")
    boss = agent_of(other, "strategist")
    Agent.objects.filter(pk=boss.pk).update(escalate_channel="email:boss@other.example")
    Agent.objects.filter(department=desk, slug="intake").update(reports_to=boss)
    assert targets_for_agent(agent_of(desk, "intake")) == ["email:anna@example.com"]


def test_a_department_without_administrators_falls_to_superusers(desk: Department) -> None:
    Member.objects.all().delete()
    assert targets_for_department(desk) == []
    make_user("root", is_superuser=True)
    assert targets_for_department(desk) == ["email:root@example.com"] == targets_for_department(None)


# --- Raising --------------------------------------------------------------------------------------------------


def test_an_alert_is_one_row_as_long_as_it_lasts(desk: Department) -> None:
    first = ring(desk)
    again = ring(desk, text="It broke again.")
    assert (again.pk, again.count, again.text) == (first.pk, 2, "It broke again.")
    assert again.first_at == first.first_at < again.last_at
    assert targets(again) == ["email:anna@example.com", "log"]
    assert alerts.close_alert(department=desk, key="failure:x")
    assert not alerts.close_alert(department=desk, key="failure:x")
    assert ring(desk).pk != first.pk


def test_departments_do_not_share_alerts(desk: Department) -> None:
    other = make_department(slug="other")
    assert len({ring(desk).pk, ring(other).pk, ring(None).pk}) == 3
    assert ring(None).count == 2


def test_a_rollback_takes_the_alert_along(desk: Department) -> None:
    with transaction.atomic():
        ring(desk)
        transaction.set_rollback(True)
    assert not Alert.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_those_who_raise_it_at_once_raise_one(desk: Department) -> None:
    in_threads(lambda _: ring(desk).pk, 4)
    alert = Alert.objects.get()
    assert (alert.count, targets(alert)) == (4, ["email:anna@example.com", "log"])


# --- Delivering -----------------------------------------------------------------------------------------------


def test_a_mail_says_what_where_since_when_what_is_next_and_where_to_look(desk: Department, settings: Any) -> None:
    settings.BASE_URL = "https://kontor.acme.example"
    lead = make_lead(desk)
    alert = ring(desk, item=lead.item, text="The Writer failed.\nTwice.")
    assert deliver_due() == 2
    message = mail.outbox[0]
    assert message.to == ["anna@example.com"]
    assert message.subject == "[Kontor] The Writer failed."
    for part in (
        "The Writer failed.",
        f"Where: Sales, {lead.item.title}",
        f"Since: {alert.first_at:%Y-%m-%d %H:%M:%S} UTC",
        "Next: It is tried again.",
        "Look: https://kontor.acme.example/log/",
    ):
        assert part in message.body
    assert set(alert.deliveries.values_list("status", "told_count")) == {("sent", 1)}
    assert deliver_due() == 0
    assert len(mail.outbox) == 1


def test_the_same_alert_is_told_again_only_after_a_while(desk: Department) -> None:
    ring(desk)
    deliver_due()
    ring(desk)
    ring(desk)
    assert deliver_due() == 0
    waiting = AlertDelivery.objects.get(status="queued", target__startswith="email")
    assert waiting.due_at > timezone.now() + timedelta(minutes=25)
    AlertDelivery.objects.update(due_at=timezone.now(), ended_at=timezone.now() - timedelta(hours=1))
    assert deliver_due() == 2
    assert "3 times" in mail.outbox[-1].body


def test_many_alerts_for_one_person_are_one_message(desk: Department) -> None:
    for number in range(4):
        ring(desk, key=f"key {number}", text=f"Trouble {number}.")
    deliver_due()
    assert [message.subject for message in mail.outbox] == ["[Kontor] 4 alerts: Trouble 0."]
    assert all(f"Trouble {number}." in mail.outbox[0].body for number in range(4))


def test_another_alert_soon_after_waits_for_the_gap(desk: Department) -> None:
    ring(desk)
    deliver_due()
    ring(desk, key="another")
    assert deliver_due() == 1, "the log has no gap"
    late = AlertDelivery.objects.get(status="queued")
    assert timedelta(seconds=30) < late.due_at - timezone.now() <= timedelta(seconds=60)


def test_news_of_two_clients_never_share_a_message(desk: Department) -> None:
    other = make_department(slug="other")
    Agent.objects.update(escalate_channel="email:ops@agency.example")
    for department in (desk, other):
        ring(department, agent_run=make_agent_run(make_lead(department).item, "writer"), text=f"In {department.slug}.")
    deliver_due()
    assert sorted(message.body.splitlines()[0] for message in mail.outbox) == ["In other.", "In sales."]


def test_what_is_over_before_it_was_told_is_told_as_over(desk: Department) -> None:
    ring(desk)
    alerts.close_alert(department=desk, key="failure:x")
    deliver_due()
    assert "Over since" in mail.outbox[0].body


def test_what_is_over_is_not_repeated(desk: Department) -> None:
    ring(desk)
    deliver_due()
    ring(desk)
    alerts.close_alert(department=desk, key="failure:x")
    assert not AlertDelivery.objects.filter(status="queued").exists()


def test_two_workers_do_not_hold_the_same_delivery(desk: Department) -> None:
    ring(desk)
    parcels = [claim(), claim(), claim()]
    assert [len(parcel.deliveries) for parcel in parcels if parcel] == [1, 1]


def test_a_delivery_whose_worker_died_is_sent_by_the_next(desk: Department) -> None:
    ring(desk)
    while claim():
        pass
    assert deliver_due() == 0
    AlertDelivery.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert deliver_due() == 2


def test_a_delivery_that_kills_its_worker_is_given_up(desk: Department) -> None:
    ring(desk)
    while claim():
        pass
    AlertDelivery.objects.update(
        lease_expires_at=timezone.now() - timedelta(seconds=1), attempt=alert_delivery.MAX_ATTEMPTS
    )
    assert deliver_due() == 0
    assert set(AlertDelivery.objects.values_list("status", flat=True)) == {"failed"}


def test_it_happening_again_while_it_is_told_is_told_later(desk: Department) -> None:
    ring(desk)
    parcel = claim()
    assert parcel is not None
    ring(desk)
    alert_delivery._note_success(parcel)
    assert AlertDelivery.objects.filter(target=parcel.target).values_list("status", "told_count").get(
        status="sent"
    ) == ("sent", 1)
    assert AlertDelivery.objects.get(target=parcel.target, status="queued").due_at > timezone.now()


def test_a_worker_that_lost_its_lease_changes_nothing(desk: Department) -> None:
    ring(desk)
    parcel = claim()
    assert parcel is not None
    AlertDelivery.objects.filter(pk=parcel.deliveries[0].pk).update(lease_token="00000000-0000-0000-0000-000000000001")
    assert alert_delivery._note_success(parcel) == 0
    assert AlertDelivery.objects.get(pk=parcel.deliveries[0].pk).status == "sending"


# --- Not delivered --------------------------------------------------------------------------------------------


def email_of(alert: Alert) -> AlertDelivery:
    return alert.deliveries.get(target__startswith="email")


def test_without_a_mail_server_it_fails_at_once_and_is_shown(desk: Department, settings: Any) -> None:
    settings.EMAIL_IS_CONFIGURED = False
    alert = ring(desk)
    deliver_due()
    assert email_of(alert).status == "failed"
    assert "set EMAIL_URL" in email_of(alert).error
    assert LogEntry.objects.filter(kind="alert", level="error", department=desk).count() == 1


def test_a_mail_server_in_trouble_is_tried_again_and_then_given_up(desk: Department, settings: Any) -> None:
    settings.EMAIL_BACKEND = "tests.runs.test_alerts.BrokenBackend"
    alert = ring(desk)
    for number in range(1, alert_delivery.MAX_ATTEMPTS + 1):
        assert email_of(alert).status == "queued"
        AlertDelivery.objects.update(due_at=timezone.now())
        deliver_due()
        assert email_of(alert).attempt == number
        assert "ConnectionRefusedError" in email_of(alert).error
    assert email_of(alert).status == "failed"


class BrokenBackend:
    """A mail server that takes no connections."""

    def __init__(self, **options: Any) -> None:
        assert options["timeout"] == channels.TIMEOUT_SECONDS

    def send_messages(self, messages: Any) -> int:
        raise ConnectionRefusedError("no")


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("pager:1", "There is no channel 'pager'"),
        ("email:nobody", "'nobody' is not an e-mail address"),
        ("slack:ACME_SLACK_URL", "ACME_SLACK_URL"),
        ("slack", "KONTOR_SLACK_WEBHOOK_URL_SALES or KONTOR_SLACK_WEBHOOK_URL"),
    ],
)
def test_a_target_that_cannot_work_says_what_to_set(desk: Department, target: str, error: str) -> None:
    Agent.objects.filter(slug="writer").update(escalate_channel=target)
    alert = ring(desk, agent_run=make_agent_run(make_lead(desk).item, "writer"))
    deliver_due()
    delivery = alert.deliveries.get(target=target)
    assert delivery.status == "failed"
    assert error in delivery.error


def test_nobody_to_tell_is_an_error_that_pages_show() -> None:
    scene = make_scene()
    alert = ring(scene.department)
    assert targets(alert) == ["log", "nobody"]
    deliver_due()
    html = scene.client(scene.viewer).get(reverse("runs:overview")).content.decode()
    assert "An alert was not delivered." in html
    assert "Nobody can be told" in html
    assert "An alert was not delivered." not in scene.client(scene.stranger).get("/").content.decode()
    alerts.close_alert(department=scene.department, key="failure:x")
    assert "An alert was not delivered." not in scene.client(scene.viewer).get("/").content.decode()


# --- Slack ----------------------------------------------------------------------------------------------------


class Slack(http.server.BaseHTTPRequestHandler):
    """An incoming webhook; the server's ``status`` says how it answers."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)["text"]))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def slack() -> Iterator[Any]:
    server: Any = http.server.HTTPServer(("127.0.0.1", 0), Slack)
    server.received, server.status = [], 200
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def ring_slack(department: Department, target: str = "slack", text: str = "Broken.") -> AlertDelivery:
    Agent.objects.filter(slug="writer").update(escalate_channel=target)
    alert = ring(department, agent_run=make_agent_run(make_lead(department).item, "writer"), text=text)
    deliver_due()
    return alert.deliveries.get(target=target)


def test_slack_gets_text_in_which_nothing_can_call_anybody(desk: Department, slack: Any, settings: Any) -> None:
    settings.SLACK_WEBHOOK_URL = f"{slack.url}/all"
    assert ring_slack(desk, text="<!channel> & co failed.").status == "sent"
    path, text = slack.received[0]
    assert path == "/all"
    assert text.startswith("&lt;!channel&gt; &amp; co failed.")


def test_a_departments_own_webhook_wins(
    desk: Department, slack: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SLACK_WEBHOOK_URL = f"{slack.url}/all"
    monkeypatch.setenv("KONTOR_SLACK_WEBHOOK_URL_SALES", f"{slack.url}/sales")
    monkeypatch.setenv("ACME_SLACK_URL", f"{slack.url}/acme")
    ring_slack(desk)
    ring_slack(make_department(slug="other"), "slack:ACME_SLACK_URL")
    assert [path for path, _ in slack.received] == ["/sales", "/acme"]


@pytest.mark.parametrize(("status", "after"), [(404, "failed"), (403, "failed"), (500, "queued"), (429, "queued")])
def test_what_slack_answers_decides(desk: Department, slack: Any, settings: Any, status: int, after: str) -> None:
    settings.SLACK_WEBHOOK_URL, slack.status = slack.url, status
    delivery = ring_slack(desk)
    assert delivery.status == after
    assert str(status) in delivery.error
    assert slack.url not in delivery.error, "the URL is a secret"


def test_slack_that_cannot_be_reached_is_tried_again(desk: Department, settings: Any) -> None:
    settings.SLACK_WEBHOOK_URL = "http://127.0.0.1:1/hook"
    delivery = ring_slack(desk)
    assert (delivery.status, delivery.attempt) == ("queued", 1)
    assert "cannot be reached" in delivery.error
