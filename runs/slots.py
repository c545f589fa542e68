"""The places at which shifts run: who holds one, and how an empty one is filled.

A slot is filled by a queue task that carries its token. The token is written with the task in one transaction,
so a task that is presented twice finds its token used and returns.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django_q.tasks import async_task

from runs.database import now as database_now
from runs.models import ShiftSlot
from runs.releases import newer_migrations

HOLD_SHIFT = "runs.tasks.hold_shift"
LEASE_SECONDS = 7
PICK_UP_SECONDS = 5
"""A task that nobody has picked up for so long is written off, and another one queued."""
DRAIN_SECONDS = 300


def ensure_shifts() -> int:
    """Queue a shift for every slot that is empty or whose holder is lost. Returns how many were queued.

    None while the database is ahead of this release: the places are for the workers of the newer one.
    """
    if newer_migrations():
        return 0
    known = set(ShiftSlot.objects.values_list("number", flat=True))
    missing = [number for number in range(1, settings.SHIFTS + 1) if number not in known]
    ShiftSlot.objects.bulk_create([ShiftSlot(number=number) for number in missing], ignore_conflicts=True)
    now = database_now()
    empty = ShiftSlot.objects.filter(_empty(now), number__lte=settings.SHIFTS).values_list("number", flat=True)
    return sum(_fill(number, _empty(now)) for number in list(empty))


def hand_over(number: int, token: UUID) -> bool:
    """Give the slot to a successor; False if it was no longer ours."""
    return _fill(number, Q(token=token))


def take(number: int, token: UUID, *, worker: str) -> bool:
    """Begin the shift that the token was made for; False if it has begun already or was written off."""
    now = database_now()
    return bool(
        ShiftSlot.objects.filter(number=number, token=token, started_at=None).update(
            worker=worker,
            started_at=now,
            heartbeat_at=now,
            in_flight=0,
            lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
        )
    )


def renew(number: int, token: UUID, in_flight: int) -> bool:
    """Say that the shift lives; False if the slot was given to somebody else."""
    now = database_now()
    return bool(
        ShiftSlot.objects.filter(number=number, token=token).update(
            in_flight=in_flight, heartbeat_at=now, lease_expires_at=now + timedelta(seconds=LEASE_SECONDS)
        )
    )


def leave(number: int, token: UUID) -> None:
    """Empty the slot."""
    ShiftSlot.objects.filter(number=number, token=token).update(token=None, lease_expires_at=None, in_flight=0)


def leave_dead(machine: str) -> int:
    """Empty the slots whose holders on this machine no longer exist: nobody need wait for their leases.

    Where two containers share a machine's name, a holder that lives is taken for dead. It notices within seconds,
    claims nothing more and drains, as at the end of any shift. Returns how many slots were emptied.
    """
    held = ShiftSlot.objects.filter(token__isnull=False, worker__startswith=f"{machine}:")
    dead = [
        (number, token)
        for number, token, worker in held.values_list("number", "token", "worker")
        if token and _is_dead(worker)
    ]
    for number, token in dead:
        leave(number, token)
    return len(dead)


def count_alive() -> int:
    """How many shifts hold their slots now, on whatever machine."""
    return ShiftSlot.objects.filter(_alive(database_now())).count()


def is_first(number: int) -> bool:
    """Whether no slot of a smaller number is held: what one shift alone is to do, this one does."""
    return not ShiftSlot.objects.filter(_alive(database_now()), number__lt=number).exists()


def _is_dead(worker: str) -> bool:
    """Whether the process of a worker's name, ``machine:pid``, is none of this machine."""
    try:
        os.kill(int(worker.rpartition(":")[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False


def _empty(now: datetime) -> Q:
    # Clocks move: a lease further ahead than its own length was given by a clock that was wrong.
    is_over = Q(lease_expires_at__lt=now) | Q(lease_expires_at__gt=_too_far(now))
    return Q(token=None) | Q(lease_expires_at=None) | is_over


def _alive(now: datetime) -> Q:
    return Q(lease_expires_at__gt=now, lease_expires_at__lte=_too_far(now), started_at__isnull=False)


def _too_far(now: datetime) -> datetime:
    return now + timedelta(seconds=2 * LEASE_SECONDS)


def _fill(number: int, condition: Q) -> bool:
    with transaction.atomic():
        now, token = database_now(), uuid4()
        is_ours = ShiftSlot.objects.filter(condition, number=number).update(
            token=token,
            worker="",
            started_at=None,
            in_flight=0,
            lease_expires_at=now + timedelta(seconds=PICK_UP_SECONDS),
        )
        if is_ours:
            seconds = settings.SHIFT_SECONDS + DRAIN_SECONDS + 60
            async_task(HOLD_SHIFT, number, str(token), q_options={"timeout": seconds, "task_name": f"shift {number}"})
    return bool(is_ours)
