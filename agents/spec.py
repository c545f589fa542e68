"""What a kind of department declares in code, and the registry that holds the declarations.

An app beside ``leads`` writes one ``DepartmentSpec`` and calls ``register`` in its ``AppConfig.ready``.
The engine reaches a kind only through this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel

ITEM = "item"
"""The occasion of an output that is made for the item itself, as a kind of occasion in ``AgentSpec.serves``."""

Payload = Mapping[str, Any]
When = dict[str, Any]


def serves_kind(serves: Sequence[str], occasion_kind: str) -> bool:
    """Whether an agent that lists these kinds of occasion works for this one; an empty list means all."""
    return not serves or occasion_kind in serves


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The default configuration of one agent; ``sync_departments`` copies it to an ``Agent`` row."""

    slug: str
    job: str
    model: str
    writes: str
    schema: type[BaseModel]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Keys of the department's settings that this agent is told."""
    facets: tuple[str, ...] = ()
    """Fields of the output that rules may test with a ``facet`` clause."""
    conversation: bool = False
    """Whether the agent sees the conversation: a summary and the last three messages."""
    scope: Literal["item", "occasion"] = "occasion"
    serves: tuple[str, ...] = ()
    """Kinds of occasion (``item`` or a trigger's kind) it writes its key for; empty means all."""
    effort: str = ""
    max_tokens: int = 4_000
    timeout_seconds: int = 120
    latency_target_seconds: int = 20
    fallback_models: tuple[str, ...] = ()
    reports_to: str = ""
    output_policy: Literal["auto", "review"] = "auto"


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """``when`` an item looks like this, ``want`` these outputs. The clauses are listed in ``runs.rules``."""

    name: str
    when: When
    want: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RiskRuleSpec:
    """``when`` an item looks like this, a draft about it has at least this risk. See ``runs.risk`` for the clauses."""

    name: str
    when: When
    risk: Literal[1, 2, 3]


# --- Facts: everything the router may know, as plain values --------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutputFact:
    """One current output. ``occasion`` is the trigger's id, None where the occasion is the item."""

    key: str
    occasion: int | None = None
    facets: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = "none"
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class RunFact:
    """One agent run that counts: active (queued or running), or failed and not yet retried or superseded."""

    agent: str
    occasion: int | None
    state: Literal["active", "failed"]
    is_running: bool = True
    """Of an active one: whether a worker holds it. One that is queued is not claimed while its agent is disabled."""


@dataclass(frozen=True, slots=True)
class TriggerFact:
    """One open trigger. ``id`` rises with age: the smallest is the oldest."""

    id: int
    kind: str
    is_due: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so about one item now. ``marks`` are what the engine knows of the conversation and of people:
    ``contacted`` (a mail went out), ``replied`` (a mail came in), ``answered`` (one went out after the last that
    came in), ``suppressed``, ``awaiting_review``."""

    status: str
    outputs: tuple[OutputFact, ...] = ()
    runs: tuple[RunFact, ...] = ()
    triggers: tuple[TriggerFact, ...] = ()
    tags: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()

    def facet(self, name: str) -> Any:
        """The value of a promoted field: the one of the newest occasion that has it, None if no output has it."""
        found = [o for o in self.outputs if name in o.facets]
        return max(found, key=lambda o: o.occasion or 0).facets[name] if found else None


# --- Effects: what an output implies, applied in the transaction that stores it ------------------------------


@dataclass(frozen=True, slots=True)
class OpenReview:
    """Ask a person about the output. ``ask`` is one sentence that ends in a question mark.

    ``at_deadline`` is what happens by itself when nobody has answered ``within`` this time. Never: send.
    """

    kind: str
    ask: str
    risk: int = 1
    within: timedelta = timedelta(days=1)
    at_deadline: Literal["nothing", "remind", "escalate", "reject"] = "remind"


@dataclass(frozen=True, slots=True)
class Suppress:
    """The item's person must not be written to again, by any department of the installation."""

    reason: str


@dataclass(frozen=True, slots=True)
class ScheduleTrigger:
    """Something wants an answer later: a follow-up in four days."""

    kind: str
    after: timedelta
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WithdrawTriggers:
    """Open triggers of this kind are no longer wanted (a reply came, so no follow-up)."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class SetItem:
    """Item columns that follow from the output: ``title``, ``priority``, ``tags``."""

    changes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Send:
    """Something is to leave the house, over one of the department's channels. Heeded for approved outputs only.

    ``purpose`` makes it one of a kind for the item and the occasion: it is never sent twice. ``content`` is what the
    channel renders: ``subject`` and ``body`` of a mail, the fields of a CRM update. ``to`` empty: the item's address.
    """

    channel: str
    purpose: str
    content: dict[str, Any]
    to: str = ""


Effect = OpenReview | Suppress | ScheduleTrigger | WithdrawTriggers | SetItem | Send


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """Something happened to an output: it was ``written``, ``approved``, ``rejected`` or ``sent``.

    ``occasion`` is the trigger's id, None where the occasion is the item; ``occasion_kind`` is ``item`` or the
    trigger's kind; ``occasion_payload`` the trigger's payload;
    ``settings`` the department's settings; ``payload`` the output's.
    """

    what: Literal["written", "approved", "rejected", "sent"]
    key: str
    payload: Payload
    occasion: int | None = None
    occasion_kind: str = ITEM
    occasion_payload: Payload = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class StatusSpec:
    """One status an item of the kind can have. ``colour`` is one of the design's status colours."""

    slug: str
    label: str
    colour: Literal["neutral", "progress", "good", "warning", "bad"] = "neutral"
    is_closing: bool = False
    is_resting: bool = False
    """Nothing more is expected to happen by itself, so nobody is asked why nothing does."""


@dataclass(frozen=True, slots=True)
class SettingsSection:
    """Settings of a kind that are shown on one page. ``means``: what changing them does, in a sentence or two.

    ``invented``: those of the keys that begin with an invented example, which must not stay in a real department.
    """

    slug: str
    label: str
    keys: tuple[str, ...]
    means: str = ""
    invented: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FirstStep:
    """Something that a new department needs. ``is_done`` is read from what is stored, never a tick of its own."""

    slug: str
    title: str
    is_done: bool
    says: str
    url: str = ""
    link_text: str = ""


@dataclass(frozen=True, slots=True)
class SampleItem:
    """An item on which rules are tried before they are saved: its facts, and what each key would then bring."""

    name: str
    facts: Facts
    facets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DepartmentSpec:
    """A kind of department. All callables are pure but ``load_fields``, which reads the kind's own tables
    in a fixed number of queries: ``load_fields(item_ids) -> {item_id: {field: value}}``."""

    kind: str
    label: str
    item_label: str
    agents: tuple[AgentSpec, ...]
    rules: tuple[RuleSpec, ...]
    statuses: tuple[StatusSpec, ...]
    settings_schema: type[BaseModel]
    souls_dir: str
    status: Callable[[Facts], str]
    effects: Callable[[OutputEvent], Sequence[Effect]]
    load_fields: Callable[[Iterable[int]], dict[int, dict[str, Any]]]
    samples: tuple[SampleItem, ...] = ()
    final_key: str = ""
    """The key whose output leaves the house once a person has approved it."""
    send_back_to: Mapping[str, str] = field(default_factory=dict)
    """Which key is written again when an output is sent back; its own if it is not listed."""
    correct: Callable[[str, Payload, Payload], dict[str, Any]] | None = None
    """``(key, payload, changes)``: the payload as a person corrects it, with what the changes imply; pure."""
    risk_rules: tuple[RiskRuleSpec, ...] = ()
    """How risky drafts are, beside what ``effects`` say; administrators change their copies."""
    address_field: str = "email"
    """The item field that holds the address of its person."""
    country_field: str = "country"
    """The item field with the ISO country code of its person, for quiet hours; empty: the department's time zone."""
    cost_dimensions: Mapping[str, str] = field(default_factory=dict)
    """What else costs can be broken down by: a name, and the way from an item to it (``lead__source``)."""
    outcomes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What costs are compared with: a name in the singular, and the statuses that say so when an item first has one."""
    item_url_name: str = ""
    filters: tuple[str, ...] = ()
    """Query parameters that narrow the kind's list of items."""
    select: Callable[[Any, Mapping[str, str]], Any] | None = None
    """``select(department, parameters)``: a queryset of the department's items that the kind's list would show."""
    filter_words: Callable[[Any, Mapping[str, str]], list[str]] | None = None
    """``filter_words(department, parameters)``: the same filter for reading, each part on its own."""
    read_filter: Callable[[Mapping[str, str], int | None], tuple[dict[str, str], Sequence[str]]] | None = None
    """``read_filter(parameters, user_id)``: those that narrow the list, whoever looks, and what could not be read."""
    unready: Callable[[Iterable[int]], set[int]] | None = None
    """Those of the items (ids) that are still being put together, so that no schedule may start work on them."""
    settings_sections: tuple[SettingsSection, ...] = ()
    """How the settings are grouped into pages; a setting that none names is on a page of those that are left."""
    first_sections: tuple[str, ...] = ()
    """Of those pages the ones that a new department has to fill in: what it starts with describes nobody."""
    first_steps: Callable[[Any], Sequence[FirstStep]] | None = None
    """The kind's own steps of a new department (a ``Department``), read from what is stored."""
    every_minute: Callable[[], None] | None = None
    """Housekeeping of the kind's own tables; may be called by several workers at once."""

    def agent(self, slug: str) -> AgentSpec:
        """The declaration of one agent; KeyError names the kind's agents if there is none."""
        for spec in self.agents:
            if spec.slug == slug:
                return spec
        known = ", ".join(a.slug for a in self.agents)
        raise KeyError(f"The kind {self.kind!r} declares no agent {slug!r}. It declares: {known}.")

    def writer(self, key: str, occasion_kind: str) -> AgentSpec | None:
        """The declaration of the agent that writes a key for a kind of occasion; None if nobody does."""
        found = (agent for agent in self.agents if agent.writes == key and serves_kind(agent.serves, occasion_kind))
        return next(found, None)

    def status_spec(self, slug: str) -> StatusSpec:
        """The declaration of a status; an unknown one (from an older release) is shown as it is."""
        return next((s for s in self.statuses if s.slug == slug), StatusSpec(slug, slug))


_registry: dict[str, DepartmentSpec] = {}


def register(spec: DepartmentSpec) -> None:
    """Make a kind known. Registering the same kind twice is a mistake in the code and says so."""
    if spec.kind in _registry and _registry[spec.kind] is not spec:
        raise ValueError(f"Two apps register the department kind {spec.kind!r}.")
    _registry[spec.kind] = spec


def kind(name: str) -> DepartmentSpec:
    """The declaration of a kind; LookupError says which are installed."""
    try:
        return _registry[name]
    except KeyError:
        known = ", ".join(sorted(_registry)) or "none"
        raise LookupError(f"No installed app declares the department kind {name!r}. Installed: {known}.") from None


def kinds() -> tuple[DepartmentSpec, ...]:
    """Every installed kind, by name."""
    return tuple(_registry[name] for name in sorted(_registry))
