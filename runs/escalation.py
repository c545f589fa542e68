"""Who is told: along the chain of command to the nearest one who wants to hear of it, else the administrators.

A target is written ``email:ops@acme.example``, ``slack``, ``slack:ACME_SLACK_URL`` (the name of an environment
variable) or ``log``; ``runs.channels`` delivers to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import User

from agents.models import Agent, Department, Member
from runs.absences import read_roster


def targets_for_agent(agent: Agent) -> list[str]:
    """Whom to tell of trouble with this agent.

    The first in the chain of command, the agent itself included, that names a person who can be written to or a
    channel; without one the department's administrators. A chain that bites its own tail ends there.
    """
    seen: set[int] = set()
    current: Agent | None = agent
    while current is not None and current.pk not in seen and current.department_id == agent.department_id:
        seen.add(current.pk)
        found = _named_by(current)
        if found:
            return found
        current = current.reports_to
    return targets_for_department(agent.department)


def targets_for_department(department: Department | None) -> list[str]:
    """The administrators of the department, of everything where it is None; empty where nobody can be reached."""
    if department is None:
        return _addresses(User.objects.filter(is_superuser=True))
    members = User.objects.filter(memberships__department=department, memberships__role=Member.Role.ADMINISTRATOR)
    return _addresses(members, department) or _addresses(User.objects.filter(is_superuser=True))


def _named_by(agent: Agent) -> list[str]:
    person = agent.escalate_to
    found = _addresses([person], agent.department) if person is not None else []
    channel = agent.escalate_channel.strip()
    return [*found, channel] if channel and channel not in found else found


def _addresses(people: Iterable[User], department: Department | None = None) -> list[str]:
    """Somebody who left, or has no address, cannot be told. For who is away, whoever covers in the department is."""
    there = [person for person in people if person.is_active]
    if department is not None and there:
        roster = read_roster()
        there = [roster.stand_in(person, department) for person in there]
    addresses = [person.email.strip() for person in there]
    return [f"email:{address}" for address in sorted(set(addresses)) if address]
