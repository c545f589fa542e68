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
from django.db.models import Count, DateTimeField, Max, Sum

from agents.statements import Among, Given, Statement
from runs import log
from runs.models import AgentRun, Item, LogEntry, ModelCall, Review

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
    crowded = {pk for pk, count in steps.items() if count > settings.LOOP_STEPS_PER_DAY}
    costs = _known_costs(runs)
    dear = [run for run in runs if costs.get(run.pk, Decimal(0)) > SMALL_USD]
    if not crowded and not dear:
        return []
    looked_at = _looked_at({*crowded, *(run.item_id for run in dear)}, now)
    reasons: dict[int, str] = {}
    for run in runs:
        if run.item_id in crowded and (count := _steps_since(run, looked_at, now)) > settings.LOOP_STEPS_PER_DAY:
            reasons[run.pk] = f"{count} steps in a day, more than {settings.LOOP_STEPS_PER_DAY}"
    for run in dear:
        usual = None if run.item_id in looked_at else _usual_usd(run)
        if usual is not None and costs[run.pk] > usual * settings.LOOP_TIMES_MEDIAN:
            times = int(costs[run.pk] / usual)
            reasons[run.pk] = f"this step has cost {costs[run.pk]:.4f} USD, {times} times the usual {usual:.4f}"
    return [Held(run, f"Round in circles: {reasons[run.pk]}. A person is asked.") for run in runs if run.pk in reasons]


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


def _known_costs(runs: Sequence[AgentRun]) -> dict[int, Decimal]:
    """What runs that are tried again have cost, as far as it is known.

    A call whose end nobody saw stands at all that it had reserved, many times what calls cost: one lost worker or one
    silent stream is no circle, and must heal without a person.
    """
    again = [run for run in runs if run.attempt and run.cost_usd > SMALL_USD]
    if not again:
        return {}
    unseen = ModelCall.objects.filter(agent_run__in=again, is_estimate=True).order_by().values("agent_run")
    estimated = dict(unseen.annotate(usd=Sum("cost_usd")).values_list("agent_run", "usd"))
    return {run.pk: run.cost_usd - estimated.get(run.pk, Decimal(0)) for run in again}


def _looked_at(item_ids: set[int], now: datetime) -> dict[int, datetime]:
    """When a person last answered such a question about each item, within the day."""
    answered = Review.objects.filter(
        item__in=item_ids, kind=Review.Kind.BUDGET, status=Review.Status.ANSWERED, answered_at__gte=now - DAY
    )
    rows = answered.values("item").annotate(last=Max("answered_at")).values_list("item", "last")
    return {pk: last for pk, last in rows if last is not None}


def _steps_since(run: AgentRun, looked_at: dict[int, datetime], now: datetime) -> int:
    since = looked_at.get(run.item_id, now - DAY)
    return AgentRun.objects.filter(item=run.item_id, queued_at__gte=since).count()


def _usual_usd(run: AgentRun) -> Decimal | None:
    """The median cost of the agent's latest finished runs; None while there are too few."""
    done = AgentRun.objects.filter(agent=run.agent_id, status=AgentRun.Status.DONE, cost_usd__gt=0)
    known = list(done.order_by("-pk").values_list("cost_usd", flat=True)[:MEDIAN_OF])
    return median(known) if len(known) >= KNOWN_RUNS else None
