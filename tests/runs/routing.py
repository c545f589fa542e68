"""Small words for router tests: agents, rules and facts in one line each, and one way to work an item to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from agents.spec import DepartmentSpec, Facts, OutputFact, RunFact, TriggerFact
from runs.plan import AgentView
from runs.router import Decision, Router, RuleView

Scope = Literal["item", "occasion"]


def agent(
    slug: str,
    writes: str = "",
    *,
    needs: str = "",
    uses: str = "",
    scope: Scope = "occasion",
    serves: str = "",
    is_enabled: bool = True,
) -> AgentView:
    """An agent; lists are words in one string. Without ``writes`` it writes the key of its own name."""
    return AgentView(
        slug,
        writes or slug,
        tuple(needs.split()),
        tuple(uses.split()),
        scope,
        tuple(serves.split()),
        is_enabled,
    )


def rule(want: str, name: str = "", **when: Any) -> RuleView:
    """A rule that wants the keys in ``want`` when every clause holds."""
    return RuleView(name or f"wants {want}", when, tuple(want.split()))


def outputs(*found: str | tuple[str, int | None]) -> tuple[OutputFact, ...]:
    """Current outputs: a key for the item, or a key and a trigger's id."""
    return tuple(OutputFact(one) if isinstance(one, str) else OutputFact(*one) for one in found)


def run(slug: str, state: Literal["active", "failed"], occasion: int | None = None) -> RunFact:
    """An agent run that counts."""
    return RunFact(slug, occasion, state)


def trigger(number: int, kind: str = "reply", *, is_due: bool = True) -> TriggerFact:
    """An open trigger."""
    return TriggerFact(number, kind, is_due)


def started(decision: Decision) -> set[tuple[str, int | None]]:
    """The agents that are to start, each with its occasion."""
    return {(start.agent, start.occasion) for start in decision.start}


def views(spec: DepartmentSpec) -> tuple[list[RuleView], list[AgentView]]:
    """A kind's rules and agents as its router sees them out of the box."""
    rules = [RuleView(one.name, one.when, one.want) for one in spec.rules]
    agents = [AgentView(one.slug, one.writes, one.needs, one.uses, one.scope, one.serves) for one in spec.agents]
    return rules, agents


def begin(facts: Facts, decision: Decision) -> Facts:
    """The facts once the decision is carried out: runs are active, handled and noted triggers closed."""
    gone = {*decision.handled, *decision.noted}
    begun = tuple(RunFact(start.agent, start.occasion, "active") for start in decision.start)
    left = tuple(one for one in facts.triggers if one.id not in gone)
    return replace(facts, runs=(*facts.runs, *begun), triggers=left)


def end(facts: Facts, ended: RunFact, writes: str, *, failed: bool = False) -> Facts:
    """The facts once an active run has written its output, or has failed."""
    runs = tuple(one for one in facts.runs if one != ended)
    if failed:
        return replace(facts, runs=(*runs, replace(ended, state="failed")))
    return replace(facts, runs=runs, outputs=(*facts.outputs, OutputFact(writes, ended.occasion)))


def work(
    router: Router,
    agents: Iterable[AgentView],
    facts: Facts,
    choose: Callable[[int], int],
    fails: Callable[[RunFact], bool] = lambda _: False,
    limit: int = 500,
) -> Facts:
    """Route and answer until the router says it is finished. ``choose(n)`` picks which of n runs ends next.

    Every step is one decision; AssertionError after ``limit`` of them, or if an item stands still unfinished.
    """
    writes = {one.slug: one.writes for one in agents}
    for _ in range(limit):
        decision = router.decide(facts)
        facts = begin(facts, decision)
        if decision.finished:
            return facts
        active = [one for one in facts.runs if one.state == "active"]
        assert active or decision.handled, "nothing runs, and yet it is not finished"
        if active:
            ended = active[choose(len(active))]
            facts = end(facts, ended, writes[ended.agent], failed=fails(ended))
    raise AssertionError(f"no end after {limit} decisions")
