"""Outputs made from something that has changed since: said on pages, marked, and never a reason to run by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction

from agents.models import Department, Soul
from runs.commits import lock_items
from runs.database import now as database_now
from runs.inputs import gather_inputs
from runs.models import Item, Output
from runs.staff import load_desks

OLDER_SOUL = "made with an older SOUL"
OLDER_INPUTS = "made from older inputs"
MARK_WITHIN = timedelta(days=1)
"""So long after a SOUL was published outputs of the one before are looked for."""
BATCH = 500


def find_stale(item: Item, outputs: Sequence[Output]) -> dict[int, str]:
    """Which of the item's current outputs would be made differently now, and why: ``{output id: words}``.

    Compares fingerprints, in a fixed number of queries. What an agent was told of the conversation always changes,
    so of agents that read it only SOUL and inputs count. Outputs need ``agent_run`` and ``trigger`` selected.
    """
    made = [output for output in outputs if output.agent_run is not None and output.fingerprint]
    if not made:
        return {}
    # Neither prices nor what the installation is doing says anything of it.
    desks = load_desks([item.department], Department.State.RUNNING)
    desk = desks.get(item.department_id)
    if desk is None:
        return {}
    runs = []
    for output in made:
        run = output.agent_run
        if run is not None and run.agent_id in desk.agents:
            run.trigger = output.trigger
            runs.append(run)
    prepared = gather_inputs(runs, desks)
    found = {}
    for output in made:
        run = output.agent_run
        if run is None or run.pk not in prepared:
            continue
        soul, now = desk.souls.get(run.agent_id), prepared[run.pk]
        if run.soul_id is not None and soul is not None and soul.pk != run.soul_id:
            found[output.pk] = OLDER_SOUL
            continue
        is_changed = now.fingerprint != output.fingerprint and not desk.agents[run.agent_id].conversation
        if is_changed or sorted(now.made_from) != sorted(output.made_from):
            found[output.pk] = OLDER_INPUTS
    return found


def mark_older_souls() -> int:
    """Mark current outputs that were made with a SOUL that another has replaced; their number. Called each minute.

    Nothing is retired and nothing runs again: that a person or a rule decides.
    """
    since = database_now() - MARK_WITHIN
    published = Soul.objects.filter(status=Soul.Status.PUBLISHED, number__gt=1, published_at__gte=since)
    retired = Soul.objects.filter(status=Soul.Status.RETIRED, agent__in=published.values("agent"))
    souls, marked = list(retired.values_list("pk", flat=True)), 0
    while souls:
        # Who chose an older SOUL for a run knows that it is one.
        chosen = {"agent_run__soul__in": souls, "agent_run__pinned_soul": None}
        made = Output.objects.filter(is_current=True, is_stale=False, **chosen).order_by("item_id")
        batch = dict(made.values_list("pk", "item_id")[:BATCH])
        if not batch:
            break
        with transaction.atomic():
            lock_items(set(batch.values()))
            marked += Output.objects.filter(pk__in=batch, is_stale=False).update(is_stale=True)
    return marked
