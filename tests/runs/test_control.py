"""What a person does to a run."""

from __future__ import annotations

import pytest

from agents.models import Department
from runs.control import retry_agent_run, retry_item
from runs.models import Action, AgentRun, LogEntry, PipelineRun, Review
from tests.engine import claim, in_threads, make_office
from tests.factories import (
    agent_of,
    make_agent_run,
    make_lead,
    make_output,
    make_pipeline_run,
    make_review,
    make_soul,
    make_trigger,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def failed_run(**fields: object) -> AgentRun:
    """A run that has failed for good: its item flagged, its pipeline run over, a person asked."""
    item = make_lead(flag="Qualifier failed: no answer in time.").item
    ended = make_pipeline_run(item, status=PipelineRun.Status.DEGRADED)
    run = make_agent_run(item, "qualifier", status="failed", pipeline_run=ended, lost_leases=1, **fields)
    make_review(item, agent_run=run)
    return run


def retry_of(run: AgentRun) -> AgentRun:
    """The run that a retry has made."""
    return AgentRun.objects.filter(item=run.item, agent=run.agent, trigger=run.trigger).latest("pk")


def test_a_failed_run_is_tried_again_with_all_its_tries() -> None:
    failed, user = failed_run(), make_user("olga")
    assert retry_agent_run(run=failed, user=user, reason="The API is back.")
    run = retry_of(failed)
    assert (run.status, run.failures, run.lost_leases, run.cause, run.error) == ("queued", 0, 0, "", "")
    assert (run.ended_at, run.priority) == (None, 0)
    run.item.refresh_from_db()
    assert run.item.flag == ""
    assert run.item.route_due_at is not None
    review = Review.objects.get()
    assert (review.status, review.answer, review.answered_by) == ("answered", "retry", user)
    action = Action.objects.get()
    assert (action.verb, action.user, action.reason) == ("retry", user, "The API is back.")
    assert action.before == {"status": "failed", "cause": "timeout", "failures": 4}
    assert action.after == {"status": "queued", "agent_run": run.pk}
    assert "olga" in LogEntry.objects.get(kind="retry").text
    assert [work.run_id for work in claim()] == [run.pk]


def test_a_run_that_ended_stays_ended_and_the_retry_belongs_to_another() -> None:
    run = failed_run()
    ended = run.pipeline_run
    retry_agent_run(run=run, user=None)
    run.refresh_from_db()
    ended.refresh_from_db()
    assert (ended.status, run.pipeline_run, run.status) == ("degraded", ended, "superseded")
    assert (run.cause, run.failures) == ("timeout", 4), "why it failed can still be read there"
    new = retry_of(run)
    assert new.pipeline_run != ended
    assert (new.pipeline_run.status, new.pipeline_run.cause) == ("active", "retry")


def test_a_retry_joins_a_run_that_is_under_way() -> None:
    run = failed_run()
    active = make_pipeline_run(run.item)
    retry_agent_run(run=run, user=None)
    assert retry_of(run).pipeline_run == active


def test_the_trigger_it_worked_for_is_open_again() -> None:
    item = make_lead().item
    reply = make_trigger(item, "reply", status="handled", settled_note="settled")
    run = make_agent_run(item, "reply_handler", status="failed", trigger=reply)
    assert retry_agent_run(run=run, user=None)
    reply.refresh_from_db()
    assert (reply.status, reply.settled_at, reply.settled_note) == ("open", None, "")


def test_a_flag_stays_while_another_run_of_the_item_has_failed() -> None:
    run = failed_run()
    make_agent_run(run.item, "intake", status="failed")
    retry_agent_run(run=run, user=None)
    run.item.refresh_from_db()
    assert run.item.flag == "Qualifier failed: no answer in time."


def test_reviews_about_other_things_stay_open() -> None:
    run = failed_run()
    about_an_output = make_review(run.item, agent_run=run, output=make_output(run.item))
    about_another = make_review(run.item)
    retry_agent_run(run=run, user=None)
    open_ones = set(Review.objects.filter(status="open"))
    assert open_ones == {about_an_output, about_another}


@pytest.mark.parametrize("status", ["queued", "running", "done", "cancelled", "superseded"])
def test_only_a_failed_run_can_be_retried(status: str) -> None:
    run = make_agent_run(make_lead().item, status=status)
    assert not retry_agent_run(run=run, user=None)
    run.refresh_from_db()
    assert run.status == status
    assert not Action.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_retry_at_once_one_does() -> None:
    run = failed_run()
    done = in_threads(lambda _: bool(retry_agent_run(run=run, user=None)), 4)
    assert sorted(done) == [False, False, False, True]
    assert Action.objects.count() == 1


def test_what_a_person_had_chosen_for_it_holds_for_the_next_try() -> None:
    item = make_lead().item
    soul = make_soul(agent_of(item.department, "qualifier"), number=2, status="retired")
    run = make_agent_run(item, "qualifier", status="failed", pinned_soul=soul, pinned_model="claude-opus-5-5")
    retry_agent_run(run=run, user=None)
    again = retry_of(run)
    assert (again.pinned_soul, again.pinned_model) == (soul, "claude-opus-5-5")


def test_on_a_closed_item_nothing_is_retried() -> None:
    run = make_agent_run(make_lead(automation="closed").item, status="failed")
    assert "Reopen it first" in retry_agent_run(run=run, user=None).reason


def test_everything_that_failed_on_an_item_is_retried() -> None:
    item, user = make_lead().item, make_user("olga")
    for agent in ("intake", "qualifier"):
        make_agent_run(item, agent, status="failed")
    assert retry_item(item=item, user=user)
    assert AgentRun.objects.filter(item=item, status="queued").count() == 2
    assert retry_item(item=item, user=user).reason == "Nothing has failed."
