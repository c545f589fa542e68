"""Agents in a real browser: a SOUL written, tried and published, and the next step works by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from agents.models import Agent, Department
from agents.souls import published_soul
from runs.models import AgentRun, Item, ModelCall, Output, TryOut
from runs.tasks import carry_out_try_outs
from tests import factories
from tests.browser.conftest import Visit
from tests.engine import at_work, begin, make_office, outcome_of, wait_for
from tests.simulator_fixture import SimulatorServer

pytestmark = pytest.mark.browser

RULE = "- Never write more than 80 words."


@pytest.fixture
def office(transactional_db: None) -> Department:
    office = make_office()
    factories.make_user("ada", department=office, role="administrator", password="a-password")
    return office


@pytest.fixture
def agent(office: Department) -> Agent:
    return factories.agent_of(office, "writer")


def _carry_out() -> None:
    """What the queue does, in a thread of its own: Playwright has a loop of its own in this one."""
    outcome_of(begin(carry_out_try_outs))


def test_a_soul_is_written_tried_and_published_and_the_next_step_uses_it(
    office: Department, agent: Agent, simulator: SimulatorServer, visit: Callable[..., Visit]
) -> None:
    item = factories.make_lead(office, name="Lena Weber", status="qualified").item
    factories.make_output(item, "draft", agent_run=factories.make_agent_run(item, "writer", status="done"))
    ada = visit("ada")
    page = ada.page
    ada.open(reverse("runs:agents"))
    page.get_by_role("link", name="Writer", exact=True).first.click()
    page.get_by_role("link", name="Edit SOUL").click()
    text = page.get_by_label("Prohibitions")
    text.fill(f"{text.input_value()}\n{RULE}")
    # What it changes is shown while it is typed.
    page.locator("#soul-preview ins", has_text=RULE).wait_for()
    page.get_by_label("Note").fill("Shorter mails")
    page.get_by_role("button", name="Save and try it").click()
    page.get_by_label("SOUL", exact=True).wait_for()
    before = Output.objects.count(), AgentRun.objects.count()
    page.get_by_role("checkbox", name="Lena Weber").check()
    page.get_by_role("button", name="Try it").click()
    page.get_by_text("Waiting for a worker").wait_for()
    _carry_out()
    page.get_by_role("heading", name="The try-out", exact=True).wait_for()
    row = TryOut.objects.get()
    assert row.status == "done", row.error
    request = ModelCall.objects.get(try_out=row).body.request
    assert RULE in request["system"][0]["text"]
    assert (Output.objects.count(), AgentRun.objects.count()) == before
    page.goto(ada.site + reverse("runs:soul_publish", args=[agent.pk]))
    page.locator("ins", has_text=RULE).wait_for()
    page.get_by_role("button", name="Publish").click()
    page.get_by_text("SOUL 2 is in force").wait_for()
    now = published_soul(agent)
    assert now is not None
    assert (now.number, now.note) == (2, "Shorter mails")
    run = factories.make_agent_run(factories.make_lead(office).item, "writer")
    with at_work():
        wait_for(lambda: AgentRun.objects.get(pk=run.pk).status == "done", "the next step is done")
    assert AgentRun.objects.get(pk=run.pk).soul_id == now.pk
    assert RULE in ModelCall.objects.get(agent_run=run).body.request["system"][0]["text"]
    assert ada.complaints == []


@pytest.mark.looks
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (375, "dark")])
def test_the_pages_fit_and_complain_of_nothing(
    office: Department, agent: Agent, visit: Callable[..., Visit], width: int, scheme: Any
) -> None:
    item: Item = factories.make_lead(office).item
    factories.make_model_call(factories.make_agent_run(item, "writer", status="done"))
    ada = visit("ada", width=width, scheme=scheme)
    names = ("agent", "agent_settings", "soul_edit", "soul_history", "tryout")
    for address in (reverse("runs:agents"), *(reverse(f"runs:{name}", args=[agent.pk]) for name in names)):
        ada.open(address)
        assert ada.overflow() <= 0, address
    assert ada.complaints == []
