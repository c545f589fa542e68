"""Stops work that goes round in circles: too many steps on one item, or a step that costs many times the usual.

Nothing fails by it: the steps wait, and a person is asked once for each item. Whatever that person answers counts as
having been looked at, and the counting begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median

from django.conf import settings
from django.db.models import Count, DateTimeField, Max, Q, Sum

from agents.statements import Among, Given, Statement
from runs import log
from runs.models import AgentRun, Item, LogEntry, ModelCall, Review
from runs.money import dollars, in_units

DAY = timedelta(days=1)
AGAIN = timedelta(minutes=1)
"""So soon a step that waits looks whether a person has answered."""
KNOWN_RUNS = 20
"""An agent that has worked less often has no usual cost."""
MEDIAN_OF = 200
SMALL_USD = Decimal("0.005")
"""What costs less than this is not worth a question, whatever is usual. It is 20 times a usual step on Haiku
(0.00024 USD by ``make economics``; one on Sonnet costs 0.008), so that the cheapest agents are held early too."""
CAUSE = "loop"
_STEPS = Statement(
    lambda: (
        AgentRun.objects.filter(Among("item_id", "items"), queued_at__gte=Given("since", DateTimeField()))
        .order_by()
        .values("item_id")
        .annotate(count=Count("pk"))
        .values_list("item_id", "count")
    )
)


@dataclass(frozen=True, slots=True)
class Held:
    """A run that must wait for a person, and why."""

    run: AgentRun
    reason: str


def find_loops(runs: Sequence[AgentRun], now: datetime) -> list[Held]:
    """Those of the runs, about to be claimed, that go round in circles. One query where nothing is suspicious."""
    steps = dict(_STEPS.rows(items={run.item_id for run in runs}, since=now - DAY))
    crowded = [run for run in runs if steps.get(run.item_id, 0) > settings.LOOP_STEPS_PER_DAY]
    looked_at = _looked_at(crowded)
    reasons: dict[int, str] = {}
    for run in crowded:
        if (count := _steps_since(run, looked_at, now)) > settings.LOOP_STEPS_PER_DAY:
            reasons[run.pk] = f"{count} steps in a day, more than {settings.LOOP_STEPS_PER_DAY}"
    reasons |= _too_dear(runs)
    return [Held(run, f"Round in circles: {reasons[run.pk]}. A person is asked.") for run in runs if run.pk in reasons]


def find_dear(run: AgentRun) -> str:
    """Why a run, of which a call has just been settled, must open no other one; empty if it may.

    It waits instead, and whoever is to claim it next asks the person. No query where it has cost little.
    """
    run.refresh_from_db(fields=["cost_usd"])
    found = _too_dear([run])
    return f"Round in circles: {found[run.pk]}. A person is asked." if found else ""


def ask_about_loops(held: Sequence[Held], now: datetime) -> list[LogEntry]:
    """One question for each item, while none is open; unsaved log lines."""
    entries = []
    for item in Item.objects.filter(pk__in={one.run.item_id for one in held}).order_by("pk"):
        reason = next(one.reason for one in held if one.run.item_id == item.pk)
        values = {
            "department_id": item.department_id,
            "ask": f"Shall the work on {item.title} go on? {reason.removesuffix(' A person is asked.')}"[:500],
            "cause": CAUSE,
            "risk": 2,
            "deadline": now + DAY,
        }
        _, is_new = Review.objects.get_or_create(
            item=item, kind=Review.Kind.BUDGET, status=Review.Status.OPEN, defaults=values
        )
        if is_new:
            entries.append(log.item_entry(item, "review", reason, at=now, level=LogEntry.Level.WARNING))
    return entries


def _too_dear(runs: Sequence[AgentRun]) -> dict[int, str]:
    """Runs that have cost many times the usual since a person last looked: ``{run id: how much}``."""
    dear = [run for run in runs if run.attempt and run.cost_usd > SMALL_USD]
    if not dear:
        return {}
    costs = _known_costs(dear, _looked_at(dear))
    found = {}
    for run in dear:
        usual = _usual_usd(run) if costs[run.pk] > SMALL_USD else None
        if usual is not None and costs[run.pk] > usual * settings.LOOP_TIMES_MEDIAN:
            times = int(costs[run.pk] / usual)
            found[run.pk] = f"this step has cost {costs[run.pk]:.4f} USD, {times} times the usual {usual:.4f}"
    return found


def _known_costs(runs: Sequence[AgentRun], looked_at: dict[int, datetime]) -> dict[int, Decimal]:
    """What runs that are tried again have cost, as far as it is known and a person has not looked at it.

    A call whose end nobody saw stands at all that it had reserved, many times what calls cost: one lost worker or one
    silent stream is no circle, and must heal without a person.
    """
    left_out = Q(agent_run__in=runs, is_estimate=True)
    for run in runs:
        if run.item_id in looked_at:
            left_out |= Q(agent_run=run, started_at__lte=looked_at[run.item_id])
    calls = ModelCall.objects.filter(left_out).order_by().values("agent_run").annotate(units=Sum(in_units("cost_usd")))
    units = dict(calls.values_list("agent_run", "units"))
    return {run.pk: run.cost_usd - dollars(int(units.get(run.pk, 0))) for run in runs}


def _looked_at(runs: Sequence[AgentRun]) -> dict[int, datetime]:
    """When a person last answered such a question about the item of each run."""
    if not runs:
        return {}
    answered = Review.objects.filter(
        item__in={run.item_id for run in runs}, kind=Review.Kind.BUDGET, status=Review.Status.ANSWERED
    )
    rows = answered.order_by().values("item").annotate(last=Max("answered_at")).values_list("item", "last")
    return {pk: last for pk, last in rows if last is not None}


def _steps_since(run: AgentRun, looked_at: dict[int, datetime], now: datetime) -> int:
    since = max(looked_at.get(run.item_id, now - DAY), now - DAY)
    return AgentRun.objects.filter(item=run.item_id, queued_at__gte=since).count()


def _usual_usd(run: AgentRun) -> Decimal | None:
    """The median cost of the agent's latest finished runs; None while there are too few."""
    done = AgentRun.objects.filter(agent=run.agent_id, status=AgentRun.Status.DONE, cost_usd__gt=0)
    known = list(done.order_by("-pk").values_list("cost_usd", flat=True)[:MEDIAN_OF])
    return median(known) if len(known) >= KNOWN_RUNS else None
