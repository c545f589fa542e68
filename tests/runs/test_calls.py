"""The accounts of model calls: reserved before a request goes out, settled by what was reported."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.utils import timezone

from agents.budgets import Refused
from agents.causes import Cause
from agents.models import Agent, Budget, BudgetPeriod, Department, ModelPrice
from agents.pricing import Usage, load_price_book
from agents.replies import ModelReply
from agents.tools.base import ToolResult
from runs.calls import LATE, CallAsk, abandon_calls, open_calls, settle_calls
from runs.models import AgentRun, ModelCall, ModelCallBody, ToolCall
from runs.repricing import find_changes
from runs.staff import load_staff
from runs.work import OpenCall, SeenCall, ToolUse, Work
from tests.engine import USED, answered, assert_accounts_agree, claim_one, make_office, run_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def seen(work: Work) -> SeenCall:
    """The first call of the work, answered."""
    return answered(work).unsettled[0]


def settle(*calls: SeenCall) -> None:
    with transaction.atomic():
        settle_calls(calls, load_staff(), now=timezone.now())


def open_next(work: Work, number: int = 2) -> OpenCall | Refused:
    """Open another call of the same attempt."""
    run = run_of(work)
    params = {**work.first_call.request.params, "max_tokens": 4_000}
    ask = CallAsk(run, work.agent, work.soul_id, work.api_key_env, work.attempt, number, params)
    with transaction.atomic():
        return open_calls([ask], load_staff(), now=timezone.now(), worker="host:1")[run.pk]


def period() -> BudgetPeriod:
    return BudgetPeriod.objects.get()


def test_what_is_reserved_bounds_the_request_and_all_its_room() -> None:
    work = claim_one("intake")
    call = ModelCall.objects.get()
    price = ModelPrice.objects.get(model=work.agent.model, prompt_tokens_over=0)
    room = work.first_call.request.params["max_tokens"]
    assert call.reserved_tokens > room
    assert call.reserved_usd > room * price.output_usd / Decimal(1_000_000)
    assert period().reserved_usd == call.reserved_usd
    assert period().spent_usd == 0


def test_settling_releases_the_reservation_and_books_the_cost() -> None:
    work = claim_one()
    settle(seen(work))
    call = ModelCall.objects.get()
    assert call.cost_usd < call.reserved_usd
    assert period().reserved_usd == 0
    assert period().reserved_tokens == 0
    assert (period().spent_usd, period().spent_tokens) == (call.cost_usd, USED.total_tokens)
    assert_accounts_agree()


def test_a_server_that_names_a_dearer_model_is_booked_at_its_price_and_nothing_starts_after_it() -> None:
    work = claim_one()
    call = ModelCall.objects.get()
    Budget.objects.update(limit_usd=call.reserved_usd)
    reply = replace(seen(work).reply, model="claude-opus-5-5")
    reply.usage = replace(reply.usage, input_tokens=20_000, output_tokens=50_000)
    settle(replace(seen(work), reply=reply))
    call.refresh_from_db()
    assert call.model_used == "claude-opus-5-5"
    assert period().spent_usd == call.cost_usd > call.reserved_usd
    assert isinstance(open_next(work), Refused)
    assert_accounts_agree()


def enter_dearer_price(work: Work) -> ModelPrice:
    """From today on the model costs a thousand times as much."""
    rates = {"input_usd": 100, "output_usd": 500, "cache_write_5m_usd": 125, "cache_write_1h_usd": 200}
    return ModelPrice.objects.create(
        model=work.agent.model, effective_from=timezone.now().date(), cache_read_usd=10, source="list", **rates
    )


def test_a_call_is_priced_by_the_day_on_which_it_began() -> None:
    work = claim_one()
    entry = seen(work)
    old, begun = (
        ModelPrice.objects.get(model=work.agent.model, prompt_tokens_over=0),
        timezone.now() - timedelta(days=1),
    )
    ModelCall.objects.update(started_at=begun)
    enter_dearer_price(work)
    settle(replace(entry, call=replace(entry.call, started_at=begun)))
    call = ModelCall.objects.get()
    assert call.price == old
    assert call.cost_usd < call.reserved_usd
    assert not list(find_changes(load_price_book(), begun.date(), begun.date()))


def test_a_price_of_today_holds_for_calls_under_way_and_nothing_starts_beyond_the_budget_then() -> None:
    """They had reserved at the price that was known: the budget is passed by the difference, as the invoice is."""
    work = claim_one()
    call = ModelCall.objects.get()
    Budget.objects.update(limit_usd=call.reserved_usd)
    price = enter_dearer_price(work)
    settle(seen(work))
    call.refresh_from_db()
    assert call.price == price
    assert period().spent_usd == call.cost_usd > call.reserved_usd
    assert not period().reserved_usd
    assert isinstance(open_next(work), Refused)
    assert not list(find_changes(load_price_book(), call.started_at.date(), call.started_at.date()))
    assert_accounts_agree()


def test_settling_twice_is_harmless() -> None:
    work = claim_one()
    for _ in range(3):
        settle(seen(work))
    assert_accounts_agree()
    assert period().spent_tokens == USED.total_tokens


def test_a_call_that_was_given_up_twice_is_booked_once() -> None:
    work = claim_one()
    for _ in range(2):
        with transaction.atomic():
            abandon_calls([work.run_id], now=timezone.now())
    call = ModelCall.objects.get()
    assert (call.status, call.is_estimate) == ("unseen", True)
    assert period().spent_usd == call.cost_usd == call.reserved_usd
    assert_accounts_agree()


def test_a_late_answer_replaces_the_estimate_in_every_account() -> None:
    work = claim_one()
    with transaction.atomic():
        abandon_calls([work.run_id], now=timezone.now())
    settle(seen(work))
    call = ModelCall.objects.get()
    assert (call.status, call.is_estimate) == ("finished", False)
    assert period().spent_usd == run_of(work).cost_usd == call.cost_usd < call.reserved_usd
    assert period().spent_tokens == USED.total_tokens
    assert_accounts_agree()


def test_a_late_answer_about_an_erased_person_leaves_no_text() -> None:
    work = claim_one()
    with transaction.atomic():
        abandon_calls([work.run_id], now=timezone.now())
    ModelCallBody.objects.all().delete()  # as erasing a person does
    call = seen(work)
    used = ToolUse(call.call.pk, "read_website", {"of": "Ada"}, ToolResult("Ada Byron"), timezone.now(), 5)
    settle(replace(call, remark="Ada Byron is no company", tools=(used,)))
    row = ModelCall.objects.get()
    assert (row.status, row.error) == ("finished", LATE)
    assert not ToolCall.objects.exists()
    assert not ModelCallBody.objects.exists()
    assert_accounts_agree()


def test_the_next_call_of_an_attempt_is_numbered_and_reserved_on_its_own() -> None:
    work = claim_one()
    settle(seen(work))
    opened = open_next(work)
    assert isinstance(opened, OpenCall)
    second = ModelCall.objects.get(number=2)
    assert (second.attempt, second.status) == (1, "started")
    assert second.call_id != work.first_call.request.call_id
    assert period().reserved_usd == second.reserved_usd
    settle(SeenCall(opened, seen(work).reply))
    assert run_of(work).cost_usd == 2 * ModelCall.objects.get(number=1).cost_usd
    assert_accounts_agree()


def test_a_call_that_does_not_fit_is_refused_and_nothing_is_written() -> None:
    work = claim_one()
    settle(seen(work))
    Budget.objects.update(limit_usd=period().spent_usd)
    refused = open_next(work)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith("budget of the department")
    assert refused.until > timezone.now()
    assert ModelCall.objects.count() == 1
    assert_accounts_agree()


def test_an_answer_is_booked_in_the_period_that_reserved_it() -> None:
    work = claim_one()
    BudgetPeriod.objects.update(
        starts_at=timezone.now() - timedelta(days=3), ends_at=timezone.now() - timedelta(days=2)
    )
    yesterday = period()
    other = claim_one()
    settle(seen(work))
    yesterday.refresh_from_db()
    assert yesterday.reserved_usd == 0
    assert yesterday.spent_usd > 0
    today = BudgetPeriod.objects.exclude(pk=yesterday.pk).get()
    assert today.spent_usd == 0
    assert today.reserved_usd == ModelCall.objects.get(agent_run=other.run_id).reserved_usd


def test_every_budget_that_applies_is_booked(office: Department) -> None:
    agent = Agent.objects.get(slug="intake")
    Budget.objects.create(department=office, agent=agent, period="month", limit_usd=5)
    Budget.objects.create(department=office, model=agent.model, period="day", limit_tokens=10**9)
    Budget.objects.create(department=office, agent=Agent.objects.get(slug="writer"), period="day", limit_usd=5)
    settle(seen(claim_one("intake")))
    assert BudgetPeriod.objects.count() == 3
    assert_accounts_agree()


def test_a_model_that_names_itself_differently_is_priced_as_the_one_that_was_asked() -> None:
    work = claim_one()
    entry = seen(work)
    entry.reply.model = "some-gateway/haiku"
    settle(entry)
    call = ModelCall.objects.get()
    assert call.model_used == "some-gateway/haiku"
    assert call.price is not None
    assert call.price.model == work.agent.model
    assert call.cost_usd > 0


def test_another_model_that_has_a_price_is_priced_as_itself() -> None:
    work = claim_one()
    entry = seen(work)
    entry.reply.model = Agent.objects.get(slug="writer").model
    settle(entry)
    price = ModelCall.objects.get().price
    assert price is not None
    assert price.model == entry.reply.model != work.agent.model


def test_cached_tokens_are_kept_and_priced_apart() -> None:
    work = claim_one()
    entry = seen(work)
    entry.reply.usage = Usage(100, 2_000, 500, 30_000, 200, 50)
    settle(entry)
    call = ModelCall.objects.get()
    assert (call.input_tokens, call.cache_write_5m_tokens, call.cache_write_1h_tokens) == (100, 2_000, 500)
    assert (call.cache_read_tokens, call.output_tokens, call.thinking_tokens) == (30_000, 200, 50)
    price = call.price
    assert price is not None
    parts = (
        100 * price.input_usd
        + 2_000 * price.cache_write_5m_usd
        + 500 * price.cache_write_1h_usd
        + 30_000 * price.cache_read_usd
        + 200 * price.output_usd
    )
    assert call.cost_usd == round(parts / Decimal(1_000_000), 8)


@pytest.mark.parametrize(("output_tokens", "is_billed"), [(0, False), (7, True)])
def test_a_refusal_is_billed_only_if_something_was_put_out(output_tokens: int, is_billed: bool) -> None:
    work = claim_one()
    usage = Usage(input_tokens=1_000, output_tokens=output_tokens)
    reply = replace(seen(work).reply, stop_reason="refusal", cause=Cause.REFUSAL, error="No.", usage=usage)
    settle(SeenCall(work.first_call, reply))
    call = ModelCall.objects.get()
    assert (call.cost_usd > 0, call.is_estimate, call.input_tokens) == (is_billed, False, 1_000)
    assert period().spent_usd == call.cost_usd
    assert period().spent_tokens == (1_000 + output_tokens if is_billed else 0)
    assert_accounts_agree()
    assert not list(find_changes(load_price_book(), call.started_at.date(), call.started_at.date()))


def test_the_words_of_an_error_are_kept_without_what_a_database_refuses() -> None:
    work = claim_one()
    reply = ModelReply(cause=Cause.TRANSIENT, error="broke \x00 off", http_status=502, was_sent=False)
    settle(SeenCall(work.first_call, reply))
    call = ModelCall.objects.get()
    assert (call.cause, call.http_status) == ("transient", 502)
    assert call.error.startswith("broke ")
    assert "\x00" not in call.error


def test_a_remark_of_ours_is_kept_with_a_reply_that_was_complete() -> None:
    work = claim_one()
    settle(replace(seen(work), remark="score: Field required"))
    call = ModelCall.objects.get()
    assert (call.cause, call.error) == ("", "score: Field required")
    assert not ToolCall.objects.exists()


def test_the_last_line_is_held_by_the_database() -> None:
    work = claim_one()
    assert AgentRun.objects.get().model_calls.count() == 1
    with pytest.raises(Exception, match="(?i)unique"), transaction.atomic():
        open_next(work, number=1)
