"""Decides which agents work on an item now, and why.

Rules say what is wanted; what the agents need and use says in what order, like a build system. A pure
function of the facts: no ORM, no clock, no model call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.spec import ITEM, Facts, When
from runs.clauses import STATUS, TRIGGER, Clause, Known, Occasion, Test, compile_clauses, listed
from runs.plan import AgentView, Graph, Plan, Skipped, Start, Step, Waiting
from runs.trace import RuleTrace, explain
from runs.wording import in_words

__all__ = ["AgentView", "Decision", "Router", "RuleView", "Skipped", "Start", "Waiting", "decide"]


@dataclass(frozen=True, slots=True)
class RuleView:
    """An enabled rule: when an item looks like this, these output keys are wanted."""

    name: str
    when: When
    want: tuple[str, ...]


@dataclass(slots=True)
class Decision:
    """What is to happen to one item now. Read-only by agreement: freezing would double what a decision costs.

    ``handled`` and ``noted`` are ids of triggers. After a decision that handles one, route again: the next
    trigger may be due. ``finished``: nothing to start, nothing active, nothing handled.
    """

    start: tuple[Start, ...]
    waiting: tuple[Waiting, ...]
    skipped: tuple[Skipped, ...]
    handled: tuple[int, ...]
    noted: tuple[int, ...]
    finished: bool
    _facts: Facts = field(repr=False, compare=False)
    _router: Router = field(repr=False, compare=False)
    _trace: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def trace(self) -> dict[str, Any]:
        """Every rule and agent with what became of it, as JSON; worked out when first asked for."""
        if self._trace is None:
            self._trace = self._router.explain(self._facts, self)
        return self._trace


_Want = tuple[str, Step | None, str]
"""A wanted key, the step that writes it, and the reason in words."""


class _Rule:
    """A rule, compiled. ``tests`` are its clauses but ``status`` and ``trigger``, which select it."""

    __slots__ = ("clauses", "kinds", "statuses", "tests", "view", "wants")

    def __init__(self, view: RuleView, graph: Graph) -> None:
        self.view = view
        self.clauses: tuple[Clause, ...] = compile_clauses(view.when)
        self.kinds = listed(view.when[TRIGGER]) or () if TRIGGER in view.when else None
        self.statuses = listed(view.when[STATUS]) or () if STATUS in view.when else None
        self.tests: tuple[Test, ...] = tuple(c.holds for c in self.clauses if c.name not in (STATUS, TRIGGER))
        self.wants: dict[str, tuple[_Want, ...]] = {
            kind: tuple((key, graph.step(key, kind), f"“{view.name}” wants {in_words(key)}") for key in view.want)
            for kind in ((ITEM,) if self.kinds is None else self.kinds)
        }

    def head(self, heads: Mapping[str, int]) -> tuple[int, str] | None:
        """The oldest due trigger of the rule's kinds, with its kind; None if there is none."""
        return min(((heads[kind], kind) for kind in self.kinds or () if kind in heads), default=None)


_Match = tuple[_Rule, Occasion, str]
"""A rule that holds, for which occasion, and of which kind that is."""


class Router:
    """The rules and agents of one department, compiled once for any number of decisions."""

    __slots__ = ("_agents", "_any_status", "_by_status", "_graph", "_mentioned", "_rules")

    def __init__(self, rules: Sequence[RuleView], agents: Sequence[AgentView]) -> None:
        self._mentioned = frozenset(kind for rule in rules for kind in listed(rule.when.get(TRIGGER)) or ())
        self._agents = tuple(agents)
        self._graph = Graph(agents, self._mentioned)
        self._rules = tuple(_Rule(rule, self._graph) for rule in rules)
        self._any_status = tuple(rule for rule in self._rules if rule.statuses is None)
        self._by_status = {
            status: tuple(r for r in self._rules if r.statuses is None or status in r.statuses)
            for rule in self._rules
            for status in rule.statuses or ()
        }

    def decide(self, facts: Facts) -> Decision:
        """What is to happen to the item of which these facts are true."""
        known = Known(facts)
        matches = self._matches(known)
        plan, pending = _plan(known, self._graph, matches)
        handled: tuple[int, ...] = ()
        noted: tuple[int, ...] = ()
        if known.due:
            handled = _handled(known, matches, pending)
            noted = tuple(number for number, kind in known.due if kind not in self._mentioned)
        return Decision(
            tuple(plan.start),
            tuple(plan.waiting),
            tuple(plan.skipped),
            handled,
            noted,
            not (plan.start or known.active or handled),
            facts,
            self,
        )

    @property
    def rules(self) -> tuple[RuleView, ...]:
        """The enabled rules, in their order."""
        return tuple(rule.view for rule in self._rules)

    def is_of_item(self, key: str, kind: str) -> bool:
        """Whether an agent at work for an occasion of this kind is given the item's own output of the key.

        So it is where the key is made once for the item, or where nobody makes it for such an occasion.
        """
        step = self._graph.step(key, kind)
        return step is None or step.is_item

    def matching(self, facts: Facts) -> tuple[tuple[RuleView, int | None], ...]:
        """The rules that hold now, each with the occasion for which it holds."""
        return tuple((rule.view, occasion) for rule, occasion, _ in self._matches(Known(facts)))

    def explain(self, facts: Facts, decision: Decision) -> dict[str, Any]:
        """The trace of a decision that this router took on these facts."""
        known = Known(facts)
        held = {rule for rule, _, _ in self._matches(known)}
        rules = []
        for rule in self._rules:
            occasion, kind = rule.head(known.heads) or (None, ITEM)
            rules.append(RuleTrace(rule.view.name, rule.clauses, rule.view.want, rule in held, occasion, kind))
        outcome = explain(known, self._graph, self._agents, rules, decision.start, decision.waiting, decision.skipped)
        return {
            "status": facts.status,
            **outcome,
            "handled": list(decision.handled),
            "noted": list(decision.noted),
            "finished": decision.finished,
        }

    def _matches(self, known: Known) -> list[_Match]:
        found: list[_Match] = []
        heads = known.heads
        for rule in self._by_status.get(known.facts.status, self._any_status):
            if rule.kinds is None:
                occasion, kind = None, ITEM
            elif heads and (head := rule.head(heads)):
                occasion, kind = head
            else:
                continue
            for test in rule.tests:
                if not test(known, occasion):
                    break
            else:
                found.append((rule, occasion, kind))
        return found


def decide(facts: Facts, rules: Sequence[RuleView], agents: Sequence[AgentView]) -> Decision:
    """The decision for one item; who decides about many compiles a ``Router`` once."""
    return Router(rules, agents).decide(facts)


def _plan(known: Known, graph: Graph, matches: list[_Match]) -> tuple[Plan, set[int]]:
    """The plan for all that is wanted and missing, and the triggers for which something is on its way."""
    plan, pending = Plan(known, graph), set()
    current = known.current
    for rule, occasion, kind in matches:
        for key, step, why in rule.wants[kind]:
            # What nobody writes cannot come: it is there already, or it is settled.
            if step is None:
                continue
            at = None if step.is_item else occasion
            if (key, at) in current:
                continue
            plan.add(step, at, why)
            if occasion is not None and plan.can_come(step, at):
                pending.add(occasion)
    return plan, pending


def _handled(known: Known, matches: list[_Match], pending: set[int]) -> tuple[int, ...]:
    """The triggers for which everything that matching rules want is settled."""
    done: set[int] = set()
    later: set[int] = set()
    for rule, occasion, _ in matches:
        if occasion is None:
            continue
        done.add(occasion)
        kinds = rule.kinds or ()
        # A rule that is still at work for an older trigger has not had its say about the younger ones.
        later.update(number for number, kind in known.due if number > occasion and kind in kinds)
    return tuple(sorted(done - pending - later))
