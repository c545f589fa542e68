"""Try-outs under way: claimed, held by a lease, settled. Called on the database thread of ``runs.tryout_desk``.

One whose worker is lost ends as failed, with what its call had reserved, and a person may start it again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q

from agents.budgets import Refused, begin_periods
from agents.causes import Cause
from agents.model_state import load_states
from agents.models import Department, Installation, Soul
from agents.souls import sections_of
from runs.calls import CallAsk, abandon_try_outs, find_open, open_calls, settle_calls
from runs.database import now as database_now
from runs.gates import count_in_flight, why_crowded
from runs.inputs import Prepared, gather_inputs
from runs.models import TryOut
from runs.staff import Staff
from runs.tryouts import build_request, end, missing, queue, stand_in, why_not
from runs.work import CutOff, Finished, OpenCall, SeenCall, Work

logger = logging.getLogger(__name__)
Status = TryOut.Status

AT_ONCE = 10
"""So many try-outs of the whole installation are under way at once: all in one process, which is their only place."""
_LOST = "The worker was lost before the answer was seen. What the call had reserved counts as spent. Try it again."


def claim(mine: Collection[UUID], *, staff: Staff, worker: str, room: int = AT_ONCE) -> list[Work]:
    """Take what is queued, while nobody else holds any. Each has its budget reserved and its call written down.

    What a model has no room for, because a rate limit has lowered how many calls it takes, stays queued and says so.
    """
    with transaction.atomic():
        now = database_now()
        rows = list(
            TryOut.objects.filter(status__in=TryOut.ACTIVE)
            .select_related("trigger")
            .select_for_update(of=("self",))
            .order_by("pk")
        )
        running = [row for row in rows if row.status == Status.RUNNING and row.lease_token not in mine]
        if any(not _expired(row, now) for row in running):
            return []
        queued = [row for row in rows if row.status == Status.QUEUED]
        return _claim_free(queued[: max(room - len(mine), 0)], staff, worker, now)


def renew(tokens: Collection[UUID]) -> set[UUID]:
    """Say that these are still worked on; returns those that are still ours."""
    expires = database_now() + timedelta(seconds=settings.LEASE_SECONDS)
    held = TryOut.objects.filter(lease_token__in=tokens, status=Status.RUNNING)
    held.update(lease_expires_at=expires)
    return {token for token in held.values_list("lease_token", flat=True) if token is not None}


def find_stopped(department_ids: Collection[int]) -> set[int]:
    """Those of the departments in which everything is to stop now: their own switch or the installation's says so."""
    if Installation.objects.filter(pk=1, state=Department.State.STOPPED).exists():
        return set(department_ids)
    rows = Department.objects.filter(pk__in=department_ids, state=Department.State.STOPPED)
    return set(rows.values_list("pk", flat=True))


def next_call(
    work: Work, seen: SeenCall, number: int, params: dict[str, Any], *, staff: Staff, worker: str
) -> OpenCall | Refused | None:
    """Settle the call that was seen and open the next one; None if the try-out is no longer ours."""
    with transaction.atomic():
        now = database_now()
        rows = TryOut.objects.filter(lease_token=work.token, status=Status.RUNNING).select_related("trigger")
        row = rows.select_for_update(of=("self",)).first()
        begin_periods(work.department_id, now=now)  # before the call that is settled is locked
        settle_calls([seen], staff, now=now)
        if row is None:
            return None
        row.lease_expires_at = now + timedelta(seconds=settings.LEASE_SECONDS)
        row.save(update_fields=["lease_expires_at"])
        ask = CallAsk(stand_in(row), work.agent, work.soul_id, work.api_key_env, 1, number, params, row.pk)
        return find_open(ask) or open_calls([ask], staff, now=now, worker=worker)[row.pk]


def finish(work: Work, ended: Finished | CutOff | None, *, staff: Staff, why: tuple[Cause, str] | None = None) -> None:
    """Write down what came of it: the answer or the reason. Who lost the lease leaves nothing but what it cost.

    ``why`` says why it was cut off.
    """
    with transaction.atomic():
        now = database_now()
        rows = TryOut.objects.filter(lease_token=work.token, status=Status.RUNNING)
        row = rows.select_for_update().first()
        if ended is not None:
            settle_calls(ended.unsettled, staff, now=now)
        if row is None:
            return
        if isinstance(ended, Finished) and ended.payload is not None:
            row.payload, row.trespasses = dict(ended.payload), ended.trespasses
            end(row, Status.DONE, now)
            return
        # With a call that was opened just when it was cut off.
        abandon_try_outs([row.pk], now=now, error="It was closed before the answer was seen.")
        if isinstance(ended, Finished):
            row.trespasses = ended.trespasses
            end(row, Status.FAILED, now, cause=ended.cause, error=ended.error)
            return
        cause, error = why or (Cause.CUT_OFF, "It was closed before its end.")
        end(row, Status.FAILED, now, cause=cause, error=error)


def reap() -> int:
    """End those whose worker is lost as failed; their calls stand at what they had reserved. Returns how many."""
    with transaction.atomic():
        now = database_now()
        rows = TryOut.objects.filter(status=Status.RUNNING).select_for_update().order_by("pk")
        lost = [row for row in rows if _expired(row, now)]
        abandon_try_outs([row.pk for row in lost], now=now, error="The worker was lost before the answer was seen.")
        for row in lost:
            end(row, Status.FAILED, now, cause=Cause.LOST, error=_LOST)
    return len(lost)


def look_after() -> None:
    """Each minute: end what is lost, and have carried out what a lost task left queued."""
    if TryOut.objects.filter(status=Status.RUNNING).exists():
        reap()
    if TryOut.objects.filter(status=Status.QUEUED).exists() and not is_desk_busy():
        queue()


def is_desk_busy() -> bool:
    """Whether somebody carries try-outs out just now, and so will look for more."""
    now = database_now()
    running = TryOut.objects.filter(status=Status.RUNNING)
    return any(not _expired(row, now) for row in running)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A try-out whose first request is built."""

    row: TryOut
    ask: CallAsk
    prepared: Prepared


def _claim_free(queued: Sequence[TryOut], staff: Staff, worker: str, now: datetime) -> list[Work]:
    states = load_states()
    in_flight = count_in_flight(states)
    wanted = []
    for row in queued:
        desk = staff.desks.get(row.department_id)
        key = (row.model, desk.department.api_key_env if desk else "")
        if crowded := why_crowded(states.get(key), in_flight[key]):
            row.error = f"It waits: {crowded}"
            row.save(update_fields=["error"])
        elif (one := _want(row, staff, now)) is not None:
            wanted.append(one)
            in_flight[key] += 1
    return _begin(wanted, staff, worker, now)


def _want(row: TryOut, staff: Staff, now: datetime) -> _Wanted | None:
    """Build its request; None for one that cannot be called, which ends as failed."""
    try:
        with transaction.atomic():
            if problem := why_not(row, staff, now):
                end(row, Status.FAILED, now, error=problem)
                return None
            prepared, params = _prepare(row, staff)
            desk = staff.desks[row.department_id]
            agent = desk.agents[row.agent_id]
            if problem := missing(agent, prepared):
                end(row, Status.FAILED, now, error=problem)
                return None
            key = desk.department.api_key_env
            return _Wanted(row, CallAsk(stand_in(row), agent, _soul_id(row), key, 1, 1, params, row.pk), prepared)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        _end_unprepared(row, error, now)
        return None


def _begin(wanted: Sequence[_Wanted], staff: Staff, worker: str, now: datetime) -> list[Work]:
    """Reserve for all of them at once, or budgets would not be locked in the order of their ids."""
    try:
        with transaction.atomic():
            opened = open_calls([one.ask for one in wanted], staff, now=now, worker=worker) if wanted else {}
            works = [_start(one, opened[one.row.pk], staff, worker, now) for one in wanted]
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        if len(wanted) > 1:
            return _begin(wanted[:1], staff, worker, now)  # the others at the next look
        _end_unprepared(wanted[0].row, error, now)
        return []
    return [work for work in works if work is not None]


def _end_unprepared(row: TryOut, error: Exception, now: datetime) -> None:
    logger.exception("try-out %s cannot be prepared", row.pk)
    text = f"Kontor could not prepare its request: {type(error).__name__}: {error}"
    end(row, Status.FAILED, now, cause=Cause.INTERNAL, error=text)


def _start(one: _Wanted, opened: OpenCall | Refused, staff: Staff, worker: str, now: datetime) -> Work | None:
    row, ask = one.row, one.ask
    if isinstance(opened, Refused):
        end(row, Status.FAILED, now, error=f"Nothing was called: {opened.reason}")
        return None
    row.status, row.worker, row.started_at, row.error = Status.RUNNING, worker, now, ""
    row.lease_token, row.lease_expires_at = uuid4(), now + timedelta(seconds=settings.LEASE_SECONDS)
    row.save(update_fields=["status", "worker", "started_at", "error", "lease_token", "lease_expires_at"])
    spec = staff.desks[row.department_id].agent_spec(ask.agent)
    return Work(
        run_id=row.pk,
        item_id=row.item_id,
        pipeline_run_id=0,
        department_id=row.department_id,
        agent=ask.agent,
        schema=spec.schema,
        facets=spec.facets,
        soul_id=ask.soul_id,
        api_key_env=ask.api_key_env,
        token=row.lease_token,
        attempt=1,
        prepared=one.prepared,
        first_call=opened,
    )


def _expired(row: TryOut, now: datetime) -> bool:
    # Clocks move: a lease further ahead than its own length was given by a clock that was wrong.
    too_far = now + timedelta(seconds=2 * settings.LEASE_SECONDS)
    return row.lease_expires_at is None or not now <= row.lease_expires_at <= too_far


def _prepare(row: TryOut, staff: Staff) -> tuple[Prepared, dict[str, Any]]:
    """Inputs and request as the engine would build them, with this SOUL and model."""
    run = stand_in(row)
    prepared = gather_inputs([run], staff.desks)[run.pk]
    return prepared, build_request(row, staff.desks[row.department_id], prepared)


def _soul_id(row: TryOut) -> int | None:
    """The SOUL in the accounts; None for a draft, whose text may change or be deleted."""
    published = Q(pk=row.soul_id) & ~Q(status=Soul.Status.DRAFT)
    soul = Soul.objects.filter(published).first() if row.soul_id else None
    return soul.pk if soul is not None and sections_of(soul) == row.sections else None
