"""The webhook of leads: signed, recorded once, refused with a reason."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from agents.models import Department
from leads.models import Lead
from runs.models import Item, LogEntry, Trigger
from tests.factories import make_department, make_lead

pytestmark = pytest.mark.django_db
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "/hooks/sales/leads/"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONTOR_WEBHOOK_SECRET", SECRET)


@pytest.fixture
def sales() -> Department:
    return make_department()


def _send(body: Any, delivery_id: str = "msg_1", *, url: str = URL, secret: str = SECRET, **extra: Any) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    sent_at = extra.pop("sent_at", datetime.now(tz=UTC))
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery_id, sent_at, text),
    }
    headers |= extra.pop("headers", {})
    client = Client(enforce_csrf_checks=True)
    return client.post(url, data=text, content_type="application/json", headers=headers, **extra)


def test_a_lead_and_its_trigger_are_recorded_and_the_item_is_due(sales: Department) -> None:
    body = {"email": "Anna@X.example", "firstName": "Anna", "lastName": "Weiß", "attributes": {"plan": "gold"}}
    response = _send(body)
    lead = Lead.objects.select_related("item").get()
    assert response.status_code == 200
    assert response.json() == {"status": "recorded", "leads": [{"lead": lead.pk, "result": "created"}]}
    assert (lead.email, lead.name, lead.source) == ("anna@x.example", "Anna Weiß", "webhook:sales")
    assert lead.attributes == {"plan": "gold"}
    assert lead.item.route_due_at is not None
    assert lead.item.priority == Item.Priority.PROSPECT
    trigger = Trigger.objects.get()
    assert (trigger.item_id, trigger.kind, trigger.status) == (lead.pk, "created", "open")
    assert (trigger.source, trigger.delivery_id) == ("webhook:sales", "msg_1")
    assert trigger.raw_body == json.dumps(body)
    assert not LogEntry.objects.exists()


def test_a_second_delivery_changes_nothing_and_is_answered_200(sales: Department) -> None:
    body = {"email": "anna@x.example"}
    _send(body)
    Item.objects.update(route_due_at=None)
    response = _send(body)
    assert (response.status_code, response.json()) == (200, {"status": "duplicate"})
    assert (Lead.objects.count(), Trigger.objects.count()) == (1, 1)
    assert Item.objects.get().route_due_at is None


def test_another_delivery_about_a_known_lead_is_merged_and_makes_it_due(sales: Department) -> None:
    known = make_lead(sales, email="anna@x.example", company="", message="Hello")
    response = _send({"email": "anna@x.example", "company": "Acme", "message": "Still there?"})
    assert response.json()["leads"] == [{"lead": known.pk, "result": "merged"}]
    known.refresh_from_db()
    known.item.refresh_from_db()
    assert (known.company, known.message) == ("Acme", "Hello\n\nStill there?")
    assert known.item.route_due_at is not None
    assert Trigger.objects.get().item_id == known.pk


def test_several_leads_in_one_delivery_are_one_delivery(sales: Department) -> None:
    body = {"leads": [{"email": "anna@x.example"}, {"external_id": 7}, {"email": "anna@x.example"}]}
    results = [entry["result"] for entry in _send(body).json()["leads"]]
    assert results == ["created", "created", "unchanged"]
    triggers = Trigger.objects.order_by("delivery_id")
    assert [t.delivery_id for t in triggers] == ["msg_1#1", "msg_1#2", "msg_1#3"]
    assert [bool(t.raw_body) for t in triggers] == [True, False, False]
    assert _send(body).json() == {"status": "duplicate"}
    assert Lead.objects.count() == 2


def test_one_unusable_lead_refuses_the_delivery_and_says_which(sales: Department) -> None:
    response = _send({"leads": [{"email": "anna@x.example"}, {"name": "Bo"}, "x"]})
    assert response.status_code == 400
    assert [p["lead"] for p in response.json()["problems"]] == [2, 3]
    assert "no e-mail address and no external id" in response.json()["error"]
    assert not Lead.objects.exists()


def test_departments_do_not_cross(sales: Department, monkeypatch: pytest.MonkeyPatch) -> None:
    make_department(slug="other", webhook_secret_env="OTHER_SECRET")
    other_secret = "whsec_" + "b3RoZXJvdGhlcm90aGVyb3RoZXI="
    monkeypatch.setenv("OTHER_SECRET", other_secret)
    assert _send({"email": "a@x.example"}, url="/hooks/other/leads/").status_code == 401
    assert _send({"email": "a@x.example"}, url="/hooks/other/leads/", secret=other_secret).status_code == 200
    assert Lead.objects.get().department.slug == "other"
    # The same delivery id at another department is another delivery.
    assert _send({"email": "a@x.example"}).json()["status"] == "recorded"


@pytest.mark.parametrize(
    "body",
    [
        " ",
        "[]",
        "nonsense",
        '{"email": "a@x.example", "n": NaN}',
        '{"email": "a@x.example", "n": 1e999}',
        "[" * 100_000,
        '{"leads": []}',
        '{"leads": {"email": "a@x.example"}}',
        json.dumps({"leads": [{"email": f"p{n}@x.example"} for n in range(101)]}),
        '{"name": "Anna"}',
        '{"email": "anna at x"}',
        '{"email": ["a@x.example"]}',
        '{"external_id": "' + "7" * 200 + '"}',
    ],
)
def test_what_is_no_lead_is_400_with_a_reason_and_leaves_nothing(sales: Department, body: str) -> None:
    response = _send(body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert not Trigger.objects.exists()
    assert not Item.objects.exists()


def test_an_overlong_delivery_id_is_400(sales: Department) -> None:
    assert _send({"email": "a@x.example"}, "m" * 181).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": ""},
        {"webhook-id": "msg_2"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": "v1,ä"},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": "nan"},
    ],
)
def test_a_signature_that_does_not_hold_is_401(sales: Department, headers: dict[str, str]) -> None:
    response = _send({"email": "a@x.example"}, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"].startswith("The signature is refused")
    assert not Trigger.objects.exists()


def test_a_wrong_secret_is_401(sales: Department) -> None:
    assert _send({"email": "a@x.example"}, secret="whsec_AAAAAAAAAAAAAAAAAAAAAAAA").status_code == 401


@pytest.mark.parametrize("age", [timedelta(minutes=6), timedelta(minutes=-6)])
def test_a_signature_of_another_time_is_401(sales: Department, age: timedelta) -> None:
    response = _send({"email": "a@x.example"}, sent_at=datetime.now(tz=UTC) - age)
    assert response.status_code == 401


@pytest.mark.parametrize(("value", "words"), [("", "holds no secret"), ("whsec_x", "not base64")])
def test_without_a_good_secret_the_webhook_is_off(
    sales: Department, monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("KONTOR_WEBHOOK_SECRET", value)
    response = _send({"email": "a@x.example"})
    assert response.status_code == 503
    assert words in response.json()["error"]


def test_other_methods_types_sizes_and_departments_are_refused(sales: Department) -> None:
    client = Client()
    refused = client.get(URL)
    assert (refused.status_code, refused["Allow"]) == (405, "POST")
    assert client.post(URL, data={"email": "a@x.example"}).status_code == 415
    assert _send('{"email": "a@x.example", "x": "' + "y" * 1_048_576 + '"}').status_code == 413
    assert _send({"email": "a@x.example"}, url="/hooks/nobody/leads/").status_code == 404
    assert not Trigger.objects.exists()


def test_a_body_that_is_not_utf8_is_refused(sales: Department) -> None:
    headers = {"webhook-id": "m", "webhook-timestamp": str(int(datetime.now(tz=UTC).timestamp()))}
    headers["webhook-signature"] = "v1,AAAA"
    response = Client().post(URL, data=b'{"email": "\xff"}', content_type="application/json", headers=headers)
    assert response.status_code == 401


def test_text_that_databases_refuse_is_cleaned(sales: Department) -> None:
    response = _send('{"email": "a@x.example", "name": "A\\u0000n\\ud800n", "x": {"y\\u0000": ["\\u0000", 1e300]}}')
    assert response.status_code == 200
    lead = Lead.objects.get()
    assert lead.name == "Ann"
    assert lead.attributes == {"x": {"y": ["", "1e+300"]}}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["email", "external_id", "name", "leads", "attributes", "x"]), _JSON))
def test_any_signed_object_is_recorded_or_refused(sales: Department, body: dict[str, Any]) -> None:
    before = Trigger.objects.count()
    response = _send(body, f"msg_{before}")
    if response.status_code == 200:
        assert Trigger.objects.count() > before
    else:
        assert response.status_code == 400
        assert Trigger.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_deliveries_at_the_same_moment_make_one_lead_and_are_all_answered_200() -> None:
    make_department()
    barrier = threading.Barrier(4)
    answers: list[tuple[int, str]] = []

    def deliver(delivery_id: str) -> None:
        try:
            barrier.wait(10)
            response = _send({"email": "anna@x.example", "name": "Anna"}, delivery_id)
            answers.append((response.status_code, response.json().get("status")))
        finally:
            connection.close()

    # Twice the same delivery, and two others about the same new person.
    ids = ["msg_1", "msg_1", "msg_2", "msg_3"]
    threads = [threading.Thread(target=deliver, args=(delivery_id,), daemon=True) for delivery_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [(200, "duplicate")] + [(200, "recorded")] * 3
    assert (Lead.objects.count(), Item.objects.count()) == (1, 1)
    assert sorted(Trigger.objects.values_list("delivery_id", flat=True)) == ["msg_1", "msg_2", "msg_3"]
