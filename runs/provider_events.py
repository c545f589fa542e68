"""What mail providers report over django-anymail, in the words of ``runs.mail_events``."""

from __future__ import annotations

import logging
from typing import Any

from anymail.signals import EventType

from runs import suppressions
from runs.mail_events import REASONS, record_event
from runs.models import OutboxMessage

logger = logging.getLogger(__name__)
KINDS = {
    EventType.BOUNCED: "bounce",
    EventType.REJECTED: "bounce",
    EventType.COMPLAINED: "complaint",
    EventType.UNSUBSCRIBED: "opt_out",
}
WORDS_OF_A_PERSON = ("complaint", "opt_out")
"""These count whatever mail they are about: one that was sent after the backup we run on, or under no known id."""


def receive(sender: Any, event: Any, esp_name: str, **kwargs: Any) -> None:
    """One event of a provider. Only what ends the mails to an address is of interest."""
    kind = KINDS.get(event.event_type)
    if kind is None or not event.recipient:
        return
    note = str(event.description or event.reject_reason or "")[:300]
    named = OutboxMessage.objects.filter(provider_id=event.message_id) if event.message_id else None
    row = named.select_related("department").first() if named is not None else None
    if row is None:
        logger.warning("%s reports a %s of a mail that Kontor does not know", esp_name, kind)
        if kind in WORDS_OF_A_PERSON:
            suppressions.suppress(address=event.recipient, reason=REASONS[kind], note=note)
        return
    record_event(department=row.department, kind=kind, address=event.recipient, message_id=event.message_id, note=note)
