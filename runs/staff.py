"""Who works here: departments with their agents, published SOULs, rules and prices, read once and used for a second.

A shift asks for this several hundred times a second. An administrator's change is in force a second later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models import IntegerField

from agents.caching import CacheWatch
from agents.models import Agent, Department, Installation, Soul
from agents.pricing import PriceBook, load_price_book
from agents.spec import ITEM, AgentSpec, DepartmentSpec, kind
from agents.statements import Among, Given, Statement
from runs.facts import AGENTS, load_routers
from runs.models import AgentRun
from runs.router import Router

FRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Desk:
    """One department as the engine sees it."""

    department: Department
    spec: DepartmentSpec
    router: Router
    agents: Mapping[int, Agent]
    souls: Mapping[int, Soul]
    """Published SOULs by agent id."""
    agent_ids: Mapping[str, int]
    is_working: bool
    """Whether new agent runs may start: the department's switch and the installation's both say so."""
    is_sending: bool = True
    """Whether anything may leave the house."""

    def agent_spec(self, agent: Agent) -> AgentSpec:
        """What code declares for an agent: its schema and facets."""
        return self.spec.agent(agent.slug)

    def others_who_write(self, run: AgentRun) -> list[Agent]:
        """Agents that write the same output for the same occasion, mostly none: one of them replaces the other."""
        agent = self.agents[run.agent_id]
        others = [other for other in self.agents.values() if other.writes == agent.writes and other.pk != agent.pk]
        if run.trigger is None:  # made once for the item, whatever asked for it
            return [other for other in others if other.scope == Agent.Scope.ITEM or ITEM in (other.serves or [ITEM])]
        mine = [other for other in others if other.scope == Agent.Scope.OCCASION]
        return [other for other in mine if not other.serves or run.trigger.kind in other.serves]


@dataclass(frozen=True, slots=True)
class Staff:
    """Every department whose kind is installed, and the price book."""

    desks: Mapping[int, Desk]
    prices: PriceBook
    caches: CacheWatch
    """Which beginnings of requests went out lately; outlives the rest."""
    read_at: float

    @property
    def working_ids(self) -> list[int]:
        """Departments that may start agent runs."""
        return [pk for pk, desk in self.desks.items() if desk.is_working]


def load_staff(caches: CacheWatch | None = None, *, only: int | None = None) -> Staff:
    """Read everything in a fixed number of queries. A department whose kind is not installed is left alone.

    ``only``: the id of the one department that a page is about.
    """
    departments = _EVERY.objects() if only is None else _ONLY.objects(department=only)
    above = Installation.objects.filter(pk=1).values_list("state", flat=True).first() or Department.State.RUNNING
    return Staff(load_desks(departments, above), load_price_book(), caches or CacheWatch(), read_at=time.monotonic())


def load_desks(departments: Sequence[Department], above: str) -> dict[int, Desk]:
    """The departments by id, in three queries. ``above``: the state of the installation."""
    members = AGENTS.objects(departments=[department.pk for department in departments])
    agents: dict[int, dict[int, Agent]] = {}
    for agent in members:
        agents.setdefault(agent.department_id, {})[agent.pk] = agent
    souls = {soul.agent_id: soul for soul in _PUBLISHED.objects(agents=[agent.pk for agent in members])}
    routers = load_routers(departments, members)
    desks = {}
    for department in departments:
        try:
            spec = kind(department.kind)
        except LookupError:
            continue
        team = agents.get(department.pk, {})
        desks[department.pk] = Desk(
            department=department,
            spec=spec,
            router=routers[department.pk],
            agents=team,
            souls={pk: souls[pk] for pk in team if pk in souls},
            agent_ids={agent.slug: pk for pk, agent in team.items()},
            is_working={department.state, above} <= set(Department.WORKING),
            is_sending=department.state == above == Department.State.RUNNING,
        )
    return desks


_EVERY = Statement(lambda: Department.objects.all())
_ONLY = Statement(lambda: Department.objects.filter(pk=Given("department", IntegerField())))
_PUBLISHED = Statement(
    lambda: Soul.objects.filter(Among("agent_id", "agents"), status=Soul.Status.PUBLISHED).order_by()
)


class StaffRoom:
    """Hands out the staff, read again when it is older than ``FRESH_SECONDS``. Used by one thread."""

    def __init__(self) -> None:
        self._staff: Staff | None = None
        self._caches = CacheWatch()

    def get(self) -> Staff:
        """The staff, at most a second old."""
        if self._staff is None or time.monotonic() - self._staff.read_at > FRESH_SECONDS:
            self._staff = load_staff(self._caches)
        return self._staff
