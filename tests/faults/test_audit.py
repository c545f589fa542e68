"""The auditor finds what is planted: a harness that sees nothing proves nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from agents.models import BudgetPeriod
from runs.models import AgentRun, Item, ModelCall, PipelineRun
from tests.engine import answered, claim_one, make_office
from tests.factories import make_agent_run, make_lead, make_model_call, make_output
from tests.faults import accounts
from tests.faults.audit import audit
from tests.faults.table import Row, render

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> None:
    make_office()


def record(call: ModelCall, **changes: Any) -> dict[str, Any]:
    """What the simulator notes of a call that both sides saw alike."""
    usage = {
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    values = {
        "call_id": str(call.call_id),
        "agent": "intake",
        "model": "claude-haiku-5-5",
        "status": 200,
        "outcome": "end_turn",
        "fault": "",
        "usage": usage,
        "request_id": "req_1",
    }
    return values | changes


def make_priced() -> ModelCall:
    run = make_agent_run(make_lead().item, "intake", status=AgentRun.Status.DONE)
    return make_model_call(run, started_at=datetime(2026, 11, 1, tzinfo=UTC))


def test_an_active_run_an_undecided_item_and_an_open_pipeline_run_are_lost() -> None:
    run = make_agent_run(make_lead().item)
    Item.objects.update(route_due_at=timezone.now() - timedelta(seconds=1))
    lost = audit().lost
    assert any(line.startswith(f"agent run {run.pk}") for line in lost)
    assert any("still waits for a decision" in line for line in lost)
    assert any("has not ended" in line for line in lost)


def test_a_done_run_without_an_output_is_lost() -> None:
    run = make_agent_run(make_lead().item, status=AgentRun.Status.DONE)
    assert f"agent run {run.pk} is done and left no output" in audit().lost


def test_what_the_rules_still_want_is_lost() -> None:
    item = make_lead().item
    assert f"item {item.pk} lacks what intake writes" in audit().lost


def test_two_outputs_of_one_run_are_found() -> None:
    run = make_agent_run(make_lead().item, status=AgentRun.Status.DONE)
    make_output(run.item, agent_run=run, is_current=False)
    make_output(run.item, agent_run=run, number=2)
    assert any("2 outputs" in line for line in audit().duplicated)


def test_an_attempt_that_the_log_does_not_explain_is_found() -> None:
    run = make_agent_run(make_lead().item, status=AgentRun.Status.DONE, attempt=2)
    assert any(f"agent run {run.pk} was tried 2 times" in line for line in audit().duplicated)


def test_false_statuses_are_found() -> None:
    run = make_agent_run(make_lead().item, "intake", status=AgentRun.Status.FAILED)
    PipelineRun.objects.update(status=PipelineRun.Status.COMPLETED)
    Item.objects.update(status="won")
    untrue = audit().untrue
    assert any("says completed, and something has failed" in line for line in untrue)
    assert f"agent run {run.pk} has failed, and nobody is asked" in untrue
    assert f"item {run.item_id} says won and is new" in untrue


def test_a_reservation_that_stays_and_an_open_call_are_found() -> None:
    claim_one()
    assert any("still reserves" in line for line in audit().accounts)
    assert any("is open" in line for line in audit().accounts)


def test_a_sum_that_is_wrong_by_its_last_digit_is_found() -> None:
    work = claim_one()
    finished = answered(work)
    assert finished.payload
    AgentRun.objects.update(cost_usd=Decimal("0.00000001"))
    BudgetPeriod.objects.update(spent_usd=Decimal("0.00000001"))
    found = audit().accounts
    assert any(line.startswith("agent run") for line in found)
    assert any("has spent" in line for line in found)


def test_a_request_without_a_row_and_one_served_twice_are_found() -> None:
    call = make_priced()
    stranger = record(call, call_id="0" * 32)
    found = audit([record(call), record(call), stranger])
    assert any("has no row" in line for line in found.accounts)
    assert any("was served 2 times" in line for line in found.duplicated)


def test_the_price_is_computed_anew_to_the_last_digit() -> None:
    call = make_priced()
    assert accounts.price(record(call), date(2026, 11, 1)) == call.cost_usd == Decimal("0.00019500")
    assert accounts.compare([record(call)]) == []
    ModelCall.objects.update(cost_usd=Decimal("0.00019501"))
    assert accounts.compare([record(call)]) != []


def test_other_tokens_than_the_server_counted_are_found() -> None:
    call = make_priced()
    ModelCall.objects.update(input_tokens=899)
    assert any("tokens" in line for line in accounts.compare([record(call)]))


def test_a_table_is_good_only_if_something_was_tried_and_nothing_found() -> None:
    row = Row("fault", tried=2, heal_seconds=[1.0, 9.0], limit_seconds=10)
    assert row.is_good
    assert "FAILED" in render([Row("never tried")])
    assert not Row("slow", tried=2, heal_seconds=[1.0, 11.0], limit_seconds=10).is_good
    row.findings.lost.append("a lead")
    assert not row.is_good
    assert "a lead" in render([row])
