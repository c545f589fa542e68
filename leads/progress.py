"""The statuses of a lead, and which one it has now: a pure function of the facts."""

from __future__ import annotations

from typing import Any

from agents.spec import Facts, OutputFact, StatusSpec

STATUSES = (
    StatusSpec("new", "New", "neutral"),
    StatusSpec("qualified", "Qualified", "progress"),
    StatusSpec("nurturing", "Nurturing", "neutral", is_resting=True),
    StatusSpec("drafted", "Waiting for approval", "warning"),
    StatusSpec("approved", "Approved, not sent yet", "progress"),
    StatusSpec("shelved", "Draft rejected", "warning", is_resting=True),
    StatusSpec("contacted", "Contacted", "progress"),
    StatusSpec("replied", "Replied", "warning"),
    StatusSpec("answered", "Answered", "progress"),
    StatusSpec("meeting", "Meeting", "good"),
    StatusSpec("won", "Won", "good", is_closing=True),
    StatusSpec("lost", "Lost", "bad", is_closing=True),
    StatusSpec("opted_out", "Opted out", "bad", is_closing=True),
    StatusSpec("rejected", "Not a lead", "neutral", is_closing=True),
)

STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "intake": ("Coming in", ("new", "qualified")),
    "draft": ("Draft", ("drafted", "approved")),
    "outreach": ("Outreach", ("contacted",)),
    "conversation": ("In conversation", ("replied", "answered")),
    "won": ("Meeting or won", ("meeting", "won")),
    "resting": ("Resting", ("nurturing", "shelved")),
    "ended": ("Ended", ("lost", "opted_out", "rejected")),
}
"""How far a lead has come, coarser than the status: a label and its statuses. Every status is in one."""

IN_CONVERSATION = ("replied", "answered", "meeting", "won", "lost")
"""The person has written to us, or one of ours has decided: outreach is over, an answer is still possible."""

_STAGES = ("meeting", "won", "lost")
_VERDICTS = {"approved": "approved", "rejected": "shelved"}


def status(facts: Facts) -> str:
    """The slug of the status. Total: whatever the facts hold, one of ``STATUSES`` comes back."""
    if "suppressed" in facts.marks or newest(facts, "opt_out") is True:
        return "opted_out"
    stage = _stage(facts)
    if stage:
        return stage
    # Before the category: whoever writes back is read, whatever was thought of the first message.
    if _has_replied(facts):
        return "answered" if _is_answered(facts) else "replied"
    category = newest(facts, "category")
    if category not in (None, "lead") and "contacted" not in facts.marks:
        return "rejected"
    if "contacted" in facts.marks:
        return "contacted"
    return _before_contact(facts)


def newest(facts: Facts, name: str) -> Any:
    """The value of a facet; None where no output has it or has it empty."""
    value = facts.facet(name)
    return None if value in ("", [], {}) else value


def _stage(facts: Facts) -> str:
    """What people have decided, newest decision first. ``unchanged`` does not undo an earlier decision."""
    decided = [o for o in facts.outputs if o.key == "crm_update" and o.facets.get("stage") in _STAGES]
    return str(max(decided, key=_age).facets["stage"]) if decided else ""


def _has_replied(facts: Facts) -> bool:
    if any(trigger.kind == "reply" for trigger in facts.triggers):
        return True
    # An automatic "I am away" is no answer: the follow-ups go on.
    return "replied" in facts.marks and newest(facts, "intent") != "out_of_office"


def _is_answered(facts: Facts) -> bool:
    """Whether the last word in the conversation is ours."""
    return "answered" in facts.marks and not any(trigger.kind == "reply" for trigger in facts.triggers)


def _before_contact(facts: Facts) -> str:
    email = next((o for o in facts.outputs if o.key == "email" and o.occasion is None), None)
    if email is not None:
        return _VERDICTS.get(email.verdict, "drafted")
    tier = newest(facts, "tier")
    if tier == "Cold":
        return "nurturing"
    return "qualified" if tier in ("Hot", "Warm") else "new"


def _age(output: OutputFact) -> int:
    return output.occasion or 0
