"""What must be true after every step of a random walk. Each check returns sentences about what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, Sum
from django.utils import timezone

from agents.models import BudgetPeriod
from runs.models import (
    AgentRun,
    BulkAction,
    Item,
    Message,
    ModelCall,
    OutboxMessage,
    Output,
    PipelineRun,
    Review,
    Trigger,
)

Statuses = dict[tuple[str, int], str]
_MACHINES: tuple[tuple[Any, str], ...] = (
    (AgentRun, "status"),
    (BulkAction, "status"),
    (Item, "automation"),
    (OutboxMessage, "status"),
    (PipelineRun, "status"),
    (Review, "status"),
    (Trigger, "status"),
)
WITHOUT_ITEM = (Review.Kind.INCIDENT, Review.Kind.STOP_THE_LINE, Review.Kind.BUDGET)
"""Questions that may be about no item or about many."""


def read_statuses() -> Statuses:
    """Every status there is, by table and row."""
    found: Statuses = {}
    for model, field in _MACHINES:
        rows = model._base_manager.values_list("pk", field)
        found |= {(model.__name__, pk): status for pk, status in rows}
    return found


def wrong_transitions(before: Statuses, after: Statuses) -> list[str]:
    """Status changes that are in no table."""
    tables = {model.__name__: model.TRANSITIONS for model, _ in _MACHINES}
    return [
        f"{name} {pk} went from {before[name, pk]} to {status}"
        for (name, pk), status in after.items()
        if (name, pk) in before and status != before[name, pk] and status not in tables[name].get(before[name, pk], ())
    ]


def violations() -> list[str]:
    """Everything that is wrong now."""
    return [f"{check.__name__}: {what}" for check in CHECKS for what in check()]


def one_current_output_for_each_occasion() -> Iterator[str]:
    rows = Output.objects.filter(is_current=True).values("item", "key", "trigger")
    for row in rows.annotate(count=Count("pk")).filter(count__gt=1):
        yield str(row)


def one_active_run_for_each_agent_and_occasion() -> Iterator[str]:
    rows = AgentRun.objects.filter(status__in=AgentRun.ACTIVE).values("item", "agent", "trigger")
    for row in rows.annotate(count=Count("pk")).filter(count__gt=1):
        yield str(row)


def one_active_pipeline_run_for_each_item() -> Iterator[str]:
    rows = PipelineRun.objects.filter(status=PipelineRun.Status.ACTIVE).values("item")
    for row in rows.annotate(count=Count("pk")).filter(count__gt=1):
        yield str(row)


def no_output_outlives_what_it_was_made_from() -> Iterator[str]:
    """A current output of an agent has current inputs, unless it is marked stale, or has left the house, or what was
    made from it has: that stays together as it was.
    """
    replaced = set(Output.objects.filter(is_current=False).values_list("pk", flat=True))
    made_from, left = dict(Output.objects.values_list("pk", "made_from")), _left()
    coming = list(left)
    while coming:
        coming = [pk for pk in made_from.get(coming.pop(), ()) if pk not in left] + coming
        left.update(coming)
    for output in Output.objects.filter(is_current=True, is_stale=False, origin=Output.Origin.AGENT):
        gone = replaced.intersection(output.made_from)
        if gone and output.pk not in left:
            yield f"{output.key} {output.pk} of item {output.item_id} was made from {sorted(gone)}, now replaced"


def questions_are_about_what_is_there() -> Iterator[str]:
    """No open question on a retired output, and none without an item but for what concerns many."""
    asked = Review.objects.filter(status=Review.Status.OPEN)
    for review in asked.filter(output__is_current=False):
        yield f"review {review.pk} ({review.kind}) asks about output {review.output_id}, which is retired"
    for review in asked.filter(item=None).exclude(kind__in=WITHOUT_ITEM):
        yield f"review {review.pk} ({review.kind}) is about no item"
    for review in asked.filter(kind=Review.Kind.UNSURE_SEND).exclude(outbox__status=OutboxMessage.Status.UNKNOWN):
        yield f"review {review.pk} asks about message {review.outbox_id}, of which nobody is unsure"
    answered = Review.objects.filter(status=Review.Status.ANSWERED)
    for review in answered.filter(Q(answer="") | Q(answered_at=None)):
        yield f"review {review.pk} is answered without an answer"


def an_unsure_sending_is_asked_about() -> Iterator[str]:
    for row in OutboxMessage.objects.filter(status=OutboxMessage.Status.UNKNOWN):
        if not row.reviews.filter(status=Review.Status.OPEN).exists():
            yield f"nobody is asked about message {row.pk}"


def what_waits_to_leave_is_approved() -> Iterator[str]:
    """A message that waits belongs to an output that is current and approved, and to an item that is not closed."""
    waiting = OutboxMessage.objects.filter(status=OutboxMessage.Status.PENDING)
    unfit = Q(output__isnull=False) & (Q(output__is_current=False) | ~Q(output__verdict=Output.Verdict.APPROVED))
    for row in waiting.filter(unfit):
        yield f"message {row.pk} ({row.key}) waits, and its output {row.output_id} is not approved or not current"
    # What a person says was not sent waits again, and is withdrawn when it is claimed.
    for row in waiting.filter(output__isnull=False, attempt=0, item__automation=Item.Automation.CLOSED):
        yield f"message {row.pk} ({row.key}) waits on a closed item"


def held_means_leased() -> Iterator[str]:
    for run in AgentRun.objects.exclude(status=AgentRun.Status.RUNNING).exclude(lease_token=None):
        yield f"agent run {run.pk} is {run.status} and has a token"
    for run in AgentRun.objects.exclude(status__in=AgentRun.ACTIVE).filter(ended_at=None):
        yield f"agent run {run.pk} is {run.status} and has not ended"


def ended_pipeline_runs_have_nothing_under_way() -> Iterator[str]:
    active = AgentRun.objects.filter(status__in=AgentRun.ACTIVE)
    for run in active.exclude(pipeline_run__status=PipelineRun.Status.ACTIVE):
        yield f"agent run {run.pk} is {run.status} in pipeline run {run.pipeline_run_id}, which has ended"
    for pipeline in PipelineRun.objects.exclude(status=PipelineRun.Status.ACTIVE).filter(ended_at=None):
        yield f"pipeline run {pipeline.pk} is {pipeline.status} without an end"


def nobody_is_forgotten() -> Iterator[str]:
    """What is open and due on an active item is looked at again, or is being worked on."""
    now = timezone.now()
    items = Item.objects.filter(automation=Item.Automation.ACTIVE, route_due_at=None)
    busy = AgentRun.objects.filter(status__in=AgentRun.ACTIVE).values("item")
    for trigger in Trigger.objects.filter(
        item__in=items.exclude(pk__in=busy), status=Trigger.Status.OPEN, due_at__lte=now
    ).exclude(item__agent_runs__status=AgentRun.Status.FAILED):
        yield f"trigger {trigger.pk} ({trigger.kind}) is open on item {trigger.item_id}, which nobody looks at"
    for pipeline in PipelineRun.objects.filter(status=PipelineRun.Status.ACTIVE, item__in=items.exclude(pk__in=busy)):
        yield f"pipeline run {pipeline.pk} is active on item {pipeline.item_id}, which nobody works on or looks at"


def nothing_is_sent_to_those_who_asked_not_to_be_written_to() -> Iterator[str]:
    waiting = Review.objects.filter(status=Review.Status.OPEN, kind=Review.Kind.DRAFT, output__key="email")
    for review in waiting.select_related("item"):
        if review.item is not None and "suppressed" in review.item.tags:
            yield f"review {review.pk} offers to write to item {review.item_id}, whose person opted out"


def money_adds_up() -> Iterator[str]:
    """Runs cost what their calls cost; budgets have spent what was settled and reserved what is under way."""
    for run in AgentRun.objects.all():
        if run.cost_usd != _sum(ModelCall.objects.filter(agent_run=run), "cost_usd"):
            yield f"agent run {run.pk} says {run.cost_usd}, its calls another sum"
    under_way = ModelCall.objects.filter(status=ModelCall.Status.STARTED)
    for period in BudgetPeriod.objects.select_related("budget"):
        department = period.budget.department_id
        reserved = _sum(under_way.filter(department=department), "reserved_usd")
        if period.reserved_usd != reserved:
            yield f"period {period.pk} has {period.reserved_usd} reserved, its calls {reserved}"
        spent = _sum(ModelCall.objects.filter(department=department), "cost_usd")
        if period.spent_usd != spent:
            yield f"period {period.pk} has spent {period.spent_usd}, its calls {spent}"
        if period.budget.limit_usd is not None and period.spent_usd + period.reserved_usd > period.budget.limit_usd:
            yield f"period {period.pk} is overrun"


def a_call_under_way_belongs_to_a_run_under_way() -> Iterator[str]:
    started = ModelCall.objects.filter(status=ModelCall.Status.STARTED).select_related("agent_run")
    for call in started.exclude(agent_run__status=AgentRun.Status.RUNNING):
        yield f"call {call.pk} is under way, its run is {call.agent_run and call.agent_run.status}"


def messages_say_what_was_sent() -> Iterator[str]:
    """What is marked as sent stands in the conversation once, and nothing else does."""
    for row in OutboxMessage.objects.filter(status=OutboxMessage.Status.SENT, output__isnull=False):
        written = Message.objects.filter(item=row.item_id, direction=Message.Direction.OUT, output=row.output_id)
        sent = OutboxMessage.objects.filter(status=OutboxMessage.Status.SENT, output=row.output_id)
        if written.count() != sent.count():
            yield f"output {row.output_id}: {written.count()} in the conversation, {sent.count()} sent"


CHECKS: tuple[Callable[[], Iterator[str]], ...] = (
    one_current_output_for_each_occasion,
    one_active_run_for_each_agent_and_occasion,
    one_active_pipeline_run_for_each_item,
    no_output_outlives_what_it_was_made_from,
    questions_are_about_what_is_there,
    an_unsure_sending_is_asked_about,
    what_waits_to_leave_is_approved,
    held_means_leased,
    ended_pipeline_runs_have_nothing_under_way,
    nobody_is_forgotten,
    nothing_is_sent_to_those_who_asked_not_to_be_written_to,
    money_adds_up,
    a_call_under_way_belongs_to_a_run_under_way,
    messages_say_what_was_sent,
)


def _left() -> set[int]:
    """Outputs that have left the house, or may have."""
    written = Message.objects.filter(output__isnull=False, direction=Message.Direction.OUT)
    away = (OutboxMessage.Status.SENDING, OutboxMessage.Status.SENT, OutboxMessage.Status.UNKNOWN)
    given = OutboxMessage.objects.filter(output__isnull=False, status__in=away)
    return {pk for rows in (written, given) for pk in rows.values_list("output_id", flat=True) if pk is not None}


def _sum(calls: Any, column: str) -> Decimal:
    # Rounded to the places of the column: SQLite adds up floating point numbers.
    return Decimal(round(calls.aggregate(total=Sum(column, default=Decimal(0)))["total"], 8))
