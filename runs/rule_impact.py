"""What other rules would change: the latest items, routed by the rules in force and by those of a draft.

Nothing is written and nothing is locked. The facts come in batches of a fixed number of queries; the router is pure.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from agents.models import Agent, Department
from agents.spec import DepartmentSpec, Facts
from runs.database import now as database_now
from runs.dispatch import MAX_HANDLED
from runs.facts import agent_view, load_facts, rule_view
from runs.models import Item, Rule
from runs.router import Router, RuleView

BATCH = 200
MOST = 1_000
USUAL = 200
NAMED = 20
"""So many items of a group are named; the others are counted."""
Kind = str
STARTS, STOPS, CLOSES, KEEPS_OPEN = "starts", "stops", "closes", "keeps_open"


@dataclass(frozen=True, slots=True)
class Group:
    """Items for which the same would change. ``agents``: who would work, or no longer; else kinds of trigger."""

    kind: Kind
    names: tuple[str, ...]
    items: tuple[Item, ...]
    count: int

    @property
    def left_out(self) -> int:
        """How many are not named."""
        return self.count - len(self.items)


@dataclass(frozen=True, slots=True)
class Impact:
    """What would change for the latest items.

    ``held``: left out, because a person has paused, taken over or closed them. ``starting``: items for which
    something would start that does not now, ``steps`` in all, by agent id.
    """

    looked_at: int
    held: int
    unchanged: int
    starting: int
    steps: Counter[int]
    groups: tuple[Group, ...]
    has_more: bool
    seconds: float

    @property
    def total_steps(self) -> int:
        """All steps that would start or follow."""
        return self.steps.total()


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one set of rules would do with an item: who starts or waits at which occasion, and what is closed."""

    planned: frozenset[tuple[str, int | None]]
    closed: frozenset[int]


def rules_in_force(department: Department) -> list[RuleView]:
    """The enabled rules in their order."""
    rows = Rule.objects.filter(department=department, is_enabled=True).order_by("position", "pk")
    return [rule_view(rule) for rule in rows]


def rules_with(rules: Sequence[Rule], draft: RuleView | None, *, instead_of: Rule | None) -> list[RuleView]:
    """The enabled ones of ``rules`` with a draft in the place of one, or behind all; a draft of None takes it out."""
    found: list[RuleView] = []
    for rule in rules:
        if instead_of is not None and rule.pk == instead_of.pk:
            found += [draft] if draft is not None else []
        elif rule.is_enabled:
            found.append(rule_view(rule))
    return found if instead_of is not None or draft is None else [*found, draft]


def foresee(
    department: Department, after: Sequence[RuleView], *, limit: int = USUAL, before: Sequence[RuleView] | None = None
) -> Impact:
    """What the rules ``after`` would change for the latest ``limit`` items, at most 1,000."""
    began, now, limit = time.monotonic(), database_now(), min(max(limit, 1), MOST)
    agents = list(Agent.objects.filter(department=department).order_by("pk"))
    views = [agent_view(agent) for agent in agents]
    routers = Router(rules_in_force(department) if before is None else before, views), Router(after, views)
    tally = _Tally({agent.slug: agent for agent in agents})
    looked_at = 0
    for batch in _batches(department, limit):
        looked_at += len(batch)
        _look(batch, routers, department.spec, tally, now)
    return Impact(
        looked_at=looked_at,
        held=tally.held,
        unchanged=tally.unchanged,
        starting=tally.starting,
        steps=tally.steps,
        groups=tally.groups(),
        has_more=looked_at == limit,
        seconds=time.monotonic() - began,
    )


def look_ahead(router: Router, facts: Facts, spec: DepartmentSpec) -> Outlook:
    """What the router does with an item until it waits for an agent: a trigger that is settled makes way."""
    facts = replace(facts, status=spec.status(facts))
    closed: set[int] = set()
    for _ in range(MAX_HANDLED):
        decision = router.decide(facts)
        gone = {*decision.handled, *decision.noted}
        if not gone:
            break
        closed |= gone
        facts = replace(facts, triggers=tuple(trigger for trigger in facts.triggers if trigger.id not in gone))
        facts = replace(facts, status=spec.status(facts))
    planned = {(start.agent, start.occasion) for start in decision.start}
    planned |= {(waiting.agent, waiting.occasion) for waiting in decision.waiting}
    return Outlook(frozenset(planned), frozenset(closed))


class _Tally:
    """Counts while the batches go by, so that no facts are kept."""

    def __init__(self, agents: dict[str, Agent]) -> None:
        self._agents = agents
        self._groups: dict[tuple[Kind, tuple[str, ...]], list[Item]] = {}
        self._counts: Counter[tuple[Kind, tuple[str, ...]]] = Counter()
        self.steps: Counter[int] = Counter()
        self.held = self.unchanged = self.starting = 0

    def add(self, item: Item, facts: Facts, before: Outlook, after: Outlook) -> None:
        """One item that the department may work on."""
        if before == after:
            self.unchanged += 1
            return
        gained, lost = after.planned - before.planned, before.planned - after.planned
        self.starting += bool(gained)
        self.steps.update(self._agents[slug].pk for slug, _ in gained)
        kinds = {trigger.id: trigger.kind for trigger in facts.triggers}
        self._put(STARTS, [self._agents[slug].title for slug in self._ordered(gained)], item)
        self._put(STOPS, [self._agents[slug].title for slug in self._ordered(lost)], item)
        self._put(CLOSES, sorted({kinds[pk] for pk in after.closed - before.closed}), item)
        self._put(KEEPS_OPEN, sorted({kinds[pk] for pk in before.closed - after.closed}), item)

    def groups(self) -> tuple[Group, ...]:
        """The largest first; what starts before what stops."""
        order = (STARTS, STOPS, CLOSES, KEEPS_OPEN)
        keys = sorted(self._groups, key=lambda key: (order.index(key[0]), -self._counts[key], key[1]))
        return tuple(
            Group(kind, names, tuple(self._groups[kind, names]), self._counts[kind, names]) for kind, names in keys
        )

    def _ordered(self, planned: frozenset[tuple[str, int | None]]) -> list[str]:
        slugs = {slug for slug, _ in planned}
        return [slug for slug in self._agents if slug in slugs]

    def _put(self, kind: Kind, names: Sequence[str], item: Item) -> None:
        if names:
            key = kind, tuple(names)
            self._counts[key] += 1
            named = self._groups.setdefault(key, [])
            if len(named) < NAMED:
                named.append(item)


def _batches(department: Department, limit: int) -> Iterator[list[Item]]:
    """The latest items, newest first, by key."""
    rows = Item.objects.filter(department=department).order_by("-pk")
    rows = rows.only("pk", "title", "status", "tags", "automation", "department")
    found, below = 0, None
    while found < limit:
        left = rows if below is None else rows.filter(pk__lt=below)
        batch = list(left[: min(BATCH, limit - found)])
        if not batch:
            return
        for item in batch:
            item.department = department  # for the address of its page
        found, below = found + len(batch), batch[-1].pk
        yield batch


def _look(
    batch: Sequence[Item], routers: tuple[Router, Router], spec: DepartmentSpec, tally: _Tally, now: datetime
) -> None:
    free = [item for item in batch if item.automation == Item.Automation.ACTIVE]
    tally.held += len(batch) - len(free)
    facts = load_facts(free, now=now)
    for item in free:
        known = facts[item.pk]
        tally.add(item, known, *(look_ahead(router, known, spec) for router in routers))
