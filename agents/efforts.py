"""Which values of ``effort`` a model takes. From Anthropic's page on effort, November 2026."""

from __future__ import annotations

from agents.models.agent import Agent

ALL = tuple(value for value in Agent.Effort.values if value)
_WITHOUT_XHIGH = tuple(value for value in ALL if value != "xhigh")
_OF: dict[str, tuple[str, ...]] = {
    "claude-haiku-4-5": (),
    "claude-opus-4-6": _WITHOUT_XHIGH,
    "claude-sonnet-4-6": _WITHOUT_XHIGH,
}


def efforts_of(model: str) -> tuple[str, ...]:
    """The values that the API takes for this model; of a model that is not known here, all. None is always taken."""
    return _OF.get(model, ALL)


def why_not_effort(effort: str, model: str) -> str:
    """One sentence if the API would refuse every request for it, else empty."""
    known = efforts_of(model)
    if not effort or effort in known:
        return ""
    return f"{model} takes no effort." if not known else f"{model} does not take the effort {effort}."
