"""Reads everything that decides whether a message may leave: under its item's lock, for ``runs.send_conditions``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q

from agents.models import Department, Installation
from runs import departures, outbox, suppressions
from runs.facts import SUPPRESSED_TAG
from runs.models import Channel, Item, Message, OutboxMessage, Output, Suppression
from runs.quiet_hours import zones_of
from runs.send_channels import CHANNELS
from runs.send_conditions import DAY, MINUTE, Situation


def situation(
    row: OutboxMessage, item: Item, channel: Channel | None, *, now: datetime, is_new_address: bool = False
) -> Situation:
    """Everything that decides whether the message may leave, read under the item's lock."""
    plugin, output = CHANNELS[row.channel], row.output
    fields = item.department.spec.load_fields([item.pk]).get(item.pk, {})
    listed = suppressions.why_suppressed(row.address)
    # The person asked under one address, and may be known by another one since.
    asked_out = item.title if SUPPRESSED_TAG in item.tags else ""
    sent_by_person = row.approved_by_id is not None
    # A reply may be older than the approval and yet have come in after it.
    since = Q(at__gt=row.approved_at) | Q(trigger__created_at__gt=row.approved_at)
    inbound = Message.objects.filter(since, item=item, direction=Message.Direction.IN)
    return Situation(
        now=now,
        channel=row.channel,
        address=row.address,
        reaches_person=plugin.reaches_person,
        is_new_address=is_new_address,
        is_manual=output is None,
        is_by_person=sent_by_person,
        is_proven=sent_by_person or outbox.is_proven(row.department, row.configuration),
        automation=item.automation,
        automation_note=f": {item.automation_reason.rstrip('.')}" if item.automation_reason else "",
        is_output_current=output is not None and output.is_current,
        is_output_approved=output is not None and output.verdict == Output.Verdict.APPROVED,
        replied_since=inbound.exists(),
        held_by=held_by(row.department),
        is_enabled=channel is not None and channel.is_enabled,
        problem=closed(channel, row.channel),
        suppressed_as=str(listed) if listed else asked_out,
        suppressed_why=listed.get_reason_display() if listed else str(Suppression.Reason.OPT_OUT.label),
        per_minute=channel.per_minute if channel else 0,
        daily_cap=channel.daily_cap if channel else 0,
        minute=_departures(row, now - MINUTE, channel.per_minute if channel else 0),
        day=_departures(row, now - DAY, channel.daily_cap if channel else 0),
        quiet_from=channel.quiet_from if channel else None,
        quiet_to=channel.quiet_to if channel else None,
        zones=zones_of(str(fields.get(item.department.spec.country_field) or "")) or (item.department.time_zone,),
    )


def _departures(row: OutboxMessage, since: datetime, limit: int) -> Sequence[datetime]:
    """When messages of the same channel left since then, newest first; what may have left counts."""
    if not limit:
        return ()
    rows = OutboxMessage.objects.filter(department=row.department_id, channel=row.channel)
    sent = rows.filter(sent_at__gt=since).order_by("-sent_at").values_list("sent_at", flat=True)[:limit]
    leased = rows.filter(status__in=departures.HELD, lease_expires_at__gt=since + lease())
    unsure = [at - lease() for at in leased.values_list("lease_expires_at", flat=True)[:limit] if at is not None]
    return sorted([*(at for at in sent if at is not None), *unsure], reverse=True)


def held_by(department: Department, installation: Installation | None = None) -> str:
    """Why nothing leaves the department or the installation (read unless given); empty if it may."""
    for who, row in (("The installation", installation or Installation.read()), (str(department), department)):
        if row.state != Department.State.RUNNING:
            label = Department.State(row.state).label
            why = row.state_reason.rstrip(".")
            return f"{who} is {label}{f': {why}' if why else ''}."
    return ""


def closed(channel: Channel | None, kind: str) -> str:
    """Why a channel cannot be used; empty if it can."""
    if kind not in CHANNELS:
        return f"This release has no {kind} channel."
    if channel is None:
        return f"There is no {kind} channel: an administrator sets it up."
    return CHANNELS[kind].problem(outbox.config_of(channel)) if channel.is_enabled else f"The {kind} channel is off."


def lease() -> timedelta:
    """How long a sender holds a message."""
    return timedelta(seconds=settings.SEND_LEASE_SECONDS)
