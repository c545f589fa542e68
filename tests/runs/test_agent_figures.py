"""Agents at a glance: the chain of command, who reads what from whom, and how each does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Agent, Budget, Department, ModelState
from runs.agent_figures import (
    Condition,
    Standing,
    chain_of_command,
    data_flow,
    judge,
    load_standings,
    load_teams,
)
from runs.agent_health import AgentHealth
from runs.spending import Pause
from tests import factories
from tests.factories import agent_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture
def department() -> Department:
    return factories.make_department()


def standing(agent: Agent) -> Standing:
    return Standing(agent, Condition("ready", "good", "circle-check"), None, 0, Decimal(0))


def fields_of(condition: Condition) -> tuple[str, str]:
    return condition.label, condition.colour


def health(agent: Agent, done: int, failed: int) -> AgentHealth:
    return AgentHealth(agent, done, failed, 1.0, 2.0, done, failed)


def test_whoever_reports_stands_below(department: Department) -> None:
    agents = list(department.agents.select_related("reports_to", "escalate_to").order_by("pk"))
    olga = factories.make_user(department=department)
    for agent in agents:
        agent.reports_to = None
    boss, middle, low = agents[:3]
    middle.reports_to, low.reports_to = boss, middle
    boss.escalate_to = olga
    heads = chain_of_command([standing(agent) for agent in agents])
    assert [head.person for head in heads] == ["olga", ""]
    (top,) = heads[0].nodes
    assert top.standing.agent == boss
    assert top.reports[0].standing.agent == middle
    assert top.reports[0].reports[0].standing.agent == low
    assert len(heads[1].nodes) == len(agents) - 3


def test_a_circle_shows_everybody_once(department: Department) -> None:
    first, second = department.agents.order_by("pk")[:2]
    first.reports_to, second.reports_to = second, first
    (head,) = chain_of_command([standing(first), standing(second)])
    assert [node.standing.agent for node in head.nodes] == [first]
    assert head.nodes[0].reports[0].standing.agent == second
    assert head.nodes[0].reports[0].reports == ()


def test_who_reads_what_from_whom(department: Department) -> None:
    flows = {flow.agent.slug: flow for flow in data_flow(list(department.agents.order_by("pk")))}
    checker = flows["fact_checker"]
    draft = next(source for source in checker.sources if source.key == "draft")
    assert draft.is_needed
    assert {writer.slug for writer in draft.writers} == {"writer", "followup_writer", "reply_handler"}
    assert "formatter" in {reader.slug for reader in checker.readers}
    assert flows["intake"].sources == ()


def test_the_gravest_comes_first(department: Department) -> None:
    agent = agent_of(department, "writer")
    agent.department = department
    given: dict[str, Any] = {"has_soul": True, "pause": None, "states": {}, "health": None, "running": 0, "now": NOW}
    assert fields_of(judge(agent, **given)) == ("ready", "good")
    assert fields_of(judge(agent, **given | {"running": 2})) == ("at work", "progress")
    assert fields_of(judge(agent, **given | {"health": health(agent, 3, 3)})) == ("failing", "bad")
    assert fields_of(judge(agent, **given | {"health": health(agent, 1, 1)})) == ("ready", "good"), "too few to say"
    key = (agent.model, department.api_key_env)
    broken = ModelState(model=agent.model, breaker="open", closed_until=NOW + timedelta(minutes=1), reason="500")
    found = judge(agent, **given | {"states": {key: broken}})
    assert found.label == "on its fallback"
    assert agent.fallback_models[0] in found.note
    agent.fallback_models = []
    assert fields_of(judge(agent, **given | {"states": {key: broken}})) == ("model not working", "bad")
    busy = ModelState(model=agent.model, breaker="closed", closed_until=NOW + timedelta(minutes=1), reason="429")
    assert fields_of(judge(agent, **given | {"states": {key: busy}})) == ("model busy", "warning")
    pause = Pause(Budget(department=department, agent=agent, period="day", limit_usd=1), NOW, 3, 100)
    paused = judge(agent, **given | {"states": {key: broken}, "pause": pause})
    assert fields_of(paused) == ("paused by budget", "warning")
    assert paused.note.endswith("is used up. 3 steps wait.")
    with_room = judge(agent, **given | {"pause": pause._replace(waiting=1, percent=1)})
    assert with_room.note.endswith("has no room for its steps now. 1 step waits.")
    assert fields_of(judge(agent, **given | {"pause": pause, "has_soul": False})) == ("no SOUL", "bad")
    agent.is_enabled = False
    assert fields_of(judge(agent, **given | {"has_soul": False})) == ("switched off", "neutral")


def test_standings_count_live_leases_only(department: Department) -> None:
    now = timezone.now()
    factories.make_agent_run(factories.make_item(department), "writer", status="running")
    lost = now - timedelta(seconds=1)
    factories.make_agent_run(factories.make_item(department), "writer", status="running", lease_expires_at=lost)
    run = factories.make_agent_run(factories.make_item(department), "writer", status="done")
    factories.make_model_call(run, cost_usd=Decimal("0.25"))
    agent = agent_of(department, "writer")
    (one,) = load_standings([Agent.objects.select_related("department").get(pk=agent.pk)], now=now)
    assert (one.running, one.today_usd) == (1, Decimal("0.25"))


def test_the_number_of_queries_does_not_grow(
    department: Department, django_assert_num_queries: Any, django_assert_max_num_queries: Any
) -> None:
    def work(number: int) -> None:
        item = factories.make_item(department)
        factories.make_model_call(factories.make_agent_run(item, "writer", status="done"))
        factories.make_agent_run(item, "qualifier", status="running")
        writer = agent_of(department, "writer")
        Budget.objects.create(department=department, agent=writer, period="day", limit_usd=9, model=f"m{number}")

    work(0)
    with django_assert_max_num_queries(10) as few:
        load_teams([department], now=timezone.now())
    factories.make_department(slug="other")
    for number in range(1, 4):
        work(number)
    both = list(Department.objects.all())
    with django_assert_num_queries(len(few.captured_queries)):
        load_teams(both, now=timezone.now())
