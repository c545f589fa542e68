from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from agents.models import Agent, Budget, BudgetPeriod, Department, ModelPrice
from agents.pricing import Usage, load_price_book, sync_prices
from runs import budget_counts, repricing
from runs.budget_changes import create_budget
from runs.budget_counts import count_past
from runs.cost_rollups import roll_up
from runs.cost_sums import Period, total
from runs.costs import break_down
from runs.database import now as database_now
from runs.models import AgentRun, CostCorrection, ModelCall
from runs.repricing import Change, apply_changes, find_changes
from tests.engine import LIMIT_SECONDS, in_threads
from tests.factories import make_agent_run, make_department, make_lead, make_model_call, make_user
from tests.runs.test_races import HELD_SECONDS, ORDERS, meet, times

pytestmark = pytest.mark.django_db
DAY = datetime(2026, 11, 10, 12, tzinfo=UTC)
PERIOD = Period(DAY.date(), DAY.date())
HAIKU = "claude-haiku-5-5"


def make_call(**fields: Any) -> ModelCall:
    """A call of 1,000 and 500 tokens that was priced at the shipped price: 0.00035 dollars."""
    sync_prices()
    department = make_department()
    budget = Budget.objects.create(department=department, period="day", limit_usd=1)
    period = BudgetPeriod.objects.create(
        budget=budget, starts_at=DAY - timedelta(hours=12), ends_at=DAY + timedelta(hours=12), spent_usd="0.00035"
    )
    run = make_agent_run(make_lead(department).item, "intake")
    values: dict[str, Any] = {
        "model_asked": HAIKU, "model_used": HAIKU, "input_tokens": 1_000, "output_tokens": 500,
        "cost_usd": Decimal("0.00035"), "started_at": DAY, "reserved_in": [period.pk],
        "price": ModelPrice.objects.get(model=HAIKU, prompt_tokens_over=0),
    }  # fmt: skip
    return make_model_call(run, **{**values, **fields})


def correct_price() -> None:
    """The shipped price of output was wrong: it is twice as much."""
    ModelPrice.objects.filter(model=HAIKU, prompt_tokens_over=0).update(output_usd=1)


def recompute(**options: Any) -> str:
    out = StringIO()
    call_command("recompute_costs", "--from", "2026-11-10", "--to", "2026-11-10", stdout=out, **options)
    return out.getvalue()


def test_it_shows_the_difference_and_changes_nothing() -> None:
    call = make_call()
    assert "nothing to change" in recompute()
    correct_price()
    text = recompute()
    assert f"{HAIKU}: 1 calls, 0.00035000 → 0.00060000 USD (+0.00025000)" in text
    assert "Nothing was changed" in text
    call.refresh_from_db()
    assert call.cost_usd == Decimal("0.00035")


@pytest.mark.parametrize("is_rolled", [True, False])
def test_it_changes_every_sum_and_keeps_the_old_figure(is_rolled: bool) -> None:
    call = make_call()
    if is_rolled:
        roll_up()
    correct_price()
    assert "1 calls were priced anew" in recompute(apply=True, reason="The list price was misread.")
    after = Decimal("0.0006")
    assert ModelCall.objects.get(pk=call.pk).cost_usd == after
    assert AgentRun.objects.get(model_calls=call).cost_usd == after
    assert BudgetPeriod.objects.get().spent_usd == after
    for _ in range(2):
        for by in ("agent", "item"):
            assert total(break_down([call.department], PERIOD, by)).usd == after
        roll_up()
    correction = CostCorrection.objects.get(call=call)
    assert (correction.before_usd, correction.after_usd) == (Decimal("0.00035"), after)
    assert correction.reason == "The list price was misread."
    assert "nothing to change" in recompute()


def make_late_budget(department: Department, **fields: Any) -> BudgetPeriod:
    """One that a person makes now, for this month, which counts what was called before in it."""
    user = User.objects.filter(username="ada").first() or make_user("ada", is_superuser=True)
    budget = Budget(**{"department": department, "period": "month", "limit_usd": 1, **fields})
    return create_budget(budget=budget, user=user).periods.get()


def correct_calls_of(day: date) -> int:
    correct_price()
    return apply_changes(find_changes(load_price_book(), day, day), reason="The list price was misread.")


def test_a_budget_that_was_made_later_in_the_period_is_corrected_too() -> None:
    now = database_now()
    call = make_call(started_at=now)
    periods = [make_late_budget(call.department, **fields) for fields in ({}, {"agent": call.agent}, {"model": HAIKU})]
    others = [
        make_late_budget(call.department, **fields)
        for fields in ({"model": "claude-opus-5-5"}, {"agent": Agent.objects.get(slug="writer")})
    ]
    off = make_late_budget(call.department, agent=call.agent, period="day")
    Budget.objects.filter(pk=off.budget_id).update(is_enabled=False)
    assert correct_calls_of(now.date()) == 1
    for period in periods:
        period.refresh_from_db()
        assert (period.spent_usd, period.spent_tokens) == (Decimal("0.0006"), 1_500), period
    for period in [*others, off]:
        before = period.spent_usd
        period.refresh_from_db()
        assert period.spent_usd == before
    assert BudgetPeriod.objects.get(pk=call.reserved_in[0]).spent_usd == Decimal("0.0006")


@pytest.mark.django_db(transaction=True)
@ORDERS
def test_who_makes_a_budget_while_calls_are_priced_anew_counts_what_they_cost_then(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_counts, "AGO", timedelta(0))  # all is summed before the lock
    now = database_now()
    call = make_call(started_at=now - timedelta(milliseconds=1))
    make_user("ada", is_superuser=True)
    for _ in times(order):
        ModelPrice.objects.filter(model=HAIKU, prompt_tokens_over=0).update(output_usd=F("output_usd") * 2)
        changes = list(find_changes(load_price_book(), call.started_at.date(), call.started_at.date()))
        price_anew = partial(apply_changes, changes, reason="x")
        period, done = meet(partial(make_late_budget, call.department), price_anew, order)
        assert done == 1
        period.refresh_from_db()
        assert period.spent_usd == ModelCall.objects.get().cost_usd
        Budget.objects.filter(pk=period.budget_id).delete()


@pytest.mark.django_db(transaction=True)
def test_a_budget_counts_what_calls_cost_by_two_who_price_anew_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them writes its corrections before the other one, and would be seen only after it."""
    monkeypatch.setattr(budget_counts, "AGO", timedelta(0))
    now = database_now() - timedelta(milliseconds=1)
    call = make_call(started_at=now)
    run = make_agent_run(make_lead(call.department).item, "intake")
    other = make_model_call(
        run, model_asked=HAIKU, model_used=HAIKU, input_tokens=1_000, output_tokens=500, cost_usd=Decimal("0.00035"),
        started_at=now, price=call.price,
    )  # fmt: skip
    make_user("ada", is_superuser=True)
    correct_price()
    changes = {change.call.pk: change for change in find_changes(load_price_book(), now.date(), now.date())}
    has_written, has_counted = threading.Event(), threading.Event()

    def first() -> None:
        with transaction.atomic():
            apply_changes([changes[call.pk]], reason="x")
            has_written.set()
            has_counted.wait(HELD_SECONDS)

    def second_and_budget() -> BudgetPeriod:
        has_written.wait(LIMIT_SECONDS)
        apply_changes([changes[other.pk]], reason="x")
        return make_late_budget(call.department)

    def count(*args: Any, **kwargs: Any) -> budget_counts.Past:
        past = count_past(*args, **kwargs)
        has_counted.set()
        return past

    monkeypatch.setattr("runs.budget_changes.count_past", count)
    period = in_threads(lambda number: second_and_budget() if number else first(), 2)[1]
    assert period is not None
    assert period.spent_usd == 2 * Decimal("0.0006")


def test_a_call_whose_model_had_no_price_is_priced_once_there_is_one() -> None:
    call = make_call(cost_usd=Decimal("0.5"), is_estimate=True, price=None, stop_reason="end_turn")
    BudgetPeriod.objects.update(spent_usd="0.5")
    roll_up()
    recompute(apply=True, reason="The price was entered late.")
    call.refresh_from_db()
    assert (call.cost_usd, call.is_estimate) == (Decimal("0.00035"), False)
    found = total(break_down([call.department], PERIOD, "agent"))
    assert (found.calls, found.usd, found.estimated_usd) == (1, Decimal("0.00035"), Decimal(0))


def test_estimates_and_calls_that_used_nothing_stand() -> None:
    make_call(is_estimate=True, cost_usd=Decimal("0.5"))
    correct_price()
    assert "nothing to change" in recompute()
    ModelCall.objects.update(is_estimate=False, input_tokens=0, output_tokens=0, cost_usd=0)
    assert "nothing to change" in recompute()


def test_it_says_how_many_estimates_it_leaves() -> None:
    make_call(is_estimate=True, cost_usd=Decimal("0.5"), number=1)
    run, values = AgentRun.objects.get(), {"is_estimate": True, "cost_usd": "0.00000001"}
    make_model_call(run, number=2, status="unseen", started_at=DAY, **values)
    make_model_call(run, number=3, started_at=DAY - timedelta(days=1), **values)
    left = "2 estimates (0.50000001 USD) were left as they are."
    assert left in recompute()
    make_model_call(run, number=9, model_asked=HAIKU, input_tokens=9, cost_usd="0.1", started_at=DAY)
    assert left in recompute()
    assert left in recompute(apply=True, reason="x")
    assert "estimates" not in recompute(model=["claude-opus-5-5"])


def test_a_refusal_that_was_booked_although_nothing_was_put_out_is_corrected() -> None:
    call = make_call(cause="refusal", output_tokens=0, cost_usd=Decimal("0.0001"))
    BudgetPeriod.objects.update(spent_usd="0.0001")
    assert "0.00010000 → 0.00000000 USD" in recompute(apply=True, reason="A refusal is not billed.")
    call.refresh_from_db()
    assert call.cost_usd == BudgetPeriod.objects.get().spent_usd == 0


def test_a_call_that_was_settled_again_meanwhile_is_left() -> None:
    make_call()
    correct_price()
    changes = list(find_changes(load_price_book(), DAY.date(), DAY.date()))
    ModelCall.objects.update(cost_usd="0.1")
    assert apply_changes(changes, reason="x") == 0
    assert not CostCorrection.objects.exists()


def test_a_call_without_a_price_whose_end_was_not_seen_stays_an_estimate() -> None:
    call = make_call(cost_usd=Decimal("0.5"), is_estimate=True, price=None, stop_reason="")
    assert "nothing to change" in recompute(apply=True, reason="The price was entered late.")
    call.refresh_from_db()
    assert (call.cost_usd, call.is_estimate, call.price) == (Decimal("0.5"), True, None)


def make_many(count: int) -> None:
    """Calls of one moment and of several, in two departments, on the day and around it."""
    call = make_call()
    first = AgentRun.objects.get()
    other = make_agent_run(make_lead(make_department(slug="other")).item, "intake")
    for number in range(2, count + 2):
        make_model_call(
            other if number % 3 == 0 else first, number=number, model_asked=HAIKU, model_used=HAIKU,
            input_tokens=1_000, output_tokens=500, cost_usd=Decimal("0.00035"), price=call.price,
            started_at=DAY + timedelta(hours=number // 4), reserved_in=[],
        )  # fmt: skip


def assert_sums_agree() -> None:
    for run in AgentRun.objects.all():
        costs = ModelCall.objects.filter(agent_run=run).values_list("cost_usd", flat=True)
        assert run.cost_usd == sum(costs, Decimal(0))
    departments, days = list(Department.objects.all()), Period(date(2026, 11, 1), date(2026, 11, 30))
    whole = sum(ModelCall.objects.values_list("cost_usd", flat=True), Decimal(0))
    for by in ("agent", "day", "item"):
        assert total(break_down(departments, days, by)).usd == whole


def test_it_finds_every_call_of_the_days_once_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repricing, "BATCH", 3)
    make_many(60)
    correct_price()
    begin, end = PERIOD.moments
    wanted = ModelCall.objects.filter(started_at__gte=begin, started_at__lt=end)
    found = [change.call.pk for change in find_changes(load_price_book(), DAY.date(), DAY.date())]
    assert sorted(found) == sorted(wanted.values_list("pk", flat=True))
    assert 40 < len(found) < 61


def test_cut_off_halfway_every_sum_agrees_and_doing_it_again_does_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repricing, "BATCH", 4)
    make_many(20)
    for run in AgentRun.objects.all():
        AgentRun.objects.filter(pk=run.pk).update(cost_usd=Decimal("0.00035") * run.model_calls.count())
    roll_up(seconds=0, batch=10)
    correct_price()

    def cut_off() -> Iterator[Change]:
        for number, change in enumerate(find_changes(load_price_book(), DAY.date(), DAY.date())):
            if number == 10:
                raise KeyboardInterrupt
            yield change

    with pytest.raises(KeyboardInterrupt):
        apply_changes(cut_off(), reason="Misread.")
    assert ModelCall.objects.filter(cost_usd=Decimal("0.0006")).count() == CostCorrection.objects.count() == 8
    assert_sums_agree()
    assert "13 calls were priced anew" in recompute(apply=True, reason="Misread.")
    assert CostCorrection.objects.count() == 21
    assert_sums_agree()
    assert "nothing to change" in recompute()


def test_looking_for_calls_reads_the_index_by_day() -> None:
    make_many(5)
    with CaptureQueriesContext(connection) as queries:
        list(find_changes(load_price_book(), DAY.date(), DAY.date()))
    (first, *_) = [query["sql"] for query in queries if "runs_modelcall" in query["sql"]]
    # The days as an index has them, without a function around them.
    assert '"runs_modelcall"."started_at" >= ' in first
    if connection.vendor == "sqlite":  # PostgreSQL plans five rows as it likes
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {first}")
            assert "model_call_by_day" in str(cursor.fetchall())


def test_a_call_keeps_everything_that_its_cost_was_made_from() -> None:
    """Else it would be priced anew from less than it was settled with."""
    assert {field.name for field in fields(Usage)} <= {field.name for field in ModelCall._meta.get_fields()}


def test_it_wants_a_reason_and_a_known_model() -> None:
    with pytest.raises(CommandError, match="--reason"):
        recompute(apply=True)
    with pytest.raises(CommandError, match="claude-nobody has no price"):
        recompute(model=["claude-nobody"])
    with pytest.raises(ValueError, match="Say why"):
        apply_changes([], reason=" ")
    assert date(2026, 11, 10) == DAY.date()
