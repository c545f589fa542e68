"""The numbers for Prometheus: true, cheap and only for whoever may read them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from agents.models import ModelPrice, ModelState
from agents.pricing import sync_prices
from runs.metrics import CallTotals, Numbers, render_metrics
from runs.models import CostCorrection, ModelCall, ShiftSlot
from tests import factories

pytestmark = pytest.mark.django_db


class Found:
    """The samples of one reading, as Prometheus understands the text."""

    def __init__(self, numbers: Numbers | None = None) -> None:
        families = text_string_to_metric_families(render_metrics(numbers or Numbers()).decode())
        samples = [sample for family in families for sample in family.samples]
        self._values = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}

    def __call__(self, name: str, **labels: str) -> float:
        return float(self._values[f"kontor_{name}", frozenset(labels.items())])


def count_calls(totals: CallTotals, now: datetime) -> float:
    return sum(values[0] for values in totals.read(now).values())


def test_it_counts_runs_calls_tokens_and_costs() -> None:
    department = factories.make_department()
    item = factories.make_lead(department).item
    done = factories.make_agent_run(item, "intake", status="done")
    failed = factories.make_agent_run(item, "qualifier", status="failed")
    factories.make_model_call(done, model_asked="claude-x", cost_usd="0.25", input_tokens=100, output_tokens=40)
    factories.make_model_call(failed, model_asked="claude-x", cost_usd="0.50", input_tokens=10, cause="timeout")
    found, of = Found(), {"department": "sales", "model": "claude-x"}
    assert found("agent_runs", department="sales", status="done") == 1
    assert found("agent_runs", department="sales", status="failed") == 1
    assert found("agent_runs_failed", department="sales", cause="timeout") == 1
    assert found("model_calls_total", **of, status="finished", cause="") == 1
    assert found("model_calls_total", **of, status="finished", cause="timeout") == 1
    assert found("model_cost_usd_total", **of) == pytest.approx(0.75)
    assert found("model_tokens_total", **of, kind="input") == 110
    assert found("model_tokens_total", **of, kind="output") == 40 + 210


def test_it_tells_whether_work_flows(settings: Any) -> None:
    settings.SHIFTS = 3
    now = timezone.now()
    ShiftSlot.objects.create(number=1, token=uuid4(), heartbeat_at=now, started_at=now, in_flight=7)
    item = factories.make_item(route_due_at=now - timedelta(seconds=90))
    factories.make_agent_run(item, due_at=now - timedelta(seconds=40))
    factories.make_review(item)
    ModelState.objects.create(model="claude-x", breaker="open", closed_until=now + timedelta(minutes=1))
    found, model = Found(), {"model": "claude-x", "key": "ANTHROPIC_API_KEY"}
    assert (found("shifts_alive"), found("shifts_wanted")) == (1, 3)
    assert found("calls_in_flight") == 7
    assert found("items_due") == 1
    assert found("items_due_oldest_seconds") == pytest.approx(90, abs=10)
    assert found("agent_runs_due_oldest_seconds") == pytest.approx(40, abs=10)
    assert found("reviews_open", department="sales", kind="failure") == 1
    assert found("model_breaker", **model, state="open") == 1
    assert found("model_breaker", **model, state="closed") == 0
    assert found("model_takes_calls", **model) == 0
    assert found("line_stopped", department="sales") == 0


def test_nothing_but_the_time_is_asked_twice_within_seconds(django_assert_num_queries: Any) -> None:
    factories.make_department()
    numbers = Numbers()
    Found(numbers)
    with django_assert_num_queries(1 if connection.vendor == "postgresql" else 0):
        Found(numbers)


def test_old_calls_are_added_up_once() -> None:
    run = factories.make_agent_run(factories.make_lead().item, status="done")
    now = timezone.now()
    old = [factories.make_model_call(run, started_at=now - timedelta(hours=1)) for _ in range(3)]
    new = factories.make_model_call(run, started_at=now)
    totals = CallTotals()
    assert count_calls(totals, now) == 4
    assert totals.edge == old[-1].pk
    assert count_calls(totals, now + timedelta(hours=1)) == 4
    assert totals.edge == new.pk


def test_a_call_under_way_is_counted_as_what_it_becomes() -> None:
    run = factories.make_agent_run(factories.make_lead().item, status="done")
    now = timezone.now()
    hour = timedelta(hours=1)
    under_way = factories.make_model_call(run, started_at=now - hour, status="started", cost_usd=0)
    factories.make_model_call(run, started_at=now - hour, cost_usd=1)
    totals = CallTotals()
    totals.read(now)
    assert totals.edge < under_way.pk
    ModelCall.objects.filter(pk=under_way.pk).update(status="finished", cost_usd=2)
    (values,) = totals.read(now).values()
    assert values[:2] == [2, 3]


def test_a_restored_database_is_counted_from_the_beginning() -> None:
    run = factories.make_agent_run(factories.make_lead().item, status="done")
    now = timezone.now()
    factories.make_model_call(run, started_at=now - timedelta(hours=1))
    last = factories.make_model_call(run, started_at=now - timedelta(hours=1))
    totals = CallTotals()
    totals.read(now)
    last.delete()
    assert count_calls(totals, now) == 1


def test_a_corrected_cost_is_told_by_every_process() -> None:
    run = factories.make_agent_run(factories.make_lead().item, status="done")
    now = timezone.now()
    call = factories.make_model_call(run, started_at=now - timedelta(hours=1), cost_usd=2)
    totals = CallTotals()
    totals.read(now)
    sync_prices()
    price = ModelPrice.objects.earliest("pk")
    CostCorrection.objects.create(call=call, price_after=price, before_usd=2, after_usd=3, reason="a wrong price")
    ModelCall.objects.filter(pk=call.pk).update(cost_usd=3)
    (values,) = totals.read(now).values()
    assert values[:2] == [1, 3]


# --- Who may read them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("10.0.0.9", {}, 403),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.5"}, 403),
        ("127.0.0.1", {"authorization": "Bearer anything"}, 200),
    ],
)
def test_without_a_token_only_this_machine_reads_them(address: str, headers: dict[str, str], status: int) -> None:
    response = Client().get("/metrics", headers=headers, REMOTE_ADDR=address)
    assert response.status_code == status
    assert (b"kontor_shifts_alive" in response.content) == (status == 200)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer s3cret"}, 200),
        ({"authorization": "Bearer other"}, 403),
        ({"authorization": "Bearer "}, 403),
        ({}, 403),
    ],
)
def test_with_a_token_everybody_needs_it(settings: Any, headers: dict[str, str], status: int) -> None:
    settings.METRICS_TOKEN = "s3cret"
    assert Client().get("/metrics", headers=headers, REMOTE_ADDR="127.0.0.1").status_code == status


def test_behind_a_proxy_with_tls_a_token_is_needed(settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert Client().get("/metrics", REMOTE_ADDR="127.0.0.1").status_code == 403
