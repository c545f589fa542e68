"""Runs in a real browser; where work must go on, with a real worker process and the simulator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from agents.models import Department
from runs.models import AgentRun, Item, ModelCall, Output, PipelineRun
from tests import factories
from tests.browser.conftest import Visit
from tests.browser.test_every_page import find_violations
from tests.engine import make_due, make_office, wait_for
from tests.simulator_fixture import SimulatorServer
from tests.test_end_to_end import worker

pytestmark = pytest.mark.browser
Open = Callable[..., Visit]
LIMIT_SECONDS = 120
LEADS = """name,email,company,title,country,message
Lena Weber,lena.weber@example.com,Weber Maschinen,Head of Logistics,Germany,"We ship 1,200 consignments a month. \
Can you check the invoices?"
"""


@pytest.fixture
def office(transactional_db: None) -> Department:
    """A sales department that may spend, and ada, who administers it."""
    office = make_office()
    factories.make_user("ada", department=office, role="administrator", password="a-password")
    return office


@pytest.fixture
def at_work(office: Department, simulator: SimulatorServer, tmp_path: Path) -> Iterator[SimulatorServer]:
    """A worker process is running; the simulator that it talks to."""
    log = tmp_path / "worker.log"
    log.touch()
    with worker(simulator, log):
        yield simulator
    print(log.read_text(errors="replace")[-5_000:])


def _slugs(item: Item, *statuses: str) -> list[str]:
    runs = AgentRun.objects.filter(item=item, status__in=statuses) if statuses else AgentRun.objects.filter(item=item)
    return list(runs.order_by("pk").values_list("agent__slug", flat=True))


def _expect_state(page: Page, name: str, state: str) -> None:
    """The lane of an agent comes to show a state, without anybody reloading the page."""
    lane = page.locator("a.k-fall-row", has=page.get_by_text(name, exact=True))
    expect(lane.locator(".k-status").first).to_have_text(state, timeout=LIMIT_SECONDS * 1_000)


# --- With a worker --------------------------------------------------------------------------------------------


def test_a_file_is_imported_and_its_run_is_watched_to_the_end(at_work: SimulatorServer, visit: Open) -> None:
    at_work.set_latency(400)
    ada = visit("ada")
    ada.open(reverse("leads:import"))
    ada.page.locator("input[type=file]").set_input_files(
        {"name": "leads.csv", "mimeType": "text/csv", "buffer": LEADS.encode()}
    )
    ada.page.get_by_role("button", name="Upload and preview").click()
    ada.page.get_by_role("button", name="Import", exact=True).click()
    wait_for(lambda: PipelineRun.objects.exists(), "the lead's run begins", LIMIT_SECONDS)
    ada.open(reverse("runs:list"))
    ada.page.get_by_role("link", name="Lena Weber").click()
    head = ada.page.locator("main .k-head").first
    expect(head.locator(".k-status").first).to_have_text("active")
    marked = ada.page.evaluate("window.stillHere = true")
    _expect_state(ada.page, "Intake Classifier", "done")
    _expect_state(ada.page, "Formatter", "done")
    expect(head.locator(".k-status").first).to_have_text("completed", timeout=LIMIT_SECONDS * 1_000)
    assert marked, "the page was never loaded anew"
    assert ada.page.evaluate("window.stillHere")
    assert set(AgentRun.objects.values_list("status", flat=True)) == {"done"}
    shown = [bar.get_attribute("data-colour") for bar in ada.page.locator("rect.k-bar").all()]
    assert shown == ["good"] * AgentRun.objects.count()
    assert ada.complaints == []


def test_a_pause_lets_the_step_finish_and_nothing_further_start(
    at_work: SimulatorServer, office: Department, visit: Open
) -> None:
    at_work.set_latency(2_500)
    item = factories.make_lead(office).item
    ada = visit("ada")
    ada.open(reverse("runs:detail", args=[factories.make_pipeline_run(item).pk]))
    bar = ada.page.get_by_role("group", name=re.compile("Automation"))
    bar.locator("summary", has_text="Pause").click()
    # All is ready before it begins, so that the pause comes while the first step is under way on a slow machine too.
    make_due(item)
    wait_for(lambda: _slugs(item, "running") == ["intake"], "the first step runs", LIMIT_SECONDS)
    bar.locator("details[open] form").get_by_role("button", name="Pause").click()
    bar.locator("summary", has_text="Resume").wait_for()
    assert _slugs(item, "running") == ["intake"], "the step under way goes on"
    _expect_state(ada.page, "Intake Classifier", "done")
    assert len(at_work.calls()) == 1
    assert _slugs(item) == ["intake"], "nothing further started"
    at_work.set_latency(50)
    bar.locator("summary", has_text="Resume").click()
    bar.locator("details[open] form").get_by_role("button", name="Resume").click()
    _expect_state(ada.page, "Formatter", "done")
    assert ada.complaints == []


def test_a_failed_step_is_retried_and_another_done_again(
    at_work: SimulatorServer, office: Department, visit: Open
) -> None:
    at_work.set_latency(30)
    at_work.faults([{"match": {"agent": "strategist", "times": 1}, "what": {"kind": "refusal"}}])
    item = factories.make_lead(office).item
    make_due(item)
    wait_for(lambda: _is_over(item), "the run is over", LIMIT_SECONDS)
    first = item.pipeline_runs.get()
    assert (first.status, _slugs(item, "failed")) == ("degraded", ["strategist"])
    ada = visit("ada")
    # From the list of runs the key n leads to what failed.
    ada.open(reverse("runs:list"))
    ada.page.keyboard.press("n")
    ada.page.wait_for_url(re.compile(r"/runs/\d+/\?step=\d+&tab=error$"))
    expect(ada.page.locator("section.k-sticky")).to_contain_text("the model refused", ignore_case=True)
    ada.page.get_by_role("button", name="Retry").click()
    ada.page.get_by_text("is queued again, with all its tries").wait_for()
    wait_for(lambda: _is_over(item) and "strategist" in _slugs(item, "done"), "the retry is done", LIMIT_SECONDS)
    _expect_state(ada.page, "Strategist", "superseded")

    run = AgentRun.objects.filter(item=item, agent__slug="qualifier").latest("pk")
    number = Output.objects.get(item=item, key="qualification", is_current=True).number
    ada.open(f"{reverse('runs:detail', args=[run.pipeline_run_id])}?step={run.pk}")
    ada.page.get_by_role("link", name="Do it again…").click()
    ada.page.get_by_text("Will be made again").wait_for()
    ada.page.get_by_label("Why").fill("The tier was wrong.")
    ada.page.get_by_role("button", name="Do it again").click()
    ada.page.get_by_text("is done again; what was made from it follows").wait_for()
    assert "step=" in ada.page.url
    _expect_state(ada.page, "Qualifier", "done")
    wait_for(lambda: _is_over(item), "what follows is done", LIMIT_SECONDS)
    assert Output.objects.get(item=item, key="qualification", is_current=True).number == number + 1
    assert ada.complaints == []


def _is_over(item: Item) -> bool:
    is_routed = not Item.objects.filter(pk=item.pk, route_due_at__isnull=False).exists()
    runs = item.pipeline_runs.all()
    return is_routed and runs.exists() and not runs.filter(status="active").exists()


# --- Without one ----------------------------------------------------------------------------------------------


@pytest.fixture
def failed(office: Department) -> list[AgentRun]:
    """Three failed steps of three leads, the first with two attempts that differ."""
    runs = [factories.make_agent_run(factories.make_lead(office).item, "writer", status="failed") for _ in range(3)]
    AgentRun.objects.filter(pk=runs[0].pk).update(attempt=2)
    runs[0].refresh_from_db()
    for attempt, tone in ((1, "calm"), (2, "lively")):
        system = [{"type": "text", "text": f"You are the Writer.\nYour tone is {tone}."}]
        body: dict[str, Any] = {"model": "claude-sonnet-5-5", "system": system, "messages": []}
        answer = {"content": [{"type": "text", "text": f"Dear Lena, {tone} greetings"}], "stop_reason": "end_turn"}
        factories.make_model_call(runs[0], attempt=attempt, request=body, response=answer, cause="invalid")
    return runs


def test_the_key_n_goes_from_failure_to_failure_and_says_when_there_is_none(
    failed: list[AgentRun], visit: Open
) -> None:
    ada = visit("ada")
    ada.open(f"{reverse('runs:steps')}?agent=writer")
    for run in reversed(failed):
        ada.page.keyboard.press("n")
        ada.page.wait_for_url(re.compile(rf"/runs/{run.pipeline_run_id}/\?step={run.pk}&tab=error&in=agent%3Dwriter"))
        ada.page.locator(f"#step-{run.pk}-error").wait_for()
    ada.page.keyboard.press("n")
    ada.page.get_by_text("This was the last failed step that the filters let through.").wait_for()
    assert ada.complaints == []


def test_steps_are_walked_with_keys(failed: list[AgentRun], visit: Open) -> None:
    pipeline = failed[0].pipeline_run
    other = factories.make_agent_run(failed[0].item, "intake", status="done", pipeline_run=pipeline)
    AgentRun.objects.filter(pk=other.pk).update(queued_at=failed[0].queued_at.replace(year=2020))
    ada = visit("ada")
    ada.open(reverse("runs:detail", args=[pipeline.pk]))
    ada.page.keyboard.press("j")
    expect(ada.page.locator(f"#lane-{other.pk}")).to_be_focused()
    ada.page.keyboard.press("Enter")
    ada.page.locator(f"#step-{other.pk}").wait_for()
    ada.page.keyboard.press("j")
    expect(ada.page.locator(f"#lane-{failed[0].pk}")).to_be_focused()
    ada.page.keyboard.press("Enter")
    ada.page.locator(f"#step-{failed[0].pk}").wait_for()
    assert ada.complaints == []


def test_two_attempts_are_compared_side_by_side(failed: list[AgentRun], visit: Open) -> None:
    run = failed[0]
    ada = visit("ada")
    ada.open(f"{reverse('runs:detail', args=[run.pipeline_run_id])}?step={run.pk}")
    ada.page.get_by_role("link", name=re.compile("^Attempts")).click()
    ada.page.locator("#attempt-1").click()
    expect(ada.page).to_have_url(re.compile(r"tab=attempts&attempt=1$"))
    ada.page.get_by_role("link", name="Compare two").click()
    changed = ada.page.locator("#compared-system-0 [data-kind=changed]")
    expect(changed.locator("del")).to_have_text("calm.")
    expect(changed.locator("ins")).to_have_text("lively.")
    expect(ada.page.locator("#compared-answer ins")).to_have_text("lively")
    first = run.model_calls.get(attempt=1)
    ada.page.locator("#compare-right").select_option(str(first.pk))
    ada.page.get_by_text("Both sides are the same call.").wait_for()
    assert ada.complaints == []


@pytest.mark.looks
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (375, "dark")])
def test_the_pages_fit_and_complain_of_nothing(failed: list[AgentRun], visit: Open, width: int, scheme: Any) -> None:
    run = failed[0]
    call = run.model_calls.get(attempt=2)
    long = {"messages": [{"role": "user", "content": "x" * 500}], "system": [{"type": "text", "text": "ü" * 400}]}
    type(call.body).objects.filter(pk=call.pk).update(request=long)
    seen = visit("ada", width=width, scheme=scheme)
    for url in (
        reverse("runs:list"),
        f"{reverse('runs:steps')}?status=failed&agent=writer&since=7d",
        f"{reverse('runs:detail', args=[run.pipeline_run_id])}?step={run.pk}&tab=attempts",
        f"{reverse('runs:detail', args=[run.pipeline_run_id])}?step={run.pk}&tab=cost",
        reverse("runs:call", args=[call.pk]),
        reverse("runs:step_compare", args=[run.pk]),
    ):
        seen.open(url)
        for fold in seen.page.locator("main details:not([data-menu]) > summary").all():
            if fold.is_visible():
                fold.click()
        assert seen.overflow() <= 0, url
        assert find_violations(seen) == [], url
    assert seen.complaints == []


def test_a_request_is_copied_as_json_and_as_a_command(failed: list[AgentRun], visit: Open) -> None:
    call: ModelCall = failed[0].model_calls.get(attempt=1)
    ada = visit("ada")
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ada.open(reverse("runs:call", args=[call.pk]))
    for button, part in (("Copy request as JSON", '"Your tone is calm.'), ("Copy as curl", "curl -sS ")):
        ada.page.get_by_role("button", name=button).click()
        ada.until("part => navigator.clipboard.readText().then(text => text.includes(part.slice(1, 9)))", part)
    assert ada.page.evaluate("navigator.clipboard.readText()").startswith("curl -sS ")
    assert ada.complaints == []
