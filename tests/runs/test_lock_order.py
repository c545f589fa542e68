"""Transactions that meet at departments and model states: each takes them in the same order, forced with barriers.

On SQLite there is one writer at a time, and nothing to wait for in a circle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from agents import budgets, model_state
from agents.budgets import Refused
from agents.causes import Cause
from agents.models import Agent, Budget, BudgetPeriod, Department, ModelState, Soul
from runs import calls, commits, control, gates, leases, outputs, tryout_claims, tryouts
from runs.failures import LINE_STANDS
from runs.models import AgentRun, Item, ModelCall
from runs.shift import Shift
from runs.staff import load_staff
from runs.work import OpenCall, Work
from tests.engine import (
    answered,
    broken_off,
    claim,
    claim_one,
    in_threads,
    make_office,
    make_queued,
    run_of,
)
from tests.factories import agent_of, make_agent_run, make_output, make_review, make_trigger, make_user

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time"),
]
LIMIT_SECONDS = 10.0
MEET_SECONDS = 1.0
"""So long one waits for the other, who cannot come where the order is right."""


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def meet(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """After the first call of the function in each of two threads they wait for each other, as far as possible."""
    real, together, seen = getattr(where, name), threading.Barrier(2), threading.local()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        if not getattr(seen, "once", False):
            seen.once = True
            with suppress(threading.BrokenBarrierError):
                together.wait(MEET_SECONDS)
        return found

    monkeypatch.setattr(where, name, wrapped)


def test_who_reopens_a_line_does_not_wait_for_the_run_that_is_claimed_as_its_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = claim_one()
    Department.objects.update(stopped_by_error="401", next_probe_at=timezone.now() - timedelta(seconds=1))
    waiting, probe = make_queued(), make_queued()
    later = timezone.now() + timedelta(seconds=50)
    AgentRun.objects.filter(pk=waiting.pk).update(due_at=later, waiting_for=LINE_STANDS)
    AgentRun.objects.filter(pk=probe.pk).update(waiting_for=LINE_STANDS)
    holds_runs, holds_departments = threading.Event(), threading.Event()
    let_through, lock, wake = gates.let_through, gates.lock_departments, commits._wake

    def passing(*args: Any) -> Any:
        holds_runs.set()
        assert holds_departments.wait(LIMIT_SECONDS)
        return let_through(*args)

    def locking(keys: Any) -> None:
        assert holds_runs.wait(LIMIT_SECONDS)
        lock(keys)

    def waking(*args: Any) -> None:
        holds_departments.set()
        wake(*args)

    monkeypatch.setattr(leases, "let_through", passing)
    monkeypatch.setattr(commits, "lock_departments", locking)
    monkeypatch.setattr(commits, "_wake", waking)

    def meeting(number: int) -> list[Work]:
        if number:
            return leases.claim(5, staff=load_staff(), worker="host:1", is_alone=False)
        commits.commit([answered(done)], load_staff())
        return []

    _, works = in_threads(meeting, 2)
    assert [work.run_id for work in works] == [probe.pk]
    assert run_of(done).status == "done"
    waiting.refresh_from_db()
    assert waiting.due_at < later, "whoever waited for the key is taken up now"
    assert Department.objects.get().stopped_by_error == ""


def test_commits_about_the_same_models_in_opposite_order_do_not_wait_in_a_circle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    haiku, sonnet = [claim_one("intake") for _ in range(2)], [claim_one("writer") for _ in range(2)]
    models = {haiku[0].model, sonnet[0].model}
    for model in models:
        ModelState.objects.create(model=model, failures=1)
    groups = [
        [answered(haiku[0]), broken_off(sonnet[0], Cause.TRANSIENT)],
        [answered(sonnet[1]), broken_off(haiku[1], Cause.TRANSIENT)],
    ]
    meet(monkeypatch, model_state, "_locked")
    in_threads(lambda n: commits.commit(groups[n], load_staff()), 2)
    assert [run_of(work).status for work in (*haiku, *sonnet)] == ["done", "queued", "queued", "done"]
    assert set(ModelState.objects.values_list("model", flat=True)) == models


def test_claims_that_probe_the_same_models_in_opposite_order_do_not_wait_in_a_circle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agents = ("writer", "intake", "intake", "writer")
    runs = [make_queued(agent, priority=number) for number, agent in enumerate(agents)]
    pause_over = timezone.now() - timedelta(seconds=1)
    for model in {run.agent.model for run in runs}:
        ModelState.objects.create(model=model, breaker="open", failures=5, closed_until=pause_over, reason="no answer")
    meet(monkeypatch, gates, "start_probe")
    staff = load_staff()
    taken = in_threads(lambda n: leases.claim(2, staff=staff, worker=f"host:{n}", is_alone=False), 2)
    models = [work.model for works in taken for work in works]
    assert {models.count(run.agent.model) for run in runs[:2]} == {1}, "each model is probed once"


def test_who_cancels_a_run_and_who_claims_it_do_not_wait_in_a_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    run, person = make_queued(), make_user("ada")
    holds_run, holds_item = threading.Event(), threading.Event()
    let_through, lock = gates.let_through, commits.lock_items

    def passing(*args: Any) -> Any:
        holds_run.set()
        assert holds_item.wait(LIMIT_SECONDS)
        return let_through(*args)

    def locking(item_ids: set[int]) -> Any:
        assert holds_run.wait(LIMIT_SECONDS)
        items = lock(item_ids)
        holds_item.set()
        return items

    monkeypatch.setattr(leases, "let_through", passing)
    monkeypatch.setattr(control, "lock_items", locking)

    def meeting(number: int) -> list[Work]:
        if number:
            return leases.claim(5, staff=load_staff(), worker="host:1", is_alone=False)
        assert control.cancel_agent_run(run=run, user=person)
        return []

    # The claim writes a call of the item that the other one holds: it need not wait for that.
    _, works = in_threads(meeting, 2)
    assert [work.run_id for work in works] == [run.pk]
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert ModelCall.objects.get().status == "unseen"


def make_budgets(office: Department) -> None:
    """Of two agents; what is begun in the order of their ids reserves in the later budget first."""
    Budget.objects.all().delete()
    for slug in ("writer", "intake"):
        Budget.objects.create(department=office, agent=agent_of(office, slug), period="day", limit_usd=50)


def two_under_way(office: Department, **fields: Any) -> tuple[AgentRun, AgentRun]:
    """Two runs of one item under way, the first of which has reserved in the later budget. ``fields`` of the second."""
    make_budgets(office)
    first = make_queued("intake", office)
    second = make_agent_run(first.item, "writer", **fields)
    assert {work.run_id for work in claim()} == {first.pk, second.pk}
    return first, second


def cancel_all(first: AgentRun, second: AgentRun) -> bool:
    return bool(control.cancel_item(item=first.item, user=make_user("ada")))


def replace_first(first: AgentRun, second: AgentRun) -> bool:
    """The first step is done again, and the second, which works on the news of an approval, learns that it is gone."""
    item = Item.objects.get(pk=first.item_id)
    approved = make_output(item, "email")
    review = make_review(item, output=approved, status="answered", answer="approve")
    make_trigger(item, "decision", source=f"review:{review.pk}")
    AgentRun.objects.filter(pk=second.pk).update(trigger=item.triggers.get(kind="decision"))
    plan = outputs.Replacement(("intake", None), active=[first], retired=[approved])
    with transaction.atomic():
        desk = load_staff().desks[item.department_id]
        item = commits.lock_items({item.pk})[item.pk]
        outputs.replace(plan, item, desk, why="Again.", now=timezone.now())
    return True


@pytest.mark.parametrize("end", [cancel_all, replace_first])
def test_who_ends_several_runs_and_who_settles_do_not_wait_in_a_circle_for_their_budgets(
    end: Any, office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = two_under_way(office)
    others = [claim_one("intake"), claim_one("writer")]
    has_settled, real = threading.Event(), budgets.settle

    def settling(*args: Any) -> None:
        real(*args)
        if not has_settled.is_set():
            has_settled.set()
            threading.Event().wait(MEET_SECONDS)  # so long the other one may take what comes first in his order

    def meeting(number: int) -> bool:
        if number:
            assert has_settled.wait(LIMIT_SECONDS)
            commits.commit([answered(work) for work in others], load_staff())
            return True
        return bool(end(*runs))

    monkeypatch.setattr(calls, "settle", settling)
    assert in_threads(meeting, 2) == [True, True]
    assert {AgentRun.objects.get(pk=run.pk).status for run in runs} == {"cancelled"}
    assert {run_of(work).status for work in others} == {"done"}
    assert not ModelCall.objects.filter(status="started").exists()
    for agent in Agent.objects.filter(budgets__isnull=False):
        period = agent.budgets.get().periods.get()
        assert period.reserved_usd == 0
        assert period.spent_usd == sum(ModelCall.objects.filter(agent=agent).values_list("cost_usd", flat=True))


def start_try_out(office: Department, slug: str) -> None:
    """A queued try-out of the latest item, by a person of its own."""
    agent, wanted = agent_of(office, slug), [tryouts.Wanted(Item.objects.latest("pk"))]
    soul = Soul.objects.get(agent=agent, status="published")
    assert tryouts.start(agent=agent, wanted=wanted, soul=soul, model=agent.model, user=make_user(slug))[0]


def test_who_claims_several_try_outs_and_who_settles_do_not_wait_in_a_circle_for_their_budgets(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_budgets(office)
    others = [claim_one("writer", office), claim_one("intake", office)]
    for slug in ("intake", "writer"):
        start_try_out(office, slug)
    monkeypatch.setattr(tryout_claims, "missing", lambda *args: "")
    has_reserved, real = threading.Event(), calls.open_calls

    def opening(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        if not has_reserved.is_set():
            has_reserved.set()
            threading.Event().wait(MEET_SECONDS)
        return found

    def meeting(number: int) -> list[Work]:
        if number:
            assert has_reserved.wait(LIMIT_SECONDS)
            commits.commit([answered(work) for work in others], load_staff())
            return []
        return tryout_claims.claim((), staff=load_staff(), worker="host:1")

    monkeypatch.setattr(tryout_claims, "open_calls", opening)
    works, _ = in_threads(meeting, 2)
    assert [work.agent.slug for work in works] == ["intake", "writer"]
    assert {run_of(work).status for work in others} == {"done"}


def next_of_run(office: Department) -> Callable[[], OpenCall | Refused | None]:
    work = claim_one("intake", office)
    shift, seen = Shift(1, uuid4()), answered(work).unsettled[0]
    return lambda: shift._next_call(work, seen, 2, work.first_call.request.params)


def next_of_try_out(office: Department) -> Callable[[], OpenCall | Refused | None]:
    make_queued("intake", office, status="done")
    start_try_out(office, "intake")
    (work,) = tryout_claims.claim((), staff=load_staff(), worker="host:1")
    seen, params = answered(work).unsettled[0], work.first_call.request.params
    return lambda: tryout_claims.next_call(work, seen, 2, params, staff=load_staff(), worker="host:1")


@pytest.mark.parametrize("begin_first", [next_of_run, next_of_try_out])
def test_when_a_period_turns_a_claim_and_a_next_call_do_not_wait_in_a_circle(
    begin_first: Any, office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    Budget.objects.create(department=office, period="month", limit_usd=50)
    next_call = begin_first(office)
    turning = BudgetPeriod.objects.get(budget__period="day")
    a_day = timedelta(days=1)
    BudgetPeriod.objects.filter(pk=turning.pk).update(starts_at=turning.starts_at - a_day, ends_at=turning.starts_at)
    run = make_queued("intake", office)
    holds_budgets, has_settled = threading.Event(), threading.Event()
    make, real = budgets._make_periods, budgets.settle

    def making(windows: Any) -> None:
        make(windows)
        if windows and not holds_budgets.is_set():
            holds_budgets.set()
            has_settled.wait(MEET_SECONDS)

    def settling(*args: Any) -> None:
        real(*args)
        has_settled.set()

    monkeypatch.setattr(budgets, "_make_periods", making)
    monkeypatch.setattr(calls, "settle", settling)

    def meeting(number: int) -> Any:
        if number:
            assert holds_budgets.wait(LIMIT_SECONDS)
            return next_call()
        return claim()

    works, opened = in_threads(meeting, 2)
    assert [work.run_id for work in works] == [run.pk]
    assert isinstance(opened, OpenCall)
    turned = BudgetPeriod.objects.get(budget__period="day", starts_at=turning.starts_at)
    assert turned.reserved_usd == sum(ModelCall.objects.filter(status="started").values_list("reserved_usd", flat=True))
