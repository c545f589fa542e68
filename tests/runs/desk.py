"""Leads with a question about them, as reviewers find them."""

from __future__ import annotations

from typing import Any

from agents.models import Department
from runs.models import Item, Output, Review
from tests.factories import make_agent_run, make_lead, make_output, make_review

WRITERS = {
    "intake": "intake",
    "qualification": "qualifier",
    "research": "researcher",
    "strategy": "strategist",
    "draft": "writer",
    "fact_check": "fact_checker",
    "email": "formatter",
}


def make_drafted(department: Department | None = None, *, by_agents: bool = True, **fields: Any) -> Review:
    """The question about a first mail, with everything that it was made from. ``fields`` are of the mail."""
    item = make_lead(department, status="drafted").item
    made: dict[str, Output] = {}
    for key, agent in WRITERS.items():
        run = make_agent_run(item, agent, status="done") if by_agents else None
        source = {"fact_check": ["draft"], "email": ["draft", "fact_check"]}.get(key, [])
        extra = fields if key == "email" else {}
        made[key] = make_output(item, key, agent_run=run, made_from=[made[name].pk for name in source], **extra)
    item.pipeline_runs.update(status="completed")
    return make_review(item, output=made["email"], agent_run=made["email"].agent_run)


def mail_of(review: Review) -> Output:
    """The output that a question asks about, as it is stored now."""
    assert review.output_id is not None
    return Output.objects.get(pk=review.output_id)


def item_of(review: Review) -> Item:
    """The item that a question asks about, as it is stored now."""
    assert review.item_id is not None
    return Item.objects.get(pk=review.item_id)
