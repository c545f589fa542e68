"""Try-outs: one agent on one item with a SOUL and a model a person chose, and nothing written but the answer.

The request is built as the engine builds it, its calls are reserved and settled like all others. No run, no output,
no log line and no effect comes of it. Here is what a person does to them and what is asked; ``runs.tryout_claims``
holds them while ``runs.tryout_desk`` carries them out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import User
from django.db import transaction
from django_q.tasks import async_task

from agents.causes import Cause
from agents.model_state import is_closed, load_states
from agents.models import Agent, Soul
from agents.pricing import UnknownPrice
from agents.souls import SoulError, check_complete, name_of, sections_of
from runs.allowed import ERASED, YES, Allowed, no
from runs.calls import abandon_try_outs
from runs.control import act
from runs.database import now as database_now
from runs.gates import Choice
from runs.inputs import Prepared, build_params, gather_inputs
from runs.models import AgentRun, Item, Output, Trigger, TryOut
from runs.staff import Desk, Staff, load_staff
from runs.wording import in_words

Status = TryOut.Status

CARRY_OUT = "runs.tasks.carry_out_try_outs"
MOST_ITEMS = 5
"""So many items one start may compare."""
TAKE_SECONDS = 300.0
LONGEST_SECONDS = 600.0
"""A try-out that takes longer, with its tools and repairs, is given up."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One item to try the agent on, and the occasion: None for the item itself."""

    item: Item
    trigger: Trigger | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What trying would mean: the most that the first call can cost, or why it cannot be."""

    bound_usd: Decimal
    problem: str = ""


def preview(
    *, agent: Agent, wanted: Sequence[Wanted], soul: Soul, model: str, staff: Staff | None = None
) -> list[Preview]:
    """What each try-out would cost at most, and what stands against it; in a fixed number of queries.

    ``staff`` knows at least the agent's department, where it was read already.
    """
    staff, now = staff or load_staff(only=agent.department_id), database_now()
    rows = [_row(agent, one, soul, model, None, now) for one in wanted]
    if not rows:
        return []
    if problem := why_not(rows[0], staff, now):
        return [Preview(Decimal(0), problem)] * len(rows)
    for number, row in enumerate(rows, start=1):
        row.pk = number  # never saved: only to tell them apart
    desk = staff.desks[agent.department_id]
    inputs = gather_inputs([stand_in(row) for row in rows], staff.desks)
    found = []
    for row in rows:
        if problem := missing(desk.agents[agent.pk], inputs[row.pk]):
            found.append(Preview(Decimal(0), problem))
            continue
        params = build_request(row, desk, inputs[row.pk])
        size = len(json.dumps(params, ensure_ascii=False, separators=(",", ":")).encode())
        found.append(Preview(staff.prices.reservation(model, now.date(), size, params["max_tokens"])[0]))
    return found


def start(
    *, agent: Agent, wanted: Sequence[Wanted], soul: Soul, model: str, user: User
) -> tuple[Allowed, list[TryOut]]:
    """Queue one try-out for each item, and have them carried out. One start at a time for each person."""
    if not 0 < len(wanted) <= MOST_ITEMS:
        return no(f"Choose one to {MOST_ITEMS} to try it on."), []
    if soul.agent_id != agent.pk or any(one.item.department_id != agent.department_id for one in wanted):
        return no("SOUL, agent and items must belong together."), []
    if not (allowed := can_try(soul)):
        return allowed, []
    if any(one.item.is_erased for one in wanted):
        return no(ERASED), []
    foreseen = preview(agent=agent, wanted=wanted, soul=soul, model=model)
    for one, found in zip(wanted, foreseen, strict=True):
        if found.problem:
            return no(f"{one.item.title}: {found.problem}"), []
    with transaction.atomic():
        # The person's row is the lock: two clicks at once start one.
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        if TryOut.objects.filter(user=user, status__in=TryOut.ACTIVE).exists():
            return no("Your last try-out is still under way. Wait for it, or stop it."), []
        now, batch = database_now(), uuid4()
        rows = []
        for one, found in zip(wanted, foreseen, strict=True):
            row = _row(agent, one, soul, model, user, now)
            row.batch, row.bound_usd, row.compared_with = batch, found.bound_usd, _current(agent, one)
            row.save(force_insert=True)
            after = {"soul": row.soul_name, "model": model}
            act(one.item, user, "try_out", f"try_out:{row.pk}", after=after)
            rows.append(row)
    queue()
    return YES, rows


def can_try(soul: Soul) -> Allowed:
    """Try an agent with this SOUL."""
    try:
        check_complete(soul)
    except SoulError as error:
        return no(str(error))
    return YES


def stop(*, try_out: TryOut, user: User) -> bool:
    """End one that is queued or under way. What its call has reserved is spent unless its end is still seen."""
    with transaction.atomic():
        row = TryOut.objects.select_for_update().get(pk=try_out.pk)
        if not row.is_active:
            return False
        now = database_now()
        end(row, Status.STOPPED, now, error=f"{user} stopped it.")
        abandon_try_outs([row.pk], now=now, error="It was stopped before the answer was seen.")
        act(row.item, user, "stop_try_out", f"try_out:{row.pk}")
    return True


def queue() -> None:
    """Have what is queued carried out, by a task of the queue that may take as long as the longest."""
    seconds = int(TAKE_SECONDS + LONGEST_SECONDS) + 60
    async_task(CARRY_OUT, q_options={"timeout": seconds, "task_name": "try-outs"})


def end(row: TryOut, status: str, now: datetime, *, cause: Cause = Cause.NONE, error: str = "") -> None:
    """Write down its end; nobody holds it any more. The caller has locked the row."""
    row.status, row.cause, row.error, row.ended_at = status, cause, error, now
    row.lease_token = row.lease_expires_at = None
    row.save(
        update_fields=[
            *("status", "cause", "error", "ended_at", "lease_token", "lease_expires_at", "payload", "trespasses"),
        ]
    )


# --- What is asked --------------------------------------------------------------------------------------------


def _row(agent: Agent, wanted: Wanted, soul: Soul, model: str, user: User | None, now: datetime) -> TryOut:
    return TryOut(
        department_id=agent.department_id,
        agent=agent,
        item=wanted.item,
        trigger=wanted.trigger,
        user=user,
        soul=soul,
        soul_name=name_of(soul),
        sections=sections_of(soul),
        model=model,
        created_at=now,
    )


def stand_in(row: TryOut) -> AgentRun:
    """The agent run that the try-out is like; never saved."""
    return AgentRun(
        pk=row.pk, department_id=row.department_id, agent_id=row.agent_id, item_id=row.item_id, trigger=row.trigger
    )


def build_request(row: TryOut, desk: Desk, prepared: Prepared) -> dict[str, Any]:
    """The first request as the engine would build it, with this SOUL and model."""
    agent = desk.agents[row.agent_id]
    return build_params(agent, Soul(agent=agent, **row.sections), desk, prepared.data, Choice(row.model))


def why_not(row: TryOut, staff: Staff, now: datetime) -> str:
    """What keeps any call of it from starting, in a sentence; empty if nothing does."""
    desk = staff.desks.get(row.department_id)
    if desk is None or row.agent_id not in desk.agents:
        return "This release does not know the department or the agent."
    agent = desk.agents[row.agent_id]
    if agent.slug not in {spec.slug for spec in desk.spec.agents}:
        return f"This release no longer declares the agent {agent.slug}."
    if not desk.is_working:
        return "The department, or the whole installation, is switched off: no call starts."
    if desk.department.stopped_by_error:
        return f"The line stands still: {desk.department.stopped_by_error}"
    try:
        staff.prices.price_for(row.model, now.date())
    except UnknownPrice as error:
        return str(error)
    state = load_states().get((row.model, desk.department.api_key_env))
    if state is not None and is_closed(state, now):
        return f"{row.model} takes no calls until {state.closed_until:%H:%M:%S} UTC: {state.reason}"
    return ""


def missing(agent: Agent, prepared: Prepared) -> str:
    """Which outputs the agent needs that are not there, in a sentence; empty if all are."""
    keys = [in_words(key) for key in agent.needs if key not in prepared.data.outputs]
    return f"It has no {' and no '.join(keys)} yet, which {agent.title} needs." if keys else ""


def _current(agent: Agent, wanted: Wanted) -> Output | None:
    return Output.objects.filter(item=wanted.item, key=agent.writes, trigger=wanted.trigger, is_current=True).first()
