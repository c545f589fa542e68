"""What people thought of what each model wrote: the quality that belongs beside its price."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import DateTimeField, OuterRef, QuerySet, Subquery

from agents.statements import Among, Given, Statement
from runs.cost_sums import Period
from runs.models import ModelCall, Review
from runs.review_figures import JUDGED, Verdicts

MOST_READ = 500
"""So many of the period's latest decisions are looked at."""


def _decided() -> QuerySet[Review, Any]:
    answers = ModelCall.objects.filter(agent_run=OuterRef("agent_run"), status=ModelCall.Status.FINISHED, cause="")
    last = answers.order_by("-attempt", "-number").values("model_asked")[:1]
    decided = Review.objects.filter(
        Among("department_id", "departments"),
        status=Review.Status.ANSWERED,
        answer__in=JUDGED,
        answered_by__isnull=False,
        answered_at__gte=Given("begin", DateTimeField()),
        answered_at__lt=Given("end", DateTimeField()),
    ).order_by("-answered_at")
    return decided.annotate(model=Subquery(last)).values_list("model", "answer")


_DECIDED = Statement(_decided)


def judged_by_model(department_ids: Iterable[int], period: Period) -> dict[str, Verdicts]:
    """People's decisions of the period about drafts, by the model whose answer was the draft; one query.

    A decision counts for the model that was asked last and answered: before it others may have failed.
    """
    begin, end = period.moments
    found: dict[str, Verdicts] = {}
    for model, answer in _DECIDED.rows(limit=MOST_READ, departments=department_ids, begin=begin, end=end):
        if model:
            found.setdefault(model, Verdicts()).add(answer)
    return found
