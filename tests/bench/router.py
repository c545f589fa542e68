"""How many decisions a second one core takes: 20 rules, ten agents, leads in the middle of their work.

The department is written down here, shaped like the sales that ship, so that the figures of two releases compare.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from agents.spec import Facts, OutputFact, RunFact, TriggerFact
from runs.router import AgentView, Router, RuleView

REPEATS = 7
ROUNDS = 3_000

AGENTS = (
    AgentView("intake", "intake", scope="item"),
    AgentView("qualifier", "qualification", uses=("intake",), scope="item"),
    AgentView("researcher", "research", uses=("intake", "qualification"), scope="item"),
    AgentView("strategist", "strategy", uses=("qualification", "research"), scope="item"),
    AgentView("writer", "draft", uses=("research", "strategy"), serves=("item",)),
    AgentView("followup_writer", "draft", uses=("research", "strategy"), serves=("follow_up",)),
    AgentView("reply_handler", "draft", uses=("qualification",), serves=("reply",)),
    AgentView("fact_checker", "fact_check", needs=("draft",), uses=("research",)),
    AgentView("formatter", "email", needs=("draft",), uses=("fact_check",)),
    AgentView("crm_scribe", "crm_update", uses=("qualification", "intake"), serves=("decision",)),
)
_TALKING = ["replied", "meeting", "won", "lost"]
_TIERS = ("Hot", "Warm", "Cold")
RULES = (
    RuleView("Classify", {"status": ["new"]}, ("intake",)),
    RuleView("Qualify", {"status": ["new"], "facet": {"category": ["lead"]}}, ("qualification",)),
    RuleView("Qualify the rest", {"status": ["new"], "failed": ["intake"]}, ("qualification",)),
    RuleView("Write", {"status": ["qualified"], "facet": {"tier": ["Hot", "Warm"]}}, ("email",)),
    RuleView("Write unqualified", {"status": ["new"], "failed": ["qualifier"]}, ("email",)),
    RuleView("Follow up", {"trigger": ["follow_up"], "status": ["contacted"]}, ("email",)),
    RuleView("Read", {"trigger": ["reply"], "status": _TALKING}, ("draft",)),
    RuleView("Answer", {"trigger": ["reply"], "status": _TALKING, "facet": {"opt_out": [False]}}, ("email",)),
    RuleView("Note", {"trigger": ["decision"]}, ("crm_update",)),
    # These look at every lead, whatever its status: the dear kind, which no index leaves out.
    *(
        RuleView(f"More {n}", {"has": ["strategy"], "facet": {"tier": [_TIERS[n % 3]]}}, ("research",))
        for n in range(11)
    ),
)

_RESEARCHED = (
    OutputFact("intake", facets={"category": "lead", "language": "en", "country": "DE"}),
    OutputFact("qualification", facets={"tier": "Hot", "score": 84}),
    OutputFact("research"),
    OutputFact("strategy"),
    OutputFact("draft"),
)
_CHECKED = (*_RESEARCHED, OutputFact("fact_check", facets={"unsupported": 0}))
_SENT = (*_CHECKED, OutputFact("email", verdict="approved"))
_CONTACTED = frozenset({"contacted"})

LEADS = {
    "drafted": Facts("qualified", _CHECKED, (RunFact("formatter", None, "active"),)),
    "to_format": Facts("qualified", _CHECKED),
    "to_check": Facts("qualified", _RESEARCHED),
    "contacted": Facts("contacted", _SENT, triggers=(TriggerFact(5, "follow_up", False),), marks=_CONTACTED),
    "reply": Facts("replied", _SENT, triggers=(TriggerFact(7, "reply"),), marks=_CONTACTED),
}
"""Leads with five to seven outputs each."""


def bench() -> dict[str, float]:
    """Decisions a second by kind of lead and over all of them, best of several short repeats.

    ``ratio`` sets ``decisions_per_second`` against a loop of 20 look-ups and comparisons in the same process, so
    that machines of different speed can be compared; ``traces_per_second`` includes the trace. All of it in
    processor time, so that a busy machine does not count.
    """
    router = Router(RULES, AGENTS)
    found: dict[str, float] = {}
    for name, facts in LEADS.items():
        found[f"{name}_per_second"] = _rate(lambda facts=facts: router.decide(facts))
    leads = tuple(LEADS.values())
    baseline = _rate(_compare_twenty)
    mixed = _rate(lambda: [router.decide(facts) for facts in leads], ROUNDS // len(leads)) * len(leads)
    found["decisions_per_second"] = mixed
    found["baseline_per_second"] = baseline
    found["ratio"] = mixed / baseline
    found["traces_per_second"] = _rate(lambda: router.decide(leads[1]).trace, ROUNDS // 20)
    return {name: round(value, 3 if name == "ratio" else 0) for name, value in found.items()}


def _rate(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        begun = time.process_time()
        for _ in range(rounds):
            work()
        best = min(best, time.process_time() - begun)
    return rounds / best


_TWENTY = {f"key {number}": number for number in range(20)}


def _compare_twenty() -> int:
    return sum(1 for number in range(20) if _TWENTY[f"key {number}"] == number)


if __name__ == "__main__":
    print(json.dumps(bench(), indent=2))
