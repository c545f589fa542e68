"""What agents answer in the random walks: every turn that sales knows how to take."""

from __future__ import annotations

from typing import Any

from tests.factories import PAYLOADS


def _reply(intent: str, *, answer: bool = False, opt_out: bool = False, confidence: str = "high") -> dict[str, Any]:
    return {
        "reasoning_summary": f"They are {intent}.",
        "intent": intent,
        "urgency": "normal",
        "opt_out": opt_out,
        "answer_needed": answer,
        "confidence": confidence,
        "subject": "Re: Your freight invoices" if answer else "",
        "body": "Thank you, on Thursday." if answer else "",
        "claims": [],
    }


_COLD = {**PAYLOADS["qualification"], "score": 10, "tier": "Cold"}
_CLEAN = {**PAYLOADS["fact_check"], "checks": PAYLOADS["fact_check"]["checks"][:1], "unsupported": 0}
_CHOICES: dict[str, list[dict[str, Any]]] = {
    "intake": [PAYLOADS["intake"], {**PAYLOADS["intake"], "category": "spam"}],
    # Warm and hot leads are written to, which is where most of what can go wrong goes on.
    "qualification": [PAYLOADS["qualification"], {**PAYLOADS["qualification"], "score": 50, "tier": "Warm"}, _COLD],
    "fact_check": [_CLEAN, PAYLOADS["fact_check"]],
}
_REPLIES = [
    _reply("interested", answer=True),
    _reply("question", answer=True, confidence="low"),
    _reply("not_now"),
    _reply("unsubscribe", opt_out=True),
]


def payload_for(agent: str, key: str, choice: int) -> dict[str, Any]:
    """A valid answer of this agent; ``choice`` says which of those there are."""
    choices = _REPLIES if agent == "reply_handler" else _CHOICES.get(key, [PAYLOADS[key]])
    return choices[choice % len(choices)]
