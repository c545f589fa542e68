"""What follows for the rest of an output when a person corrects how a sales agent has sorted something. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leads.schemas import TIER_FLOORS, tier_of


def correct(key: str, payload: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The payload with a person's changes and what they imply, so that it fits its schema again."""
    found = {**payload, **changes}
    if "confidence" in found:
        found["confidence"] = "high"  # a person has looked
    if key == "qualification" and "tier" in changes and "score" not in changes:
        found["score"] = _nearest_score(str(found["tier"]), int(payload.get("score", 0)))
    if key == "draft" and "intent" in found:
        _settle_reply(found, changes)
    return found


def _nearest_score(tier: str, score: int) -> int:
    """The score of that tier which is nearest to the agent's."""
    scores = [points for points in range(101) if tier_of(points) == tier] if tier in TIER_FLOORS else [score]
    return min(scores, key=lambda points: abs(points - score))


def _settle_reply(found: dict[str, Any], changes: Mapping[str, Any]) -> None:
    if found["intent"] == "unsubscribe":
        found["opt_out"] = True
    elif "intent" in changes and "opt_out" not in changes:
        found["opt_out"] = False
    if found["opt_out"]:
        found["answer_needed"] = False
    if not found["answer_needed"]:
        found |= {"subject": "", "body": "", "claims": []}
