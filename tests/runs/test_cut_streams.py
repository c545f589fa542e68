"""What a stream costs that was cut, over HTTP: by what was reported and seen, never less than the other side bills."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from agents.causes import Cause
from agents.llm import ModelClient, ModelReply, ModelRequest
from agents.models import BudgetPeriod, Department
from agents.pricing import Usage, cost_usd, load_price_book
from runs.calls import settle_calls
from runs.models import ModelCall
from runs.repricing import find_changes
from runs.staff import load_staff
from runs.work import SeenCall, Work
from tests.engine import assert_accounts_agree, claim_one, make_office
from tests.faults.accounts import price
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def settle_under(simulator: SimulatorServer, fault: dict[str, Any], **changes: Any) -> tuple[ModelCall, Work, Any]:
    """A call that met the fault, as it is booked; with its work and what the simulator bills."""
    work = claim_one()
    request = work.first_call.request
    request = replace(request, params={**request.params, **changes})
    simulator.faults([{"what": fault}])
    reply = asyncio.run(_ask(request))
    with transaction.atomic():
        settle_calls([SeenCall(work.first_call, reply)], load_staff(), now=timezone.now())
    (billed,) = simulator.calls()
    return ModelCall.objects.select_related("price").get(), work, billed


async def _ask(request: ModelRequest) -> ModelReply:
    client = ModelClient(settings.ANTHROPIC_BASE_URL)
    try:
        return await client.call(request)
    finally:
        await client.close()


def assert_priced_by_its_tokens(call: ModelCall, billed: Any) -> None:
    assert call.price is not None
    assert call.cost_usd == cost_usd(Usage(call.input_tokens, output_tokens=call.output_tokens), call.price)
    assert price(billed, call.started_at.date()) <= call.cost_usd < call.reserved_usd
    assert BudgetPeriod.objects.get().spent_tokens == call.input_tokens + call.output_tokens
    assert_accounts_agree()


def test_cut_after_its_beginning_it_costs_its_prompt_and_a_token(simulator: SimulatorServer) -> None:
    call, _, billed = settle_under(simulator, {"kind": "drop", "after_deltas": 0})
    assert call.is_estimate
    assert (call.input_tokens, call.output_tokens) == (billed["usage"]["input_tokens"], 1)
    assert_priced_by_its_tokens(call, billed)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_cut_in_the_middle_it_costs_what_was_seen(simulator: SimulatorServer, how: str) -> None:
    call, work, billed = settle_under(simulator, {"kind": "drop", "after_deltas": 8, "how": how})
    assert call.is_estimate
    assert 1 < call.output_tokens < work.first_call.request.params["max_tokens"] / 4
    assert_priced_by_its_tokens(call, billed)


def test_cut_after_its_usage_was_reported_it_costs_exactly_that(simulator: SimulatorServer) -> None:
    call, _, billed = settle_under(simulator, {"kind": "end", "without": "message_stop"})
    assert not call.is_estimate
    assert call.output_tokens == billed["usage"]["output_tokens"]
    assert call.cost_usd == price(billed, call.started_at.date())


def test_silent_before_anything_was_reported_it_stands_at_its_reservation(simulator: SimulatorServer) -> None:
    call, _, _ = settle_under(simulator, {"kind": "drop", "where": "headers"})
    assert call.is_estimate
    assert call.cost_usd == call.reserved_usd
    assert_accounts_agree()


def test_thought_unseen_when_it_was_cut_it_is_bounded_by_all_its_room() -> None:
    work = claim_one()
    reply = ModelReply(model=work.agent.model, usage=Usage(input_tokens=700, output_tokens=1))
    reply.content = [{"type": "thinking", "thinking": "", "signature": ""}]
    with transaction.atomic():
        settle_calls([SeenCall(work.first_call, reply)], load_staff(), now=timezone.now())
    call, room = ModelCall.objects.select_related("price").get(), work.first_call.request.params["max_tokens"]
    assert call.price is not None
    assert call.cost_usd == cost_usd(Usage(input_tokens=700, output_tokens=room), call.price)
    assert (call.is_estimate, call.output_tokens) == (True, 1), "a bound is no count"
    assert BudgetPeriod.objects.get().spent_tokens == 700 + room
    assert_accounts_agree()


def test_a_call_with_a_fee_that_no_price_knows_is_without_a_price_and_stays_so() -> None:
    work = claim_one()
    used = Usage(input_tokens=700, output_tokens=40)
    reply = ModelReply(model=work.agent.model, usage=used, has_unpriced_fees=True, cause=Cause.REQUEST, error="A fee.")
    with transaction.atomic():
        settle_calls([SeenCall(work.first_call, reply)], load_staff(), now=timezone.now())
    call, today = ModelCall.objects.get(), timezone.now().date()
    assert (call.price, call.cost_usd, call.is_estimate) == (None, call.reserved_usd, True)
    assert not list(find_changes(load_price_book(), today - timedelta(days=1), today))
    assert_accounts_agree()
