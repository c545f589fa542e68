"""News of mails that came back: noted once, from the department's door or from a provider."""

from __future__ import annotations

from typing import Any

import pytest
from anymail.signals import AnymailTrackingEvent, EventType, tracking
from django.utils import timezone

from agents.models import Department
from runs.mail_events import record_event
from runs.models import Item, LogEntry, OutboxMessage, Suppression
from tests.factories import make_lead, make_outbox, make_output

pytestmark = pytest.mark.django_db


def sent(**fields: Any) -> OutboxMessage:
    item = make_lead().item
    now = timezone.now()
    values = {"status": "sent", "sent_at": now, "ended_at": now, "key": f"{item.pk}:first_mail"}
    return make_outbox(item, output=make_output(item, "email"), **{**values, **fields})


def report(kind: str, **fields: Any) -> None:
    event = AnymailTrackingEvent(event_type=kind, recipient="lena@example.com", **fields)
    tracking.send(sender=object, event=event, esp_name="Postmark")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (EventType.BOUNCED, "bounce"),
        (EventType.REJECTED, "bounce"),
        (EventType.COMPLAINED, "complaint"),
        (EventType.UNSUBSCRIBED, "opt_out"),
    ],
)
def test_a_provider_is_heard(kind: str, reason: str) -> None:
    row = sent(provider_id="pm-1")
    report(kind, message_id="pm-1", description="550 gone")
    assert Suppression.objects.get().reason == reason
    row.refresh_from_db()
    assert (row.bounced_at is not None) == (reason != "opt_out")


def test_a_mail_that_arrived_or_is_unknown_changes_nothing() -> None:
    sent(provider_id="pm-1")
    report(EventType.DELIVERED, message_id="pm-1")
    report(EventType.BOUNCED, message_id="pm-2")
    assert not Suppression.objects.exists()


def test_many_bounces_hold_the_department() -> None:
    rows = [sent(address=f"a{number}@x.example") for number in range(12)]
    for row in rows[:3]:
        assert record_event(department=row.department, kind="bounce", address=row.address)
    department = Department.objects.get()
    assert department.state == "holding_sends"
    assert "3 of the last 12" in department.state_reason


def test_the_mail_is_found_by_its_address_where_nobody_names_it() -> None:
    row = sent(address="Lena@Example.com")
    assert record_event(department=row.department, kind="bounce", address="lena@example.com")
    row.refresh_from_db()
    assert row.bounced_at is not None
    assert not record_event(department=row.department, kind="bounce", address="lena@example.com")


@pytest.mark.parametrize(
    ("kind", "listed"), [(EventType.COMPLAINED, 1), (EventType.UNSUBSCRIBED, 1), (EventType.BOUNCED, 0)]
)
@pytest.mark.parametrize("message_id", ["pm-2", None])
def test_what_a_person_says_counts_also_of_an_unknown_mail(kind: str, listed: int, message_id: str | None) -> None:
    sent(provider_id="")  # a person has settled it, so what the provider calls it is not known
    report(kind, message_id=message_id)
    assert Suppression.objects.filter(address="lena@example.com").count() == listed


def test_who_opts_out_at_the_provider_is_opted_out() -> None:
    row = sent(provider_id="pm-1", address="lena@example.com")
    report(EventType.UNSUBSCRIBED, message_id="pm-1")
    item = Item.objects.get(pk=row.item_id)
    assert "suppressed" in item.tags
    assert item.route_due_at is not None


@pytest.mark.parametrize("kind", ["bounce", "complaint"])
def test_the_item_is_flagged_with_the_reason_once_and_the_log_says_so(kind: str) -> None:
    row = sent(address="lena@example.com")
    assert record_event(department=row.department, kind=kind, address="lena@example.com", note="550 gone")
    item = Item.objects.get(pk=row.item_id)
    assert "lena@example.com" in item.flag
    assert item.flag.endswith("550 gone")
    assert not record_event(department=row.department, kind=kind, address="lena@example.com", note="550 gone")
    assert LogEntry.objects.filter(item=item, kind="suppressed", text=item.flag).count() == 1
