"""The conversation with an item's person: mails in and out, notes, and drafts in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest

from runs.access import access_of
from runs.allowed import can_note
from runs.models import Item, Message, OutboxMessage, Output
from runs.views.forms import read_number

ROWS = 50
_SIDES = {Message.Direction.IN: "in", Message.Direction.OUT: "out", Message.Direction.NOTE: "note"}


@dataclass(frozen=True, slots=True)
class Said:
    """One entry of the thread. ``side`` is in, out, note or draft; ``state`` says what becomes of a draft."""

    dom_id: str
    at: datetime
    side: str
    what: str
    subject: str
    body: str
    who: str = ""
    state: str = ""
    output_id: int | None = None


def conversation_context(request: HttpRequest, item: Item, outputs: Sequence[Output]) -> dict[str, Any]:
    """The newest entries, oldest first, with drafts where no later mail has taken their place; three queries."""
    before = read_number(request.GET.get("before", ""))
    rows = item.messages.select_related("author", "output__agent_run__agent").order_by("-pk")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows[: ROWS + 1])
    said = [_from_message(message) for message in found[:ROWS]]
    if before is None and not item.is_erased:  # its texts are gone, and nobody is asked about them any more
        said += _drafts(item, outputs)
    return {
        "said": sorted(said, key=lambda entry: entry.at),
        "earlier": found[ROWS - 1].pk if len(found) > ROWS else None,
        "is_earlier": before is not None,
        "can_note": can_note(item, access_of(request)),
    }


def _from_message(message: Message) -> Said:
    who = str(message.author or "")
    if not who and message.output and message.output.agent_run:
        who = message.output.agent_run.agent.title
    channel = "" if message.channel == "email" else f" ({message.channel})"
    return Said(
        dom_id=f"message-{message.pk}",
        at=message.at,
        side=_SIDES[Message.Direction(message.direction)],
        what=f"{message.get_direction_display().capitalize()}{channel}",
        subject=message.subject,
        body=message.body,
        who=" · ".join(part for part in (message.address, who) if part),
        output_id=message.output_id,
    )


def _drafts(item: Item, outputs: Sequence[Output]) -> list[Said]:
    """The current final texts that have not become messages yet."""
    final = item.department.spec.final_key
    waiting = {output.pk: output for output in outputs if output.key == final and isinstance(output.payload, dict)}
    gone = item.messages.filter(output__in=waiting, direction=Message.Direction.OUT)
    for pk in gone.values_list("output_id", flat=True):
        waiting.pop(pk or 0, None)
    rows = {row.output_id: row for row in OutboxMessage.objects.filter(output__in=waiting).order_by("pk")}
    return [
        Said(
            dom_id=f"draft-{output.pk}",
            at=output.created_at,
            side="draft",
            what="Draft",
            subject=str(output.payload.get("subject", "")),
            body=str(output.payload.get("body", "")),
            who=str(output.author or (output.agent_run.agent.title if output.agent_run else "")),
            state=_state(output, rows.get(output.pk)),
            output_id=output.pk,
        )
        for output in waiting.values()
    ]


def _state(output: Output, row: OutboxMessage | None) -> str:
    if row is not None:
        return row.get_status_display()
    if output.verdict == Output.Verdict.NONE:
        return "not approved yet"
    return output.get_verdict_display()
