"""A department that can send, and approved mails of it; used by the tests of sending."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department
from runs import outbox, sending
from runs.models import Channel, Item, OutboxMessage, Output
from runs.staff import load_staff
from tests.factories import make_department, make_lead, make_outbox, make_output, make_user

SENDER = "Mara Lindqvist <mara@tallyport.example>"
WORKER = "host:1"


def make_channel(department: Department, kind: str = "email", **fields: Any) -> Channel:
    """A channel that sends at once and without limits unless told otherwise."""
    values: dict[str, Any] = {
        "settings": {"sender": SENDER} if kind == "email" else {"url": "http://127.0.0.1:9/hook"},
        "undo_seconds": 0,
        "per_minute": 0,
        "daily_cap": 0,
    }
    return Channel.objects.create(department=department, kind=kind, **{**values, **fields})


def make_sender(**fields: Any) -> Department:
    """A department with an e-mail channel."""
    department = make_department(**fields)
    make_channel(department)
    return department


def approved(department: Department | None = None, *, item: Item | None = None, **fields: Any) -> OutboxMessage:
    """A mail that a person approved and that is due, rendered as the channel stands."""
    item = item or make_lead(department).item
    values: dict[str, Any] = {
        "output": make_output(item, "email", verdict=Output.Verdict.APPROVED),
        "key": f"{item.pk}:first_mail",
        "address": f"lena.weber{item.pk}@example.com",
        "approved_at": timezone.now() - timedelta(seconds=1),
        "release_at": timezone.now() - timedelta(seconds=1),
    }
    row = make_outbox(item, **{**values, **fields})
    row.configuration = outbox.configuration_of(load_staff().desks[item.department_id])
    if "approved_by" not in fields:
        row.approved_by = User.objects.filter(username="rita").first() or make_user("rita", department=item.department)
    content = {"subject": "Your freight invoices", "body": "Dear Ms Weber"}
    row.rendered = outbox.render(row, content, outbox.channel_of(row.department, row.channel))
    row.save()
    return row


def claim() -> OutboxMessage | None:
    """Claim as a sender does."""
    return sending.claim(worker=WORKER)


def claimed(row: OutboxMessage) -> OutboxMessage:
    """The claimed message; fails if it may not leave."""
    found = claim()
    row.refresh_from_db()
    assert found == row, row.waiting_for or row.reason
    return found


def status_of(row: OutboxMessage) -> str:
    """The status as it is stored now."""
    return OutboxMessage.objects.values_list("status", flat=True).get(pk=row.pk)
