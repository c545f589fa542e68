"""The clauses of a rule's ``when``, compiled to tests on the facts. Pure.

In ``status``, ``trigger`` and the values of ``facet`` one of those listed is enough; of ``has``, ``lacks``,
``failed`` and ``tags`` every one must be so. Rules are validated when they are saved; one that was not, and
has a clause nobody knows, never holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.spec import Facts

Occasion = int | None
"""A trigger's id, None for the item itself."""
Node = tuple[str, Occasion]
"""An agent's slug, or an output's key, at an occasion."""

STATUS, HAS, LACKS, FAILED, TRIGGER, FACET, TAGS = (
    "status",
    "has",
    "lacks",
    "failed",
    "trigger",
    "facet",
    "tags",
)
_ABSENT = object()


class Known:
    """The facts of one item, arranged for lookups."""

    __slots__ = ("_facets", "active", "current", "due", "facts", "failed", "heads")

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._facets: dict[Node, Any] = {}
        self.current: set[Node] = {(output.key, output.occasion) for output in facts.outputs}
        self.active: set[Node] = set()
        self.failed: set[Node] = set()
        for run in facts.runs:
            (self.active if run.state == "active" else self.failed).add((run.agent, run.occasion))
        self.due: list[tuple[int, str]] = []
        self.heads: dict[str, int] = {}
        if facts.triggers:
            self.due = sorted((trigger.id, trigger.kind) for trigger in facts.triggers if trigger.is_due)
            for number, kind in self.due:
                self.heads.setdefault(kind, number)

    def is_current(self, key: str, occasion: Occasion) -> bool:
        """Whether there is a current output of the key for the occasion or for the item itself."""
        return (key, occasion) in self.current or (key, None) in self.current

    def has_failed(self, agent: str, occasion: Occasion) -> bool:
        """Whether the agent has failed for the occasion or for the item itself."""
        return (agent, occasion) in self.failed or (agent, None) in self.failed

    def facet(self, name: str, occasion: Occasion) -> Any:
        """A promoted value of the occasion, else of the item's own outputs, else ``_ABSENT``.

        Should two outputs of one occasion promote the same name, the alphabetically first key counts, so that
        the order of the facts does not matter.
        """
        asked = (name, occasion)
        if asked not in self._facets:
            self._facets[asked] = self._find_facet(name, occasion)
        return self._facets[asked]

    def _find_facet(self, name: str, occasion: Occasion) -> Any:
        found = [
            output
            for output in self.facts.outputs
            if name in output.facets and (output.occasion == occasion or output.occasion is None)
        ]
        if not found:
            return _ABSENT
        if len(found) > 1:
            own = [output for output in found if output.occasion == occasion]
            return min(own or found, key=lambda output: output.key).facets[name]
        return found[0].facets[name]


Test = Callable[[Known, Occasion], bool]


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of one rule, compiled."""

    name: str
    value: Any
    holds: Test

    def found(self, known: Known, occasion: Occasion) -> Any:
        """What the item has in the place that the clause looks at, as JSON."""
        facts = known.facts
        if self.name == STATUS:
            return facts.status
        if self.name == TRIGGER:
            return list(known.heads)
        if self.name in (HAS, LACKS):
            return sorted({key for key, at in known.current if at in (occasion, None)})
        if self.name == FAILED:
            return sorted({agent for agent, at in known.failed if at in (occasion, None)})
        if self.name == TAGS:
            return sorted(facts.tags)
        if self.name == FACET and isinstance(self.value, Mapping):
            values = {name: known.facet(name, occasion) for name in self.value}
            return {name: value for name, value in values.items() if value is not _ABSENT}
        return None


def compile_clauses(when: Mapping[str, Any]) -> tuple[Clause, ...]:
    """The clauses of one ``when``, in its order. An unknown or malformed one becomes a test that fails."""
    return tuple(Clause(name, value, _compile(name, value)) for name, value in when.items())


def listed(value: Any) -> tuple[str, ...] | None:
    """The words of a clause's list; None if it is not a list of words."""
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return tuple(value)
    return None


def _compile(name: str, value: Any) -> Test:
    if name == FACET:
        return _facet(value) if isinstance(value, Mapping) else _never
    words = listed(value)
    build = _TESTS.get(name)
    return _never if words is None or build is None else build(words)


def _never(known: Known, occasion: Occasion) -> bool:
    return False


def _every(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda known, occasion: all(test(known, occasion) for test in tests)


def _status(words: tuple[str, ...]) -> Test:
    names = frozenset(words)
    return lambda known, occasion: known.facts.status in names


def _trigger(words: tuple[str, ...]) -> Test:
    return lambda known, occasion: any(word in known.heads for word in words)


def _has(words: tuple[str, ...]) -> Test:
    return _every([_is_current(word) for word in words])


def _is_current(key: str) -> Test:
    return lambda known, occasion: known.is_current(key, occasion)


def _lacks(words: tuple[str, ...]) -> Test:
    return lambda known, occasion: not any(known.is_current(word, occasion) for word in words)


def _failed(words: tuple[str, ...]) -> Test:
    return lambda known, occasion: all(known.has_failed(word, occasion) for word in words)


def _tags(words: tuple[str, ...]) -> Test:
    tags = frozenset(words)
    return lambda known, occasion: tags <= known.facts.tags


def _facet(wanted: Mapping[str, Any]) -> Test:
    return _every([_facet_value(name, values) for name, values in wanted.items()])


def _facet_value(name: str, values: Any) -> Test:
    if not isinstance(values, list | tuple):
        return _never
    # Python has True == 1; JSON has not.
    flags = [value for value in values if isinstance(value, bool)]
    others = [value for value in values if not isinstance(value, bool)]

    def holds(known: Known, occasion: Occasion) -> bool:
        value = known.facet(name, occasion)
        return value in (flags if isinstance(value, bool) else others)

    return holds


_TESTS: dict[str, Callable[[tuple[str, ...]], Test]] = {
    STATUS: _status,
    HAS: _has,
    LACKS: _lacks,
    FAILED: _failed,
    TRIGGER: _trigger,
    TAGS: _tags,
}
