"""Rules as people write and read them: what is refused on saving, and each rule as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol

from pydantic import TypeAdapter, ValidationError

from agents.spec import ITEM, DepartmentSpec, serves_kind
from runs.clauses import FACET, FAILED, HAS, LACKS, STATUS, TAGS, TRIGGER, listed
from runs.models import Trigger
from runs.plan import OTHER, AgentView, Graph, find_cycles
from runs.router import RuleView
from runs.trials import simulate_rule
from runs.wording import HAPPENED, OCCASIONS, facet_label, in_words, say_value

__all__ = [
    "CLAUSES",
    "check_configuration",
    "check_rule",
    "rule_sentence",
    "say_condition",
    "simulate_rule",
    "validate_rule",
    "validate_want",
    "validate_when",
]

CLAUSES: dict[str, str] = {
    STATUS: "a list of statuses; the item has one of them",
    HAS: "a list of output keys; all are there",
    LACKS: "a list of output keys; none is there",
    FAILED: "a list of agents; all have failed",
    TRIGGER: "a list of trigger kinds; one is open and due",
    FACET: "an object of promoted fields, each with a list of values; each field has one of its values",
    TAGS: "a list of tags; the item has all of them",
}
"""Every clause that ``when`` may have, with what it takes and when it holds."""

_SCALARS = (str, int, float, bool, type(None))


class AnyRule(Protocol):
    """A rule in any of its forms: declared, stored, or as the router sees it."""

    @property
    def name(self) -> str: ...
    @property
    def when(self) -> Any: ...
    @property
    def want(self) -> Any: ...


def check_rule(
    rule: RuleView, *, kind: DepartmentSpec, rules: Sequence[RuleView], agents: Sequence[AgentView]
) -> list[str]:
    """Why the rule cannot be saved among the others, in sentences; empty if it can."""
    refused = validate_rule(rule.when, rule.want, kind=kind, agents=agents)
    return refused or simulate_rule(rule, kind=kind, rules=rules, agents=agents)


def validate_rule(when: Any, want: Any, *, kind: DepartmentSpec, agents: Sequence[AgentView]) -> list[str]:
    """What is wrong with a rule by itself, in sentences that name what is known; empty if nothing is."""
    found = validate_when(when, kind=kind, agents=agents)
    return [*validate_want(when, want, agents), *found] if isinstance(when, Mapping) else found


def validate_when(when: Any, *, kind: DepartmentSpec, agents: Sequence[AgentView]) -> list[str]:
    """What is wrong with the clauses by themselves, in sentences that name what is known; empty if nothing is."""
    if not isinstance(when, Mapping):
        return [f"“when” is an object of clauses. Known clauses: {_names(CLAUSES)}."]
    found: list[str] = []
    known: dict[str, tuple[str, Iterable[str]]] = {
        STATUS: ("status", (status.slug for status in kind.statuses)),
        HAS: ("output key", sorted({agent.writes for agent in agents})),
        LACKS: ("output key", sorted({agent.writes for agent in agents})),
        FAILED: ("agent", (agent.slug for agent in agents)),
        TRIGGER: ("kind of trigger", Trigger.Kind.values),
    }
    for clause, value in when.items():
        if clause not in CLAUSES:
            found.append(f"There is no clause “{clause}”. Known clauses: {_names(CLAUSES)}.")
        elif clause == FACET:
            found += _validate_facets(value, kind)
        elif not listed(value):
            found.append(f"The clause “{clause}” takes {CLAUSES[clause].partition(';')[0]}, at least one.")
        elif clause in known:
            noun, names = known[clause]
            found += _unknown(noun, listed(value) or (), tuple(names))
    return found


def rule_sentence(rule: AnyRule, kind: DepartmentSpec | None = None) -> str:
    """The rule as a person says it: When the lead is new and its tier is Hot, the email is wanted."""
    if not rule.want:
        return "Nothing is wanted yet: choose at least one output."
    wanted = _join([f"the {in_words(key)}" for key in rule.want], "and")
    verb = "is" if len(rule.want) == 1 else "are"
    condition = say_condition(rule.when, kind)
    if not condition:
        return f"{wanted[:1].upper()}{wanted[1:]} {verb} always wanted."
    return f"When {condition}, {wanted} {verb} wanted."


def say_condition(
    when: Mapping[str, Any],
    kind: DepartmentSpec | None = None,
    also: Mapping[str, Callable[[Any], str]] | None = None,
) -> str:
    """The clauses as a person says them: the lead is new and its tier is Hot; empty if there are none.

    ``kind`` knows what statuses and promoted fields are called. ``also``: clauses that only some rules have, each
    with what says its value.
    """
    known = {**_sentences(kind), **(also or {})}
    parts = [say(when[clause]) for clause, say in known.items() if clause in when]
    parts += [f"the unknown clause “{clause}” holds" for clause in when if clause not in known]
    first = next((number for number, part in enumerate(parts) if part.startswith(("it ", "its "))), None)
    if first is not None:
        pronoun, _, rest = parts[first].partition(" ")
        parts[first] = f"the {kind.item_label if kind else 'item'}{'’s' if pronoun == 'its' else ''} {rest}"
    return _join(parts, "and") if len(parts) < 3 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def check_configuration(rules: Sequence[RuleView], agents: Sequence[AgentView]) -> list[str]:
    """What in a department's agents and rules does not fit together, in sentences for an administrator."""
    found = _several_writers(agents)
    written = {agent.writes for agent in agents}
    for agent in agents:
        for key in agent.needs:
            if key not in written:
                found.append(f"The agent {agent.slug} needs “{key}”, which no agent writes. It can never start.")
    graph = Graph(agents)
    for rule in rules:
        for kind in listed(rule.when.get(TRIGGER)) or (ITEM,):
            for key in rule.want:
                step = graph.step(key, kind if kind in graph.kinds else OTHER)
                if step is None:
                    found.append(f"The rule “{rule.name}” wants “{key}”, which no agent writes for {_kind(kind)}.")
                elif not step.is_enabled:
                    found.append(f"The rule “{rule.name}” wants “{key}”, but {step.slug}, who writes it, is disabled.")
    for cycle in find_cycles(agents):
        circle = " → ".join((*cycle, cycle[0]))
        found.append(f"These agents wait for each other in a circle: {circle}. Take one key out of their inputs.")
    return found


def _several_writers(agents: Sequence[AgentView]) -> list[str]:
    enabled = [agent for agent in agents if agent.is_enabled]
    doubled: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for kind in sorted(Graph(agents).kinds):
        writers: dict[str, list[str]] = {}
        for agent in enabled:
            if serves_kind(agent.serves, kind):
                writers.setdefault(agent.writes, []).append(agent.slug)
        for key, slugs in writers.items():
            if len(slugs) > 1:
                doubled.setdefault((key, tuple(slugs)), []).append(_kind(kind))
    return [
        f"{_join(slugs, 'and')} {'both' if len(slugs) == 2 else 'all'} write “{key}” for {_join(kinds, 'and')}. "
        "One agent writes a key for one kind of occasion: narrow what they serve, or disable all but one."
        for (key, slugs), kinds in doubled.items()
    ]


def validate_want(when: Mapping[str, Any], want: Any, agents: Sequence[AgentView]) -> list[str]:
    """What is wrong with what a rule wants, in sentences that name what is known; empty if nothing is."""
    keys = listed(want)
    if not keys:
        return ["Choose at least one output that is wanted."]
    found = _unknown("output key", keys, tuple(sorted({agent.writes for agent in agents})))
    if found:
        return found
    graph = Graph(agents)
    for kind in listed(when.get(TRIGGER)) or (ITEM,):
        if kind != ITEM and kind not in Trigger.Kind.values:
            continue  # told as an unknown kind
        for key in keys:
            if graph.step(key, kind if kind in graph.kinds else OTHER) is None:
                found.append(f"No agent writes “{key}” for {_kind(kind)}.")
    return found


def _validate_facets(value: Any, kind: DepartmentSpec) -> list[str]:
    if not isinstance(value, Mapping) or not value:
        return [f"The clause “facet” takes {CLAUSES[FACET].partition(';')[0]}, at least one."]
    known = sorted({name for agent in kind.agents for name in agent.facets})
    found = _unknown("promoted field", value, known)
    for name, values in value.items():
        if not isinstance(values, list | tuple) or not values:
            found.append(f"The promoted field “{name}” takes a list of values, at least one.")
        elif name in known:
            found += [
                f"The field “{name}” can never be {one!r}."
                for one in values
                if not isinstance(one, _SCALARS) or not _can_be(kind, name, one)
            ]
    return found


def _can_be(kind: DepartmentSpec, name: str, value: Any) -> bool:
    """Whether an agent's schema lets the promoted field have the value."""
    for agent in kind.agents:
        field = agent.schema.model_fields.get(name)
        if name not in agent.facets:
            continue
        if field is None:
            return True
        annotation: Any = Annotated[field.annotation, field]
        try:
            TypeAdapter(annotation).validate_python(value, strict=True)
        except ValidationError:
            continue
        return True
    return False


def _unknown(noun: str, words: Iterable[str], known: Sequence[str]) -> list[str]:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s".replace("kind of triggers", "kinds of trigger")
    return [f"There is no {noun} “{word}”. Known {plural}: {_names(known)}." for word in words if word not in known]


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _join(parts: Sequence[str], word: str) -> str:
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _kind(kind: str) -> str:
    if kind == OTHER:
        return "every other occasion"
    return "the item" if kind == ITEM else OCCASIONS.get(kind, f"a {in_words(kind)}")


def _say_status(slug: str, kind: DepartmentSpec | None) -> str:
    label = next((status.label for status in kind.statuses if status.slug == slug), "") if kind else ""
    return label[:1].lower() + label[1:] or in_words(slug)


def _say_facets(wanted: Mapping[str, Sequence[Any]], kind: DepartmentSpec | None) -> str:
    parts = [f"its {facet_label(name, kind)} is {_join(say_values(v), 'or')}" for name, v in wanted.items()]
    return _join(parts, "and")


def say_values(values: Sequence[Any]) -> list[str]:
    """Values of a promoted field in words; whole numbers in a row as one: ``1 to 12``."""
    said: list[str] = []
    start: int | None = None
    for number, value in enumerate(values):
        following = values[number + 1] if number + 1 < len(values) else None
        if type(value) is int and type(following) is int and following == value + 1:
            start = value if start is None else start
        elif start is not None:
            said.append(f"{start} to {value}" if value - start > 1 else f"{start} or {value}")
            start = None
        else:
            said.append(say_value(value))
    return said


def _sentences(kind: DepartmentSpec | None) -> dict[str, Callable[[Any], str]]:
    return {
        TRIGGER: lambda kinds: _join([HAPPENED.get(each, f"a {in_words(each)} is open") for each in kinds], "or"),
        STATUS: lambda slugs: f"it is {_join([_say_status(slug, kind) for slug in slugs], 'or')}",
        TAGS: lambda tags: f"it is tagged {_join(tags, 'and')}",
        HAS: lambda keys: f"it has {_join([f'the {in_words(key)}' for key in keys], 'and')}",
        LACKS: lambda keys: f"it has no {_join([in_words(key) for key in keys], 'and no')}",
        FAILED: lambda slugs: (
            f"the {_join([in_words(s) for s in slugs], 'and')} {'has' if len(slugs) == 1 else 'have'} failed"
        ),
        FACET: lambda wanted: _say_facets(wanted, kind),
    }
