"""Five examples before anything else: of many new items only the first are worked on until a person says go on.

The others are paused, which every page shows with its reason, and which nothing but a person ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from agents.models import Department
from runs import bulk as bulks
from runs import control
from runs.allowed import Allowed, no
from runs.models import BulkAction, Item, PipelineRun

EXAMPLES = 5
REASON = "Waits until somebody has looked at the first five examples and says go on."
VERB = "go_on_after_examples"


def wants_examples(department: Department) -> bool:
    """Whether examples are proposed: some wait for a word, or nothing was ever worked on here. Not after the word."""
    if has_said(department):
        return False
    return held_items(department).exists() or not PipelineRun.objects.filter(item__department=department).exists()


def has_said(department: Department) -> bool:
    """Whether somebody has said go on, and nobody has aborted it: from then on nothing waits for a word."""
    said = BulkAction.objects.filter(department=department, verb=VERB)
    return said.exclude(status=BulkAction.Status.ABORTED).exists()


def is_going_on(department: Department) -> bool:
    """Whether somebody has said go on, and not all of those that wait have been reached yet."""
    return BulkAction.objects.filter(department=department, verb=VERB, status=BulkAction.Status.RUNNING).exists()


def held_items(department: Department) -> QuerySet[Item]:
    """The items that wait for a person's word."""
    return Item.objects.filter(
        department=department, automation=Item.Automation.PAUSED, automation_reason=REASON
    ).order_by("pk")


def hold_back(department: Department, item_ids: Sequence[int], *, user: User | None, now: datetime) -> list[int]:
    """Pause all but the first five of these new items, whose rows are locked; the ids of those that are paused now.

    If items wait already, they had their five examples. Once somebody has said go on, nothing more waits. What was
    worked on before, and what a person has switched, is left alone.
    """
    if has_said(_locked(department)):
        return []
    fresh = Item.objects.filter(
        pk__in=item_ids, automation=Item.Automation.ACTIVE, pipeline_runs__isnull=True, route_due_at=None
    ).order_by("pk")
    first = 0 if held_items(department).exists() else EXAMPLES
    held = list(fresh.values_list("pk", flat=True)[first:])
    Item.objects.filter(pk__in=held).update(
        automation=Item.Automation.PAUSED, automation_reason=REASON, automation_by=user, changed_at=now
    )
    return held


def holds_new(department: Department) -> bool:
    """Whether an item that comes in now waits with those that wait for a word, in the caller's transaction."""
    if not held_items(department).exists():
        return False
    return not has_said(_locked(department))


def go_on(*, department: Department, user: User) -> BulkAction | None:
    """Let everything that waits be worked on, one after the other; None if nothing waits or somebody said so."""
    with transaction.atomic():
        locked = _locked(department)
        total = held_items(locked).count()
        if not total or is_going_on(locked):
            return None
        bulk = bulks.begin(
            department=locked, user=user, verb=VERB, selection={"examples": True}, arguments={"after": [0]}, total=total
        )
    return bulks.work_on(bulk)


def _locked(department: Department) -> Department:
    """The department, locked after items: whoever holds items back and whoever lets them go see each other's work."""
    return Department.objects.select_for_update(of=("self",), no_key=True).get(pk=department.pk)


def _next(bulk: BulkAction) -> bulks.Target | None:
    item = held_items(bulk.department).filter(pk__gt=bulk.arguments["after"][0]).first()
    return bulks.Target(item, item.pk, [item.pk]) if item is not None else None


def _do(bulk: BulkAction, item: Item) -> Allowed:
    if bulk.user is None:
        return no("Who asked for it is no longer here.")
    return control.resume_item(item=item, user=bulk.user, bulk=bulk)


bulks.register(bulks.Verb(VERB, "Go on after the examples", _next, _do))
