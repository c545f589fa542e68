"""Tags that people give to items. Rules may ask for them, so a change of tags has the item looked at again."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import User
from django.db import transaction

from agents.models import Member
from runs import log
from runs.access import Access
from runs.allowed import ERASED, YES, Allowed, no
from runs.commits import lock_items
from runs.control import act
from runs.database import now as database_now
from runs.facts import SUPPRESSED_TAG
from runs.models import Item

MAX_TAGS = 20
MAX_CHARS = 40


_KEPT = (SUPPRESSED_TAG, Item.ERASED)
"""Marks that are neither given nor taken here."""


def can_tag(item: Item, access: Access | None = None) -> Allowed:
    """Give tags to an item, or take them away."""
    if item.is_erased:
        return no(ERASED)
    if access is None or access.can(item.department_id, Member.Role.OPERATOR):
        return YES
    return no("This takes the role of an operator.")


def read_tags(text: str) -> list[str]:
    """Tags as a person types them, with commas between: single white space, each once, in their order."""
    return list(dict.fromkeys(tag for part in text.split(",") if (tag := " ".join(part.split()))))


def change_tags(*, item: Item, user: User, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Allowed:
    """Add and take away these tags; what others have given meanwhile stays. The router looks again.

    The mark of a suppressed person is neither given nor taken here.
    """
    if long := next((tag for tag in add if len(tag) > MAX_CHARS), ""):
        return no(f"“{long[:MAX_CHARS]}…” is too long: a tag has at most {MAX_CHARS} characters.")
    if SUPPRESSED_TAG in add:
        return no("Who must not be written to is kept in the suppression list, not by a tag.")
    if Item.ERASED in add:
        return no(f"The tag “{Item.ERASED}” marks people who were erased. Choose another word.")
    with transaction.atomic():
        item = lock_items({item.pk})[item.pk]
        if not (may := can_tag(item)):
            return may
        before = list(item.tags)
        kept = [tag for tag in before if tag not in remove or tag in _KEPT]
        after = [*kept, *(tag for tag in dict.fromkeys(add) if tag not in kept)]
        if after == before:
            return no("These are its tags already.")
        if len(after) > max(MAX_TAGS, len(kept)):
            return no(f"At most {MAX_TAGS} tags; with these it would be {len(after)}.")
        now = database_now()
        item.tags, item.route_due_at = after, now
        item.save(update_fields=["tags", "route_due_at", "changed_at"])
        act(item, user, "set_tags", before={"tags": before}, after={"tags": after})
        log.write([log.item_entry(item, "tags", f"{user} set the tags: {', '.join(after) or 'none'}.", at=now)])
    return YES
