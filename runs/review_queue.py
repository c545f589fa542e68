"""The queue of open questions: its order, its filters, and who looks at which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import DateTimeField, Q, QuerySet
from django.utils import timezone

from agents.models import Member
from agents.statements import Among, Given, Statement
from runs.absences import Roster, read_roster
from runs.allowed import YES, Allowed, no
from runs.answerable import can_assign, can_claim, can_release, who_decided
from runs.backends import ROLE_PERMISSIONS, includes
from runs.models import Action, Review
from runs.models.people import DUE, NEVER

MOST_COUNTED = 1_000
"""The badge counts so far, then it says "1000+"."""
MINE, UNASSIGNED = "mine", "unassigned"
ASSIGNEES = {MINE: "Mine", UNASSIGNED: "Nobody’s"}
RISKS = {"3": "High", "2": "Medium", "1": "Low"}


@dataclass(frozen=True, slots=True)
class Filters:
    """What somebody wants to see of the queue. Empty: everything."""

    kind: str = ""
    risk: str = ""
    assignee: str = ""
    snoozed: str = ""
    group: str = ""
    """The id of drafts that are alike, as text."""

    @property
    def values(self) -> dict[str, str]:
        """Those that are set, as they stand in an address."""
        names = ("kind", "risk", "assignee", "snoozed", "group")
        given = {name: str(getattr(self, name)) for name in names}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a question stands: high risk first, then the nearest deadline, then the oldest."""

    risk: int
    deadline: datetime
    pk: int

    def __str__(self) -> str:
        return f"{self.risk}~{self.deadline.isoformat()}~{self.pk}"


def read_filters(given: Mapping[str, str]) -> Filters:
    """The filters of a query string; values that do not exist count as none."""
    return Filters(
        kind=_known(given.get("kind", ""), Review.Kind.values),
        risk=_known(given.get("risk", ""), RISKS),
        assignee=_known(given.get("assignee", ""), ASSIGNEES),
        snoozed=_known(given.get("snoozed", ""), ("1",)),
        group=group if (group := given.get("group", "")).isascii() and group.isdigit() and len(group) < 19 else "",
    )


def open_reviews(
    department_ids: Iterable[int], filters: Filters, user: User, roster: Roster | None = None
) -> QuerySet[Review]:
    """The open questions of these departments that fit the filters, in the order in which they should be answered.

    Those that are snoozed are left out, unless they are asked for. Without a roster it is read where it is needed.
    """
    rows = Review.objects.filter(department__in=list(department_ids), status=Review.Status.OPEN)
    snoozed = Q(snoozed_until__gt=timezone.now())
    rows = rows.filter(snoozed) if filters.snoozed else rows.exclude(snoozed)
    if filters.group:
        rows = rows.filter(group=int(filters.group))
    if filters.kind:
        rows = rows.filter(kind=filters.kind)
    if filters.risk:
        rows = rows.filter(risk=int(filters.risk))
    if filters.assignee == MINE:
        covered = (roster or read_roster()).covered_by(user.pk)
        rows = rows.filter(assignee__in=[user.pk, *sorted(covered)])
    elif filters.assignee:
        rows = rows.filter(assignee=None)
    return in_order(rows)


def in_order(rows: QuerySet[Review]) -> QuerySet[Review]:
    """By risk, then deadline, then age."""
    return rows.annotate(due=DUE).order_by("-risk", "due", "pk")


def place_of(review: Review) -> Place:
    """Where a question stands in the order."""
    return Place(review.risk, review.deadline or NEVER, review.pk)


def read_place(text: str) -> Place | None:
    """The inverse of ``str``; None for anything else."""
    try:
        risk, deadline, pk = text.split("~")
        at = datetime.fromisoformat(deadline)
        return Place(int(risk), at.astimezone(UTC), int(pk)) if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def after(rows: QuerySet[Review], place: Place) -> QuerySet[Review]:
    """Those behind a place, of rows in order."""
    same = Q(risk=place.risk)
    later = Q(due__gt=place.deadline) | Q(due=place.deadline, pk__gt=place.pk)
    return rows.annotate(due=DUE).filter(Q(risk__lt=place.risk) | (same & later))


def before(rows: QuerySet[Review], place: Place) -> QuerySet[Review]:
    """Those before a place, the nearest first."""
    same = Q(risk=place.risk)
    earlier = Q(due__lt=place.deadline) | Q(due=place.deadline, pk__lt=place.pk)
    nearer = rows.annotate(due=DUE).filter(Q(risk__gt=place.risk) | (same & earlier))
    return nearer.order_by("risk", "-due", "-pk")


def count_open(department_ids: Iterable[int]) -> int:
    """How many questions are open, for the badge: one query over an index, and never more than ``MOST_COUNTED``."""
    return _OPEN.count(limit=MOST_COUNTED, departments=department_ids, now=timezone.now())


_OPEN = Statement(
    lambda: (
        Review.objects.filter(Among("department_id", "departments"), status=Review.Status.OPEN)
        .exclude(snoozed_until__gt=Given("now", DateTimeField()))
        .order_by()
        .values_list("pk")
    )
)


# --- Who looks at it ------------------------------------------------------------------------------------------


def claim(*, review: Review, user: User) -> Allowed:
    """Say that one looks at it oneself. Who has done so before keeps it, unless they are away and one covers."""
    roster = read_roster()
    return _assign(review, user, user, lambda fresh: can_claim(fresh, user, roster))


def release(*, review: Review, user: User) -> Allowed:
    """Say that one does not look at it any more."""
    return _assign(review, user, None, lambda fresh: can_release(fresh, user))


def assign(*, review: Review, user: User, to: User) -> Allowed:
    """Ask somebody else to look at it: a person who may answer it."""
    return _assign(review, user, to, lambda fresh: can_assign(fresh, to))


def assignable(review: Review) -> list[User]:
    """Who may be asked to look at it."""
    roles = [role for role in ROLE_PERMISSIONS if includes(role, Member.Role.REVIEWER)]
    people = User.objects.filter(memberships__department=review.department_id, memberships__role__in=roles)
    return list(people.filter(is_active=True).order_by("username"))


def _assign(review: Review, user: User, to: User | None, check: Callable[[Review], Allowed]) -> Allowed:
    """``check`` is asked about the locked question."""
    with transaction.atomic():
        Review.objects.select_for_update(of=("self",)).get(pk=review.pk)
        fresh = Review.objects.select_related("assignee", "answered_by", "by_rule", "department").get(pk=review.pk)
        if not (allowed := check(fresh)):
            return allowed
        was = fresh.assignee
        rows = Review.objects.filter(pk=review.pk, status=Review.Status.OPEN, assignee=was)
        if not rows.update(assignee=to):
            return no(who_decided(Review.objects.select_related("answered_by", "by_rule").get(pk=review.pk)))
        verb = "claim" if to == user else "assign" if to is not None else "release"
        Action.objects.create(
            department_id=review.department_id,
            item_id=review.item_id,
            user=user,
            verb=f"{verb}_review",
            target=f"review:{review.pk}",
            before={"assignee": str(was or "")},
            after={"assignee": str(to or "")},
        )
    return YES


def _known(value: str, known: Iterable[str]) -> str:
    return value if value in set(known) else ""
