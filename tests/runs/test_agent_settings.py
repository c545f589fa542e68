"""Settings of an agent: what is refused, what is written down, and two who save at once."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict

from agents.efforts import why_not_effort
from agents.models import Agent, Department
from runs import agent_settings
from runs.models import Action, AgentRun
from tests import factories
from tests.engine import make_office

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def ada(office: Department) -> User:
    return factories.make_user("ada", department=office, role="administrator")


@pytest.fixture
def agent(office: Department) -> Agent:
    return factories.agent_of(office, "writer")


def data(agent: Agent, **changes: Any) -> QueryDict:
    """What the form sends."""
    values = {
        "model": agent.model,
        "fallback_models": ", ".join(agent.fallback_models),
        "effort": agent.effort,
        "max_tokens": agent.max_tokens,
        "timeout_seconds": agent.timeout_seconds,
        "latency_target_seconds": agent.latency_target_seconds,
        "output_policy": agent.output_policy,
        "reports_to": agent.reports_to_id or "",
        "escalate_to": "",
        "escalate_channel": "",
        **changes,
    }
    query = QueryDict(mutable=True)
    query.update({name: str(value) for name, value in values.items()})
    return query


def change(agent: Agent, user: User, **changes: Any) -> Any:
    seen = changes.pop("seen", agent_settings.stamp(agent))
    return agent_settings.change(agent=agent, given=data(agent, **changes), user=user, seen=seen)


def test_it_stores_what_changed_and_says_so(agent: Agent, ada: User) -> None:
    allowed, _ = change(agent, ada, model="claude-opus-5-5", fallback_models="claude-sonnet-5-5", max_tokens=5000)
    assert allowed, allowed.reason
    stored = Agent.objects.get(pk=agent.pk)
    assert (stored.model, stored.fallback_models, stored.max_tokens) == (
        "claude-opus-5-5",
        ["claude-sonnet-5-5"],
        5000,
    )
    action = Action.objects.get()
    assert action.verb == "change_agent"
    assert action.before["model"] == "claude-sonnet-5-5"
    assert action.after == {
        "model": "claude-opus-5-5",
        "fallback_models": ["claude-sonnet-5-5"],
        "max_tokens": 5000,
    }


def test_nothing_changed_is_no_action(agent: Agent, ada: User) -> None:
    allowed, _ = change(agent, ada)
    assert not allowed
    assert not Action.objects.exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": "claude-none-1"}, "model"),
        ({"fallback_models": "claude-opus-5-5, claude-none-1"}, "fallback_models"),
        ({"model": "claude-haiku-4-5"}, "effort"),
        ({"fallback_models": "claude-haiku-4-5"}, "effort"),
        ({"model": "claude-opus-4-6", "effort": "xhigh"}, "effort"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"timeout_seconds": 301}, "timeout_seconds"),
        ({"latency_target_seconds": 0}, "latency_target_seconds"),
        ({"latency_target_seconds": 290}, "latency_target_seconds"),
        ({"output_policy": "always"}, "output_policy"),
        ({"reports_to": 999999}, "reports_to"),
    ],
)
def test_what_cannot_work_is_refused(agent: Agent, ada: User, changes: dict[str, Any], field: str) -> None:
    allowed, form = change(agent, ada, **changes)
    assert not allowed
    assert field in form.errors, form.errors
    assert Agent.objects.filter(pk=agent.pk, model=agent.model, max_tokens=agent.max_tokens).exists()
    assert not Action.objects.exists()


def test_a_circle_and_a_stranger_are_refused(agent: Agent, ada: User) -> None:
    boss = factories.agent_of(agent.department, "strategist")
    Agent.objects.filter(pk=boss.pk).update(reports_to=agent)
    assert "circle" in str(change(agent, ada, reports_to=boss.pk)[1].errors["reports_to"])
    stranger = factories.make_user("stan", department=factories.make_department(slug="other"))
    assert "escalate_to" in change(agent, ada, reports_to="", escalate_to=stranger.pk)[1].errors


def test_who_saves_over_somebody_is_refused(agent: Agent, ada: User) -> None:
    seen = agent_settings.stamp(agent)
    assert change(agent, ada, max_tokens=5000)[0]
    allowed, _ = change(agent, ada, max_tokens=6000, seen=seen)
    assert "Somebody else" in allowed.reason
    assert Agent.objects.get(pk=agent.pk).max_tokens == 5000


def test_efforts_that_models_take() -> None:
    assert why_not_effort("", "claude-haiku-4-5") == ""
    assert why_not_effort("xhigh", "claude-opus-5-5") == ""
    assert "takes no effort" in why_not_effort("low", "claude-haiku-4-5")
    assert "xhigh" in why_not_effort("xhigh", "claude-sonnet-4-6")


def test_switching_off_and_on(agent: Agent, ada: User) -> None:
    run = factories.make_agent_run(factories.make_item(agent.department), "writer")
    assert not agent_settings.switch(agent=agent, is_enabled=True, user=ada)
    assert agent_settings.switch(agent=agent, is_enabled=False, user=ada, reason="Too long")
    assert not agent_settings.switch(agent=agent, is_enabled=False, user=ada)
    assert not Agent.objects.get(pk=agent.pk).is_enabled
    AgentRun.objects.filter(pk=run.pk).update(waiting_for=f"{agent_settings.SWITCHED_OFF} Switch it on.")
    assert agent_settings.switch(agent=agent, is_enabled=True, user=ada)
    assert AgentRun.objects.get(pk=run.pk).waiting_for == ""
    verbs = list(Action.objects.order_by("pk").values_list("verb", "reason"))
    assert verbs == [("disable_agent", "Too long"), ("enable_agent", "")]


def test_alerts_cannot_go_through_the_variable_of_another_department(agent: Agent, ada: User) -> None:
    other = factories.make_department(slug="second")
    Agent.objects.filter(pk=factories.agent_of(other, "writer").pk).update(escalate_channel="slack:THEIR_SLACK")
    for name in ("THEIR_SLACK", "KONTOR_SLACK_WEBHOOK_URL_SECOND"):
        allowed, form = change(agent, ada, escalate_channel=f"slack:{name}")
        assert not allowed
        assert f"{name} is not a variable of this department." in form.errors["escalate_channel"][0]
    assert Agent.objects.get(pk=agent.pk).escalate_channel == ""
    assert change(agent, ada, escalate_channel=f"slack:{agent.department.slug.upper()}_SLACK")[0]
    assert change(Agent.objects.get(pk=agent.pk), ada, escalate_channel="email:ops@acme.example")[0]
