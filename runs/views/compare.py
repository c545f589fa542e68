"""Two attempts at the same work side by side: what each was given, and what each answered.

Attempts at the same work are all of one agent for one occasion of one item: the tries of a step, and the steps that a
retry or a rerun made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from runs.access import access_of, get_visible, signed_in
from runs.models import AgentRun, ModelCall, ModelCallBody
from runs.views.answers import show
from runs.views.attempts import CallRow
from runs.views.bodies import read_request, read_response
from runs.views.shown import show_model_call
from runs.views.sidebyside import Compared, compare_sections

MOST_CALLS = 60
"""The newest of more are offered."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two calls; ``body`` None where it was pruned or erased."""

    row: CallRow
    body: ModelCallBody | None


@signed_in
@require_safe
def step_compare(request: HttpRequest, pk: int) -> HttpResponse:
    """``?left=&right=`` are two calls; without them the last ones of the last two attempts."""
    runs = AgentRun.objects.select_related("agent", "item", "pipeline_run", "trigger")
    run = get_visible(request, runs, pk=pk)
    calls = find_calls(run)
    left, right = choose(calls, request.GET.get("left", ""), request.GET.get("right", ""))
    sides = _sides([call for call in (left, right) if call is not None])
    context = {"access": access_of(request), "run": run, "calls": calls, "left": None, "right": None}
    if left is not None and right is not None:
        first, second = sides[left.pk], sides[right.pk]
        context |= {"left": first, "right": second, "sides": (first, second), **_compared(first, second)}
    return show(request, "runs/compare.html", "runs/_compare.html", context)


def find_calls(run: AgentRun) -> list[ModelCall]:
    """All calls at the same work as this step, the oldest first."""
    same = ModelCall.objects.filter(
        item=run.item_id, agent=run.agent_id, agent_run__agent=run.agent_id, agent_run__trigger=run.trigger_id
    )
    found = same.select_related("agent_run", "soul", "price").order_by("-pk")[:MOST_CALLS]
    return list(found)[::-1]


def choose(calls: Sequence[ModelCall], left: str, right: str) -> tuple[ModelCall | None, ModelCall | None]:
    """The two calls to compare: as asked, else the last calls of the last two attempts; None if there are no two.

    Who asks for one side only has the other beside it: the last call of the attempt before, or of the one after.
    """
    if len(calls) < 2:
        return None, None
    by_pk = {str(call.pk): call for call in calls}
    last = {(call.agent_run_id, call.attempt): call for call in calls}
    two = list(last.values())[-2:] if len(last) > 1 else list(calls)[-2:]
    first, second = by_pk.get(left), by_pk.get(right)
    if first is None and second is not None:
        first = _neighbour(second, calls)
    elif second is None and first is not None:
        second = _neighbour(first, calls)
    return first or two[0], second or two[1]


def _neighbour(call: ModelCall, calls: Sequence[ModelCall]) -> ModelCall | None:
    attempt = (call.agent_run_id, call.attempt)
    last = {(other.agent_run_id, other.attempt): other for other in calls}
    keys = list(last)
    place = keys.index(attempt)
    beside = keys[place - 1] if place else next(iter(keys[1:]), None)
    return last[beside] if beside is not None else None


def _sides(calls: Sequence[ModelCall]) -> dict[int, Side]:
    bodies = {body.call_id: body for body in ModelCallBody.objects.filter(call__in=calls)}
    return {call.pk: Side(CallRow(call, show_model_call(call), ()), bodies.get(call.pk)) for call in calls}


def _compared(left: Side, right: Side) -> dict[str, list[Compared]]:
    if left.body is None or right.body is None:
        return {}
    return {
        "request_parts": compare_sections(read_request(left.body.request), read_request(right.body.request)),
        "response_parts": compare_sections(read_response(left.body.response), read_response(right.body.response)),
    }
