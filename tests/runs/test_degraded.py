"""Runs that go on without what one agent could not do: what is missing is said, and somebody is asked."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from agents.causes import Cause
from agents.models import Department
from runs import incidents
from runs.commits import commit
from runs.degraded import describe
from runs.models import AgentRun, LogEntry, ModelCall, Output, PipelineRun, Review
from runs.router import Skipped
from runs.staff import load_staff
from tests.engine import answered, broken_off, claim, claim_one, make_office, run_of
from tests.factories import make_agent_run, make_item, make_output, make_user
from tests.faults.agents import SLUGS, able, combinations, play
from tests.faults.agents import describe as describe_case
from tests.simulator_fixture import SimulatorServer

BASELINE = {("intake", "item"), ("qualifier", "item"), ("writer", "item"), ("fact_checker", "item")}


# --- Each agent failing for good ------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_whoever_fails_for_good_the_others_go_on_and_somebody_is_asked(simulator: SimulatorServer) -> None:
    cases = play(simulator, combinations(pairs=False))
    assert len(cases) == 1 + len(SLUGS) == 11
    assert {"\n".join(describe_case(case)): case.problems for case in cases if case.problems} == {}
    failed = AgentRun.objects.filter(status="failed").count()
    assert failed >= len(SLUGS)
    assert ModelCall.objects.filter(cause=Cause.REFUSAL).count() == failed, "a refusal is not tried again"


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ((), BASELINE),
        (("intake",), BASELINE - {("intake", "item")}),
        (("writer",), {("intake", "item"), ("qualifier", "item")}),
        (("fact_checker",), BASELINE - {("fact_checker", "item")}),
    ],
)
def test_who_needs_what_cannot_come_cannot_work(broken: tuple[str, ...], expected: set[Any]) -> None:
    assert able(broken, BASELINE) == expected


# --- In words -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_words_say_what_is_missing_what_was_done_and_what_was_left_out() -> None:
    item = make_item(make_office())
    failed = make_agent_run(item, "researcher", status="failed", cause=Cause.REFUSAL)
    strategist = make_agent_run(item, "strategist", status="done")
    intake = make_agent_run(item, "intake", status="done")
    text = describe([intake, failed, strategist], [Skipped("formatter", None, ("draft",))], {"formatter": "Formatter"})
    assert text == (
        "Missing: research (Researcher: the model refused). "
        "Done all the same: strategy (Strategist, without research). Left out: Formatter (no draft)."
    )


# --- When a run ends ------------------------------------------------------------------------------------------


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.mark.django_db
def test_a_degraded_run_keeps_and_logs_what_it_lacks(office: Department) -> None:
    work = claim_one("crm_scribe")
    commit([broken_off(work, Cause.REFUSAL)], load_staff())
    commit([answered(work) for work in claim()], load_staff())  # the rules want intake of a new lead
    while works := claim():
        commit([answered(work) for work in works], load_staff())
    pipeline = PipelineRun.objects.get(pk=run_of(work).pipeline_run_id)
    assert (pipeline.status, pipeline.missing) == ("degraded", "Missing: CRM update (CRM Scribe: the model refused).")
    assert pipeline.missing in LogEntry.objects.get(kind="finished").text
    assert Review.objects.filter(status="open", kind="refusal").count() == 1
    assert not Review.objects.filter(kind="degraded").exists()


@pytest.mark.django_db
def test_where_the_failure_was_answered_already_the_run_itself_is_asked_about(office: Department) -> None:
    user = make_user(department=office)
    work = claim_one("crm_scribe")
    commit([broken_off(work, Cause.REFUSAL)], load_staff())
    assert incidents.accept(review=Review.objects.get(), user=user, reason="")
    make_output(work_item := run_of(work).item, "intake")
    make_output(work_item, "qualification", payload={"tier": "Cold", "reasoning_summary": "", "score": 1})
    final = make_output(work_item, "email", agent_run=run_of(work))
    AgentRun.objects.filter(status="queued").update(status="cancelled")
    work_item.refresh_from_db()
    later = make_agent_run(work_item, "strategist", pipeline_run=run_of(work).pipeline_run)
    commit([answered(next(one for one in claim() if one.run_id == later.pk))], load_staff())
    review = Review.objects.get(kind="degraded")
    assert (review.output, review.agent_run_id) == (final, work.run_id)
    assert review.ask.endswith("has ended without CRM update. Is it good enough?")
    assert incidents.accept(review=review, user=user, reason="It is.")
    assert Output.objects.get(pk=final.pk).verdict == "none"


@pytest.mark.django_db
def test_the_pages_show_what_a_run_lacked(office: Department, client: Any) -> None:
    user = make_user(department=office)
    work = claim_one("intake")
    commit([broken_off(work, Cause.REFUSAL)], load_staff())
    while works := claim():
        commit([broken_off(work, Cause.REFUSAL) for work in works], load_staff())
    run = run_of(work)
    client.force_login(user)
    words = "Missing: intake (Intake Classifier: the model refused)"
    assert words in client.get(reverse("runs:detail", args=[run.pipeline_run_id])).content.decode()
    page = client.get(run.item.get_absolute_url()).content.decode()
    assert words in page
    assert "Go on without it" in page
