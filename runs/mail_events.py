"""What comes back about mails that have left: bounces, complaints, opt-outs. Each is noted once.

They come from a provider over django-anymail, or over ``POST /hooks/<department>/mail-events/``.
"""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction

from agents.models import Department
from runs import log, outbox, send_rates, suppressions
from runs.addresses import compared
from runs.database import now as database_now
from runs.effects import withdraw_drafts
from runs.facts import SUPPRESSED_TAG
from runs.models import Item, LogEntry, OutboxMessage, Suppression

REASONS = {
    "bounce": Suppression.Reason.BOUNCE,
    "complaint": Suppression.Reason.COMPLAINT,
    "opt_out": Suppression.Reason.OPT_OUT,
}
"""Kinds of events, and as what the address goes onto the list."""
LOOK_BACK = timedelta(days=60)
"""Bounces come within days; what left before is not searched."""


def record_event(*, department: Department, kind: str, address: str, message_id: str = "", note: str = "") -> bool:
    """Write an event down. False if nothing was news: the address was on the list, the mail marked.

    ``kind`` is a key of ``REASONS``. The address is suppressed whether or not we know a mail to it.
    """
    row = _find(department, address, message_id)
    with transaction.atomic():
        item = (
            Item.objects.select_for_update(of=("self",), no_key=True).get(pk=row.item_id) if row is not None else None
        )
        is_new = suppressions.suppress(address=address, reason=REASONS[kind], note=note, item=item)
        now = database_now()
        if row is not None and kind != "opt_out":
            marked = OutboxMessage.objects.filter(pk=row.pk, bounced_at=None)
            is_new = bool(marked.update(bounced_at=now, error=note)) or is_new
        if item is not None and is_new:
            _tell(item, kind, address, note)
        if item is not None and kind == "opt_out":
            _mark_opted_out(item)
    if is_new:
        send_rates.hold_if_unusual(department)
    return is_new


def opt_out(*, item: Item, address: str, user: User | None = None) -> bool:
    """The person has asked, by the link in a mail, not to be written to again. False if they had before."""
    with transaction.atomic():
        item = Item.objects.select_for_update(of=("self",), no_key=True).get(pk=item.pk)
        reason = Suppression.Reason.OPT_OUT
        is_new = suppressions.suppress(address=address, reason=reason, note="By the link in a mail.", item=item)
        if is_new:
            _tell(item, "opt_out", address, "By the link in a mail.")
        _mark_opted_out(item)
    return is_new


def _mark_opted_out(item: Item) -> None:
    """Whatever the list held before: through this item its person has asked, so its status says so."""
    if SUPPRESSED_TAG not in item.tags:
        item.tags, item.route_due_at = [*item.tags, SUPPRESSED_TAG], database_now()
        item.save(update_fields=["tags", "route_due_at", "changed_at"])


def _find(department: Department, address: str, message_id: str) -> OutboxMessage | None:
    """The latest mail it is about: by what the provider or we called it, else by its address."""
    since = database_now() - LOOK_BACK
    rows = OutboxMessage.objects.filter(department=department, channel=outbox.EMAIL, sent_at__gt=since)
    rows = rows.order_by("-sent_at")
    found = None
    if message_id:
        named = {"rendered__headers__Message-ID": message_id}
        found = rows.filter(**named).first() or rows.filter(provider_id=message_id).first()
    return found or rows.filter(address__iexact=compared(address)).first()


def _tell(item: Item, kind: str, address: str, note: str) -> None:
    now = database_now()
    text = {
        "bounce": f"The mail to {address} came back: nobody writes to it again.",
        "complaint": f"{address} complained about a mail: nobody writes to it again.",
        "opt_out": f"{address} asked not to be written to again.",
    }[kind]
    line = f"{text} {note}".strip()
    entries = [log.item_entry(item, "suppressed", line, at=now, level=LogEntry.Level.WARNING)]
    log.write([*entries, *withdraw_drafts(item, text, now=now)])
    if kind != "opt_out":
        item.flag = line[:300]
        item.save(update_fields=["flag", "changed_at"])
