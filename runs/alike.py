"""Drafts that are alike but for what is personal: found when the question is asked, so that pages only count.

A draft's words, without the item's own fields and without numbers, are cut into runs of three. Of their hashes the
smallest are kept (a bottom-k sketch): two sketches tell how much of both texts is the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count

from agents.statements import Among, Statement
from runs.database import now as database_now
from runs.models import DraftGroup, Item, Output, Review
from runs.payloads import texts_of
from runs.staff import Desk

KEPT = 96
"""So many hashes of a text are kept."""
ALIKE = 0.6
"""From this share on, two drafts are alike: one paragraph in a mail may differ."""
LOOKED_AT = 40
"""A draft is compared with so many groups, those that were used last."""
FORGOTTEN_AFTER = timedelta(days=30)
_RUN = 3
_WORD = re.compile(r"[^\W\d_]+")


def personal_words(fields: Mapping[str, Any]) -> set[str]:
    """The words of an item's short fields: names, companies, addresses, not whole messages. Pure."""
    values = [value for value in fields.values() if isinstance(value, str) and len(value) <= 120]
    return {word for value in values for word in _WORD.findall(value.casefold()) if len(word) > 1}


def sketch(texts: Iterable[str], personal: set[str]) -> list[int]:
    """The smallest hashes of the texts' runs of words, in order; empty where there are too few words. Pure."""
    found: set[int] = set()
    for text in texts:
        words = [word for word in _WORD.findall(text.casefold()) if word not in personal]
        for start in range(len(words) - _RUN + 1):
            run = " ".join(words[start : start + _RUN]).encode()
            found.add(int.from_bytes(hashlib.blake2b(run, digest_size=4).digest()))
    return sorted(found)[:KEPT]


def likeness(one: Sequence[int], other: Sequence[int]) -> float:
    """How much of both texts is the same, 0 to 1, estimated from their sketches. Pure."""
    smallest = set(sorted({*one, *other})[:KEPT])
    return len(smallest & set(one) & set(other)) / len(smallest) if smallest else 0.0


def find_group(item: Item, output: Output, purpose: str, desk: Desk, *, now: datetime) -> DraftGroup | None:
    """The group of a draft that an agent has just written: one it is like, else a new one. None for a person's.

    In the transaction that opens the question; at most four queries.
    """
    if output.agent_run is None:
        return None
    fields = desk.spec.load_fields([item.pk]).get(item.pk, {})
    own = sketch(texts_of(desk.spec, output).values(), personal_words(fields))
    if not own:
        return None
    same = {"department_id": item.department_id, "agent_id": output.agent_run.agent_id, "purpose": purpose}
    groups = DraftGroup.objects.filter(**same).order_by("-used_at", "-pk")[:LOOKED_AT]
    best = max(groups, key=lambda group: likeness(own, group.signature), default=None)
    if best is not None and likeness(own, best.signature) >= ALIKE:
        DraftGroup.objects.filter(pk=best.pk).update(used_at=now)
        return best
    return DraftGroup.objects.create(**same, signature=own, used_at=now)


def count_alike(group_ids: Iterable[int]) -> dict[int, int]:
    """How many questions of each group are open: one query over an index."""
    return dict(_ALIKE.rows(groups=set(group_ids)))


_ALIKE = Statement(
    lambda: (
        Review.objects.filter(Among("group_id", "groups"), status=Review.Status.OPEN)
        .order_by()
        .values_list("group")
        .annotate(count=Count("pk"))
    )
)


def forget_old(*, now: datetime | None = None) -> int:
    """Empty the sketches of groups that were not used for long; nothing is found to be like them any more."""
    before = (now or database_now()) - FORGOTTEN_AFTER
    return DraftGroup.objects.filter(used_at__lt=before).exclude(signature=[]).update(signature=[])
