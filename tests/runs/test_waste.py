"""What was spent for nothing: a call is of use if its answer was taken, by an attempt whose output was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from importlib import import_module
from uuid import uuid4

import pytest
from django.apps import apps
from django.db import transaction
from django.utils import timezone

from agents.causes import Cause
from agents.models import Department
from agents.pricing import sync_prices
from runs import control, leases, tryout_claims
from runs.calls import LATE, UNUSED, CallAsk, abandon_calls, discard_answers, open_calls, settle_calls
from runs.commits import commit
from runs.cost_moves import group_calls
from runs.cost_rollups import roll_up
from runs.cost_sums import Period, total
from runs.cost_unrolled import settled_calls
from runs.costs import break_down
from runs.models import AgentRun, CostRollup, ItemCost, ModelCall, TryOut
from runs.models.costs import UNITS
from runs.repricing import Change, apply_changes
from runs.staff import load_staff
from runs.work import Finished, OpenCall, SeenCall, Work
from tests.engine import answered, broken_off, claim_one, make_office, run_of
from tests.factories import make_agent_run, make_lead, make_model_call, make_user
from tests.runs.test_races import ORDERS, meet, times

pytestmark = pytest.mark.django_db
DIMENSIONS = ("agent", "model", "soul", "department", "day", "item", "status", "source")


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def wasted(department: Department) -> Decimal:
    """The same by every dimension, and by the calls themselves."""
    today = timezone.now().date()
    period = Period(today - timedelta(days=1), today + timedelta(days=1))
    groups, _ = group_calls(settled_calls(department=department))
    by_calls = Decimal(sum(sums.values[-1] for group, sums in groups.items() if group.is_waste)) / UNITS
    sums = {by: total(break_down([department], period, by)).waste_usd for by in DIMENSIONS}
    assert sums == dict.fromkeys(DIMENSIONS, by_calls)
    return by_calls


def spent() -> Decimal:
    return sum(ModelCall.objects.values_list("cost_usd", flat=True), Decimal(0))


def answer_once(work: Work) -> OpenCall:
    """The first call was answered, asked for a tool, and the second went out."""
    run = run_of(work)
    with transaction.atomic():
        settle_calls(answered(work).unsettled, load_staff(), now=timezone.now())
        ask = CallAsk(
            run, work.agent, work.soul_id, work.api_key_env, work.attempt, 2, dict(work.first_call.request.params)
        )
        opened = open_calls([ask], load_staff(), now=timezone.now(), worker="host:1")[run.pk]
    assert isinstance(opened, OpenCall)
    return opened


def fail(work: Work, opened: OpenCall) -> None:
    ended = broken_off(work, Cause.TRANSIENT)
    ended.unsettled = [SeenCall(opened, ended.unsettled[0].reply)]
    commit([ended], load_staff())


def refuse(work: Work, opened: OpenCall) -> None:
    """The budget has no room for a third call."""
    with transaction.atomic():
        settle_calls([SeenCall(opened, answered(work).unsettled[0].reply)], load_staff(), now=timezone.now())
    commit([Finished(work, error="No room.", waiting_until=timezone.now())], load_staff())


def ask_for_too_many_tools(work: Work, opened: OpenCall) -> None:
    """The last reply is a good one, too: what was wrong is how often it came."""
    seen = SeenCall(opened, answered(work).unsettled[0].reply)
    commit([Finished(work, cause=Cause.TOOLS, error="Too often.", unsettled=[seen])], load_staff())


def cancel(work: Work, opened: OpenCall) -> None:
    assert control.cancel_agent_run(run=run_of(work), user=make_user())


def lose(work: Work, opened: OpenCall) -> None:
    AgentRun.objects.filter(pk=work.run_id).update(lease_expires_at=timezone.now() - timedelta(minutes=1))
    assert leases.reap() == 1


def give_back(work: Work, opened: OpenCall) -> None:
    leases.release([work])


@pytest.mark.parametrize("is_rolled", [False, True])
@pytest.mark.parametrize("end", [fail, refuse, ask_for_too_many_tools, cancel, lose, give_back])
def test_all_calls_of_an_attempt_without_an_output_were_of_no_use(
    office: Department, end: Callable[[Work, OpenCall], None], is_rolled: bool
) -> None:
    work = claim_one(department=office)
    opened = answer_once(work)
    assert wasted(office) == 0, "nobody knows yet what becomes of it"
    if is_rolled:
        assert roll_up() == 1
    end(work, opened)
    for _ in range(3):
        assert wasted(office) == spent() > 0
        roll_up()
    assert ModelCall.objects.get(number=1).error == UNUSED
    assert roll_up() == 0
    waste = sum(ItemCost.objects.values_list("waste_units", flat=True))
    assert Decimal(waste) / UNITS == spent()


def test_all_calls_of_an_attempt_with_an_output_were_of_use(office: Department) -> None:
    work = claim_one(department=office)
    opened = answer_once(work)
    roll_up()
    ended = answered(work)
    ended.unsettled = [SeenCall(opened, ended.unsettled[0].reply)]
    commit([ended], load_staff())
    roll_up()
    assert wasted(office) == 0 < spent()
    assert not ModelCall.objects.exclude(error="").exists()


@pytest.mark.parametrize("is_rolled", [False, True])
def test_an_answer_that_comes_after_its_run_was_taken_away_was_of_no_use(office: Department, is_rolled: bool) -> None:
    work = claim_one(department=office)
    with transaction.atomic():
        abandon_calls([work.run_id], now=timezone.now())
    if is_rolled:
        roll_up()
    assert wasted(office) == ModelCall.objects.get().reserved_usd
    commit([answered(work)], load_staff())
    call = ModelCall.objects.get()
    assert (call.status, call.cause, call.error, call.is_estimate) == ("finished", "", LATE, False)
    for _ in range(2):
        assert wasted(office) == call.cost_usd < call.reserved_usd
        roll_up()


def test_a_call_that_is_priced_anew_before_it_is_moved_stays_in_the_sums_once(office: Department) -> None:
    work = claim_one(department=office)
    opened = answer_once(work)
    roll_up()
    fail(work, opened)
    call = ModelCall.objects.select_related("price").get(number=1)
    assert call.rolled == ModelCall.Rolled.USED
    assert call.price is not None
    assert apply_changes([Change(call, call.price, call.cost_usd * 2)], reason="Misread.") == 1
    for _ in range(2):
        assert wasted(office) == spent()
        roll_up()


@pytest.mark.django_db(transaction=True)
@ORDERS
def test_a_rollup_and_an_end_without_an_output_meet(office: Department, order: str) -> None:
    for _ in times(order):
        work = claim_one(department=office)
        answer_once(work)
        calls = ModelCall.objects.filter(agent_run=work.run_id)

        def end(run_id: int = work.run_id) -> None:
            with transaction.atomic():
                abandon_calls([run_id], now=timezone.now())

        meet(partial(roll_up), end, order)
        for _ in range(2):
            assert wasted(office) == spent()
            roll_up()
        assert not calls.exclude(error__gt="").exists()
        assert roll_up() == 0


def test_discarding_twice_changes_nothing(office: Department) -> None:
    work = claim_one(department=office)
    opened = answer_once(work)
    fail(work, opened)
    roll_up()
    before = list(ModelCall.objects.order_by("pk").values())
    with transaction.atomic():
        discard_answers(ModelCall.objects.filter(agent_run=work.run_id))
    assert list(ModelCall.objects.order_by("pk").values()) == before


def test_what_was_counted_as_used_before_is_moved_and_refusals_lose_their_tokens(office: Department) -> None:
    """As the migration finds them: calls of attempts that brought nothing, rolled up as used."""
    sync_prices()
    item = make_lead(office).item
    failed, done = make_agent_run(item, "intake", status="failed"), make_agent_run(item, "qualifier", status="done")
    done.attempt = 2
    done.save()
    for run, attempt, number in ((failed, 1, 1), (done, 1, 1), (done, 2, 1)):
        make_model_call(run, attempt=attempt, number=number, cost_usd=Decimal("0.01"), started_at=timezone.now())
    refused = {"cause": "refusal", "input_tokens": 0, "output_tokens": 0, "cost_usd": 0}
    call = make_model_call(done, attempt=2, number=2, started_at=timezone.now(), **refused)
    roll_up()
    # As it was added before.
    ModelCall.objects.filter(pk=call.pk).update(input_tokens=900)
    CostRollup.objects.filter(cost_units=0).update(input_tokens=900)
    assert wasted(office) == 0
    old = import_module("runs.migrations.0024_answers_of_no_use")
    for change in (old.discard_answers, old.leave_out_unbilled_tokens):
        change(apps, None)
    assert CostRollup.objects.get(cost_units=0, calls=1).input_tokens == 0
    for _ in range(2):
        assert wasted(office) == Decimal("0.02")
        roll_up()


def test_the_good_calls_of_a_try_out_that_failed_were_of_no_use(office: Department) -> None:
    row = TryOut.objects.create(
        department=office, agent=office.agents.get(slug="intake"), item=make_lead(office).item, soul_name="1",
        sections={}, model="claude-haiku-5-5", bound_usd=1, created_at=timezone.now(), status="running",
        lease_token=uuid4(), lease_expires_at=timezone.now(),
    )  # fmt: skip
    ModelCall.objects.create(
        department=office, item=row.item, agent=row.agent, try_out=row, attempt=1, number=1, status="finished",
        model_asked=row.model, cost_usd=Decimal("0.01"), started_at=timezone.now(),
    )  # fmt: skip
    assert wasted(office) == 0
    assert tryout_claims.reap() == 1
    assert wasted(office) == Decimal("0.01")
