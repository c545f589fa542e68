"""Every clause: when it holds, and that it is looked up for the rule's occasion and for the item."""

from __future__ import annotations

from typing import Any

import pytest

from agents.spec import Facts, OutputFact, RunFact
from runs.router import decide
from tests.runs.routing import agent, outputs, rule, run, trigger

AGENTS = [agent("a", "goal")]
REPLY = (trigger(5),)


def holds(facts: Facts, **when: Any) -> bool:
    """Whether a rule with this ``when`` holds."""
    [told] = decide(facts, [rule("goal", **when)], AGENTS).trace["rules"]
    return bool(told["holds"])


@pytest.mark.parametrize(("listed", "expected"), [(["new"], True), (["old", "new"], True), (["old"], False)])
def test_status_is_one_of_those_listed(listed: list[str], expected: bool) -> None:
    assert holds(Facts("new"), status=listed) is expected


@pytest.mark.parametrize(
    ("listed", "expected"), [(["x"], True), (["x", "y"], True), (["x", "z"], False), (["z"], False)]
)
def test_has_asks_for_every_key(listed: list[str], expected: bool) -> None:
    assert holds(Facts("new", outputs("x", "y")), has=listed) is expected


@pytest.mark.parametrize(("listed", "expected"), [(["z"], True), (["z", "x"], False), (["x"], False)])
def test_lacks_asks_for_none_of_the_keys(listed: list[str], expected: bool) -> None:
    assert holds(Facts("new", outputs("x")), lacks=listed) is expected


@pytest.mark.parametrize(
    ("there", "of_item", "of_reply"),
    [("x", True, True), (("x", 5), False, True), (("x", 4), False, False)],
)
def test_an_output_counts_for_its_occasion_and_the_item_s_own_for_all(
    there: Any, of_item: bool, of_reply: bool
) -> None:
    facts = Facts("new", outputs(there), triggers=REPLY)
    assert holds(facts, has=["x"]) is of_item
    assert holds(facts, has=["x"], trigger=["reply"]) is of_reply
    assert holds(facts, lacks=["x"]) is not of_item
    assert holds(facts, lacks=["x"], trigger=["reply"]) is not of_reply


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ((), False),
        ((run("x", "active"),), False),
        ((run("x", "failed"),), True),
        ((run("y", "failed"),), False),
        ((run("x", "failed", 5),), False),
    ],
)
def test_failed_asks_for_a_failure_for_the_item(runs: tuple[RunFact, ...], expected: bool) -> None:
    assert holds(Facts("new", runs=runs), failed=["x"]) is expected


def test_failed_counts_for_the_rule_s_occasion_and_asks_for_every_agent() -> None:
    facts = Facts("new", runs=(run("x", "failed", 5), run("y", "failed")), triggers=REPLY)
    assert holds(facts, failed=["x", "y"], trigger=["reply"])
    assert not holds(facts, failed=["x", "y", "z"], trigger=["reply"])
    assert not holds(facts, failed=["x"])


@pytest.mark.parametrize(
    ("kind", "is_due", "expected"), [("reply", True, True), ("reply", False, False), ("decision", True, False)]
)
def test_trigger_asks_for_one_that_is_open_and_due(kind: str, is_due: bool, expected: bool) -> None:
    assert holds(Facts("new", triggers=(trigger(5, kind, is_due=is_due),)), trigger=["reply"]) is expected


@pytest.mark.parametrize(
    ("tags", "expected"), [({"vip", "de"}, True), ({"vip", "de", "x"}, True), ({"vip"}, False), (set(), False)]
)
def test_tags_asks_for_every_tag(tags: set[str], expected: bool) -> None:
    assert holds(Facts("new", tags=frozenset(tags)), tags=["vip", "de"]) is expected


@pytest.mark.parametrize(
    ("value", "listed", "expected"),
    [
        ("Hot", ["Hot", "Warm"], True),
        ("Cold", ["Hot", "Warm"], False),
        (True, [True], True),
        (True, [1], False),
        (1, [True], False),
        (0, [False], False),
        (False, [False], True),
        (3, [3], True),
        ("3", [3], False),
        (None, [None], True),
    ],
)
def test_facet_compares_as_json_does(value: Any, listed: list[Any], expected: bool) -> None:
    assert holds(Facts("new", (OutputFact("x", facets={"tier": value}),)), facet={"tier": listed}) is expected


def test_facet_asks_for_every_field_and_an_absent_one_does_not_hold() -> None:
    facts = Facts("new", (OutputFact("x", facets={"tier": "Hot", "score": 8}),))
    assert holds(facts, facet={"tier": ["Hot"], "score": [8]})
    assert not holds(facts, facet={"tier": ["Hot"], "score": [9]})
    assert not holds(facts, facet={"tier": ["Hot"], "colour": [None]})


def test_facet_takes_the_occasion_s_own_value_before_the_item_s() -> None:
    of_item = OutputFact("x", facets={"intent": "cold"})
    of_other = OutputFact("x", 4, {"intent": "other"})
    of_reply = OutputFact("x", 5, {"intent": "warm"})
    facts = Facts("new", (of_item, of_other, of_reply), triggers=REPLY)
    assert holds(facts, facet={"intent": ["warm"]}, trigger=["reply"])
    assert holds(facts, facet={"intent": ["cold"]})
    assert holds(Facts("new", (of_other, of_item), triggers=REPLY), facet={"intent": ["cold"]}, trigger=["reply"])


def test_facet_does_not_depend_on_the_order_of_the_outputs() -> None:
    two = (OutputFact("b", facets={"tier": "Warm"}), OutputFact("a", facets={"tier": "Hot"}))
    assert holds(Facts("new", two), facet={"tier": ["Hot"]})
    assert holds(Facts("new", two[::-1]), facet={"tier": ["Hot"]})


@pytest.mark.parametrize(
    "when",
    [
        {"colour": ["red"]},
        {"status": "new"},
        {"status": [["new"]]},
        {"has": None},
        {"facet": ["tier"]},
        {"facet": {"tier": "Hot"}},
        {"trigger": {"reply": True}},
    ],
)
def test_a_clause_that_nobody_understands_never_holds(when: dict[str, Any]) -> None:
    facts = Facts("new", (OutputFact("x", facets={"tier": "Hot"}),), triggers=REPLY)
    assert not holds(facts, **when)


def test_every_clause_must_hold() -> None:
    facts = Facts("new", outputs("x"), tags=frozenset({"vip"}))
    assert holds(facts, status=["new"], has=["x"], lacks=["y"], tags=["vip"])
    assert not holds(facts, status=["new"], has=["x"], lacks=["y"], tags=["press"])
    assert holds(facts)
