"""Which agents make what is wanted, and in what order: the agents as a graph, like a build system. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from agents.spec import ITEM
from runs.clauses import Known, Node, Occasion
from runs.wording import in_words

OTHER = ""
"""Stands for every kind of occasion that no agent names."""


@dataclass(frozen=True, slots=True)
class AgentView:
    """What the router has to know of an agent. ``serves`` lists kinds of occasion; empty means all."""

    slug: str
    writes: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    scope: Literal["item", "occasion"] = "occasion"
    serves: tuple[str, ...] = ()
    is_enabled: bool = True


# Named tuples, because a router makes 100,000 of these a second and a frozen dataclass takes twice as long.
class Start(NamedTuple):
    """This agent is to run now. ``why`` is one line of at most 300 characters."""

    agent: str
    occasion: int | None
    key: str
    why: str


class Waiting(NamedTuple):
    """This agent is wanted and waits for ``keys``, which are on their way."""

    agent: str
    occasion: int | None
    keys: tuple[str, ...]


class Skipped(NamedTuple):
    """This agent is wanted and cannot run: it needs ``missing``, which cannot come."""

    agent: str
    occasion: int | None
    missing: tuple[str, ...]


class Step:
    """An agent as it works for one kind of occasion, with the steps that write what it takes."""

    __slots__ = ("is_enabled", "is_item", "needs", "slug", "uses", "writes")

    def __init__(self, agent: AgentView) -> None:
        self.slug = agent.slug
        self.writes = agent.writes
        self.is_item = agent.scope == "item"
        self.is_enabled = agent.is_enabled
        self.needs: tuple[Edge, ...] = ()
        self.uses: tuple[Edge, ...] = ()


class Edge:
    """A key that a step takes, and the step that writes it: None if nobody does."""

    __slots__ = ("key", "may_cycle", "target", "why")

    def __init__(self, key: str, target: Step | None, why: str) -> None:
        self.key = key
        self.target = target
        self.why = why
        self.may_cycle = False


Missing = tuple[Edge, Occasion]
"""A key that is not current, and the occasion for which it is missing."""


class Graph:
    """The agents of a department, linked once for each kind of occasion."""

    __slots__ = ("_enabled", "_steps", "_writers", "_writes", "kinds")

    def __init__(self, agents: Sequence[AgentView], kinds: Iterable[str] = ()) -> None:
        self.kinds = {ITEM, OTHER, *kinds, *(kind for agent in agents for kind in agent.serves)}
        self._writes = {agent.slug: agent.writes for agent in agents}
        self._enabled = {agent.slug for agent in agents if agent.is_enabled}
        self._writers: dict[tuple[str, str], AgentView] = {}
        self._steps = {(agent.slug, kind): Step(agent) for agent in agents for kind in self.kinds}
        # Enabled ones first; sorted() is stable, so else the order of the agents decides.
        for agent in sorted(agents, key=lambda agent: not agent.is_enabled):
            for kind in agent.serves or self.kinds:
                self._writers.setdefault((agent.writes, kind), agent)
        for agent in agents:
            for kind in self.kinds:
                step = self._steps[agent.slug, kind]
                who = in_words(agent.slug)
                step.needs = tuple(Edge(k, self.step(k, kind), f"{who} needs {in_words(k)}") for k in agent.needs)
                step.uses = tuple(Edge(k, self.step(k, kind), f"{who} uses {in_words(k)}") for k in agent.uses)
        self._mark_cyclic()

    def step(self, key: str, kind: str) -> Step | None:
        """The step that writes the key for a kind of occasion; None if nobody does."""
        agent = self._writers.get((key, kind))
        if agent is None:
            return None
        # What is made once for the item is made from what the item has, whatever asked for it.
        return self._steps[agent.slug, ITEM if agent.scope == "item" else kind]

    def coming(self, known: Known) -> set[Node]:
        """The keys that active runs write, each with its occasion.

        Those of an agent disabled since only while they run: what is queued waits until somebody enables the agent.
        """
        enabled, writes = self._enabled, self._writes
        return {
            (writes.get(run.agent, ""), run.occasion)
            for run in known.facts.runs
            if run.state == "active" and (run.is_running or run.agent in enabled)
        }

    def steps(self) -> Iterable[Step]:
        """Every step, once for each kind of occasion."""
        return self._steps.values()

    def _mark_cyclic(self) -> None:
        """Peel off what depends on nothing that is left; what stays lies on a cycle or leads into one."""
        left = set(self._steps.values())
        while True:
            peeled = {s for s in left if not any(edge.target in left for edge in (*s.needs, *s.uses))}
            if not peeled:
                break
            left -= peeled
        for step in left:
            for edge in step.uses:
                edge.may_cycle = edge.target in left


class Plan:
    """What has to be made for one item now: ``add`` what is wanted, then read the rest."""

    __slots__ = ("_can", "_coming", "_known", "_seen", "skipped", "start", "waiting")

    def __init__(self, known: Known, graph: Graph) -> None:
        self._known = known
        # By key, not by agent: what another agent is writing already must not be written, and paid, twice.
        self._coming = graph.coming(known) if known.active else frozenset[Node]()
        self._can: dict[Node, bool] = {}
        self._seen: set[Node] = set()
        self.start: list[Start] = []
        self.waiting: list[Waiting] = []
        self.skipped: list[Skipped] = []

    def can_come(self, step: Step, occasion: Occasion) -> bool:
        """Whether the step's output, which is missing, is on its way or could be made."""
        node = (step.slug, occasion)
        known = self._can.get(node)
        if known is None:
            known = self._find_out(step, occasion, node)
            self._can[node] = known
        return known

    def add(self, step: Step, occasion: Occasion, why: str, pulled: str = "") -> None:
        """Plan a step whose output is missing, and, backwards, the steps that write what it takes.

        ``why`` says what is wanted, ``pulled`` who takes this step's output. A step that cannot run pulls
        nothing: nobody would take what it would have used.
        """
        node = (step.slug, occasion)
        if node in self._seen:
            return
        self._seen.add(node)
        if (step.writes, occasion) in self._coming or node in self._known.failed or not step.is_enabled:
            return
        waits: list[str] = []
        if step.needs:
            needs = self._missing(step.needs, occasion)
            lost = [gap for gap in needs if not self._comes(gap)]
            self._pull(lost or needs, why)
            if lost:
                self.skipped.append(Skipped(step.slug, occasion, tuple(edge.key for edge, _ in lost)))
                return
            waits += [edge.key for edge, _ in needs]
        if step.uses:
            uses = [gap for gap in self._missing(step.uses, occasion) if not self._is_circle(gap, node)]
            self._pull(uses, why)
            waits += [gap[0].key for gap in uses if self._comes(gap)]
        if waits:
            self.waiting.append(Waiting(step.slug, occasion, tuple(waits)))
        else:
            self.start.append(Start(step.slug, occasion, step.writes, f"{why}; {pulled}" if pulled else why))

    def _pull(self, gaps: list[Missing], why: str) -> None:
        for edge, occasion in gaps:
            if edge.target is not None:
                self.add(edge.target, occasion, why, edge.why)

    def _comes(self, gap: Missing) -> bool:
        edge, occasion = gap
        if edge.target is None:
            # Nobody writes it for this kind of occasion, but the item's own may be on its way.
            return (edge.key, None) in self._coming or (edge.key, occasion) in self._coming
        return self.can_come(edge.target, occasion)

    def _find_out(self, step: Step, occasion: Occasion, node: Node) -> bool:
        if (step.writes, occasion) in self._coming:
            return True
        if not step.is_enabled or node in self._known.failed:
            return False
        if not step.needs:
            return True
        # Whoever needs, through others, what only he himself could bring, cannot start.
        self._can[node] = False
        return all(self._comes(gap) for gap in self._missing(step.needs, occasion))

    def _missing(self, edges: tuple[Edge, ...], occasion: Occasion) -> list[Missing]:
        current = self._known.current
        found: list[Missing] = []
        for edge in edges:
            target = edge.target
            at = None if target is not None and target.is_item else occasion
            # Nobody may write it for this kind of occasion, but a person may have written it for the item.
            if (edge.key, at) not in current and (target is not None or (edge.key, None) not in current):
                found.append((edge, at))
        return found

    def _is_circle(self, gap: Missing, user: Node) -> bool:
        """Whether what is missing waits, through others, for its user: then the user does not wait for it."""
        if not gap[0].may_cycle:
            return False
        left, seen = [gap], set()
        while left:
            edge, occasion = left.pop()
            step = edge.target
            if step is None:
                continue
            node = (step.slug, occasion)
            if node == user:
                return True
            if node in seen or (step.writes, occasion) in self._coming or not self.can_come(step, occasion):
                continue
            seen.add(node)
            left += self._missing((*step.needs, *step.uses), occasion)
        return False


def find_cycles(agents: Sequence[AgentView]) -> list[tuple[str, ...]]:
    """The circles in which agents wait for each other, each once, as slugs from the first by name."""
    found: set[tuple[str, ...]] = set()
    for start in Graph(agents).steps():
        path = _way_back(start)
        if path:
            first = path.index(min(path))
            found.add(tuple(path[first:] + path[:first]))
    return sorted(found)


def _way_back(start: Step) -> list[str]:
    """The shortest way from a step over what it takes back to itself, as slugs; empty if there is none."""
    ways: list[tuple[Step, list[str]]] = [(start, [start.slug])]
    seen: set[Step] = set()
    for step, path in ways:
        for edge in (*step.needs, *step.uses):
            target = edge.target
            if target is start:
                return path
            if target is not None and target not in seen:
                seen.add(target)
                ways.append((target, [*path, target.slug]))
    return []
