"""What strangers may call: the link that ends the mails, and news of mails that came back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from runs import outbox
from runs.models import Item, OutboxMessage, Review, Suppression
from tests.factories import make_department, make_lead, make_outbox, make_output, make_review

pytestmark = pytest.mark.django_db
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def path_of(row: OutboxMessage) -> str:
    return urlsplit(outbox.unsubscribe_url(row)).path


class TestUnsubscribing:
    @pytest.fixture
    def row(self) -> OutboxMessage:
        return make_outbox(make_lead().item, address="Lena@Example.com", status="sent")

    def test_following_the_link_ends_nothing(self, row: OutboxMessage) -> None:
        response = Client().get(path_of(row))
        assert b"Write to me no more" in response.content
        assert not Suppression.objects.exists()

    def test_posting_ends_the_mails_without_a_session(self, row: OutboxMessage) -> None:
        review = make_review(row.item, output=make_output(row.item, "draft"))
        client = Client(enforce_csrf_checks=True)
        response = client.post(path_of(row), {"List-Unsubscribe": "One-Click"})
        assert response.status_code == 200
        entry = Suppression.objects.get()
        assert (entry.address, entry.reason) == ("lena@example.com", "opt_out")
        item = Item.objects.get(pk=row.item_id)
        assert "suppressed" in item.tags
        assert item.route_due_at is not None
        assert Review.objects.get(pk=review.pk).status == "withdrawn"

    def test_posting_twice_is_harmless(self, row: OutboxMessage) -> None:
        for _ in range(2):
            assert Client().post(path_of(row)).status_code == 200
        assert Suppression.objects.count() == 1

    def test_an_address_that_was_listed_before_is_opted_out_all_the_same(self, row: OutboxMessage) -> None:
        Suppression.objects.create(address="lena@example.com", reason="bounce")
        assert Client().post(path_of(row)).status_code == 200
        assert "suppressed" in Item.objects.get(pk=row.item_id).tags

    def test_the_word_of_somebody_we_know_no_more_stands(self, row: OutboxMessage) -> None:
        path, item = path_of(row), row.item
        row.delete()
        item.delete()
        assert b"lena" in Client().post(path).content.lower()
        assert Suppression.objects.get().address == "lena@example.com"

    def test_a_changed_link_does_not_work(self, row: OutboxMessage) -> None:
        response = Client().post(path_of(row)[:-3] + "xx/")
        assert response.status_code == 404
        assert not Suppression.objects.exists()


class TestMailEvents:
    @pytest.fixture
    def row(self, monkeypatch: pytest.MonkeyPatch) -> OutboxMessage:
        monkeypatch.setenv("KONTOR_WEBHOOK_SECRET", SECRET)
        return make_outbox(
            make_lead(make_department()).item,
            status="sent",
            sent_at=timezone.now(),
            ended_at=timezone.now(),
            rendered={"headers": {"Message-ID": "<a@b.example>"}},
        )

    def send(self, payload: Any, *, slug: str = "sales", secret: str = SECRET) -> Any:
        body, at = json.dumps(payload), datetime.now(UTC)
        signature = Webhook(secret).sign("evt_1", at, body)
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signature,
        }
        url = reverse("runs:mail_events", args=[slug])
        return Client().post(url, body, content_type="application/json", headers=headers)

    def test_a_bounce_marks_the_mail_and_suppresses_the_address(self, row: OutboxMessage) -> None:
        event = {"type": "bounce", "address": "gone@example.com", "message_id": "<a@b.example>", "note": "550"}
        assert self.send(event).json() == {"status": "recorded", "news": 1}
        row.refresh_from_db()
        assert row.bounced_at is not None
        assert Suppression.objects.get().reason == "bounce"
        assert "came back" in Item.objects.get(pk=row.item_id).flag
        assert self.send(event).json()["news"] == 0

    def test_an_event_about_an_unknown_mail_still_suppresses(self, row: OutboxMessage) -> None:
        events = [{"type": "complaint", "address": "a@x.example"}, {"type": "opt_out", "address": "b@x.example"}]
        assert self.send({"events": events}).json()["news"] == 2
        assert set(Suppression.objects.values_list("reason", flat=True)) == {"complaint", "opt_out"}

    @pytest.mark.parametrize(
        "payload",
        [
            {"type": "delivered", "address": "a@x.example"},
            {"type": "bounce", "address": "nobody"},
            {"type": "bounce", "address": 7},
            {"events": []},
            {"events": ["bounce"]},
        ],
    )
    def test_what_cannot_be_read_is_refused_with_a_reason(self, row: OutboxMessage, payload: Any) -> None:
        response = self.send(payload)
        assert response.status_code == 400
        assert response.json()["error"]
        assert not Suppression.objects.exists()

    def test_a_wrong_signature_is_refused(self, row: OutboxMessage) -> None:
        response = self.send({"type": "bounce", "address": "a@x.example"}, secret="whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2L")
        assert response.status_code == 401

    def test_other_methods_and_departments_are_refused(self, row: OutboxMessage) -> None:
        assert Client().get(reverse("runs:mail_events", args=["sales"])).status_code == 405
        assert self.send({"type": "bounce", "address": "a@x.example"}, slug="other").status_code == 404
