"""The rows of the review list: drafts that are alike are one row, and who stands in for somebody who is away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.utils import timezone

from runs.absences import Roster
from runs.alike import count_alike
from runs.models import Absence, Review


@dataclass(frozen=True, slots=True)
class Away:
    """That the person who was asked is away, and who looks at it instead; ``cover`` None: nobody does."""

    absence: Absence
    cover: User | None


@dataclass(slots=True)
class ReviewRow:
    """One row of the list. ``alike``: how many drafts like this one are open, itself included; 0 without any."""

    review: Review
    away: Away | None
    alike: int = 0

    @property
    def is_snoozed(self) -> bool:
        """Whether it is off the list until a moment that lies ahead."""
        return self.review.snoozed_until is not None and self.review.snoozed_until > timezone.now()


def gather_rows(reviews: Sequence[Review], roster: Roster, *, is_gathered: bool = True) -> list[ReviewRow]:
    """A page of the list in its order; of drafts that are alike the first alone, with their count. One query."""
    groups = {review.group_id for review in reviews if review.group_id is not None}
    counts = count_alike(groups) if groups and is_gathered else {}
    rows: list[ReviewRow] = []
    seen: set[int] = set()
    for review in reviews:
        count = counts.get(review.group_id or 0, 0)
        if count > 1 and review.group_id in seen:
            continue
        seen |= {review.group_id} if review.group_id is not None else set()
        rows.append(ReviewRow(review, away_of(review, roster), count if count > 1 else 0))
    return rows


def away_of(review: Review, roster: Roster) -> Away | None:
    """Whether whoever was asked is away now, and who covers."""
    absence = roster.absence_of(review.assignee_id)
    return Away(absence, roster.cover_of(absence.user_id)) if absence is not None else None
