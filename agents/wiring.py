"""Whether the agents of a department fit together: who writes what, and whether it can be had. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import combinations

from agents.models import Agent


@dataclass(frozen=True, slots=True)
class Wire:
    """What counts of one agent. ``serves`` lists kinds of occasion; empty means all."""

    slug: str
    writes: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    is_enabled: bool = True

    def meets(self, other: Wire) -> bool:
        """Whether both may work for one and the same occasion."""
        return not self.serves or not other.serves or bool(set(self.serves) & set(other.serves))


def wire(agent: Agent) -> Wire:
    """The wire of an agent's row, saved or not."""
    return Wire(
        slug=agent.slug,
        writes=agent.writes,
        needs=tuple(agent.needs),
        uses=tuple(agent.uses),
        # What is made once for the item is made for it whatever asks.
        serves=() if agent.scope == Agent.Scope.ITEM else tuple(agent.serves),
        is_enabled=agent.is_enabled,
    )


def wiring_problems(wires: Sequence[Wire]) -> list[str]:
    """What does not fit, one sentence each; empty if all is well.

    A key that nobody writes, two enabled writers of one key for one kind of occasion, agents that wait for
    each other in a circle. A disabled writer is no problem: what uses its key works without.
    """
    return [*_unwritten(wires), *_two_writers(wires), *_circle(wires)]


def _unwritten(wires: Sequence[Wire]) -> Iterable[str]:
    written = {each.writes for each in wires}
    for each in wires:
        for verb, keys in (("needs", each.needs), ("uses", each.uses)):
            for key in keys:
                if key not in written:
                    known = ", ".join(sorted(written))
                    yield f"{each.slug} {verb} {key}, which no agent writes. Written are: {known}."


def _two_writers(wires: Sequence[Wire]) -> Iterable[str]:
    enabled = [each for each in wires if each.is_enabled]
    for one, other in combinations(enabled, 2):
        if one.writes == other.writes and one.meets(other):
            shared = sorted(set(one.serves) & set(other.serves) or {*one.serves, *other.serves})
            occasions = ", ".join(shared) or "every kind of occasion"
            yield (
                f"{one.slug} and {other.slug} both write {one.writes} for {occasions}. "
                "Each key has one writer for each kind of occasion: change `serves`, or disable one."
            )


def _circle(wires: Sequence[Wire]) -> Iterable[str]:
    graph = {
        each.slug: {
            other.slug for other in wires if other.writes in (*each.needs, *each.uses) and each.meets(other)
        }
        for each in wires
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"These agents wait for each other: {' → '.join(reversed(error.args[1]))}."
