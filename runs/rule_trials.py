"""One item under two sets of rules: what would start, wait or be skipped under each, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from agents.spec import DepartmentSpec, Facts
from runs.router import Router

QUIET = ("not wanted", "disabled")
"""States of an agent that say nothing about this item."""


@dataclass(frozen=True, slots=True)
class AgentLine:
    """One agent at one occasion: its state under the rules in force and under the draft, with the reasons."""

    agent: str
    occasion: str
    before: str
    before_why: str
    after: str
    after_why: str

    @property
    def is_different(self) -> bool:
        """Whether the draft changes anything for it."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule: whether it holds under each; None where it is not part of that set."""

    name: str
    before: bool | None
    after: bool | None
    failed_by: tuple[str, ...]
    """The clauses that do not hold, with what the item has instead, under the draft if the rule is part of it."""

    @property
    def is_different(self) -> bool:
        """Whether it holds under one and not under the other."""
        return bool(self.before) != bool(self.after)


@dataclass(frozen=True, slots=True)
class Trial:
    """The two decisions side by side."""

    facts: Facts
    agents: tuple[AgentLine, ...]
    rules: tuple[RuleLine, ...]

    @property
    def is_different(self) -> bool:
        """Whether anything would go otherwise."""
        return any(line.is_different for line in self.agents)


def try_rules(before: Router, after: Router, facts: Facts, spec: DepartmentSpec) -> Trial:
    """Decide about the item twice; nothing is written."""
    facts = replace(facts, status=spec.status(facts))
    traces = [router.decide(facts).trace for router in (before, after)]
    kinds = {trigger.id: trigger.kind for trigger in facts.triggers}
    states = [{(line["agent"], line["occasion"]): line for line in trace["agents"]} for trace in traces]
    nodes = dict.fromkeys((*states[0], *states[1]))
    lines = [
        AgentLine(
            agent, kinds.get(occasion, ""), *_state(states[0], agent, occasion), *_state(states[1], agent, occasion)
        )
        for agent, occasion in nodes
    ]
    return Trial(
        facts=facts,
        agents=tuple(line for line in lines if line.before not in QUIET or line.after not in QUIET),
        rules=_rules(*traces),
    )


def _state(states: dict[Any, Any], agent: str, occasion: int | None) -> tuple[str, str]:
    line = states.get((agent, occasion))
    if line is None:
        return "not wanted", ""
    keys = ", ".join(line["keys"])
    why = {"waits": f"for {keys}", "skipped": f"without {keys}"}.get(line["state"], line["why"])
    return line["state"], why


def _rules(before: dict[str, Any], after: dict[str, Any]) -> tuple[RuleLine, ...]:
    old = {rule["name"]: rule for rule in before["rules"]}
    new = {rule["name"]: rule for rule in after["rules"]}
    return tuple(
        RuleLine(
            name,
            old[name]["holds"] if name in old else None,
            new[name]["holds"] if name in new else None,
            tuple(_why(clause) for clause in (new.get(name) or old[name])["clauses"] if not clause["holds"]),
        )
        for name in dict.fromkeys((*old, *new))
    )


def _why(clause: dict[str, Any]) -> str:
    found = clause["found"]
    if isinstance(found, dict):
        has = ", ".join(f"{name} {value}" for name, value in found.items())
    else:
        has = ", ".join(found) if isinstance(found, list) else str(found or "")
    return f"{clause['clause']}: it has {has or 'nothing'}"
