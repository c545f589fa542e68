"""What became of a message: each ending is written down once, with what follows from it.

Whoever sends holds a token. A row that was found unsure meanwhile keeps it, so that a late but clear answer of the
other side still counts, until a person has decided.
"""

from __future__ import annotations

import logging
from datetime import datetime

from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import QuerySet

from runs import dispatch, log, outbox, suppressions
from runs.alerts import close_alert, raise_alert
from runs.allowed_sending import AGAIN, NOT_LEFT, can_mark_sent, can_send_another, can_settle, family_of
from runs.database import now as database_now
from runs.effects import REVIEW_DEADLINE
from runs.models import Action, Alert, Item, LogEntry, Message, OutboxMessage, Review, Suppression
from runs.outbox import Status, words
from runs.send_channels import CHANNELS
from runs.staff import load_staff

logger = logging.getLogger(__name__)
PAGE = "/outbox/"
HELD = (Status.SENDING, Status.UNKNOWN)
"""With our token: being sent, or found unsure because it took too long."""


def record_sent(row: OutboxMessage, *, provider_id: str = "") -> bool:
    """The other side has taken it. False if the token is no longer ours.

    Where the kind cannot say what follows, the sending is written down all the same, and the item looked at again.
    """
    for is_routed in (True, False):
        try:
            return _record_sent(row, provider_id, is_routed)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            if not is_routed:
                raise
            logger.exception("what follows from message %s cannot be worked out", row.pk)
    raise AssertionError("unreachable")


def put_back(row: OutboxMessage, *, why: str, until: datetime, is_try: bool = True) -> bool:
    """It has certainly not been sent and is tried again. ``is_try`` False: it does not count as one."""
    with transaction.atomic():
        now = database_now()
        item = _lock(row)
        changes = {"status": Status.PENDING, "error": why, "waiting_for": why[:300], "release_at": until}
        if not is_try:
            changes["attempt"] = max(row.attempt - 1, 0)
        if not _end(row, **changes):
            return False
        _close_question(row, "It has not been sent, as was found out afterwards.", now)
        text = f"The {words(row.purpose)} could not leave and is tried again at {until:%H:%M:%S} UTC. {why}"
        # traffic_signs: since when this message is refused; its item may have others.
        data = {"refused": row.pk}
        log.write([log.item_entry(item, "outbox", text, at=now, level=LogEntry.Level.WARNING, data=data)])
    return True


def record_failure(row: OutboxMessage, *, why: str, is_bounce: bool = False) -> bool:
    """It has not been sent and will not be. The item says so; an address that takes no mail goes onto the list."""
    with transaction.atomic():
        now = database_now()
        item = _lock(row)
        ended = {"ended_at": now, "bounced_at": now if is_bounce else None}
        if not _end(row, status=Status.FAILED, error=why, **ended):
            return False
        _close_question(row, "It has not been sent, as was found out afterwards.", now)
        _tell_failure(item, row, why, now)
        if is_bounce:
            reason = Suppression.Reason.BOUNCE
            suppressions.suppress(address=row.address, reason=reason, note=why, item=item)
    return True


def record_unknown(row: OutboxMessage, *, why: str) -> bool:
    """It may have been sent: a person is asked, and it is never sent again by itself. False if it has ended."""
    with transaction.atomic():
        now = database_now()
        item = _lock(row)
        rows = OutboxMessage.objects.filter(pk=row.pk, lease_token=row.lease_token, status=Status.SENDING)
        if not rows.update(status=Status.UNKNOWN, error=why, waiting_for=""):
            return False
        ask = f"Was the {words(row.purpose)} to {row.address} sent? {why}"
        Review.objects.get_or_create(
            outbox=row,
            status=Review.Status.OPEN,
            defaults={
                "department_id": row.department_id,
                "item": item,
                "output_id": row.output_id,
                "kind": Review.Kind.UNSURE_SEND,
                "ask": ask[:500],
                "risk": 3,
                "deadline": now + REVIEW_DEADLINE,
            },
        )
        text = f"It is unsure whether the {words(row.purpose)} to {row.address} was sent: a person is asked. {why}"
        log.write([log.item_entry(item, "outbox", text, at=now, level=LogEntry.Level.WARNING)])
    return True


# --- People ---------------------------------------------------------------------------------------------------


def settle_unknown(*, message: OutboxMessage, user: User, was_sent: bool) -> bool:
    """A person says whether an unsure message was sent; False if somebody was first.

    One that was not waits to be sent again; one that was is never sent again.
    """
    found = "had been sent" if was_sent else "had not been sent"
    answer = Review.Answer.WAS_SENT if was_sent else Review.Answer.NOT_SENT
    with transaction.atomic():
        now = database_now()
        item = _lock(message)
        message.refresh_from_db()
        if not can_settle(message):
            return False
        row = _take(message, (Status.UNKNOWN,), was_sent, f"{user} said that it {found}.", now)
        if row is None:
            return False
        Review.objects.filter(outbox=row, status=Review.Status.OPEN).update(
            status=Review.Status.ANSWERED, answer=answer, answered_by=user, answered_at=now
        )
        _act(row, user, "settle_unsure", Status.UNKNOWN)
        text = f"The {words(row.purpose)} to {row.address} {found}, says {user}."
        log.write([log.item_entry(item, "answer", text, at=now)])
        if was_sent:
            _follow(item, row, now)
    return True


def mark_sent(*, message: OutboxMessage, user: User) -> bool:
    """A person has sent it by other means, so it is not sent again. False unless it waits, or could not be sent."""
    with transaction.atomic():
        now = database_now()
        item = _lock(message)
        message.refresh_from_db()
        if not can_mark_sent(message):
            return False
        before = message.status
        row = _take(message, NOT_LEFT, True, f"{user} sent it by hand.", now)
        if row is None:
            return False
        _act(row, user, "mark_sent", before)
        text = f"{user} sent the {words(row.purpose)} by hand."
        log.write([log.item_entry(item, "sent", text, at=now)])
        _follow(item, row, now, is_by_hand=True)
    return True


def send_another(*, message: OutboxMessage, user: User, reason: str = "") -> OutboxMessage | None:
    """A person wants a second message for a purpose of which one was sent. None if one is on its way or unsure,
    if nothing that is approved can be sent, or if the item is closed."""
    with transaction.atomic():
        now = database_now()
        item = _lock(message)
        message.item = item
        if not can_send_another(message):
            return None
        family = family_of(message)
        key = f"{message.key.partition(AGAIN)[0]}{AGAIN}{len(family) + 1}"
        again = outbox.write_again(item, message, key=key, user=user, now=now)
        if again is None:
            return None
        _act(again, user, "send_another", "", reason)
        text = f"{user} wants another {words(again.purpose)} sent. {reason}".strip()
        log.write([log.item_entry(item, "outbox", text, at=now)])
    return again


# --- Inside ---------------------------------------------------------------------------------------------------


def _record_sent(row: OutboxMessage, provider_id: str, is_routed: bool) -> bool:
    with transaction.atomic():
        now = database_now()
        item = _lock(row)
        ended = {"sent_at": now, "ended_at": now, "provider_id": provider_id[:255], "error": "", "waiting_for": ""}
        if not _end(row, status=Status.SENT, **ended) and not _end_waiting(row, status=Status.SENT, **ended):
            return False
        _close_question(row, "It was sent, as was found out afterwards.", now)
        text = f"Sent: the {words(row.purpose)} to {row.address}."
        log.write([log.item_entry(item, "sent", text, at=now)])
        _follow(item, row, now, is_routed=is_routed)
        close_alert(department=row.department, key=channel_alert(row.channel))
    return True


def tell_misconfigured(row: OutboxMessage, why: str) -> None:
    """Nothing leaves over this channel until somebody has mended it: an alert says so."""
    with transaction.atomic():
        raise_alert(
            kind=Alert.Kind.SYSTEM,
            department=row.department,
            key=channel_alert(row.channel),
            text=f"{row.department}: nothing can leave over the {row.channel} channel. {why}"[:1_000],
            link=PAGE,
            next_step="What waits is tried again every few minutes. Mend the settings or the credentials.",
        )


def channel_alert(channel: str) -> str:
    """The key of the alert about a channel that does not work."""
    return f"channel:{channel}"


def _lock(row: OutboxMessage) -> Item:
    items = Item.objects.select_for_update(of=("self",), no_key=True).select_related("department")
    return items.get(pk=row.item_id)


def _end(row: OutboxMessage, **changes: object) -> int:
    """Change the row if the token is still ours, and give it back."""
    rows = OutboxMessage.objects.filter(pk=row.pk, lease_token=row.lease_token, status__in=HELD)
    return rows.update(lease_token=None, lease_expires_at=None, **changes)


def _end_waiting(row: OutboxMessage, **changes: object) -> int:
    """Somebody has said that it was not sent, and it waits again: what has left all the same must not leave twice."""
    return OutboxMessage.objects.filter(pk=row.pk, lease_token=None, status=Status.PENDING).update(**changes)


def _take(
    message: OutboxMessage, before: tuple[str, ...], was_sent: bool, reason: str, now: datetime
) -> OutboxMessage | None:
    """Settle the row of a locked item by a person's word; None if it is not so any more."""
    status = Status.SENT if was_sent else Status.PENDING
    times = {"sent_at": now, "ended_at": now} if was_sent else {"release_at": now}
    rows: QuerySet[OutboxMessage] = OutboxMessage.objects.filter(pk=message.pk, status__in=before)
    changed = rows.update(
        status=status, reason=reason[:300], waiting_for="", lease_token=None, lease_expires_at=None, **times
    )
    if not changed:
        return None
    message.refresh_from_db()
    return message


def _follow(item: Item, row: OutboxMessage, now: datetime, *, is_routed: bool = True, is_by_hand: bool = False) -> None:
    """What follows from a sent message: its place in the conversation, what the kind says, the routing."""
    if CHANNELS[row.channel].reaches_person:
        # Under what name a person's own mail program sent it, nobody knows.
        headers = {} if is_by_hand else row.rendered.get("headers", {})
        Message.objects.create(
            item=item,
            direction=Message.Direction.OUT,
            channel=row.channel,
            subject=str(row.rendered.get("subject", ""))[:500],
            body=str(row.rendered.get("body", "")),
            address=row.address,
            message_id=str(headers.get("Message-ID", ""))[:255],
            in_reply_to=str(headers.get("In-Reply-To", ""))[:255],
            output_id=row.output_id,
            trigger_id=row.trigger_id,
            author=row.approved_by if row.output_id is None else None,
            at=now,
        )
    if not is_routed:
        item.route_due_at = now
        item.save(update_fields=["route_due_at", "changed_at"])
        return
    staff, events = load_staff(), []
    # What follows from the first of a purpose does not follow again from another one: a second row of follow-ups.
    if row.output is not None and AGAIN not in row.key:
        settings = staff.desks[item.department_id].department.settings
        events.append((item, row.output, dispatch.output_event("sent", row.output, row.trigger, settings)))
    log.write(dispatch.route([item], staff, now=now, events=events))


def _tell_failure(item: Item, row: OutboxMessage, why: str, now: datetime) -> None:
    text = f"The {words(row.purpose)} to {row.address} could not be sent. {why}"
    item.flag = text[:300]
    item.save(update_fields=["flag", "changed_at"])
    log.write([log.item_entry(item, "outbox", text, at=now, level=LogEntry.Level.ERROR)])
    raise_alert(
        kind=Alert.Kind.FAILURE,
        department=row.department,
        key=f"send:{row.key}"[:200],
        text=text[:1_000],
        link=item.get_absolute_url(),
        next_step="Nothing more is tried. Send it by hand, mend the address and approve it again, or let it be.",
        item=item,
    )


def _close_question(row: OutboxMessage, why: str, now: datetime) -> None:
    Review.objects.filter(outbox=row, status=Review.Status.OPEN).update(
        status=Review.Status.WITHDRAWN, answer_note=why, answered_at=now
    )


def _act(row: OutboxMessage, user: User, verb: str, before: str, reason: str = "") -> None:
    Action.objects.create(
        department_id=row.department_id,
        item_id=row.item_id,
        user=user,
        verb=verb,
        target=f"outbox:{row.pk}",
        before={"status": before} if before else {},
        after={"status": row.status},
        reason=reason[:300],
    )
