"""What was spent for nothing: a call is of use if its answer was taken, by an attempt whose output was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from django.db import transaction
from django.utils import timezone

from agents.causes import Cause
from agents.models import Department
from runs import control, leases
from runs.calls import LATE, UNUSED, CallAsk, abandon_calls, discard_answers, open_calls, settle_calls
from runs.commits import commit
from runs.cost_rollups import UNITS, group_calls, roll_up, settled_calls
from runs.cost_sums import Period, total
from runs.costs import break_down
from runs.models import AgentRun, ItemCost, ModelCall
from runs.repricing import Change, apply_changes
from runs.staff import load_staff
from runs.work import Finished, OpenCall, SeenCall, Work
from tests.engine import answered, broken_off, claim_one, make_office, run_of
from tests.factories import make_user
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
