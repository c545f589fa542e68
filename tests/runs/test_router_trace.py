"""The trace says why: every rule with its clauses, every wanted key, every agent with its state."""

from __future__ import annotations

import json
from typing import Any

from agents.spec import Facts, OutputFact
from runs.router import Decision, decide
from tests.runs.routing import agent, outputs, rule, run, trigger

AGENTS = [
    agent("researcher", "research", scope="item"),
    agent("writer", "draft", uses="research", serves="item"),
    agent("answerer", "draft", serves="reply"),
    agent("formatter", "email", needs="draft"),
    agent("scribe", "note", serves="decision"),
    agent("poet", "poem", is_enabled=False),
]


def states(decision: Decision) -> dict[tuple[str, int | None], str]:
    """The state of every agent at every occasion it has to do with."""
    return {(told["agent"], told["occasion"]): told["state"] for told in decision.trace["agents"]}


def test_a_rule_shows_which_clause_held_and_what_was_found() -> None:
    facts = Facts("new", (OutputFact("x", facets={"tier": "Cold"}),))
    rules = [rule("email", "Write", status=["new"], facet={"tier": ["Hot"]})]
    [told] = decide(facts, rules, AGENTS).trace["rules"]
    assert told == {
        "name": "Write",
        "holds": False,
        "occasion": None,
        "kind": "item",
        "want": ["email"],
        "failed_by": ["facet"],
        "clauses": [
            {"clause": "status", "listed": ["new"], "found": "new", "holds": True},
            {"clause": "facet", "listed": {"tier": ["Hot"]}, "found": {"tier": "Cold"}, "holds": False},
        ],
    }


def test_a_rule_that_does_not_hold_shows_what_was_found_for_its_trigger() -> None:
    facts = Facts("new", (OutputFact("draft", 7, {"opt_out": True}),), triggers=(trigger(7),))
    rules = [rule("email", trigger=["reply"], facet={"opt_out": [False]})]
    [told] = decide(facts, rules, AGENTS).trace["rules"]
    assert (told["holds"], told["occasion"], told["kind"]) == (False, 7, "reply")
    assert told["clauses"][1]["found"] == {"opt_out": True}


def test_every_kind_of_clause_shows_what_it_looked_at() -> None:
    facts = Facts("new", outputs("x", ("y", 3)), (run("writer", "failed"),), (trigger(3),), frozenset({"b", "a"}))
    when: dict[str, Any] = {"trigger": ["reply"], "has": ["x"], "lacks": ["z"], "failed": ["q"], "tags": ["a"]}
    [told] = decide(facts, [rule("email", **when, colour=["red"])], AGENTS).trace["rules"]
    assert {clause["clause"]: clause["found"] for clause in told["clauses"]} == {
        "trigger": ["reply"],
        "has": ["x", "y"],
        "lacks": ["x", "y"],
        "failed": ["writer"],
        "tags": ["a", "b"],
        "colour": None,
    }


def test_a_wanted_key_shows_who_writes_it_who_wants_it_and_whether_it_can_come() -> None:
    rules = [rule("email", "One"), rule("email research", "Two"), rule("ghost poem", "Three")]
    told = decide(Facts("new", outputs("research")), rules, AGENTS).trace["wanted"]
    assert [(one["key"], one["writer"], one["rules"], one["state"]) for one in told] == [
        ("email", "formatter", ["One", "Two"], "coming"),
        ("research", "researcher", ["Two"], "current"),
        ("ghost", None, ["Three"], "cannot come"),
        ("poem", "poet", ["Three"], "cannot come"),
    ]


def test_every_agent_shows_its_state() -> None:
    facts = Facts("new", (), (run("researcher", "active"),))
    assert states(decide(facts, [rule("email")], AGENTS)) == {
        ("researcher", None): "active",
        ("writer", None): "waits",
        ("answerer", None): "not wanted",
        ("formatter", None): "waits",
        ("scribe", None): "not wanted",
        ("poet", None): "disabled",
    }


def test_agents_that_failed_were_skipped_or_are_done_say_so() -> None:
    facts = Facts("new", outputs("research"), (run("writer", "failed"),))
    told = states(decide(facts, [rule("email")], AGENTS))
    assert told["researcher", None] == "current"
    assert told["writer", None] == "failed"
    assert told["formatter", None] == "skipped"


def test_an_agent_shows_each_occasion_it_has_to_do_with() -> None:
    facts = Facts("new", outputs("research", "draft", "email"), triggers=(trigger(7),))
    told = states(decide(facts, [rule("email"), rule("email", "answer", trigger=["reply"])], AGENTS))
    assert told["formatter", None] == "current"
    assert told["formatter", 7] == "waits"
    assert told["answerer", 7] == "starts"


def test_an_output_at_an_occasion_its_agent_does_not_write_for_is_not_the_agent_s() -> None:
    facts = Facts("new", outputs(("research", 7)), triggers=(trigger(7),))
    told = states(decide(facts, [rule("draft", trigger=["reply"])], AGENTS))
    assert told["researcher", None] == "not wanted"
    assert ("researcher", 7) not in told


def test_what_an_agent_waits_for_or_misses_is_named() -> None:
    told = decide(Facts("new"), [rule("email")], AGENTS).trace["agents"]
    by_slug = {one["agent"]: one for one in told}
    assert by_slug["formatter"]["keys"] == ["draft"]
    assert by_slug["researcher"]["why"] == "“wants email” wants email; writer uses research"


def test_the_trace_is_json_and_repeats_the_decision() -> None:
    facts = Facts("new", outputs(("draft", 7), ("email", 7)), triggers=(trigger(7), trigger(8, "schedule")))
    decision = decide(facts, [rule("email", trigger=["reply"])], AGENTS)
    told = decision.trace
    assert json.loads(json.dumps(told)) == told
    assert (told["status"], told["handled"], told["noted"], told["finished"]) == ("new", [7], [8], False)
    assert decision.trace is told
