"""How risky a draft is: at least what the kind says, raised by the rules that an administrator sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.spec import DepartmentSpec, Facts
from runs import outbox
from runs.clauses import Known, compile_clauses, listed
from runs.models import AutoApproval, Output, RiskRule
from runs.plan import AgentView
from runs.rules import say_condition, validate_when
from runs.staff import Desk

MARKS = "marks"
FIRST_CONTACT, NEW_SOUL = "first_contact", "new_soul"
KNOWN_MARKS: dict[str, str] = {
    FIRST_CONTACT: "nothing was sent to the person before",
    NEW_SOUL: "too few approved mails have left since a SOUL, model, rule or setting changed",
}
"""What a risk rule may ask beside the clauses of rules, and when it is so."""
HIGHEST = 3
RISK_WORDS = {1: "low", 2: "medium", 3: "high"}


def judge_risk(output: Output, facts: Facts, desk: Desk, *, base: int) -> tuple[int, str]:
    """The risk of a draft, 1 to 3, and the names of the rules that raised it. ``facts`` are the item's as it is now."""
    rules = RiskRule.objects.filter(department=desk.department, is_enabled=True, risk__gt=base).order_by(
        "position", "pk"
    )
    known, marks = Known(facts), _Marks(facts, desk)
    raised = [rule for rule in rules if holds(rule.when, known, output.trigger_id, marks)]
    risk = max([base, *(rule.risk for rule in raised)])
    return risk, "; ".join(rule.name for rule in raised if rule.risk == risk)[:300]


def holds(when: Mapping[str, Any], known: Known, occasion: int | None, marks: _Marks) -> bool:
    """Whether every clause holds. An unknown clause or mark never does."""
    wanted = listed(when.get(MARKS, ()))
    clauses = compile_clauses({name: value for name, value in when.items() if name != MARKS})
    return (
        wanted is not None
        and all(clause.holds(known, occasion) for clause in clauses)
        and all(marks.has(mark) for mark in wanted)
    )


def marks_of(facts: Facts, desk: Desk) -> _Marks:
    """What ``holds`` asks for marks."""
    return _Marks(facts, desk)


def risk_sentence(rule: RiskRule, kind: DepartmentSpec | None = None) -> str:
    """The rule as a person says it: When the lead’s tier is Hot, the risk of a draft is at least high."""
    condition = say_when(rule.when, kind)
    said = f"the risk of a draft is at least {RISK_WORDS.get(rule.risk, rule.risk)}"
    return f"When {condition}, {said}." if rule.when else f"{said[:1].upper()}{said[1:]}, always."


def approval_sentence(rule: AutoApproval, kind: DepartmentSpec | None = None) -> str:
    """The automatic approval as a person says it, with the share that still goes to a person."""
    when = f" when {say_when(rule.when, kind)}" if rule.when else ""
    risk = {1: "low risk", 2: "low or medium risk"}.get(rule.max_risk, "any risk")
    share = f"{rule.sample_percent} of 100 go to a person all the same" if rule.sample_percent else "without a sample"
    return f"Drafts of the {rule.agent.title} of {risk} are approved without a person{when}; {share}."


def say_when(when: Mapping[str, Any], kind: DepartmentSpec | None = None) -> str:
    """The clauses of a risk rule or an automatic approval as a person says them; always, if there are none."""
    return say_condition(when, kind, {MARKS: _say_marks}) or "always"


def _say_marks(marks: Sequence[str]) -> str:
    return " and ".join(KNOWN_MARKS.get(mark, f"the unknown mark “{mark}” is set") for mark in marks)


def validate_risk_when(when: Any, *, kind: DepartmentSpec, agents: Sequence[AgentView]) -> list[str]:
    """What is wrong with the clauses of a risk rule or of an automatic approval, in sentences; empty if nothing is."""
    if not isinstance(when, Mapping):
        return validate_when(when, kind=kind, agents=agents)
    found = validate_when({n: v for n, v in when.items() if n != MARKS}, kind=kind, agents=agents)
    if MARKS not in when:
        return found
    known = ", ".join(KNOWN_MARKS)
    words = listed(when[MARKS])
    if not words:
        return [*found, f"The clause “{MARKS}” takes a list of marks, at least one. Known marks: {known}."]
    return [*found, *(f"There is no mark “{w}”. Known marks: {known}." for w in words if w not in KNOWN_MARKS)]


class _Marks:
    """The marks of one draft; what takes a query is asked when a rule asks."""

    def __init__(self, facts: Facts, desk: Desk) -> None:
        self._facts, self._desk = facts, desk
        self._is_new: bool | None = None

    def has(self, mark: str) -> bool:
        if mark == FIRST_CONTACT:
            return "contacted" not in self._facts.marks
        if mark != NEW_SOUL:
            return False
        if self._is_new is None:
            self._is_new = not outbox.is_proven(self._desk.department, outbox.configuration_of(self._desk))
        return self._is_new
