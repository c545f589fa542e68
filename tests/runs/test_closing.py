"""A step that is in flight when its item is closed."""

from __future__ import annotations

import pytest

from agents.causes import Cause
from agents.models import Department
from runs import commits, control, leases
from runs.models import AgentRun, PipelineRun, Review
from runs.staff import load_staff
from runs.work import Work
from tests.engine import answered, broken_off, claim_one, make_office, run_of
from tests.factories import make_agent_run, make_user
from tests.stateful.invariants import violations

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def closed_in_flight() -> Work:
    """A step under way on an item that was closed a moment ago, with another one that waited."""
    work = claim_one("formatter")
    run = run_of(work)
    make_agent_run(run.item, "crm_scribe")
    assert control.close_item(item=run.item, user=make_user("olga"))
    return work


def test_it_goes_on_and_its_pipeline_run_with_it() -> None:
    run = run_of(closed_in_flight())
    assert run.status == AgentRun.Status.RUNNING
    assert run.pipeline_run.status == PipelineRun.Status.ACTIVE
    assert AgentRun.objects.get(agent__slug="crm_scribe").status == AgentRun.Status.CANCELLED


def test_what_it_writes_is_kept_and_nobody_is_asked_about_it() -> None:
    work = closed_in_flight()
    commits.commit([answered(work)], load_staff())
    run = run_of(work)
    assert run.status == AgentRun.Status.DONE
    assert run.item.outputs.filter(key="email", is_current=True).exists()
    assert not Review.objects.filter(status=Review.Status.OPEN).exists()
    assert run.pipeline_run.status == PipelineRun.Status.CANCELLED
    assert run.pipeline_run.ended_at is not None
    assert violations() == []


@pytest.mark.parametrize("failures", [0, 3])
def test_one_that_fails_is_not_tried_again_and_nobody_is_asked(failures: int) -> None:
    work = closed_in_flight()
    AgentRun.objects.filter(pk=work.run_id).update(failures=failures)
    commits.commit([broken_off(work, Cause.TIMEOUT)], load_staff())
    run = run_of(work)
    assert run.status == (AgentRun.Status.FAILED if failures else AgentRun.Status.CANCELLED)
    assert run.item.flag == ""
    assert not Review.objects.filter(status=Review.Status.OPEN).exists()
    assert run.pipeline_run.status == PipelineRun.Status.CANCELLED
    assert violations() == []


def test_one_whose_worker_is_lost_does_not_wait_for_another() -> None:
    work = closed_in_flight()
    leases.release([work])
    run = run_of(work)
    assert run.status == AgentRun.Status.CANCELLED
    assert run.ended_at is not None
    assert run.pipeline_run.status == PipelineRun.Status.CANCELLED
    assert violations() == []
