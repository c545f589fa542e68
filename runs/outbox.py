"""What is to leave the house: rows that are written with the approval, and taken back until they have left.

The key ``item:purpose[:trigger]`` makes each message one of a kind: undo and another approval use the same row, and
once it has left, or may have, the same purpose is refused. ``runs.sending`` sends; ``runs.departures`` writes down
what became of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from django.db.models import Q, QuerySet

from agents.models import Agent, Department
from agents.spec import Send
from runs import log, sendable
from runs.allowed_sending import can_withdraw
from runs.database import now as database_now
from runs.models import Action, AgentRun, Channel, Item, LogEntry, Message, OutboxMessage, Output
from runs.send_channels import CHANNELS
from runs.send_channels.base import Config, Letter
from runs.staff import Desk

Status = OutboxMessage.Status
PROVEN_SENDS = 5
"""So many sends that a person approved prove a configuration; from then on a rule may approve."""
UNSUBSCRIBE_SALT = "kontor.unsubscribe"
DEFAULT_UNDO_SECONDS = 60
EMAIL = "email"


def write_message(
    item: Item, output: Output, effect: Send, desk: Desk, *, now: datetime, approved_by: User | None
) -> list[LogEntry]:
    """Write what an approved output sends, in the transaction of the approval, under the item's lock.

    ``approved_by`` None: a rule or the agent's policy approved it. Returns the log lines, which say so where the
    message was refused because one for the same purpose has left.
    """
    if output.verdict != Output.Verdict.APPROVED:
        text = f"Nothing was written for sending: nobody has approved {output.key} {output.number}."
        return [log.item_entry(item, "outbox", text, at=now, level=LogEntry.Level.WARNING)]
    if effect.channel not in CHANNELS:
        text = f"The {words(effect.purpose)} goes nowhere: this release has no {effect.channel} channel."
        return [log.item_entry(item, "outbox", text, at=now, level=LogEntry.Level.ERROR)]
    if not CHANNELS[effect.channel].reaches_person and channel_of(desk.department, effect.channel) is None:
        text = f"The {words(effect.purpose)} goes nowhere: {desk.department} has no {effect.channel} channel."
        return [log.item_entry(item, "outbox", text, at=now)]
    key = key_of(item.pk, effect.purpose, output.trigger_id)
    left = OutboxMessage.objects.filter(key=key, status__in=OutboxMessage.LEFT).first()
    if left is not None:
        text = (
            f"Not sent again: the {words(effect.purpose)} {STANDING[Status(left.status)]}. Ask for another to send one."
        )
        return [log.item_entry(item, "outbox", text, at=now, level=LogEntry.Level.WARNING)]
    row = _place(
        item,
        desk.department,
        key=key,
        channel=effect.channel,
        purpose=effect.purpose,
        content=effect.content,
        address=effect.to or address_of(item, desk),
        output=output,
        configuration=configuration_behind(output, desk),
        approved_by=approved_by,
        now=now,
    )
    return [log.item_entry(item, "outbox", _planned(row), at=now)]


def write_manual(*, item: Item, user: User, subject: str, body: str) -> OutboxMessage:
    """A mail that a person wrote to the item's person. The same words a second time are the same message."""
    with transaction.atomic():
        now = database_now()
        item = Item.objects.select_for_update(of=("self",), no_key=True).select_related("department").get(pk=item.pk)
        digest = hashlib.sha256(json.dumps([subject, body]).encode()).hexdigest()[:16]
        key = f"{item.pk}:manual:{digest}"
        known = OutboxMessage.objects.filter(key=key).exclude(status__in=(Status.WITHDRAWN, Status.FAILED)).first()
        if known is not None:
            return known
        row = _place(
            item,
            item.department,
            key=key,
            channel=EMAIL,
            purpose="manual",
            content={"subject": subject, "body": body},
            address=sendable.address_of(item),
            output=None,
            configuration="",
            approved_by=user,
            now=now,
        )
        _act(row, user, "write_mail", {}, {"status": row.status}, "")
        log.write([log.item_entry(item, "outbox", f"{user} wrote a mail. {_planned(row)}", at=now)])
    return row


def write_again(item: Item, message: OutboxMessage, *, key: str, user: User, now: datetime) -> OutboxMessage | None:
    """Another message like one that was sent, of what is approved now, to the address that is known now.

    None if nothing is approved. The item is locked.
    """
    output = None
    if message.output is not None:
        same = Output.objects.filter(item=item, key=message.output.key, trigger=message.trigger, is_current=True)
        output = same.filter(verdict=Output.Verdict.APPROVED).first()
        if output is None:
            return None
    content = message.rendered if output is None else {**message.rendered, **output.payload}
    return _place(
        item,
        item.department,
        key=key,
        channel=message.channel,
        purpose=message.purpose,
        content=content,
        address=sendable.address_of(item),
        output=output,
        configuration=message.configuration,
        approved_by=user,
        now=now,
    )


def withdraw(*, message: OutboxMessage, user: User | None, reason: str = "") -> bool:
    """Take a message back before it leaves; False if it is being sent, has been, or was taken back before."""
    with transaction.atomic():
        now = database_now()
        item = Item.objects.select_for_update(no_key=True).get(pk=message.item_id)
        message.refresh_from_db()
        if not can_withdraw(message):
            return False
        text = reason or f"{user or 'Somebody'} took it back."
        if not take_back(OutboxMessage.objects.filter(pk=message.pk), text):
            return False
        _act(message, user, "withdraw", {"status": Status.PENDING}, {"status": Status.WITHDRAWN}, reason)
        line = f"Not sent: the {words(message.purpose)} to {message.address}. {text}"
        log.write([log.item_entry(item, "outbox", line, at=now)])
    return True


def take_back(rows: QuerySet[OutboxMessage], reason: str) -> int:
    """Withdraw those of the rows that have not left, whose items are locked; how many."""
    return rows.filter(status=Status.PENDING).update(status=Status.WITHDRAWN, reason=reason[:300], waiting_for="")


def look_again(item: Item, *, now: datetime) -> None:
    """Something has come between: mails that wait are due at once, so that they go back to a person and say why.

    Only for what keeps them from leaving; their time to undo would be over as well.
    """
    rows = OutboxMessage.objects.filter(item=item, channel=EMAIL, status=Status.PENDING, release_at__gt=now)
    rows.update(release_at=now)


def is_proven(department: Department, configuration: str) -> bool:
    """Whether enough mails that a person approved have left under the same SOULs, models, rules and settings."""
    rows = OutboxMessage.objects.filter(
        department=department,
        configuration=configuration,
        status=Status.SENT,
        output__isnull=False,
        approved_by__isnull=False,
        channel__in=[name for name, channel in CHANNELS.items() if channel.reaches_person],
    )
    return bool(configuration) and rows[:PROVEN_SENDS].count() >= PROVEN_SENDS


def configuration_of(desk: Desk) -> str:
    """Fingerprint of what an output of this department is made by: SOULs, models, rules, settings agents are told.

    The order of the rules is left out: it decides nothing but which of several is named as the reason.
    """
    agents = [
        [a.slug, a.model, a.fallback_models, a.is_enabled, desk.souls[pk].pk if pk in desk.souls else None]
        for pk, a in sorted(desk.agents.items())
    ]
    rules = sorted((rule.name, json.dumps([rule.when, list(rule.want)], sort_keys=True)) for rule in desk.router.rules)
    told = {key: desk.department.settings.get(key) for a in desk.agents.values() for key in a.settings_keys}
    return hashlib.sha256(json.dumps([agents, rules, told], sort_keys=True).encode()).hexdigest()


def configuration_behind(output: Output, desk: Desk) -> str:
    """The same for one output; empty, which proves nothing, if a SOUL that is not published now has made it."""
    made_from = Q(outputs__in=output.made_from, outputs__trigger=output.trigger_id, agent__scope=Agent.Scope.OCCASION)
    runs = AgentRun.objects.filter(Q(outputs=output) | made_from, soul__isnull=False)
    published = {pk: soul.pk for pk, soul in desk.souls.items()}
    is_now = all(published.get(agent_id) == soul_id for agent_id, soul_id in runs.values_list("agent_id", "soul_id"))
    return configuration_of(desk) if is_now else ""


def key_of(item_id: int, purpose: str, trigger_id: int | None) -> str:
    """What makes a message one of a kind."""
    return f"{item_id}:{purpose}" + (f":{trigger_id}" if trigger_id is not None else "")


def words(purpose: str) -> str:
    """A purpose as a person reads it: ``first_mail`` is the first mail."""
    return {"manual": "mail by hand", "crm_update": "CRM update"}.get(purpose, purpose.replace("_", " "))


STANDING = {
    Status.PENDING: "waits to be sent",
    Status.SENDING: "is being sent",
    Status.SENT: "was sent",
    Status.FAILED: "could not be sent",
    Status.UNKNOWN: "may have been sent",
    Status.WITHDRAWN: "was withdrawn",
}
"""The rest of a sentence that begins with the message."""


def address_of(item: Item, desk: Desk) -> str:
    """Whom a message about the item goes to; empty if nobody knows."""
    fields = desk.spec.load_fields([item.pk]).get(item.pk, {})
    return str(fields.get(desk.spec.address_field) or "")


def channel_of(department: Department, kind: str) -> Channel | None:
    """The department's channel of a kind; None if it was never set up."""
    return Channel.objects.filter(department=department, kind=kind).first()


def config_of(channel: Channel | None) -> Config:
    """A channel as its plug-in sees it. The secret is read here, from the environment, each time."""
    if channel is None:
        return Config()
    secret = os.environ.get(channel.secret_env, "") if channel.secret_env else ""
    return Config(settings=channel.settings, secret=secret, secret_env=channel.secret_env)


def render(row: OutboxMessage, content: Mapping[str, Any], channel: Channel | None) -> dict[str, Any]:
    """Exactly what will be sent, as the channel is set up now."""
    plugin = CHANNELS[row.channel]
    is_thread = plugin.reaches_person
    letter = Letter(
        key=row.key,
        address=row.address,
        content=content,
        thread=_thread(row.item_id) if is_thread else (),
        unsubscribe_url=unsubscribe_url(row) if is_thread else "",
    )
    return plugin.render(letter, config_of(channel))


def unsubscribe_url(row: OutboxMessage) -> str:
    """Where the person of this message asks not to be written to again; signed, and good for ever."""
    token = signing.dumps({"item": row.item_id, "address": row.address}, salt=UNSUBSCRIBE_SALT, compress=True)
    return f"{settings.BASE_URL}/unsubscribe/{token}/"


def _thread(item_id: int) -> tuple[str, ...]:
    rows = Message.objects.filter(item=item_id).exclude(message_id="").order_by("at", "pk")
    return tuple(rows.values_list("message_id", flat=True))


def _place(
    item: Item,
    department: Department,
    *,
    key: str,
    channel: str,
    purpose: str,
    content: Mapping[str, Any],
    address: str,
    output: Output | None,
    configuration: str,
    approved_by: User | None,
    now: datetime,
) -> OutboxMessage:
    """The pending row of this key: a new one, or the one that was taken back, could not be sent, or still waits."""
    setup = channel_of(department, channel)
    row = OutboxMessage.objects.filter(key=key).first() or OutboxMessage(key=key, item=item, department=department)
    row.channel, row.purpose, row.address = channel, purpose, address
    row.output, row.trigger = output, output.trigger if output else None
    row.configuration, row.approved_by, row.approved_at = configuration, approved_by, now
    row.status, row.error, row.reason, row.waiting_for = Status.PENDING, "", "", ""
    row.attempt, row.bounced_at = 0, None  # what became of an earlier one is not held against this one
    undo = setup.undo_seconds if setup is not None else DEFAULT_UNDO_SECONDS
    row.release_at = now + timedelta(seconds=undo)
    row.rendered = render(row, content, setup)
    row.save()
    return row


def _planned(row: OutboxMessage) -> str:
    return f"The {words(row.purpose)} to {row.address or 'nobody yet'} leaves not before {row.release_at:%H:%M:%S} UTC."


def _act(
    row: OutboxMessage, user: User | None, verb: str, before: dict[str, Any], after: dict[str, Any], reason: str
) -> None:
    Action.objects.create(
        department_id=row.department_id,
        item_id=row.item_id,
        user=user,
        verb=verb,
        target=f"outbox:{row.pk}",
        before=before,
        after=after,
        reason=reason[:300],
    )
