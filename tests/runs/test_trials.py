"""Rules tried on sample items before they are saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agents.spec import DepartmentSpec, Facts, SampleItem
from leads.department import SALES
from runs import trials
from runs.plan import AgentView
from runs.rules import check_rule
from runs.trials import simulate_rule
from tests.runs.routing import agent, rule, run, trigger, views

RULES, AGENTS = views(SALES)
NEW = (SampleItem("new", Facts("new"), {"score": {"tier": "Hot"}}),)


def status(facts: Facts) -> str:
    """New until it is scored."""
    return "scored" if any(output.key == "score" for output in facts.outputs) else "new"


def kind_with(*samples: SampleItem, status: Callable[[Facts], str] = status) -> DepartmentSpec:
    """A kind of which only samples and status count here."""
    return replace(SALES, samples=samples, status=status)


SCORING = [agent("scorer", "score"), agent("writer", "draft", uses="score"), agent("editor", "mail", needs="draft")]


def problems(one: Any, *others: Any, agents: list[AgentView] = SCORING, samples: Any = NEW) -> list[str]:
    """What the trial says about a rule."""
    return simulate_rule(one, kind=kind_with(*samples), rules=others, agents=agents)


def test_a_rule_that_its_own_outputs_stop_too_early_is_refused_with_the_reason() -> None:
    assert problems(rule("mail", status=["new"])) == [
        "On the sample “new”: once score is written, the rule no longer holds because of its clause “status”, "
        "so mail would never be written."
    ]


def test_a_rule_that_its_own_outputs_stop_when_all_is_there_is_fine() -> None:
    assert problems(rule("score", status=["new"])) == []


def test_a_rule_that_lacks_what_it_makes_on_the_way_is_refused() -> None:
    [sentence] = problems(rule("mail", lacks=["draft"]))
    assert "its clause “lacks”, so mail would never be written" in sentence


def test_a_rule_that_another_rule_stops_is_not_to_blame() -> None:
    stopped = rule("mail", status=["new"])
    agents = [agent("scorer", "score"), agent("writer", "draft"), agent("editor", "mail", needs="draft")]
    assert problems(stopped, rule("score"), agents=agents) == []


def test_a_rule_is_tried_also_where_other_rules_lead_to_it() -> None:
    waiting = rule("mail", status=["scored"], lacks=["draft"])
    assert problems(waiting) == []
    [sentence] = problems(waiting, rule("score", status=["new"]))
    assert "once draft is written" in sentence


def test_a_rule_whose_agents_have_failed_is_fine() -> None:
    samples = (SampleItem("failed", Facts("new", runs=(run("writer", "failed"),))),)
    assert problems(rule("mail", status=["new"]), samples=samples) == []


def test_runs_of_the_sample_are_answered_too() -> None:
    samples = (SampleItem("busy", Facts("new", runs=(run("scorer", "active"),))),)
    [sentence] = problems(rule("mail", status=["new"]), samples=samples)
    assert "once score is written" in sentence


def test_the_order_of_answers_does_not_hide_a_mistake() -> None:
    agents = [agent("writer", "draft"), agent("scorer", "score"), agent("editor", "mail", needs="draft")]
    assert problems(rule("mail score", status=["new"]), agents=agents)
    assert problems(rule("score mail", status=["new"]), agents=agents)


def test_a_rule_that_leaves_its_trigger_open_for_ever_is_refused() -> None:
    samples = (SampleItem("a reply", Facts("new", triggers=(trigger(3),))),)
    [sentence] = problems(rule("draft", trigger=["reply"], lacks=["draft"]), samples=samples)
    assert "the trigger “reply” stays open for ever" in sentence
    reading = rule("score", trigger=["reply"])
    assert problems(rule("draft", trigger=["reply"], lacks=["draft"]), reading, samples=samples) == []


def test_a_rule_replaces_the_one_of_its_name() -> None:
    old = rule("score", "Same", status=["new"])
    assert problems(rule("mail", "Same", status=["scored"], lacks=["draft"]), old) == []


def test_a_department_that_never_comes_to_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "STEPS", 2)
    [sentence] = problems(rule("mail"))
    assert "still no end after 2 answers" in sentence


def test_facets_of_the_sample_let_later_rules_hold() -> None:
    hot = rule("mail", facet={"tier": ["Hot"]}, lacks=["draft"])
    [sentence] = problems(hot, rule("score"))
    assert "once draft is written" in sentence
    cold = (SampleItem("cold", Facts("new"), {"score": {"tier": "Cold"}}),)
    assert problems(hot, rule("score"), samples=cold) == []


def test_sales_refuses_to_write_to_new_leads_at_once() -> None:
    found = check_rule(rule("email", status=["new"]), kind=SALES, rules=RULES, agents=AGENTS)
    assert any("A new lead that is hot" in sentence and "“status”" in sentence for sentence in found)
