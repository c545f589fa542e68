"""Who is away, and who looks at their questions meanwhile.

Nothing is moved: a question stays with the person it was given to, and whoever covers finds it among their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import DateTimeField, Q
from django.utils.formats import date_format

from agents.models import Department, Member
from agents.statements import Given, Statement
from runs.access import can
from runs.allowed import YES, Allowed, no
from runs.backends import ROLE_PERMISSIONS, includes
from runs.database import now as database_now
from runs.models import Absence, Action

_ANSWERS = [role for role in ROLE_PERMISSIONS if includes(role, Member.Role.REVIEWER)]


class Roster:
    """Who is away at one moment, and who stands in. Chains are followed; one that bites its own tail ends at nobody."""

    def __init__(self, absences: Iterable[Absence]) -> None:
        self._away = {absence.user_id: absence for absence in absences}

    def absence_of(self, user_id: int | None) -> Absence | None:
        """The absence of a person, None if they are there."""
        return self._away.get(user_id) if user_id is not None else None

    def cover_of(self, user_id: int) -> User | None:
        """Who looks at an absent person's questions; None if they are there, or nobody does."""
        seen, absence, cover = {user_id}, self._away.get(user_id), None
        while absence is not None:
            cover = absence.cover
            if cover.pk in seen or not cover.is_active:
                return None
            seen.add(cover.pk)
            absence = self._away.get(cover.pk)
        return cover

    def covered_by(self, user_id: int) -> set[int]:
        """The people for whom this one stands in."""
        covers = {away: self.cover_of(away) for away in self._away}
        return {away for away, cover in covers.items() if cover is not None and cover.pk == user_id}

    def stand_in(self, person: User, department: Department) -> User:
        """Who is to be told instead of a person: their cover, if that one may answer in the department."""
        cover = self.cover_of(person.pk)
        return cover if cover is not None and can(cover, department, Member.Role.REVIEWER) else person


def read_roster(now: datetime | None = None) -> Roster:
    """Who is away now, in one query."""
    now = now or database_now()
    return Roster(_AWAY.objects(now=now))


_AWAY = Statement(
    lambda: (
        Absence.objects.filter(starts_at__lte=Given("now", DateTimeField()), ends_at__gt=Given("now", DateTimeField()))
        .select_related("user", "cover")
        .order_by("starts_at", "pk")
    )
)


def absences_of(user: User, *, now: datetime) -> Sequence[Absence]:
    """A person's absences that are not over, and those for which they stand in; the next first."""
    mine = Q(user=user) | Q(cover=user)
    return list(Absence.objects.filter(mine, ends_at__gt=now).select_related("user", "cover").order_by("starts_at"))


def possible_covers(user: User) -> list[User]:
    """Who may answer questions in a department in which this person may."""
    people = User.objects.filter(memberships__role__in=_ANSWERS, is_active=True)
    if not user.is_superuser:
        own = Member.objects.filter(user=user, role__in=_ANSWERS)
        people = people.filter(memberships__department__in=own.values("department"))
    return list(people.exclude(pk=user.pk).distinct().order_by("username"))


def can_plan(
    user: User, cover: User | None, starts_at: datetime | None, ends_at: datetime | None, *, now: datetime
) -> Allowed:
    """Be away in this time, covered by this person."""
    if starts_at is None or ends_at is None:
        return no("Say from which day to which you are away.")
    if ends_at <= starts_at:
        return no("The last day lies before the first.")
    if ends_at <= now:
        return no("These days are over.")
    if cover is None or cover not in possible_covers(user):
        return no("Choose who covers for you: somebody who may answer the same questions.")
    overlapping = list(
        Absence.objects.filter(starts_at__lt=ends_at, ends_at__gt=starts_at).select_related("user", "cover")
    )
    if any(absence.user_id == user.pk for absence in overlapping):
        return no("You are away at that time already: end that absence first.")
    if _leads_back(cover.pk, user.pk, overlapping):
        return no(f"{cover} is away then, and covered in the end by you. Choose somebody else.")
    return YES


def plan_absence(
    *, user: User, cover: User | None, starts_at: datetime | None, ends_at: datetime | None, note: str = ""
) -> Allowed:
    """Note that a person is away and who covers."""
    with transaction.atomic():
        _plan_alone()
        if not (allowed := can_plan(user, cover, starts_at, ends_at, now=database_now())):
            return allowed
        assert cover is not None
        assert starts_at is not None
        assert ends_at is not None
        absence = Absence.objects.create(
            user=user, cover=cover, starts_at=starts_at, ends_at=ends_at, note=note.strip()[:200]
        )
        _act(absence, user, "plan_absence", ends_at.tzinfo or UTC)
    return YES


def _plan_alone() -> None:
    """One plan at a time, of whomever: two that each cover for the other, or of more people in a ring, see each other.

    No row could be locked for that: the ring may close over people whom neither plan names. Reading goes on.
    """
    if connection.vendor == "postgresql":  # on SQLite every transaction that writes is alone
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {Absence._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")


def end_absence(*, absence: Absence, user: User, zone: tzinfo = UTC) -> Allowed:
    """Be back, or not go at all. ``zone``: whose days the note of it names."""
    with transaction.atomic():
        now = database_now()
        fresh = Absence.objects.select_for_update(of=("self",)).select_related("user", "cover").filter(pk=absence.pk)
        found = fresh.first()
        if found is None or found.ends_at <= now:
            return no("This absence is over already.")
        _act(found, user, "end_absence", zone)
        if found.starts_at >= now:
            found.delete()
        else:
            Absence.objects.filter(pk=found.pk).update(ends_at=now)
    return YES


def _leads_back(start: int, target: int, absences: Sequence[Absence]) -> bool:
    """Whether covers, followed from one person, arrive at the other at any time in these absences."""
    seen, left = set(), [start]
    while left:
        person = left.pop()
        if person == target:
            return True
        if person not in seen:
            seen.add(person)
            left += [absence.cover_id for absence in absences if absence.user_id == person]
    return False


def _act(absence: Absence, user: User, verb: str, zone: tzinfo) -> None:
    Action.objects.create(
        user=user,
        verb=verb,
        target=f"absence:{absence.pk}",
        after={
            "away": absence.user.get_username(),
            "covered_by": absence.cover.get_username(),
            "from": date_format(absence.starts_at.astimezone(zone), "D j M Y"),
            "back_on": date_format(absence.ends_at.astimezone(zone), "D j M Y"),
        },
        reason=absence.note,
    )
