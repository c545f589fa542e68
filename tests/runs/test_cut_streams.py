"""What a stream costs that was cut, over HTTP: by what was reported and seen, or by its bound; never
less than the other side bills."""

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
from agents.llm import ModelClient
from agents.models import BudgetPeriod, Department
from agents.pricing import Usage, cost_usd, load_price_book
from agents.replies import ModelReply, ModelRequest
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


def assert_bounded(call: ModelCall, room: int) -> None:
    """The prompt as reported and all the output there was room for; as tokens of the call only what was reported."""
    assert call.price is not None
    assert call.cost_usd == cost_usd(Usage(call.input_tokens, output_tokens=room), call.price) < call.reserved_usd
    assert call.is_estimate
    assert call.output_tokens <= 1, "a bound is no count"
    assert BudgetPeriod.objects.get().spent_tokens == call.input_tokens + room
    assert_accounts_agree()


@pytest.mark.parametrize("deltas", [0, 1, 8])
def test_cut_when_a_model_thinks_or_has_thought_it_costs_all_its_room(simulator: SimulatorServer, deltas: int) -> None:
    call, work, billed = settle_under(simulator, {"kind": "drop", "after_deltas": deltas})
    assert call.input_tokens == billed["usage"]["input_tokens"]
    assert price(billed, call.started_at.date()) <= call.cost_usd
    assert_bounded(call, work.first_call.request.params["max_tokens"])


@pytest.mark.parametrize("how", ["close", "reset"])
def test_cut_in_the_middle_of_its_text_it_costs_what_was_seen(simulator: SimulatorServer, how: str) -> None:
    fault = {"kind": "drop", "after_deltas": 8, "how": how}
    call, work, billed = settle_under(simulator, fault, thinking={"type": "disabled"})
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


THINKING = {"type": "thinking", "thinking": "", "signature": ""}


@pytest.mark.parametrize(
    "content",
    [[], [THINKING], [{**THINKING, "thinking": "A summary."}], [{**THINKING, "signature": "s"}, {"type": "text"}]],
)
def test_where_a_model_may_have_thought_unseen_it_is_bounded_by_all_its_room(content: list[dict[str, Any]]) -> None:
    work = claim_one()
    reply = ModelReply(model=work.agent.model, usage=Usage(input_tokens=700, output_tokens=1), content=content)
    with transaction.atomic():
        settle_calls([SeenCall(work.first_call, reply)], load_staff(), now=timezone.now())
    call = ModelCall.objects.select_related("price").get()
    assert call.input_tokens == 700
    assert_bounded(call, work.first_call.request.params["max_tokens"])


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
