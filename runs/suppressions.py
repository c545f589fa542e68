"""The list of those nobody writes to: by address or domain, in every department of the installation."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q

from agents.statements import Among, Statement
from runs.addresses import compared, entries_for, erased_entries, normalise_entry
from runs.allowed import YES, Allowed, no
from runs.database import now as database_now
from runs.facts import SUPPRESSED_TAG
from runs.models import Action, Item, OutboxMessage, Suppression


def suppress(*, address: str, reason: str, note: str = "", item: Item | None = None, user: User | None = None) -> bool:
    """Put an address on the list; False if it was there, also as that of an erased person.

    A person's entry is an Action; ``ValueError`` if it is no address.

    What a person did not enter is stored even where it is no valid address: an opt-out is never refused.
    """
    entry = normalise_entry(address) if user is not None else compared(address)
    if Suppression.objects.filter(address__in=erased_entries(entry)).exists():
        return False  # of an erased person, whose address is not to be stored again
    with transaction.atomic():
        row, is_new = Suppression.objects.get_or_create(
            address=entry, defaults={"reason": reason, "note": note[:300], "item": item, "author": user}
        )
        if is_new and user is not None:
            _act(user, "suppress", row, {"reason": reason}, note)
    return is_new


def can_lift(suppression: Suppression, user: User) -> Allowed:
    """Whether this person may take the entry off the list, if it is one that they see."""
    if suppression.is_erased and not user.is_superuser:
        return no("It is of an erased person. Only who runs this installation removes it.")
    return YES


def lift(*, suppression: Suppression, user: User, reason: str) -> Allowed:
    """Take an entry off the list, on a person's word and for a reason, or say why not.

    The items through which the person has asked are no longer marked, or nobody could write to them all the same.
    """
    with transaction.atomic():
        now = database_now()
        written = OutboxMessage.objects.filter(address__iexact=suppression.address).values("item_id")
        concerned = Item.objects.filter(Q(pk=suppression.item_id) | Q(pk__in=written)).order_by("pk")
        items = [item for item in concerned.select_for_update(no_key=True) if SUPPRESSED_TAG in item.tags]
        row = Suppression.objects.select_for_update().filter(pk=suppression.pk).first()
        if row is None:
            return no("Somebody was first.")
        # Asked of the locked row: the person may have been erased since it was shown.
        if not (answer := can_lift(row, user)):
            return answer
        _act(user, "lift_suppression", row, {}, reason)
        row.delete()
        for item in items:
            item.tags = [tag for tag in item.tags if tag != SUPPRESSED_TAG]
            item.route_due_at = now
            item.save(update_fields=["tags", "route_due_at", "changed_at"])
    return YES


def is_suppressed(address: str) -> bool:
    """Whether the address or its domain is on the list."""
    return why_suppressed(address) is not None


def why_suppressed(address: str) -> Suppression | None:
    """The entry that keeps mails from this address; None if there is none."""
    found = _LISTED.objects(limit=1, entries=entries_for(address))
    return found[0] if found else None


_LISTED = Statement(lambda: Suppression.objects.filter(Among("address", "entries")).order_by("pk"))


def suppressed_among(addresses: Iterable[str]) -> set[str]:
    """Those of the addresses that must not be written to, as they were given; one query."""
    entries = {address: entries_for(address) for address in addresses}
    wanted = {entry for found in entries.values() for entry in found}
    listed = set(Suppression.objects.filter(address__in=wanted).values_list("address", flat=True))
    return {address for address, found in entries.items() if listed.intersection(found)}


def _act(user: User, verb: str, row: Suppression, after: dict[str, str], reason: str) -> None:
    Action.objects.create(
        department=row.item.department if row.item else None,
        item=row.item,
        user=user,
        verb=verb,
        target=f"suppression:{row.address}"[:120],
        before={} if after else {"reason": row.reason, "note": row.note},
        after=after,
        reason=reason[:300],
    )
