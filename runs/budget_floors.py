"""The least that a budget must allow so that every step it is for can start: below it, runs would wait for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any

from django.utils import timezone

from agents.models import Agent, Budget
from agents.pricing import UnknownPrice
from agents.prompts import AgentInput
from runs.calls import bound_of
from runs.gates import Choice
from runs.inputs import build_params
from runs.models import ModelCall
from runs.staff import Desk, load_staff

LATEST = 200
_SHOWN = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of an agent on a model reserves, in US dollars and tokens: with nothing to read, and of late."""

    agent: Agent
    model: str
    least: tuple[Decimal, int]
    lately: tuple[Decimal, int]


def why_too_small(budget: Budget) -> dict[str, str]:
    """Which limits of a budget, saved or not, let no step of some agent start: ``{name of the limit: sentence}``.

    Of several agents the one that needs most counts. Agents without a SOUL or a price need nothing yet.
    """
    steps = _steps(budget) if budget.is_enabled else []
    if not steps:
        return {}
    found = {}
    dearest = max(steps, key=lambda step: step.least[0])
    if budget.limit_usd is not None and budget.limit_usd < dearest.least[0]:
        needed = max(step.lately[0] for step in steps).quantize(_SHOWN, ROUND_UP)
        found["limit_usd"] = _sentence(dearest, f"${dearest.least[0].quantize(_SHOWN, ROUND_UP)}", f"${needed}")
    longest = max(steps, key=lambda step: step.least[1])
    if budget.limit_tokens is not None and budget.limit_tokens < longest.least[1]:
        most = max(step.lately[1] for step in steps)
        found["limit_tokens"] = _sentence(longest, f"{longest.least[1]:,} tokens", f"{most:,} tokens")
    return found


def copy_with(budget: Budget, values: Mapping[str, Any]) -> Budget:
    """The budget as it would be with these values of its columns."""
    changed = copy(budget)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


def _sentence(step: Step, least: str, sensible: str) -> str:
    return (
        f"A step of {step.agent.title} on {step.model} that reads nothing yet sets {least} aside before it starts: "
        f"with less, runs would wait for ever. Enter at least {sensible}, the most that a step has set aside of late."
    )


def _steps(budget: Budget) -> list[Step]:
    staff = load_staff(only=budget.department_id)
    desk = staff.desks.get(budget.department_id)
    if desk is None:
        return []
    today, found = timezone.now().date(), []
    for agent, model in _wanted(budget, desk):
        params = build_params(agent, desk.souls[agent.pk], desk, AgentInput({}), Choice(model))
        try:
            least = bound_of(params, staff.prices, today)
        except UnknownPrice:
            continue
        found.append(Step(agent, model, least, _lately(agent, model, least)))
    return found


def _wanted(budget: Budget, desk: Desk) -> Iterator[tuple[Agent, str]]:
    """Which agents' steps count against the budget, and on which model."""
    declared = {spec.slug for spec in desk.spec.agents}
    for agent in desk.agents.values():
        if not agent.is_enabled or agent.slug not in declared or agent.pk not in desk.souls:
            continue
        # A budget of one model must let the steps start that fall back to it, too; any other those that do not.
        for model in {agent.model, *(agent.fallback_models if budget.model else ())}:
            if budget.covers(department_id=agent.department_id, agent_id=agent.pk, model=model):
                yield agent, model


def _lately(agent: Agent, model: str, least: tuple[Decimal, int]) -> tuple[Decimal, int]:
    """The most that its latest calls reserved; never below the least."""
    calls = ModelCall.objects.filter(agent=agent, model_asked=model).order_by("-pk")
    latest = list(calls.values_list("reserved_usd", "reserved_tokens")[:LATEST])
    usd = max((usd for usd, _ in latest), default=least[0])
    tokens = max((tokens for _, tokens in latest), default=least[1])
    return max(usd, least[0]), max(tokens, least[1])
