"""One question with everything that answering it looks at."""

from __future__ import annotations

from django.db.models import BigIntegerField

from agents.statements import Among, Given, Statement
from runs.models import AgentRun, Review


def read_review(pk: int) -> Review:
    """A review as it is now, with what answering it looks at."""
    found = find_review(pk)
    if found is None:
        raise Review.DoesNotExist
    return found


def find_review(pk: int) -> Review | None:
    """The same; None if there is none. What only an answered one has is read where somebody asks."""
    found = _ASKED.objects(review=pk)
    if not found:
        return None
    review, output = found[0], found[0].output
    run_ids = {review.agent_run_id, output.agent_run_id if output is not None else None}
    runs = {run.pk: run for run in _RUNS.objects(runs=run_ids - {None})}
    if review.agent_run_id is not None:
        review.agent_run = runs.get(review.agent_run_id)
    if output is not None and output.agent_run_id is not None:
        output.agent_run = runs.get(output.agent_run_id)
    if review.item is not None:
        review.item.department = review.department
        for text in filter(None, (output, review.edited)):
            text.item = review.item
    return review


# In two: PostgreSQL plans one statement over a dozen tables longer than the page takes.
_ASKED = Statement(
    lambda: Review.objects.filter(pk=Given("review", BigIntegerField())).select_related(
        "department", "item", "output__trigger"
    )
)
_RUNS = Statement(lambda: AgentRun.objects.filter(Among("pk", "runs")).select_related("agent", "pipeline_run"))
