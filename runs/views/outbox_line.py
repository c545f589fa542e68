"""What has become of one message, in the order of time, and the head of its mail as it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runs.models import Action, LogEntry, OutboxMessage, Review
from runs.wording import in_words

ENVELOPE = ("from", "to", "reply_to")
MOST_LINES = 30
_KINDS = ("answer", "outbox", "sent", "suppressed")
Status = OutboxMessage.Status


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a message. ``colour``: a status colour where it is news; ``at`` may lie ahead."""

    at: datetime
    icon: str
    text: str
    detail: str = ""
    colour: str = ""
    is_of_item: bool = False
    """A line of the item's log, which may be about another message to the same person."""


def build_headers(rendered: Mapping[str, Any]) -> list[tuple[str, str]]:
    """From, to and the headers of a rendered mail, in the order in which mail programs show them."""
    found = [(name.replace("_", "-").capitalize(), str(rendered[name])) for name in ENVELOPE if rendered.get(name)]
    headers = rendered.get("headers")
    found += [(str(name), str(value)) for name, value in headers.items()] if isinstance(headers, Mapping) else []
    return found


def read_timeline(message: OutboxMessage) -> list[Event]:
    """Written, approved, released, tried, ended: from the row, from what people did and from the log; three queries."""
    events = [*_of_row(message), *_of_people(message), *_of_log(message)]
    return sorted(events, key=lambda event: event.at)


def _of_row(message: OutboxMessage) -> list[Event]:
    who = message.approved_by or "a rule, or the agent’s policy"
    events = [Event(message.approved_at, "check", f"Approved by {who}", "", "good")]
    if message.status == Status.PENDING:
        text = "Is looked at again" if message.waiting_for else "Leaves at the earliest"
        events.append(Event(message.release_at, "clock", text, message.waiting_for))
    if message.status == Status.SENDING and message.lease_expires_at is not None:
        text = f"Being sent by {message.worker}"
        events.append(Event(message.lease_expires_at, "send", text, "If nothing is heard until then, it is unsure."))
    if message.sent_at is not None:
        events.append(
            Event(
                message.sent_at,
                "send",
                "Sent",
                message.reason or (f"by {message.worker}" if message.worker else ""),
                "good",
            )
        )
    elif message.ended_at is not None:
        events.append(Event(message.ended_at, "circle-x", "Could not be sent", message.error, "bad"))
    if message.bounced_at is not None:
        events.append(Event(message.bounced_at, "alert-triangle", "It came back", message.error, "bad"))
    return events


def _of_people(message: OutboxMessage) -> list[Event]:
    actions = Action.objects.filter(item=message.item_id, target=f"outbox:{message.pk}").select_related("user")
    found = [
        Event(action.at, "user", f"{action.user or 'Somebody'}: {in_words(action.verb)}", action.reason)
        for action in actions.order_by("-pk")[:MOST_LINES]
    ]
    asked = Review.objects.filter(item=message.item_id, outbox=message).select_related("answered_by")
    for review in asked.order_by("-pk")[:MOST_LINES]:
        found.append(Event(review.created_at, "help-circle", "A person was asked", review.ask, "warning"))
    return found


def _of_log(message: OutboxMessage) -> list[Event]:
    lines = LogEntry.objects.filter(item=message.item_id, kind__in=_KINDS, at__gte=message.created_at)
    return [Event(line.at, "file-text", line.text, is_of_item=True) for line in lines.order_by("-pk")[:MOST_LINES]]
