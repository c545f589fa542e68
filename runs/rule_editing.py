"""What a person does to the rules of a department: write, move, switch, delete. Each is checked, and an Action.

Edits of one department take turns on its row, so that each is checked among the rules that will be there with it.
``seen`` is the ``stamp`` of the rule as the person saw it: what somebody else has changed since is not overwritten.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from agents.models import Department
from runs.allowed import YES, Allowed, no
from runs.database import now as database_now
from runs.facts import agent_view, rule_view
from runs.models import Action, AutoApproval, LogEntry, RiskRule, Rule
from runs.plan import AgentView
from runs.risk import validate_risk_when
from runs.router import RuleView
from runs.rules import check_rule, validate_rule

CHANGED = "Somebody has changed it meanwhile. Look at it as it is now, and change it again if it is still wanted."
GONE = "Somebody has deleted it meanwhile."
MAX_NAME = 120
AnyRow = Rule | RiskRule | AutoApproval
_COLUMNS: dict[type[AnyRow], tuple[str, ...]] = {
    Rule: ("name", "position", "when", "want", "is_enabled"),
    RiskRule: ("name", "position", "when", "risk", "is_enabled"),
    AutoApproval: ("name", "agent_id", "when", "max_risk", "sample_percent", "is_enabled", "revoked_why"),
}
_NOUNS: dict[type[AnyRow], tuple[str, str]] = {
    Rule: ("rule", "rule"),
    RiskRule: ("risk_rule", "risk rule"),
    AutoApproval: ("auto_approval", "automatic approval"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule as a person wants it."""

    name: str
    when: Any
    want: Any
    is_enabled: bool = True

    @property
    def view(self) -> RuleView:
        """The same as the router would see it."""
        return RuleView(name=self.name, when=dict(self.when), want=tuple(self.want))


@dataclass(frozen=True, slots=True)
class Saved:
    """The row as it was saved, or in sentences why it was not. As a condition: whether it was."""

    row: AnyRow | None
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.row is not None


def stamp(row: AnyRow) -> str:
    """What a form remembers of the row it shows: changes with everything but the place in the order."""
    columns = [name for name in _COLUMNS[type(row)] if name != "position"]
    text = json.dumps([getattr(row, name) for name in columns], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_declared(row: AnyRow) -> bool:
    """Whether the kind declares it in code: the next sync would bring it back under its old name."""
    spec = row.department.spec
    if isinstance(row, Rule):
        return row.name in {declared.name for declared in spec.rules}
    return isinstance(row, RiskRule) and row.name in {declared.name for declared in spec.risk_rules}


def check_draft(draft: Draft, department: Department, *, rule: Rule | None) -> list[str]:
    """Why the draft cannot be saved in the place of ``rule``, or beside all others, in sentences."""
    name_problem = check_name(draft.name, department.rules.exclude(pk=rule.pk if rule else 0), rule)
    agents = agent_views(department)
    problems = validate_rule(draft.when, draft.want, kind=department.spec, agents=agents)
    if not problems and draft.is_enabled:
        others = department.rules.filter(is_enabled=True).exclude(pk=rule.pk if rule else 0)
        problems = check_rule(
            draft.view, kind=department.spec, rules=[rule_view(other) for other in others], agents=agents
        )
    return [*name_problem, *problems]


def check_name(name: str, others: QuerySet[Any], row: AnyRow | None) -> list[str]:
    """What is wrong with a name among the ``others``; a declared rule keeps the one it has."""
    if not name:
        return ["Give it a name: steps that it starts say so by it." if others.model is Rule else "Give it a name."]
    if len(name) > MAX_NAME:
        return [f"The name is longer than {MAX_NAME} characters."]
    if row is not None and is_declared(row) and name != row.name:
        return [f"“{row.name}” ships with Kontor and keeps its name. Disable it and write another one instead."]
    if others.filter(name=name).exists():
        return [f"There is another one with the name “{name}”."]
    return []


def agent_views(department: Department) -> list[AgentView]:
    """The department's agents as the router sees them."""
    return [agent_view(agent) for agent in department.agents.order_by("pk")]


def save_rule(*, department: Department, user: User, draft: Draft, rule: Rule | None = None, seen: str = "") -> Saved:
    """Write a new rule, behind all others, or change one. Checked again among the rules as they are now."""
    with transaction.atomic():
        held = _take_turn(department)
        found = _find(Rule, held, rule, seen) if rule else None
        if isinstance(found, str):
            return Saved(None, (found,))
        if problems := check_draft(draft, held, rule=found):
            return Saved(None, tuple(problems))
        row = found or Rule(department=held, position=held.rules.count() + 1)
        before = columns_of(row) if row.pk else {}
        row.name, row.when, row.want, row.is_enabled = draft.name, draft.when, list(draft.want), draft.is_enabled
        row.save()
        note(row, user, "change" if before else "add", before)
    return Saved(row)


def switch(*, row: AnyRow, user: User, is_enabled: bool, seen: str = "", reason: str = "") -> Allowed:
    """Enable or disable. What was revoked by itself is only enabled with a reason."""
    with transaction.atomic():
        found = _find(type(row), _take_turn(row.department), row, seen)
        if isinstance(found, str):
            return no(found)
        if found.is_enabled == is_enabled:
            return no(f"“{found.name}” is {'enabled' if is_enabled else 'disabled'} already.")
        if is_enabled and (problem := _why_not_enable(found, reason)):
            return no(problem)
        before = columns_of(found)
        found.is_enabled = is_enabled
        if isinstance(found, AutoApproval) and is_enabled:
            found.revoked_at, found.revoked_why = None, ""
        revocation = ("revoked_at", "revoked_why") if isinstance(found, AutoApproval) else ()
        found.save(update_fields=["is_enabled", *revocation])
        note(found, user, "enable" if is_enabled else "disable", before, reason)
    return YES


def move(*, row: Rule | RiskRule, user: User, to: int) -> Allowed:
    """Put a rule at a place of the order, from 1; beyond the end is the end. The others close up."""
    with transaction.atomic():
        found = _find(type(row), _take_turn(row.department), row, "")
        if isinstance(found, str):
            return no(found)
        model = type(found)
        rows = list(model._default_manager.filter(department=found.department_id).order_by("position", "pk"))
        was = [each.pk for each in rows].index(found.pk) + 1
        place = min(max(to, 1), len(rows))
        if place == was:
            return no(f"“{found.name}” is at place {was} already.")
        rows.insert(place - 1, rows.pop(was - 1))
        for position, each in enumerate(rows, start=1):
            if each.position != position:
                model._default_manager.filter(pk=each.pk).update(position=position)
        found.position = place
        note(found, user, "move", {"position": was}, after={"position": place})
    return YES


def delete(*, row: AnyRow, user: User, seen: str = "") -> Allowed:
    """Delete for good; what the kind declares is disabled instead."""
    with transaction.atomic():
        found = _find(type(row), _take_turn(row.department), row, seen)
        if isinstance(found, str):
            return no(found)
        if is_declared(found):
            return no(f"“{found.name}” ships with Kontor. Disable it instead: the next update would bring it back.")
        note(found, user, "delete", columns_of(found), after={})
        found.delete()
    return YES


def save_risk_rule(
    *, department: Department, user: User, name: str, when: Any, risk: int, row: RiskRule | None = None, seen: str = ""
) -> Saved:
    """Write a rule of risk, enabled and behind all others, or change one."""
    with transaction.atomic():
        held = _take_turn(department)
        found = _find(RiskRule, held, row, seen) if row else None
        if isinstance(found, str):
            return Saved(None, (found,))
        problems = check_name(name, held.risk_rules.exclude(pk=found.pk if found else 0), found)
        problems += _check_when(when, held)
        if risk not in (1, 2, 3):
            problems.append("The risk is 1, 2 or 3.")
        if problems:
            return Saved(None, tuple(problems))
        saved = found or RiskRule(department=held, position=held.risk_rules.count() + 1)
        before = columns_of(saved) if saved.pk else {}
        saved.name, saved.when, saved.risk = name, when, risk
        saved.save()
        note(saved, user, "change" if before else "add", before)
    return Saved(saved)


def save_auto_approval(
    *,
    department: Department,
    user: User,
    name: str,
    agent: str,
    when: Any,
    max_risk: int,
    sample_percent: int,
    row: AutoApproval | None = None,
    seen: str = "",
) -> Saved:
    """Write an automatic approval, disabled, or change one. Switching it on is an act of its own (``switch``)."""
    with transaction.atomic():
        held = _take_turn(department)
        found = _find(AutoApproval, held, row, seen) if row else None
        if isinstance(found, str):
            return Saved(None, (found,))
        problems = check_name(name, held.auto_approvals.exclude(pk=found.pk if found else 0), found)
        problems += _check_when(when, held)
        writer = held.agents.filter(slug=agent).first()
        if writer is None:
            problems.append("Choose whose drafts need no person.")
        if max_risk not in (1, 2, 3) or not 0 <= sample_percent <= 100:
            problems.append("The risk is 1, 2 or 3, and the sample 0 to 100 of 100.")
        if problems or writer is None:
            return Saved(None, tuple(problems))
        saved = found or AutoApproval(department=held)
        before = columns_of(saved) if saved.pk else {}
        saved.name, saved.agent, saved.when = name, writer, when
        saved.max_risk, saved.sample_percent = max_risk, sample_percent
        # Not whether it is on: a rejected draft may have switched it off since it was read.
        changed = ["name", "agent", "when", "max_risk", "sample_percent"]
        saved.save(update_fields=changed if saved.pk else None)
        note(saved, user, "change" if before else "add", before)
    return Saved(saved)


def _take_turn(department: Department) -> Department:
    return Department.objects.select_for_update(no_key=True).get(pk=department.pk)


def _find(model: type[Any], department: Department, row: AnyRow, seen: str) -> Any:
    """The row as it is now, locked, or why it is not the one that was seen.

    Locked, because automatic approvals are also switched off by who rejects a draft, without the department's turn.
    """
    rows = model._default_manager.select_for_update(no_key=True, of=("self",)).select_related("department")
    found = rows.filter(department=department, pk=row.pk).first()
    if found is None:
        return GONE
    return CHANGED if seen and seen != stamp(found) else found


def _why_not_enable(row: AnyRow, reason: str) -> str:
    if isinstance(row, Rule):
        draft = Draft(row.name, row.when, row.want)
        return " ".join(check_draft(draft, row.department, rule=row))
    if isinstance(row, AutoApproval) and row.revoked_at is not None and not reason.strip():
        return f"It was switched off by itself: {row.revoked_why} Say why it may approve again."
    return " ".join(_check_when(row.when, row.department))


def _check_when(when: Any, department: Department) -> list[str]:
    return validate_risk_when(when, kind=department.spec, agents=agent_views(department))


def columns_of(row: AnyRow) -> dict[str, Any]:
    """What an Action keeps of the row, by column."""
    return {name: getattr(row, name) for name in _COLUMNS[type(row)]}


def note(
    row: AnyRow,
    user: User,
    verb: str,
    before: dict[str, Any],
    reason: str = "",
    *,
    after: dict[str, Any] | None = None,
) -> None:
    """The Action and a line of the log. Before and after hold only what differs, and the name."""
    slug, noun = _NOUNS[type(row)]
    after = columns_of(row) if after is None else after
    names = {*before, *after} if after and before else {*before, *after, "name"}
    changed = {name for name in names if before.get(name) != after.get(name)}
    Action.objects.create(
        department_id=row.department_id,
        user=user,
        verb=f"{slug}_{verb}",
        target=f"{slug}:{row.pk}",
        before={name: before[name] for name in before if name in changed},
        after={name: after[name] for name in after if name in changed},
        reason=reason.strip()[:300],
    )
    why = f": {reason.strip()}" if reason.strip() else "."
    told = {"add": "wrote", "change": "changed", "move": "moved", "delete": "deleted"}.get(verb, f"{verb}d")
    LogEntry.objects.create(
        department_id=row.department_id,
        kind="rules",
        text=f"{user} {told} the {noun} “{row.name}”{why}",
        at=database_now(),
    )
