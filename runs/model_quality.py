"""What people thought of what each model wrote: the quality that belongs beside its price."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import OuterRef, Subquery

from runs.cost_sums import Period
from runs.models import ModelCall, Review
from runs.review_figures import JUDGED, Verdicts

MOST_READ = 500
"""So many of the period's latest decisions are looked at."""


def judged_by_model(department_ids: Iterable[int], period: Period) -> dict[str, Verdicts]:
    """People's decisions of the period about drafts, by the model whose answer was the draft; one query.

    A decision counts for the model that was asked last and answered: before it others may have failed.
    """
    begin, end = period.moments
    answers = ModelCall.objects.filter(agent_run=OuterRef("agent_run"), status=ModelCall.Status.FINISHED, cause="")
    last = answers.order_by("-attempt", "-number").values("model_asked")[:1]
    decided = Review.objects.filter(
        department__in=list(department_ids),
        status=Review.Status.ANSWERED,
        answer__in=JUDGED,
        answered_by__isnull=False,
        answered_at__gte=begin,
        answered_at__lt=end,
    ).order_by("-answered_at")
    rows = decided.annotate(model=Subquery(last))
    found: dict[str, Verdicts] = {}
    for model, answer in rows.values_list("model", "answer")[:MOST_READ]:
        if model:
            found.setdefault(model, Verdicts()).add(answer)
    return found
