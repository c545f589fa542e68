"""Says why a decision was taken: what of each rule held and what did not, and each agent's state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.spec import ITEM
from runs.clauses import Clause, Known, Node, Occasion
from runs.plan import AgentView, Graph, Plan, Skipped, Start, Step, Waiting


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """A rule as it was tried: whether it held, and for which occasion of which kind."""

    name: str
    clauses: tuple[Clause, ...]
    want: tuple[str, ...]
    holds: bool
    occasion: Occasion
    kind: str


def explain(
    known: Known,
    graph: Graph,
    agents: Sequence[AgentView],
    rules: Sequence[RuleTrace],
    start: Iterable[Start],
    waiting: Iterable[Waiting],
    skipped: Iterable[Skipped],
) -> dict[str, Any]:
    """``{"rules": [..], "wanted": [..], "agents": [..]}``, all of it JSON.

    A rule: ``name, holds, occasion, kind, want, failed_by`` (names of the clauses that did not hold) and
    ``clauses`` of ``{clause, listed, found, holds}``. A wanted key: ``key, occasion, rules, writer, state``;
    the state is ``current``, ``coming`` or ``cannot come``. An agent: ``agent, occasion, state, keys, why``;
    the state is ``starts``, ``waits``, ``skipped``, ``active``, ``current``, ``failed``, ``disabled`` or
    ``not wanted``; ``keys`` are those it waits for, or those that cannot come.
    """
    wanted = _wanted(known, graph, rules)
    planned: dict[Node, dict[str, Any]] = {}
    for begun in start:
        planned[begun.agent, begun.occasion] = {"state": "starts", "keys": [], "why": begun.why}
    for waits in waiting:
        planned[waits.agent, waits.occasion] = {"state": "waits", "keys": list(waits.keys), "why": ""}
    for left_out in skipped:
        planned[left_out.agent, left_out.occasion] = {
            "state": "skipped",
            "keys": list(left_out.missing),
            "why": "",
        }
    return {
        "rules": [_rule(known, rule) for rule in rules],
        "wanted": wanted,
        "agents": _agents(known, graph, agents, planned, wanted),
    }


def _rule(known: Known, rule: RuleTrace) -> dict[str, Any]:
    clauses = [
        {
            "clause": clause.name,
            "listed": clause.value,
            "found": clause.found(known, rule.occasion),
            "holds": clause.holds(known, rule.occasion),
        }
        for clause in rule.clauses
    ]
    return {
        "name": rule.name,
        "holds": rule.holds,
        "occasion": rule.occasion,
        "kind": rule.kind,
        "want": list(rule.want),
        "failed_by": [clause["clause"] for clause in clauses if not clause["holds"]],
        "clauses": clauses,
    }


def _wanted(known: Known, graph: Graph, rules: Iterable[RuleTrace]) -> list[dict[str, Any]]:
    found: dict[Node, dict[str, Any]] = {}
    plan = Plan(known, graph)
    for rule in rules:
        for key in rule.want if rule.holds else ():
            step = graph.step(key, rule.kind)
            at = None if step is not None and step.is_item else rule.occasion
            entry = found.setdefault(
                (key, at),
                {
                    "key": key,
                    "occasion": at,
                    "rules": [],
                    "writer": step.slug if step else None,
                    "state": _key_state(known, plan, key, step, at),
                },
            )
            entry["rules"].append(rule.name)
    return list(found.values())


def _key_state(known: Known, plan: Plan, key: str, step: Step | None, at: Occasion) -> str:
    if step is None:
        return "current" if known.is_current(key, at) else "cannot come"
    if (key, at) in known.current:
        return "current"
    return "coming" if plan.can_come(step, at) else "cannot come"


def _agents(
    known: Known,
    graph: Graph,
    agents: Sequence[AgentView],
    planned: Mapping[Node, dict[str, Any]],
    wanted: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Every agent at least once, in their order; more often if it has to do with several occasions."""
    writers = _writers_of_current(known, graph)
    asked = {(entry["writer"], entry["occasion"]) for entry in wanted if entry["writer"]}
    at: dict[str, set[Occasion]] = {}
    for slug, occasion in (*planned, *known.active, *known.failed, *writers, *asked):
        at.setdefault(slug, set()).add(occasion)
    found = []
    for agent in agents:
        for occasion in sorted(at.get(agent.slug, {None}), key=lambda number: number or 0):
            node = (agent.slug, occasion)
            state = {"state": _agent_state(known, agent, node, writers), "keys": [], "why": ""}
            found.append({"agent": agent.slug, "occasion": occasion, **planned.get(node, state)})
    return found


def _agent_state(known: Known, agent: AgentView, node: Node, writers: set[Node]) -> str:
    if node in known.active:
        return "active"
    if node in writers:
        return "current"
    if node in known.failed:
        return "failed"
    return "not wanted" if agent.is_enabled else "disabled"


def _writers_of_current(known: Known, graph: Graph) -> set[Node]:
    """Who would have to write what is current, for the item and for the triggers that are open and due."""
    kinds: dict[Occasion, str] = {None: ITEM}
    kinds.update(known.due)
    found = set()
    for key, occasion in known.current:
        step = graph.step(key, kinds[occasion]) if occasion in kinds else None
        if step is not None and (occasion is None or not step.is_item):
            found.add((step.slug, occasion))
    return found
