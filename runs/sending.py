"""Sends what is due: claims one message at a time, checks everything again, sends it outside of any transaction.

``pending`` becomes ``sending`` under the item's lock and is committed before anything leaves; the sender asks for its
lease once more right before it sends. A message that is found in ``sending`` with its lease run out is unsure: it is
never sent again by itself, unless the other side drops repetitions.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from uuid import uuid4

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q, QuerySet
from django_q.tasks import async_task

from agents.models import Department
from runs import departures, log, outbox, send_rates
from runs.database import now as database_now
from runs.effects import REVIEW_DEADLINE
from runs.models import Channel, Item, LogEntry, OutboxMessage, Output, Review, Sender
from runs.outbox import Status, words
from runs.outputs import keep_silent
from runs.releases import newer_migrations
from runs.send_channels import CHANNELS
from runs.send_channels.base import Bounced, Misconfigured, Refused, Undeliverable, Unsure
from runs.send_conditions import Hold, Then, why_not
from runs.send_situation import closed, held_by, lease, situation
from runs.sendable import address_of, why_not_send
from runs.stopping import is_stopping

logger = logging.getLogger(__name__)
SEND_DUE = "runs.tasks.send_due"
SECONDS = 60.0
"""So long one task sends before it makes place for another."""
TASK_TIMEOUT_SECONDS = 180
ASKED = timedelta(seconds=30)
"""After so long without a sign of life another sender is asked for."""
LOOK = 50
MAX_ATTEMPTS = 10
BACKOFF_SECONDS = 60
MAX_BACKOFF_SECONDS = 3_600
REPEAT_WINDOW = timedelta(hours=24)
"""So long the other side is taken to know the key of a message that may be repeated."""
MEND = timedelta(minutes=5)
MARK_TRIES = 10
MARK_PAUSE_SECONDS = 1.0


def queue_due() -> bool:
    """Have the queue send what is due, unless a sender is asked for or at work; called every few seconds."""
    now = database_now()
    if not (_lost(now).exists() or _due(now).exists()):
        return False
    Sender.objects.get_or_create(pk=1)
    is_free = Q(asked_at=None) | Q(asked_at__lt=now - ASKED) | Q(asked_at__gt=now + ASKED)
    if not Sender.objects.filter(is_free, pk=1).update(asked_at=now):
        return False
    async_task(SEND_DUE, q_options={"timeout": TASK_TIMEOUT_SECONDS})
    return True


def send_due(*, worker: str, seconds: float = SECONDS) -> int:
    """Send until nothing is due or the time is up; returns how many have left."""
    until, sent = time.monotonic() + seconds, 0
    reap()
    while time.monotonic() < until and not is_stopping() and not newer_migrations():
        Sender.objects.filter(pk=1).update(asked_at=database_now())
        row = claim(worker=worker)
        if row is None:
            break
        sent += send(row)
    Sender.objects.filter(pk=1).update(asked_at=None)
    return sent


def claim(*, worker: str) -> OutboxMessage | None:
    """Take the next message that may leave now; None if there is none. What may not says why and until when."""
    while True:
        found = list(_due(database_now()).order_by("release_at", "pk").values_list("pk", "item_id")[:LOOK])
        for pk, item_id in found:
            row = _claim_or_put_off(pk, item_id, worker)
            if row is not None:
                return row
        if len(found) < LOOK:
            return None


def send(row: OutboxMessage) -> bool:
    """Send a claimed message and write down what became of it. True if it has left."""
    if not _renew(row):
        # Nothing has left: we woke up too late. If a person is being asked already, the question goes.
        departures.put_back(row, why="Its sender was held up.", until=database_now(), is_try=False)
        return False
    plugin = CHANNELS[row.channel]
    config = outbox.config_of(outbox.channel_of(row.department, row.channel))
    try:
        provider_id = plugin.send(row.key, row.rendered, config)
    except Misconfigured as error:
        departures.put_back(row, why=str(error), until=database_now() + MEND, is_try=False)
        departures.tell_misconfigured(row, str(error))
    except Undeliverable as error:
        departures.record_failure(row, why=str(error), is_bounce=isinstance(error, Bounced))
    except Refused as error:
        _try_again(row, str(error))
    except Unsure as error:
        _unsure(row, str(error))
    except Exception as error:
        logger.exception("message %s: its channel failed", row.pk)
        _unsure(row, f"An error in Kontor: {type(error).__name__}.")
    else:
        return _mark(row, provider_id)
    send_rates.hold_if_unusual(row.department)
    return False


def reap() -> int:
    """Find messages whose senders were lost; how many."""
    found = list(_lost(database_now()).select_related("department", "item").order_by("pk"))
    for row in found:
        _unsure(row, f"Its sender ({row.worker}) was lost while it sent it.")
    return len(found)


# --- What is due ----------------------------------------------------------------------------------------------


def _lost(now: datetime) -> QuerySet[OutboxMessage]:
    # Clocks move: a lease further ahead than its own length was given by a clock that was wrong.
    too_far = now + 2 * lease()
    is_over = Q(lease_expires_at__lt=now) | Q(lease_expires_at__gt=too_far)
    return OutboxMessage.objects.filter(is_over, status=Status.SENDING)


def _due(now: datetime) -> QuerySet[OutboxMessage]:
    """Messages whose time has come, but for those of departments and channels that send nothing now."""
    due = OutboxMessage.objects.filter(status=Status.PENDING, release_at__lte=now)
    for department_id, kind in list(due.order_by().values_list("department_id", "channel").distinct()):
        department = Department.objects.get(pk=department_id)
        reason = held_by(department) or closed(outbox.channel_of(department, kind), kind)
        if reason:
            same = OutboxMessage.objects.filter(department=department_id, channel=kind)
            # Not put off: they are due at once when somebody has changed what they wait for.
            waiting = same.filter(status=Status.PENDING, release_at__lte=now).exclude(waiting_for=reason[:300])
            waiting.update(waiting_for=reason[:300])
            due = due.exclude(department=department_id, channel=kind)
    return due


# --- Claiming -------------------------------------------------------------------------------------------------


def _claim_or_put_off(pk: int, item_id: int, worker: str) -> OutboxMessage | None:
    """One message that cannot even be looked at must not hold up those behind it."""
    try:
        return _claim_one(pk, item_id, worker)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        logger.exception("message %s cannot be claimed", pk)
        text = f"An error in Kontor: {type(error).__name__}: {error}"[:300]
        rows = OutboxMessage.objects.filter(pk=pk, status=Status.PENDING)
        rows.update(waiting_for=text, error=text, release_at=database_now() + MEND)
        return None


def _claim_one(pk: int, item_id: int, worker: str) -> OutboxMessage | None:
    with transaction.atomic():
        item = Item.objects.select_for_update(of=("self",), no_key=True).select_related("department").get(pk=item_id)
        now = database_now()
        rows = OutboxMessage.objects.filter(pk=pk, status=Status.PENDING, release_at__lte=now)
        row = rows.select_for_update(of=("self",)).select_related("output", "approved_by", "department").first()
        if row is None:
            return None
        # Last in the order of locks: two senders must not count to the same limit side by side.
        channels = Channel.objects.select_for_update(of=("self",))
        channel = channels.filter(department=row.department_id, kind=row.channel).first()
        is_new_address = _complete(row, item, channel)
        hold = why_not(situation(row, item, channel, now=now, is_new_address=is_new_address))
        if hold is not None:
            _hold(row, item, hold, now)
            return None
        row.status, row.waiting_for, row.worker = Status.SENDING, "", worker
        row.lease_token, row.lease_expires_at = uuid4(), now + lease()
        row.attempt += 1
        row.save()
    return row


def _complete(row: OutboxMessage, item: Item, channel: Channel | None) -> bool:
    """A sender or an address that was unknown when the message was written may be known by now.

    True if it is the address: nobody has approved that the message goes there.
    """
    if not CHANNELS[row.channel].reaches_person or (row.address and row.rendered.get("from")):
        return False
    was_known = bool(row.address)
    row.address = row.address or address_of(item)
    row.rendered = outbox.render(row, row.rendered, channel)
    return bool(row.address) and not was_known


def _hold(row: OutboxMessage, item: Item, hold: Hold, now: datetime) -> None:
    """Carry out what becomes of a message that may not leave; its item is locked."""
    if hold.then is Then.WAIT:
        until = max(hold.until or now, now + timedelta(seconds=1))
        is_new = row.waiting_for != hold.reason[:300]
        row.waiting_for, row.release_at = hold.reason[:300], until
        row.save(update_fields=["waiting_for", "release_at", "address", "rendered"])
        if is_new:
            text = f"The {words(row.purpose)} waits: {hold.reason} It is looked at again at {until:%Y-%m-%d %H:%M} UTC."
            log.write([log.item_entry(item, "outbox", text, at=now)])
        return
    outbox.take_back(OutboxMessage.objects.filter(pk=row.pk), hold.reason)
    text = f"Not sent: the {words(row.purpose)} to {row.address}. {hold.reason}"
    log.write([log.item_entry(item, "outbox", text, at=now, level=LogEntry.Level.WARNING)])
    if hold.then is Then.ASK and row.output is not None:
        _ask(row, row.output, item, hold.reason, now)
    elif row.output is None:
        item.flag = text[:300]
        item.save(update_fields=["flag", "changed_at"])


def _ask(row: OutboxMessage, output: Output, item: Item, reason: str, now: datetime) -> None:
    """Back to a person, as a question of its own, with the verdict taken back."""
    keep_silent([output.pk], reason, now)
    Output.objects.filter(pk=output.pk).update(verdict=Output.Verdict.NONE)
    what = f"the {words(row.purpose)} to {row.address}"
    # Nobody is asked for a yes that would be refused.
    question = f"What shall become of {what}?" if why_not_send(item, output) else f"Shall {what} be sent?"
    Review.objects.get_or_create(
        output=output,
        kind=Review.Kind.DRAFT,
        status=Review.Status.OPEN,
        defaults={
            "department_id": row.department_id,
            "item": item,
            "agent_run_id": output.agent_run_id,
            "ask": f"{reason} {question}"[:500],
            "risk": 2,
            "deadline": now + REVIEW_DEADLINE,
        },
    )
    item.route_due_at = now
    item.save(update_fields=["route_due_at", "changed_at"])


# --- Sending --------------------------------------------------------------------------------------------------


def _renew(row: OutboxMessage) -> bool:
    """Whether the message is still ours; its lease begins anew."""
    now = database_now()
    held = OutboxMessage.objects.filter(pk=row.pk, status=Status.SENDING, lease_token=row.lease_token)
    return bool(held.filter(lease_expires_at__gt=now).update(lease_expires_at=now + lease()))


def _mark(row: OutboxMessage, provider_id: str) -> bool:
    """Write down that it has left. The database may be away for a moment; a sent mail is not forgotten for that."""
    for tries_left in reversed(range(MARK_TRIES)):
        try:
            has_left = departures.record_sent(row, provider_id=provider_id)
            send_rates.hold_if_unusual(row.department)
            return has_left
        except (OperationalError, InterfaceError):
            if not tries_left:
                raise
            logger.warning("message %s was sent, but the database does not answer; trying again", row.pk)
            connection.close()
            time.sleep(MARK_PAUSE_SECONDS)
    raise AssertionError("unreachable")


def _try_again(row: OutboxMessage, why: str) -> None:
    if row.attempt >= MAX_ATTEMPTS:
        departures.record_failure(row, why=f"{row.attempt} tries were refused. {why}")
        return
    wait = min(BACKOFF_SECONDS * 2 ** max(row.attempt - 1, 0), MAX_BACKOFF_SECONDS)
    departures.put_back(row, why=why, until=database_now() + timedelta(seconds=wait))


def _unsure(row: OutboxMessage, why: str) -> None:
    """It may have left. Where the other side drops repetitions, it is repeated as long as it knows the key."""
    now = database_now()
    is_known = row.approved_at + REPEAT_WINDOW > now
    if CHANNELS[row.channel].is_repeatable and is_known and row.attempt < MAX_ATTEMPTS:
        _try_again(row, f"{why} It may be repeated: the other side knows its key.")
    else:
        departures.record_unknown(row, why=why)
