"""Tries a rule on the kind's sample items before it is saved. Pure: agents are imagined to answer at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agents.spec import ITEM, DepartmentSpec, Facts, OutputFact, RunFact, SampleItem
from runs.clauses import Known, Occasion
from runs.plan import OTHER, AgentView, Graph, Plan
from runs.router import Router, RuleView

STEPS = 1_000
"""After so many answers a trial counts as endless; those of the shipped samples take fewer than ten."""


class _Endless(Exception):
    """A trial did not come to an end."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One sample, worked through in one order of answers: the oldest run first, or the newest."""

    kind: DepartmentSpec
    sample: SampleItem
    writes: dict[str, str]
    is_newest_first: bool

    def work(self, router: Router, facts: Facts, *, note: bool = True) -> list[Facts]:
        """Every state of the item until nothing happens; ``note`` closes triggers nobody mentions."""
        states = [self._with_status(facts)]
        while len(states) <= STEPS:
            facts = states[-1]
            decision = router.decide(facts)
            gone = {*decision.handled, *(decision.noted if note else ())}
            begun = tuple(RunFact(start.agent, start.occasion, "active") for start in decision.start)
            facts = replace(
                facts,
                runs=(*facts.runs, *begun),
                triggers=tuple(trigger for trigger in facts.triggers if trigger.id not in gone),
            )
            active = [run for run in facts.runs if run.state == "active"]
            if not active and not gone:
                return states
            if active:
                facts = self._answered(facts, active[-1 if self.is_newest_first else 0])
            states.append(self._with_status(facts))
        raise _Endless

    def _answered(self, facts: Facts, run: RunFact) -> Facts:
        key = self.writes[run.agent]
        output = OutputFact(key, run.occasion, self.sample.facets.get(key, {}))
        return replace(
            facts, outputs=(*facts.outputs, output), runs=tuple(other for other in facts.runs if other != run)
        )

    def _with_status(self, facts: Facts) -> Facts:
        return replace(facts, status=self.kind.status(facts))


def simulate_rule(
    rule: RuleView, *, kind: DepartmentSpec, rules: Sequence[RuleView], agents: Sequence[AgentView]
) -> list[str]:
    """What would go wrong with the rule among the others, at most one sentence a sample; empty if nothing.

    Each sample is worked through to the end under all rules. Wherever the rule begins to hold, it is followed
    alone from there: a rule that its own outputs stop before what it wants is there is refused, and so is one
    that leaves a trigger open for ever, for the next trigger would never have its turn.
    """
    others = [other for other in rules if other.name != rule.name]
    routers = Router([*others, rule], agents), Router([rule], agents)
    writes = {agent.slug: agent.writes for agent in agents}
    found = []
    for sample in kind.samples:
        for is_newest_first in (False, True):
            problem = _problem(rule, _Trial(kind, sample, writes, is_newest_first), *routers, Graph(agents))
            if problem:
                found.append(f"On the sample “{sample.name}”: {problem}")
                break
    return found


def _problem(rule: RuleView, trial: _Trial, whole: Router, alone: Router, graph: Graph) -> str:
    held: set[Occasion] = set()
    try:
        states = trial.work(whole, trial.sample.facts)
        for facts in states:
            for _, occasion in alone.matching(facts):
                if occasion not in held:
                    held.add(occasion)
                    problem = _stops_itself(rule, trial, alone, graph, facts, occasion)
                    if problem:
                        return problem
    except _Endless:
        return f"there is still no end after {STEPS} answers."
    left = sorted({f"“{trigger.kind}”" for trigger in states[-1].triggers if trigger.id in held})
    if left:
        return (
            f"the rule no longer holds once its outputs are there, so the trigger {' and '.join(left)} stays "
            "open for ever and holds up the next one."
        )
    return ""


def _stops_itself(rule: RuleView, trial: _Trial, alone: Router, graph: Graph, facts: Facts, occasion: Occasion) -> str:
    kinds = {trigger.id: trigger.kind for trigger in facts.triggers}
    kind = ITEM if occasion is None else kinds[occasion]
    states = trial.work(alone, facts, note=False)
    end = states[-1]
    known = Known(end)
    plan = Plan(known, graph)
    missing = []
    for key in rule.want:
        step = graph.step(key, kind if kind in graph.kinds else OTHER)
        at = None if step is not None and step.is_item else occasion
        if step is not None and (key, at) not in known.current and plan.can_come(step, at):
            missing.append(key)
    if not missing:
        return ""
    written = [output.key for output in end.outputs if output not in states[0].outputs]
    clauses = " and ".join(f"“{name}”" for name in alone.decide(end).trace["rules"][0]["failed_by"])
    return (
        f"once {' and '.join(written)} {'is' if len(written) == 1 else 'are'} written, the rule no longer "
        f"holds because of its clause {clauses}, so {' and '.join(missing)} would never be written."
    )
