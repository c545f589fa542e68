"""Circles among agents, found and named."""

from __future__ import annotations

import pytest

from runs.plan import AgentView, find_cycles
from tests.runs.routing import agent


@pytest.mark.parametrize(
    ("agents", "cycles"),
    [
        ([agent("a", needs="b"), agent("b", uses="c"), agent("c")], []),
        ([agent("a", needs="a")], [("a",)]),
        ([agent("b", needs="a"), agent("a", uses="b")], [("a", "b")]),
        (
            [agent("a", needs="b"), agent("b", needs="c"), agent("c", uses="a"), agent("d", needs="a")],
            [("a", "b", "c")],
        ),
        (
            [agent("a", needs="b"), agent("b", needs="a"), agent("c", needs="d"), agent("d", uses="c")],
            [("a", "b"), ("c", "d")],
        ),
    ],
)
def test_each_circle_is_found_once(agents: list[AgentView], cycles: list[tuple[str, ...]]) -> None:
    assert find_cycles(agents) == cycles


def test_agents_that_serve_different_occasions_are_no_circle() -> None:
    agents = [agent("a", uses="b", serves="reply"), agent("b", uses="a", serves="decision")]
    assert find_cycles(agents) == []


def test_a_circle_for_one_kind_of_occasion_only_is_found() -> None:
    agents = [agent("a", uses="b", serves="reply"), agent("b", uses="a", serves="reply decision")]
    assert find_cycles(agents) == [("a", "b")]
