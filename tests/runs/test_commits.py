"""What finished attempts leave behind, in one transaction for many of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from agents.budgets import wait_head
from agents.causes import Cause
from agents.models import Budget, Department, ModelState
from agents.pricing import Usage
from runs import budget_changes, commits, dispatch
from runs.budget_changes import allow_once, set_extras
from runs.commits import commit, settle_apart
from runs.failures import GIVE_UP_WAITING, MAX_FAILURES
from runs.leases import still_held
from runs.models import Action, AgentRun, Alert, Item, LogEntry, ModelCall, Output, PipelineRun, Review
from runs.staff import load_staff
from runs.work import Finished
from tests.engine import (
    answered,
    assert_accounts_agree,
    broken_off,
    claim,
    claim_one,
    in_threads,
    make_office,
    make_queued,
    run_of,
    wait_for,
)
from tests.factories import PAYLOADS, make_output, make_trigger, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def due_now(work: Any) -> None:
    """Have the run claimed again at once, whatever it waits for."""
    AgentRun.objects.filter(pk=work.run_id).update(due_at=timezone.now() - timedelta(seconds=1))
    ModelState.objects.update(closed_until=None)


def test_an_output_is_stored_with_all_that_explains_it() -> None:
    work = claim_one("qualifier")
    commit([answered(work)], load_staff())
    output = Output.objects.get(item=work.item_id)
    assert (output.key, output.number, output.trigger, output.is_current) == ("qualification", 1, None, True)
    assert output.payload == PAYLOADS["qualification"]
    assert output.facets == {"tier": "Hot", "score": 84}
    assert output.agent_run_id == work.run_id
    assert output.fingerprint == work.prepared.fingerprint
    assert len(output.schema_version) == 12
    run = run_of(work)
    assert (run.status, run.lease_token, run.lease_expires_at, run.cause) == ("done", None, None, "")
    assert run.ended_at is not None
    call = ModelCall.objects.get(agent_run=run)
    assert (call.status, call.input_tokens, call.output_tokens, call.is_estimate) == ("finished", 900, 200, False)
    assert (call.request_id, call.stop_reason, call.latency_ms) == ("req_1", "end_turn", 480)
    assert call.cost_usd == run.cost_usd > 0
    assert (call.body.response or {})["stop_reason"] == "end_turn"
    assert_accounts_agree()


def test_the_log_names_what_was_found_as_the_schema_and_the_rules_do() -> None:
    work = claim_one("intake")
    commit([answered(work)], load_staff())
    text = LogEntry.objects.get(item=work.item_id, kind="output").text
    assert text.startswith(f"Intake Classifier wrote intake: kind of message {PAYLOADS['intake']['category']}"), text


def test_the_item_is_routed_again_in_the_same_transaction() -> None:
    work = claim_one("intake")
    commit([answered(work)], load_staff())
    assert Item.objects.get(pk=work.item_id).status == "new"
    following = AgentRun.objects.get(item=work.item_id, status="queued")
    assert following.agent.slug == "qualifier"
    assert following.pipeline_run_id == run_of(work).pipeline_run_id


def test_what_was_made_from_what_is_kept() -> None:
    run = make_queued("formatter")
    draft = make_output(run.item, "draft")
    check = make_output(run.item, "fact_check")
    make_output(run.item, "research")
    work = claim()[0]
    commit([answered(work)], load_staff())
    assert Output.objects.get(item=run.item, key="email").made_from == [draft.pk, check.pk]


def test_numbers_go_on_over_older_outputs_and_other_occasions() -> None:
    run = make_queued("intake")
    make_output(run.item, "intake", number=3, is_current=False)
    reply = make_trigger(run.item, "reply")
    make_output(run.item, "intake", number=4, trigger=reply)
    commit([answered(claim()[0])], load_staff())
    assert Output.objects.get(item=run.item, trigger=None, is_current=True).number == 5


def test_a_run_that_is_done_cannot_be_committed_twice() -> None:
    work = claim_one()
    commit([answered(work)], load_staff())
    before = Output.objects.count(), LogEntry.objects.count(), run_of(work).cost_usd
    other = {**PAYLOADS["intake"], "summary": "Something else"}
    commit([answered(work, other)], load_staff())
    assert (Output.objects.count(), LogEntry.objects.count(), run_of(work).cost_usd) == before
    assert_accounts_agree()


def test_whoever_lost_the_token_leaves_nothing_but_its_costs() -> None:
    work = claim_one()
    AgentRun.objects.filter(pk=work.run_id).update(lease_token=uuid4())
    before = LogEntry.objects.count()
    commit([answered(work)], load_staff())
    assert not Output.objects.exists()
    assert LogEntry.objects.count() == before
    assert run_of(work).status == "running"
    call = ModelCall.objects.get(pk=work.first_call.pk)
    assert call.status == "finished"
    assert call.cost_usd == run_of(work).cost_usd > 0


def test_a_failure_of_a_fenced_worker_is_not_counted() -> None:
    work = claim_one()
    AgentRun.objects.filter(pk=work.run_id).update(lease_token=uuid4())
    commit([broken_off(work, Cause.TRANSIENT)], load_staff())
    run = run_of(work)
    assert (run.status, run.failures, run.error) == ("running", 0, "")
    assert run.cost_usd > 0


def test_many_attempts_end_in_one_transaction(django_assert_max_num_queries: Any) -> None:
    staff = load_staff()
    counts = []
    for size in (2, 20):
        for _ in range(size):
            make_queued("intake")
        finished = [answered(work) for work in claim(size)]
        assert len(finished) == size
        with django_assert_max_num_queries(100) as queries:
            commit(finished, staff)
        counts.append(len(queries))
        AgentRun.objects.update(status="cancelled")
    assert counts[0] == counts[1], "the queries do not grow with the attempts"


def test_one_bad_result_does_not_hold_up_the_others() -> None:
    works = [claim_one("intake") for _ in range(3)]
    bad = works[1]
    make_output(Item.objects.get(pk=bad.item_id), "intake")  # the constraint refuses a second current one
    commit([answered(work) for work in works], load_staff())
    assert [run_of(work).status for work in works] == ["done", "queued", "done"]
    assert (run_of(bad).cause, run_of(bad).failures) == (Cause.INTERNAL, 1)
    assert Output.objects.filter(item=bad.item_id, key="intake").count() == 1
    assert_accounts_agree()


def test_an_output_that_cannot_be_stored_ends_as_a_failure_not_as_a_loop() -> None:
    work = claim_one("intake")
    unstorable = {**PAYLOADS["intake"], "summary": object()}
    for number in range(MAX_FAILURES):
        commit([answered(work, unstorable)], load_staff())
        if number < MAX_FAILURES - 1:
            due_now(work)
            work = claim()[0]
    run = run_of(work)
    assert (run.status, run.cause) == ("failed", Cause.INTERNAL)
    assert Review.objects.filter(item=run.item_id, kind=Review.Kind.FAILURE).count() == 1
    assert_accounts_agree()


def test_a_database_that_is_away_is_told_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the database system is shutting down")

    work = claim_one()
    monkeypatch.setattr(commits, "settle_calls", away)
    with pytest.raises(OperationalError):
        commit([answered(work)], load_staff())
    monkeypatch.undo()
    commit([answered(work)], load_staff())
    assert run_of(work).status == "done"


def test_nothing_to_commit_asks_the_database_nothing(django_assert_num_queries: Any) -> None:
    staff = load_staff()
    with django_assert_num_queries(0):
        commit([], staff)


# --- Failures -------------------------------------------------------------------------------------------------


def test_a_failure_is_counted_and_tried_again_later() -> None:
    work = claim_one()
    began = timezone.now()
    commit([broken_off(work, Cause.TRANSIENT, "Connection reset.")], load_staff())
    run = run_of(work)
    assert (run.status, run.failures, run.cause, run.error) == ("queued", 1, Cause.TRANSIENT, "Connection reset.")
    assert 3 < (run.due_at - began).total_seconds() < 8
    assert run.waiting_for.startswith("Try 2 of 4 at ")
    assert run.waiting_since is not None
    assert (run.lease_token, run.lease_expires_at) == (None, None)
    assert not Review.objects.exists()
    assert LogEntry.objects.filter(agent_run=run, level="warning").exists()
    assert_accounts_agree()


def test_the_fourth_failure_is_the_last_and_a_person_is_asked() -> None:
    work = claim_one()
    for number in range(MAX_FAILURES):
        commit([broken_off(work, Cause.TIMEOUT, f"No answer, {number}.")], load_staff())
        if number < MAX_FAILURES - 1:
            due_now(work)
            work = claim()[0]
    run = run_of(work)
    assert (run.status, run.failures, run.attempt, run.cause) == ("failed", 4, 4, Cause.TIMEOUT)
    assert (run.waiting_for, run.waiting_since, run.lease_token) == ("", None, None)
    assert run.ended_at is not None
    item = Item.objects.get(pk=work.item_id)
    assert item.flag == "Intake Classifier failed: no answer in time."
    review = Review.objects.get(item=item)
    assert (review.kind, review.agent_run_id, review.cause) == ("failure", run.pk, "intake:timeout")
    assert review.ask.endswith("?")
    assert review.deadline is not None
    assert ModelCall.objects.filter(agent_run=run).count() == 4
    assert_accounts_agree()


def test_a_failure_is_routed_so_that_others_can_go_on_without_it() -> None:
    work = claim_one("intake", failures=MAX_FAILURES - 1)
    commit([broken_off(work, Cause.TRANSIENT)], load_staff())
    assert AgentRun.objects.get(item=work.item_id, status="queued").agent.slug == "qualifier"


@pytest.mark.parametrize("cause", [Cause.INVALID, Cause.TRUNCATED, Cause.REQUEST, Cause.TOOLS, Cause.REFUSAL])
def test_what_trying_again_cannot_change_fails_at_once(cause: Cause) -> None:
    work = claim_one()
    commit([broken_off(work, cause)], load_staff())
    assert (run_of(work).status, run_of(work).cause) == ("failed", cause)
    kind = Review.Kind.REFUSAL if cause is Cause.REFUSAL else Review.Kind.FAILURE
    assert Review.objects.get().kind == kind
    assert_accounts_agree()


@pytest.mark.parametrize("cause", [Cause.RATE_LIMITED, Cause.OVERLOADED])
def test_a_busy_model_is_waited_for_and_no_failure_is_counted(cause: Cause, settings: Any) -> None:
    settings.RETRY_AFTER_CAP_SECONDS = 60
    first, second = claim_one(), make_queued("qualifier")
    began = timezone.now()
    commit([broken_off(first, cause, retry_after_seconds=7_200.0)], load_staff())
    run = run_of(first)
    assert (run.status, run.failures) == ("queued", 0)
    assert 55 < (run.due_at - began).total_seconds() < 65, "retry-after is capped"
    assert run.waiting_for.startswith("The model is busy")
    state = ModelState.objects.get(model=first.agent.model)
    assert state.closed_until is not None
    assert state.closed_until <= run.due_at <= state.closed_until + timedelta(seconds=1), "spread, not earlier"
    assert claim() == [], "nobody else asks the same model"
    second.refresh_from_db()
    assert second.due_at == state.closed_until
    assert first.agent.model in second.waiting_for
    assert second.waiting_since is not None


def test_a_later_date_for_a_busy_model_stands() -> None:
    later = timezone.now() + timedelta(minutes=30)
    work = claim_one()
    ModelState.objects.create(model=work.agent.model, closed_until=later, reason="told before")
    commit([broken_off(work, Cause.RATE_LIMITED, retry_after_seconds=1.0)], load_staff())
    assert ModelState.objects.get().closed_until == later


def test_after_a_day_of_a_busy_model_a_person_is_asked() -> None:
    work = claim_one()
    commit([broken_off(work, Cause.RATE_LIMITED)], load_staff())
    AgentRun.objects.update(waiting_since=timezone.now() - GIVE_UP_WAITING - timedelta(minutes=1))
    due_now(work)
    commit([broken_off(claim()[0], Cause.RATE_LIMITED)], load_staff())
    assert run_of(work).status == "failed"
    assert Review.objects.count() == 1


def test_a_day_of_waiting_for_something_else_is_not_a_day_of_a_busy_model() -> None:
    day_ago = timezone.now() - GIVE_UP_WAITING - timedelta(minutes=1)
    work = claim_one(waiting_since=day_ago, waiting_for="budget of the department: 1.00 USD a day")
    commit([broken_off(work, Cause.RATE_LIMITED)], load_staff())
    run = run_of(work)
    assert run.status == "queued"
    assert run.waiting_since is not None
    assert run.waiting_since > day_ago


def test_a_weekend_over_budget_between_two_rate_limits_is_no_day_of_a_busy_model() -> None:
    work = claim_one()
    commit([broken_off(work, Cause.RATE_LIMITED)], load_staff())
    days_ago = timezone.now() - 3 * GIVE_UP_WAITING
    AgentRun.objects.update(waiting_since=days_ago)
    Budget.objects.update(limit_usd=0)
    due_now(work)
    assert claim() == []
    run = run_of(work)
    assert run.waiting_since is not None
    assert run.waiting_since > days_ago, "it waits for the budget since now"
    AgentRun.objects.update(waiting_since=days_ago)  # the weekend passes
    due_now(work)
    assert claim() == []
    assert run_of(work).waiting_since == days_ago, "for the budget it goes on waiting"
    Budget.objects.update(limit_usd=100)
    due_now(work)
    commit([broken_off(claim()[0], Cause.RATE_LIMITED)], load_staff())
    assert run_of(work).status == "queued"


def test_a_gate_that_holds_back_a_busy_models_run_does_not_begin_its_day_anew() -> None:
    work = claim_one()
    commit([broken_off(work, Cause.RATE_LIMITED)], load_staff())
    day_ago = timezone.now() - GIVE_UP_WAITING - timedelta(minutes=1)
    AgentRun.objects.update(waiting_since=day_ago, due_at=timezone.now() - timedelta(seconds=1))
    assert claim() == [], "the model takes no calls"
    assert run_of(work).waiting_since == day_ago
    due_now(work)
    commit([broken_off(claim()[0], Cause.RATE_LIMITED)], load_staff())
    assert run_of(work).status == "failed"


def test_days_on_a_paused_item_are_no_day_of_a_busy_model() -> None:
    work = claim_one()
    commit([broken_off(work, Cause.RATE_LIMITED)], load_staff())
    days_ago = timezone.now() - 3 * GIVE_UP_WAITING
    ModelState.objects.update(closed_until=None)
    AgentRun.objects.update(waiting_since=days_ago, due_at=days_ago)
    commit([broken_off(claim()[0], Cause.RATE_LIMITED)], load_staff())
    assert run_of(work).status == "queued"


def test_a_refused_key_stops_the_line_of_every_department_that_uses_it() -> None:
    other = make_office("other")
    apart = make_office("apart", api_key_env="APART_KEY")
    work = claim_one("intake", Department.objects.get(slug="sales"))
    began = timezone.now()
    commit([broken_off(work, Cause.ACCOUNT, "invalid x-api-key")], load_staff())
    run = run_of(work)
    assert (run.status, run.failures) == ("queued", 0)
    assert 55 < (run.due_at - began).total_seconds() < 65
    for department in (work.department_id, other.pk):
        found = Department.objects.get(pk=department)
        assert found.stopped_by_error == "invalid x-api-key"
        assert found.next_probe_at is not None
    assert Department.objects.get(pk=apart.pk).stopped_by_error == ""


def test_a_good_answer_opens_the_line_again_and_nobody_sits_out_its_minute() -> None:
    work, waiting = claim_one(), make_queued()
    commit([broken_off(work, Cause.ACCOUNT, "invalid x-api-key")], load_staff())
    assert claim() == []
    waiting.refresh_from_db()
    assert waiting.waiting_for.startswith("The line stands still")
    Department.objects.update(next_probe_at=timezone.now() - timedelta(seconds=1))
    due_now(work)
    probe = claim()
    assert [one.run_id for one in probe] == [work.run_id]
    commit([answered(probe[0])], load_staff())
    assert Department.objects.get().stopped_by_error == ""
    waiting.refresh_from_db()
    assert waiting.waiting_for == ""
    assert {one.run_id for one in claim()} >= {waiting.pk}


def test_a_run_that_was_refused_itself_does_not_sit_out_its_minute_either() -> None:
    refused, probe = claim_one(), claim_one()
    commit([broken_off(refused, Cause.ACCOUNT, "invalid x-api-key")], load_staff())
    assert run_of(refused).due_at > timezone.now()
    commit([answered(probe)], load_staff())
    run = run_of(refused)
    assert run.waiting_for == ""
    assert run.due_at <= timezone.now()


@pytest.fixture
def refused() -> Finished:
    """An attempt whose second call a budget has refused until its period turns, not written down yet."""
    work, budget = claim_one(), Budget.objects.get()
    until = timezone.now() + timedelta(days=9)
    return broken_off(work, Cause.NONE, f"{wait_head(budget)}: 1.00 USD.", waiting_until=until)


def test_a_budget_raised_before_the_refused_attempt_is_written_down_wakes_it(refused: Finished) -> None:
    # The run is not queued yet, so this finds nobody to wake.
    allow_once(budget=Budget.objects.get(), usd=Decimal(50), user=make_user("ada"), reason="")
    commit([refused], load_staff())
    assert not Alert.objects.exists()
    assert [again.run_id for again in claim()] == [refused.work.run_id]


def test_it_wakes_it_where_the_clock_of_who_raised_it_is_slow(
    refused: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = timezone.now()
    monkeypatch.setattr(budget_changes, "database_now", lambda: here)  # SQLite has no clock of its own
    with time_machine.travel(here - timedelta(minutes=2)):
        allow_once(budget=Budget.objects.get(), usd=Decimal(50), user=make_user("ada"), reason="")
    commit([refused], load_staff())
    assert [again.run_id for again in claim()] == [refused.work.run_id]


def test_what_was_changed_before_the_attempt_began_does_not_have_it_pay_again(refused: Finished) -> None:
    budget, ada = Budget.objects.get(), make_user("ada")
    allow_once(budget=budget, usd=Decimal(50), user=ada, reason="")
    Action.objects.update(at=timezone.now() - timedelta(hours=1))
    commit([refused], load_staff())
    assert run_of(refused.work).due_at == refused.waiting_until


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_set_in_the_admin", [False, True])
def test_a_budget_raised_while_the_refusal_is_written_down_wakes_it(
    refused: Finished, is_set_in_the_admin: bool
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time.")
    budget, ada, staff = Budget.objects.get(), make_user("ada"), load_staff()
    is_raised = Event()

    def work(number: int) -> None:
        if number:
            assert is_raised.wait(10)
            commit([refused], staff)
            return
        with transaction.atomic():
            if is_set_in_the_admin:
                set_extras(period=budget.periods.get(), extras={"extra_usd": Decimal(50)}, user=ada)
            else:
                allow_once(budget=budget, usd=Decimal(50), user=ada, reason="")
            is_raised.set()
            wait_for(_somebody_waits_for_a_lock, "the commit to wait for the budget")

    in_threads(work, 2)
    assert run_of(refused.work).due_at <= timezone.now()


def _somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
        return cursor.fetchone() is not None


def test_an_attempt_that_ran_out_of_budget_waits_for_it() -> None:
    work = claim_one()
    until = timezone.now() + timedelta(hours=3)
    reason = "budget of the department a day: 1.00 USD"
    ended = replace(answered(work), payload=None, error=reason, waiting_until=until)
    commit([ended], load_staff())
    run = run_of(work)
    assert (run.status, run.due_at, run.failures) == ("queued", until, 0)
    assert reason in run.waiting_for
    assert reason in Alert.objects.get(kind=Alert.Kind.BUDGET).text
    assert Review.objects.filter(kind=Review.Kind.BUDGET, status="open").count() == 1
    assert_accounts_agree()


def test_trespasses_are_added_up_over_attempts() -> None:
    work = claim_one()
    commit([broken_off(work, Cause.TRANSIENT, trespasses=2)], load_staff())
    due_now(work)
    commit([answered(claim()[0], trespasses=1)], load_staff())
    assert run_of(work).trespasses == 3


def test_the_costs_of_all_attempts_are_the_costs_of_the_run() -> None:
    work = claim_one()
    commit([broken_off(work, Cause.TRANSIENT)], load_staff())
    once = run_of(work).cost_usd
    assert once > 0
    due_now(work)
    commit([answered(claim()[0])], load_staff())
    assert run_of(work).cost_usd == 2 * once
    assert_accounts_agree()


# --- Costs of calls whose end nobody saw ----------------------------------------------------------------------


def test_a_call_without_usage_stands_at_its_reservation() -> None:
    work = claim_one()
    ended = broken_off(work, Cause.TIMEOUT)
    ended.unsettled[0].reply.usage = type(ended.unsettled[0].reply.usage)()
    ended.unsettled[0].reply.is_usage_final = False
    commit([ended], load_staff())
    call = ModelCall.objects.get()
    assert call.is_estimate
    assert call.cost_usd == call.reserved_usd > 0
    assert_accounts_agree()


def test_an_answer_that_broke_off_costs_its_prompt_and_all_it_may_have_said() -> None:
    work = claim_one()
    ended = broken_off(work, Cause.TRANSIENT)
    reply = ended.unsettled[0].reply
    reply.usage, reply.is_usage_final = replace(reply.usage, output_tokens=1), False
    commit([ended], load_staff())
    call = ModelCall.objects.get()
    assert call.is_estimate
    assert call.price is not None
    room = work.first_call.request.params["max_tokens"]
    wanted = (900 * call.price.input_usd + room * call.price.output_usd) / Decimal(1_000_000)
    assert call.cost_usd == round(wanted, 8)
    assert call.cost_usd < call.reserved_usd
    assert call.output_tokens == 1, "the tokens stay as they were reported"
    assert_accounts_agree()


def test_a_request_that_never_left_costs_nothing() -> None:
    work = claim_one()
    ended = broken_off(work, Cause.TRANSIENT)
    reply = ended.unsettled[0].reply
    reply.usage, reply.is_usage_final, reply.was_sent = type(reply.usage)(), False, False
    commit([ended], load_staff())
    call = ModelCall.objects.get()
    assert call.cost_usd == 0
    assert not call.is_estimate
    assert_accounts_agree()


# --- Pipeline runs and paused items ---------------------------------------------------------------------------


def test_a_pipeline_run_ends_degraded_if_something_failed_on_the_way() -> None:
    work = claim_one("intake", failures=MAX_FAILURES - 1)
    commit([broken_off(work, Cause.TRANSIENT)], load_staff())
    qualifier = claim()[0]
    cold = {**PAYLOADS["qualification"], "score": 10, "tier": "Cold"}
    commit([answered(qualifier, cold)], load_staff())
    pipeline = PipelineRun.objects.get(item=work.item_id)
    assert pipeline.status == "degraded"
    assert pipeline.ended_at is not None
    assert Review.objects.filter(item=work.item_id, status="open").exists()
    assert Item.objects.get(pk=work.item_id).route_due_at is None


def test_on_a_paused_item_the_step_is_finished_and_nothing_further_starts() -> None:
    work = claim_one("intake")
    Item.objects.filter(pk=work.item_id).update(automation="paused")
    commit([answered(work)], load_staff())
    assert run_of(work).status == "done"
    assert Output.objects.filter(item=work.item_id, key="intake").exists()
    assert not AgentRun.objects.filter(item=work.item_id, status__in=AgentRun.ACTIVE).exists()
    assert Item.objects.get(pk=work.item_id).route_due_at is not None, "it is looked at again on resume"


def test_in_a_stopped_department_nothing_further_starts() -> None:
    work = claim_one("intake")
    Department.objects.update(state="stopped")
    commit([answered(work)], load_staff())
    assert run_of(work).status == "done"
    assert not AgentRun.objects.filter(item=work.item_id, status__in=AgentRun.ACTIVE).exists()
    assert Item.objects.get(pk=work.item_id).route_due_at is not None


def test_a_committed_run_is_no_longer_held() -> None:
    work, other = claim_one(), claim_one()
    commit([answered(work)], load_staff())
    assert still_held({work.token, other.token}) == {other.token}


def test_a_result_whose_item_cannot_be_routed_is_kept_and_not_paid_for_again() -> None:
    work = claim_one("intake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "route", _fail)
        commit([answered(work)], load_staff())
    assert not connection.needs_rollback
    assert Output.objects.filter(item=work.item_id, key="intake", is_current=True).count() == 1
    run, item = run_of(work), Item.objects.get(pk=work.item_id)
    assert (run.status, run.lease_token) == ("done", None)
    assert run.cost_usd > 0
    assert item.flag == f"{dispatch.UNDECIDED} RuntimeError: cannot route"
    assert item.route_due_at is not None
    assert "lang:en" in item.tags, "what the output implies is applied"
    assert_accounts_agree()
    Item.objects.update(route_due_at=timezone.now() - timedelta(seconds=1))
    dispatch.route_due(10, staff=load_staff())
    assert Item.objects.get(pk=work.item_id).flag == ""
    assert AgentRun.objects.get(item=work.item_id, status="queued").agent.slug == "qualifier"


def test_a_result_of_which_nothing_can_be_stored_is_accounted_for() -> None:
    work = claim_one("intake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "lock_items", _fail)
        commit([answered(work)], load_staff())
    assert not Output.objects.exists()
    assert run_of(work).status == "running", "until its lease runs out"
    assert run_of(work).cost_usd > 0
    assert_accounts_agree()


def _fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("cannot route")


def test_an_answer_of_which_the_books_cannot_be_kept_is_a_failure_and_holds_up_nobody() -> None:
    work, other = claim_one("intake"), claim_one("intake")
    one = answered(work)
    one.unsettled[0].reply.usage = Usage(input_tokens=-1)
    commit([one, answered(other)], load_staff())
    run = run_of(work)
    assert (run.status, run.cause, run.failures) == ("queued", Cause.INTERNAL, 1)
    assert run_of(other).status == "done"
    call = ModelCall.objects.get(agent_run=run)
    assert (call.cost_usd, call.is_estimate) == (call.reserved_usd, True)
    assert_accounts_agree()


def test_what_cannot_be_settled_apart_is_left_out_and_holds_up_nobody() -> None:
    work, other = claim_one("intake"), claim_one("intake")
    (bad,), (good,) = answered(work).unsettled, answered(other).unsettled
    bad.reply.usage = Usage(input_tokens=-1)
    settle_apart([bad, good], load_staff())
    assert ModelCall.objects.get(agent_run=other.run_id).status == "finished"
    assert ModelCall.objects.get(agent_run=work.run_id).status == "started", "until its run is taken back"
