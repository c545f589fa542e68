"""Leads on which a rule is tried before it is saved: what is so, and what each output would then bring."""

from __future__ import annotations

from agents.spec import Facts, OutputFact, RunFact, SampleItem, TriggerFact

_LEAD = {"category": "lead", "language": "en", "country": "DE"}
_SPAM = {"category": "spam", "language": "en", "country": ""}
_HOT = {"tier": "Hot", "score": 84}
_WARM = {"tier": "Warm", "score": 55}
_COLD = {"tier": "Cold", "score": 21}
_CHECKED = {"unsupported": 0}
_INTERESTED = {"intent": "interested", "urgency": "high", "opt_out": False, "answer_needed": True}
_UNSUBSCRIBE = {"intent": "unsubscribe", "urgency": "normal", "opt_out": True, "answer_needed": False}
_AWAY = {"intent": "out_of_office", "urgency": "low", "opt_out": False, "answer_needed": False}

_INTAKE = OutputFact("intake", facets=_LEAD)
_QUALIFIED = (_INTAKE, OutputFact("qualification", facets=_HOT))
_RESEARCHED = (*_QUALIFIED, OutputFact("research"), OutputFact("strategy"))
_WRITTEN = (
    *_RESEARCHED,
    OutputFact("draft"),
    OutputFact("fact_check", facets=_CHECKED),
    OutputFact("email", verdict="approved"),
)
_CONTACTED = frozenset({"contacted"})
_REPLIED = frozenset({"contacted", "replied"})
_REPLY = (TriggerFact(7, "reply"),)

SAMPLES = (
    SampleItem("A new lead that is hot", Facts("new"), {"intake": _LEAD, "qualification": _HOT}),
    SampleItem("A new lead that is warm", Facts("new"), {"intake": _LEAD, "qualification": _WARM}),
    SampleItem("A new lead that is cold", Facts("new"), {"intake": _LEAD, "qualification": _COLD}),
    SampleItem("Spam", Facts("new"), {"intake": _SPAM, "qualification": _COLD}),
    SampleItem(
        "Intake has failed",
        Facts("new", runs=(RunFact("intake", None, "failed"),)),
        {"qualification": _WARM, "fact_check": _CHECKED},
    ),
    SampleItem(
        "The Qualifier has failed",
        Facts("new", outputs=(_INTAKE,), runs=(RunFact("qualifier", None, "failed"),)),
        {"fact_check": _CHECKED},
    ),
    SampleItem(
        "A hot lead, researched, nothing written yet",
        Facts("qualified", outputs=_RESEARCHED),
        {"fact_check": _CHECKED},
    ),
    SampleItem(
        "A draft that waits for a person",
        Facts("drafted", outputs=(*_RESEARCHED, OutputFact("draft"), OutputFact("email"))),
        {"fact_check": _CHECKED},
    ),
    SampleItem(
        "Written to, a follow-up is due",
        Facts("contacted", outputs=_WRITTEN, triggers=(TriggerFact(5, "follow_up"),), marks=_CONTACTED),
        {"fact_check": _CHECKED},
    ),
    SampleItem(
        "A reply that shows interest",
        Facts("replied", outputs=_WRITTEN, triggers=_REPLY, marks=_REPLIED),
        {"draft": _INTERESTED, "fact_check": _CHECKED},
    ),
    SampleItem(
        "A reply that asks for no more mail",
        Facts("replied", outputs=_WRITTEN, triggers=_REPLY, marks=_REPLIED),
        {"draft": _UNSUBSCRIBE},
    ),
    SampleItem(
        "An automatic reply, a follow-up is planned",
        Facts(
            "replied",
            outputs=_WRITTEN,
            triggers=(TriggerFact(5, "follow_up", False), *_REPLY),
            marks=_REPLIED,
        ),
        {"draft": _AWAY},
    ),
    SampleItem(
        "A person has agreed on a meeting",
        Facts("replied", outputs=_WRITTEN, triggers=(TriggerFact(9, "decision"),), marks=_REPLIED),
        {"crm_update": {"stage": "meeting"}},
    ),
)
