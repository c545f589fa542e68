"""Doing a step anew: what it would mean, and that it does what was said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department
from runs.by_hand import write_output
from runs.commits import commit
from runs.models import Action, AgentRun, Item, OutboxMessage, Output, Review, Trigger
from runs.reruns import CHANGED, models_for, preview, rerun, souls_for
from runs.staff import load_staff
from tests.engine import (
    answered,
    assert_accounts_agree,
    claim,
    drain,
    in_threads,
    keys_of,
    make_due,
    make_office,
    run_of,
)
from tests.factories import (
    PAYLOADS,
    agent_of,
    make_agent_run,
    make_lead,
    make_message,
    make_outbox,
    make_output,
    make_review,
    make_soul,
    make_trigger,
    make_user,
)
from tests.runs.test_outputs import BY_PERSON, made, made_all
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.django_db
ALL = ["intake", "qualification", "research", "strategy", "draft", "fact_check", "email"]


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


@pytest.fixture
def item() -> Item:
    return make_lead(status="drafted").item


@pytest.fixture
def olga() -> User:
    return make_user("olga")


def run_for(item: Item, key: str) -> AgentRun:
    """The run that made the item's current output of the key."""
    run = Output.objects.get(item=item, key=key, is_current=True, trigger=None).agent_run
    assert run is not None
    return run


def look(item: Item, key: str) -> Any:
    return preview(run_for(item, key), now=timezone.now())


def keys(rows: tuple[Output, ...]) -> list[str]:
    return [row.key for row in rows]


# --- The preview ----------------------------------------------------------------------------------------------


def test_it_says_what_would_be_made_again(item: Item) -> None:
    made_all(item)
    found = look(item, "research")
    assert found.again[0].key == "research"
    assert set(keys(found.again)) == {"research", "strategy", "draft", "fact_check", "email"}
    assert (found.dropped, found.new, found.stays, found.sent, found.stopped) == ((), (), (), (), ())
    assert found.runs == 5


def test_what_no_rule_wants_any_more_is_dropped(item: Item) -> None:
    rows = made_all(item)
    make_message(item, "out", output=rows["email"])  # the lead was written to: outreach is over
    found = look(item, "research")
    assert keys(found.again) == ["research"]
    assert set(keys(found.dropped)) == {"strategy", "draft", "fact_check"}
    assert keys(found.sent) == ["email"]


def test_what_a_person_wrote_stays(item: Item) -> None:
    made(item, "intake")
    made(item, "qualification")
    made(item, "strategy")
    made(item, "research")
    make_output(item, "draft", **BY_PERSON)
    made(item, "fact_check")
    made(item, "email")
    found = look(item, "strategy")
    assert keys(found.again) == ["strategy"]
    assert keys(found.stays) == ["draft"]


def test_steps_under_way_that_would_be_stopped_are_named(item: Item) -> None:
    made(item, "intake")
    made(item, "qualification")
    working = make_agent_run(item, "researcher", status="running")
    found = look(item, "qualification")
    assert found.stopped == (working,)
    assert ("research", None) in found.new, "it was never there"


def test_an_open_occasion_that_was_handled_is_looked_at_again(item: Item) -> None:
    rows = made_all(item)
    make_message(item, "out", output=rows["email"])
    follow_up = make_trigger(item, "follow_up", status="handled")
    for key, agent in (("draft", "followup_writer"), ("fact_check", ""), ("email", "")):
        made(item, key, follow_up, agent)
    Item.objects.filter(pk=item.pk).update(status="contacted")
    item.refresh_from_db()
    found = look(item, "strategy")
    again = {(row.key, row.trigger_id) for row in found.again}
    assert again == {
        ("strategy", None),
        ("draft", follow_up.pk),
        ("fact_check", follow_up.pk),
        ("email", follow_up.pk),
    }


def test_a_preview_changes_nothing(item: Item) -> None:
    made_all(item)
    look(item, "intake")
    assert Output.objects.filter(is_current=True).count() == len(ALL)
    assert not Action.objects.exists()
    assert not AgentRun.objects.filter(status="queued").exists()


# --- Doing it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ALL)
@pytest.mark.django_db(transaction=True)
def test_what_was_said_is_what_is_made(key: str, simulator: SimulatorServer, olga: User) -> None:
    item = make_lead().item
    make_due(item)
    drain()
    item.refresh_from_db()
    numbers = dict(Output.objects.filter(item=item, is_current=True).values_list("key", "number"))
    assert set(numbers) == set(ALL)
    said = look(item, key)
    answer, run = rerun(run=run_for(item, key), user=olga)
    assert answer, answer.reason
    drain()
    after = dict(Output.objects.filter(item=item, is_current=True).values_list("key", "number"))
    again = {name for name in after if after[name] != numbers.get(name)}
    assert again == {row.key for row in said.again} | {name for name, _ in said.new}
    assert set(numbers) - set(after) == {row.key for row in said.dropped}
    assert_accounts_agree()


def test_a_step_that_succeeded_is_done_anew_by_a_new_run(item: Item, olga: User) -> None:
    made_all(item)
    old = run_for(item, "strategy")
    answer, again = rerun(run=old, user=olga, reason="Wrong case study.")
    assert answer
    assert again is not None
    assert (again.status, again.agent, again.priority, again.trigger) == ("queued", old.agent, 0, None)
    assert "Wrong case study" in again.why
    old.refresh_from_db()
    assert old.status == "done", "what it did stays on record"
    assert {key for key, _ in keys_of(item)} == {"intake", "qualification", "research"}
    action = Action.objects.get()
    assert (action.verb, action.target, action.user) == ("rerun", f"agent_run:{old.pk}", olga)
    assert action.after["agent_run"] == again.pk
    assert len(action.before["outputs"]) == 4
    assert [work.run_id for work in claim()] == [again.pk]


def test_it_takes_back_what_was_asked_and_what_waited_to_be_sent(item: Item, olga: User) -> None:
    rows = made_all(item)
    make_review(item, output=rows["email"])
    make_outbox(item, output=rows["email"])
    rerun(run=run_for(item, "draft"), user=olga)
    assert Review.objects.get().status == "withdrawn"
    assert OutboxMessage.objects.get().status == "withdrawn"


def test_a_step_for_an_occasion_is_done_for_that_occasion(item: Item, olga: User) -> None:
    reply = make_trigger(item, "reply", status="handled")
    make_message(item, "in", trigger=reply)
    output = made(item, "draft", reply, "reply_handler")
    assert output.agent_run is not None
    answer, again = rerun(run=output.agent_run, user=olga)
    assert answer
    assert again is not None
    assert again.trigger == reply
    assert Trigger.objects.get(pk=reply.pk).status == "open"


def test_a_failed_and_a_cancelled_step_can_be_done_anew(item: Item, olga: User) -> None:
    for status in ("failed", "cancelled"):
        run = make_agent_run(item, "intake", status=status)
        assert rerun(run=run, user=olga)[0]
        AgentRun.objects.filter(status="queued").delete()


# --- Refusals -------------------------------------------------------------------------------------------------


def test_what_has_left_the_house_is_not_done_anew(item: Item, olga: User) -> None:
    rows = made_all(item)
    make_outbox(item, output=rows["email"], status="unknown")
    answer, again = rerun(run=run_for(item, "email"), user=olga)
    assert "left the house" in answer.reason
    assert again is None
    assert Output.objects.get(pk=rows["email"].pk).is_current


@pytest.mark.parametrize("status", ["queued", "running"])
def test_what_is_under_way_is_not_begun_a_second_time(item: Item, olga: User, status: str) -> None:
    run = make_agent_run(item, "intake", status=status)
    assert "Cancel it first" in rerun(run=run, user=olga)[0].reason
    done = make_agent_run(item, "intake", status="done")
    assert "at work on it already" in rerun(run=done, user=olga)[0].reason


def test_it_is_not_begun_without_what_it_needs(item: Item, olga: User) -> None:
    run = make_agent_run(item, "formatter", status="done")
    make_output(item, "email", agent_run=run)
    assert "needs the draft" in rerun(run=run, user=olga)[0].reason
    assert Output.objects.get().is_current


def test_a_closed_item_and_an_agent_that_is_off_refuse(item: Item, olga: User) -> None:
    made(item, "intake")
    run = run_for(item, "intake")
    Item.objects.update(automation="closed")
    assert "Reopen it first" in rerun(run=run, user=olga)[0].reason
    Item.objects.update(automation="active")
    agent_of(item.department, "intake")
    type(run.agent).objects.update(is_enabled=False)
    assert "switched off" in rerun(run=run, user=olga)[0].reason


@pytest.mark.django_db(transaction=True)
def test_of_two_who_want_it_anew_one_has_it(item: Item) -> None:
    made_all(item)
    run, users = run_for(item, "research"), [make_user("olga"), make_user("otto")]
    done = in_threads(lambda number: bool(rerun(run=run, user=users[number])[0]), 2)
    assert sorted(done) == [False, True]
    assert AgentRun.objects.filter(status="queued").count() == 1
    assert Action.objects.count() == 1


# --- What was seen is what is done --------------------------------------------------------------------------------


def test_it_is_done_if_it_still_means_what_was_seen(item: Item, olga: User) -> None:
    made_all(item)
    assert rerun(run=run_for(item, "strategy"), user=olga, seen=look(item, "strategy").fingerprint)[0]


def change_output(item: Item, user: User) -> None:
    """Somebody writes the draft that would have been made again."""
    draft = Output.objects.get(item=item, key="draft", is_current=True)
    payload = {**PAYLOADS["draft"], "subject": "Another subject"}
    assert write_output(item=item, user=user, key="draft", trigger=None, payload=payload, seen=draft.pk)[0]


def change_sent(item: Item, user: User) -> None:
    """The mail leaves meanwhile."""
    make_outbox(item, output=Output.objects.get(item=item, key="email", is_current=True), status="sent")


def change_work(item: Item, user: User) -> None:
    """A step that would be stopped has begun."""
    make_agent_run(item, "fact_checker", status="running")


@pytest.mark.parametrize("change", [change_output, change_sent, change_work])
def test_it_is_refused_if_it_would_mean_something_else_by_now(item: Item, olga: User, change: Any) -> None:
    made_all(item)
    seen = look(item, "strategy").fingerprint
    change(item, olga)
    before = list(Output.objects.order_by("pk").values_list("pk", "is_current"))
    answer, again = rerun(run=run_for(item, "strategy"), user=olga, seen=seen)
    assert answer.reason == CHANGED
    assert again is None
    assert list(Output.objects.order_by("pk").values_list("pk", "is_current")) == before
    assert not Action.objects.filter(verb="rerun").exists()
    assert rerun(run=run_for(item, "strategy"), user=olga, seen=look(item, "strategy").fingerprint)[0]


@pytest.mark.django_db(transaction=True)
def test_of_two_who_saw_the_same_one_starts_and_the_other_looks_again(item: Item) -> None:
    """Two steps of one item, whose previews concern the same outputs: the second would do something else."""
    made_all(item)
    users = [make_user("olga"), make_user("otto")]
    steps = [run_for(item, "research"), run_for(item, "strategy")]
    seen = [look(item, key).fingerprint for key in ("research", "strategy")]
    done = in_threads(lambda number: rerun(run=steps[number], user=users[number], seen=seen[number])[0], 2)
    assert sorted(bool(answer) for answer in done) == [False, True]
    assert Action.objects.filter(verb="rerun").count() == 1


# --- SOUL and model -------------------------------------------------------------------------------------------


def test_the_chosen_soul_and_model_are_used_for_this_run_alone(item: Item, olga: User) -> None:
    made(item, "intake")
    agent = agent_of(item.department, "intake")
    old = make_soul(agent, number=2, status="retired", identity="You are the intake of earlier days.")
    _, again = rerun(run=run_for(item, "intake"), user=olga, soul=old, model="claude-opus-5-5")
    (work,) = claim()
    assert again is not None
    assert (work.run_id, work.soul_id, work.model) == (again.pk, old.pk, "claude-opus-5-5")
    assert old.identity in json.dumps(work.first_call.request.params["system"])
    commit([answered(work)], load_staff())
    again.refresh_from_db()
    assert (run_of(work).status, again.soul) == ("done", old)
    other = make_agent_run(make_lead().item, "intake")
    plain = next(work for work in claim() if work.run_id == other.pk)
    assert (plain.soul_id, plain.model) == (agent.souls.get(number=1).pk, agent.model)


def test_the_same_inputs_with_another_choice_have_another_fingerprint(item: Item) -> None:
    soul = make_soul(agent_of(item.department, "intake"), number=2, status="retired")
    pins: list[dict[str, Any]] = [{}, {"pinned_soul": soul}, {"pinned_model": "claude-opus-5-5"}, {}]
    found = []
    for pin in pins:
        make_agent_run(item, "intake", **pin)
        (work,) = claim()
        found.append(work.prepared.fingerprint)
        AgentRun.objects.all().delete()
    assert len(set(found)) == 3
    assert found[0] == found[3], "who chooses nothing changes nothing"


def test_a_soul_of_another_agent_and_a_draft_are_refused(item: Item, olga: User) -> None:
    made(item, "intake")
    run = run_for(item, "intake")
    other = agent_of(item.department, "writer").souls.get()
    draft = make_soul(run.agent, number=None, status="draft", published_at=None)
    for soul in (other, draft):
        assert "never published" in rerun(run=run, user=olga, soul=soul)[0].reason
    assert "no price" in rerun(run=run, user=olga, model="gpt-x")[0].reason
    assert Output.objects.get().is_current


def test_what_can_be_chosen(item: Item) -> None:
    agent = agent_of(item.department, "intake")
    make_soul(agent, number=2, status="retired")
    make_soul(agent, number=None, status="draft", published_at=None)
    assert [soul.number for soul in souls_for(agent)] == [2, 1]
    assert models_for(agent)[0] == agent.model
    assert "claude-opus-5-5" in models_for(agent)
