"""Why something ran for an item, or did not: the router's trace in sentences, what started what, what comes when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.spec import DepartmentSpec, Facts
from runs.clauses import FACET, FAILED, STATUS, TAGS, TRIGGER
from runs.models import AgentRun, Item, Rule, Trigger
from runs.router import Decision
from runs.rules import rule_sentence, say_condition
from runs.wording import HAPPENED, facet_label, in_words, say_value

RUNS = 12
_STATES = {
    "starts": "starts next",
    "active": "at work or queued",
    "skipped": "left out",
    "current": "has written",
    "failed": "has failed",
    "disabled": "switched off",
}
"""The states of agents in the trace that are no words yet."""
_WANTED = {"current": "is there"}
_SO = {FAILED: "failed", TAGS: "its tags"}


@dataclass(frozen=True, slots=True)
class Tried:
    """One rule as it was tried on the item.

    ``clauses`` are those that decided, in words: all of a match, else what failed, each with what is so instead.
    """

    name: str
    sentence: str
    holds: bool
    trigger: Trigger | None
    clauses: tuple[tuple[str, str], ...]


def why_context(item: Item, decision: Decision, facts: Facts) -> dict[str, Any]:
    """What the router would decide about the item now, and why; what it decided lately; five queries."""
    titles = {agent.slug: agent.title for agent in item.department.agents.all()}
    numbers = [trigger.id for trigger in facts.triggers]
    triggers = {trigger.pk: trigger for trigger in Trigger.objects.filter(pk__in=numbers)}
    spec = item.department.spec
    enabled = Rule.objects.filter(department=item.department_id, is_enabled=True)
    sentences = {rule.name: rule_sentence(rule, spec) for rule in enabled}
    runs = item.agent_runs.select_related("agent", "trigger").order_by("-pk")
    status = spec.status_spec(item.status)
    return {
        "facts": facts,
        "rests": status.is_resting or status.is_closing,
        "decision": decision,
        "starts": [(titles.get(start.agent, start.agent), start.why) for start in decision.start],
        "rules": _rules(decision, sentences, triggers, spec),
        "agents": [
            {
                **agent,
                "title": titles.get(agent["agent"], agent["agent"]),
                "said": _STATES.get(agent["state"], agent["state"]),
                "trigger": triggers.get(agent["occasion"]),
                "keys": [in_words(key) for key in agent.get("keys", ())],
            }
            for agent in decision.trace["agents"]
        ],
        "wanted": [(entry["key"], _WANTED.get(entry["state"], entry["state"])) for entry in decision.trace["wanted"]],
        "started": list(runs[:RUNS]),
        "failed": list(runs.filter(status=AgentRun.Status.FAILED)[:RUNS]),
        "coming": sorted(
            (trigger for trigger in triggers.values() if not _is_due(trigger, facts)), key=lambda t: (t.due_at, t.pk)
        ),
    }


def _rules(
    decision: Decision, sentences: Mapping[str, str], triggers: Mapping[int, Trigger], spec: DepartmentSpec
) -> list[Tried]:
    """Those that hold first; each in the order of the rules."""
    found = [
        Tried(
            name=rule["name"],
            sentence=sentences.get(rule["name"], ""),
            holds=rule["holds"],
            trigger=triggers.get(rule["occasion"]),
            clauses=tuple(
                (say_condition({clause["clause"]: clause["listed"]}, spec), _instead(clause, spec))
                for clause in rule["clauses"]
                if rule["holds"] or not clause["holds"]
            ),
        )
        for rule in decision.trace["rules"]
    ]
    return sorted(found, key=lambda rule: not rule.holds)


def _instead(clause: Mapping[str, Any], spec: DepartmentSpec) -> str:
    """What is so where a clause does not hold; empty where it does."""
    name, found = clause["clause"], clause["found"]
    if clause["holds"]:
        return ""
    if name == STATUS:
        return f"it is: {spec.status_spec(found).label}"
    if name == FACET:
        values = found if isinstance(found, Mapping) else {}
        return ", ".join(f"its {facet_label(key, spec)} is {_value(values.get(key))}" for key in clause["listed"])
    if name == TRIGGER:
        return ", ".join(HAPPENED.get(kind, kind) for kind in found or ()) or "nothing is open now"
    return f"{_SO.get(name, 'it has')}: {_listed(found)}"


def _value(value: Any) -> str:
    return "not known" if value is None else say_value(value)


def _listed(found: Any) -> str:
    return ", ".join(in_words(str(each)) for each in found or ()) or "none"


def _is_due(trigger: Trigger, facts: Facts) -> bool:
    return any(fact.id == trigger.pk and fact.is_due for fact in facts.triggers)
