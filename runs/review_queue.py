"""The queue of open questions: its order, its filters, and who looks at which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import BigIntegerField, CharField, DateTimeField, IntegerField, Q, QuerySet
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


def find_open(
    department_ids: Iterable[int],
    filters: Filters,
    user: User,
    *,
    limit: int,
    behind: Place | None = None,
    roster: Roster | None = None,
) -> list[int]:
    """The ids of open questions that fit the filters, in the order in which they should be answered; one query.

    ``behind``: those behind a place alone. Those that are snoozed are left out, unless they are asked for. Without a
    roster it is read where it is needed.
    """
    values = _values(department_ids, filters, user, roster)
    if behind is None:
        return [pk for (pk,) in _from_the_first(_shape(filters)).rows(limit=limit, **values)]
    return [pk for (pk,) in _beside(_shape(filters), True).rows(limit=limit, **values, **_at(behind))]


def find_neighbours(
    department_ids: Iterable[int], filters: Filters, user: User, place: Place
) -> tuple[int | None, int | None]:
    """The questions behind and before a place, of those that fit the filters; None where there is no further one."""
    values = _values(department_ids, filters, user, None) | _at(place)
    found = [_beside(_shape(filters), is_behind).rows(limit=1, **values) for is_behind in (True, False)]
    behind, before = (rows[0][0] if rows else None for rows in found)
    return behind, before


def _values(department_ids: Iterable[int], filters: Filters, user: User, roster: Roster | None) -> dict[str, Any]:
    values: dict[str, Any] = {"departments": list(department_ids), "now": timezone.now(), "kind": filters.kind}
    if filters.assignee == MINE:
        values["people"] = [user.pk, *sorted((roster or read_roster()).covered_by(user.pk))]
    return values | {name: int(value) for name in ("risk", "group") if (value := filters.values.get(name))}


def _at(place: Place) -> dict[str, Any]:
    return {"at_risk": place.risk, "at_deadline": place.deadline, "at_pk": place.pk}


def _shape(filters: Filters) -> Filters:
    """What differs between filters of one shape are values alone."""
    return Filters(**{name: value if name == "assignee" else "1" for name, value in filters.values.items()})


@cache
def _from_the_first(shape: Filters) -> Statement[Review]:
    return Statement(lambda: _in_order(shape).values_list("pk"))


@cache
def _beside(shape: Filters, is_behind: bool) -> Statement[Review]:
    """Those behind a place, or before it, the nearest first."""
    risk, pk = Given("at_risk", IntegerField()), Given("at_pk", BigIntegerField())
    due = Given("at_deadline", DateTimeField())
    rows: Any = _in_order(shape)  # "due" is no field
    if is_behind:
        further = Q(due__gt=due) | Q(due=due, pk__gt=pk)
        rows = rows.filter(Q(risk__lt=risk) | (Q(risk=risk) & further))
    else:
        further = Q(due__lt=due) | Q(due=due, pk__lt=pk)
        rows = rows.filter(Q(risk__gt=risk) | (Q(risk=risk) & further)).order_by("risk", "-due", "-pk")
    return Statement(lambda: rows.values_list("pk"))


def _in_order(shape: Filters) -> QuerySet[Review]:
    """Those that fit, by risk, then deadline, then age."""
    rows = Review.objects.filter(Among("department_id", "departments"), status=Review.Status.OPEN)
    snoozed = Q(snoozed_until__gt=Given("now", DateTimeField()))
    rows = rows.filter(snoozed) if shape.snoozed else rows.exclude(snoozed)
    if shape.group:
        rows = rows.filter(group=Given("group", BigIntegerField()))
    if shape.kind:
        rows = rows.filter(kind=Given("kind", CharField()))
    if shape.risk:
        rows = rows.filter(risk=Given("risk", IntegerField()))
    if shape.assignee == MINE:
        rows = rows.filter(Among("assignee_id", "people"))
    elif shape.assignee:
        rows = rows.filter(assignee=None)
    return rows.annotate(due=DUE).order_by("-risk", "due", "pk")


def place_of(review: Review) -> Place:
    """Where a question stands in the order."""
    return Place(review.risk, review.deadline or NEVER, review.pk)


def read_place(text: str) -> Place | None:
    """The inverse of ``str``; None for anything else."""
    try:
        risk, deadline, pk = text.split("~")
        at = datetime.fromisoformat(deadline)
        place = Place(int(risk), at.astimezone(UTC), int(pk))
        is_possible = risk in RISKS and 0 <= place.pk <= BigIntegerField.MAX_BIGINT
        return place if is_possible and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def count_open(department_ids: Iterable[int]) -> int:
    """How many questions are open, for the badge: one query over an index, and never more than ``MOST_COUNTED``."""
    return _OPEN.count(limit=MOST_COUNTED, departments=department_ids, now=timezone.now())


def asked_now() -> QuerySet[Review]:
    """For statements: what is open in ``departments``, those left out that somebody has snoozed beyond ``now``."""
    asked = Review.objects.filter(Among("department_id", "departments"), status=Review.Status.OPEN)
    return asked.exclude(snoozed_until__gt=Given("now", DateTimeField()))


_OPEN = Statement(lambda: asked_now().order_by().values_list("pk"))


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
    return _ASSIGNABLE.objects(department=review.department_id)


_ASSIGNABLE = Statement(
    lambda: User.objects.filter(
        memberships__department_id=Given("department", BigIntegerField()),
        memberships__role__in=[role for role in ROLE_PERMISSIONS if includes(role, Member.Role.REVIEWER)],
        is_active=True,
    ).order_by("username")
)


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
