"""Who is away and who covers: chains, loops, whose questions are whose, and who is told of trouble."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Agent, Department, Member
from runs.absences import Roster, end_absence, plan_absence, possible_covers, read_roster
from runs.escalation import targets_for_agent, targets_for_department
from runs.models import Absence, Action, LogEntry, Review
from runs.review_deadlines import act_on_deadlines
from runs.review_queue import Filters, claim, find_open
from tests.engine import in_threads, make_office
from tests.factories import make_user
from tests.runs.desk import make_drafted

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def people(office: Department) -> dict[str, User]:
    return {name: make_user(name, department=office, role=Member.Role.REVIEWER) for name in ("ada", "bo", "cleo")}


def away(user: User, cover: User, *, start: float = -1, end: float = 3) -> Absence:
    """Away from so many days from now to so many."""
    now = timezone.now()
    return Absence.objects.create(user=user, cover=cover, starts_at=now + start * DAY, ends_at=now + end * DAY)


def plan(user: User, cover: User | None, start: float = 0.1, end: float = 3) -> str:
    """Plan it; empty if that worked, else why not."""
    now = timezone.now()
    starts_at, ends_at = now + start * DAY, now + end * DAY
    return plan_absence(user=user, cover=cover, starts_at=starts_at, ends_at=ends_at).reason


# --- The roster -----------------------------------------------------------------------------------------------


def test_a_chain_is_followed_to_who_is_there(people: dict[str, User]) -> None:
    ada, bo, cleo = people.values()
    away(ada, bo)
    away(bo, cleo)
    roster = read_roster()
    assert roster.cover_of(ada.pk) == cleo
    assert roster.cover_of(bo.pk) == cleo
    assert roster.cover_of(cleo.pk) is None
    assert roster.covered_by(cleo.pk) == {ada.pk, bo.pk}
    assert roster.covered_by(bo.pk) == set()


def test_a_chain_that_bites_its_tail_ends_at_nobody(people: dict[str, User]) -> None:
    ada, bo, _ = people.values()
    away(ada, bo)
    away(bo, ada)
    roster = read_roster()
    assert roster.cover_of(ada.pk) is None
    assert roster.covered_by(ada.pk) == set()


def test_only_who_is_away_at_this_moment_is_away(people: dict[str, User]) -> None:
    ada, bo, cleo = people.values()
    away(ada, bo, start=1)
    away(cleo, bo, start=-3, end=-1)
    roster = read_roster()
    assert roster.covered_by(bo.pk) == set()
    assert read_roster(timezone.now() + 2 * DAY).covered_by(bo.pk) == {ada.pk}


def test_who_has_left_covers_for_nobody(people: dict[str, User]) -> None:
    ada, bo, _ = people.values()
    away(ada, bo)
    User.objects.filter(pk=bo.pk).update(is_active=False)
    assert read_roster().cover_of(ada.pk) is None


# --- Planning -------------------------------------------------------------------------------------------------


def test_an_absence_is_planned_once_and_written_down(people: dict[str, User]) -> None:
    ada, bo, cleo = people.values()
    assert plan(ada, bo) == ""
    assert "away at that time already" in plan(ada, cleo, 2, 5)
    assert plan(ada, cleo, 4, 5) == ""
    action = Action.objects.earliest("pk")
    assert (action.verb, action.user, action.after["covered_by"]) == ("plan_absence", ada, "bo")
    assert (Absence.objects.count(), Action.objects.count()) == (2, 2)


def test_two_do_not_cover_for_each_other_at_the_same_time(people: dict[str, User]) -> None:
    ada, bo, cleo = people.values()
    assert plan(ada, bo) == ""
    assert "covered in the end by you" in plan(bo, ada, 1, 2)
    assert plan(bo, cleo, 1, 2) == ""
    assert "covered in the end by you" in plan(cleo, ada, 1, 2), "the other way round as well: ada, bo, cleo, ada"
    assert plan(cleo, ada, 4, 5) == "", "at another time it is nobody's loop"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_ring_of_covers_that_is_planned_at_once_is_not_closed(office: Department, count: int) -> None:
    ring = [make_user(f"r{n}", department=office, role=Member.Role.REVIEWER) for n in range(count)]
    refused = in_threads(lambda number: plan(ring[number], ring[(number + 1) % count], -1), count)
    assert sorted(bool(reason) for reason in refused) == [False] * (count - 1) + [True]
    assert "covered in the end by you" in max(refused)
    roster = read_roster()
    (there,) = [person for person in ring if roster.absence_of(person.pk) is None]
    assert all(roster.cover_of(person.pk) == there for person in ring if person != there)


@pytest.mark.django_db(transaction=True)
def test_of_two_windows_one_plans_the_same_days(people: dict[str, User]) -> None:
    refused = in_threads(lambda number: plan(people["ada"], people["bo"]), 3)
    assert sorted(refused)[0] == ""
    assert all("away at that time already" in reason for reason in sorted(refused)[1:])
    assert Absence.objects.count() == 1


@pytest.mark.parametrize(
    ("start", "end", "why"), [(2, 1, "before the first"), (-3, -1, "are over"), (1, 1, "before the first")]
)
def test_days_that_cannot_be_are_refused(people: dict[str, User], start: float, end: float, why: str) -> None:
    assert why in plan(people["ada"], people["bo"], start, end)


def test_only_who_may_answer_the_same_questions_covers(office: Department, people: dict[str, User]) -> None:
    ada = people["ada"]
    viewer = make_user("vera", department=office, role=Member.Role.VIEWER)
    stranger = make_user("stan", department=make_office("other"), role=Member.Role.ADMINISTRATOR)
    for person in (viewer, stranger, ada, None):
        assert "Choose who covers" in plan(ada, person)
    assert possible_covers(ada) == [people["bo"], people["cleo"]]
    assert "Say from which day" in plan_absence(user=ada, cover=people["bo"], starts_at=None, ends_at=None).reason


def test_who_is_back_early_ends_it_once(people: dict[str, User]) -> None:
    ada, bo, _ = people.values()
    current, later = away(ada, bo), away(ada, bo, start=5, end=6)
    assert end_absence(absence=current, user=ada)
    assert "over already" in end_absence(absence=current, user=ada).reason
    assert end_absence(absence=later, user=ada)
    assert "over already" in end_absence(absence=later, user=ada).reason
    assert read_roster().cover_of(ada.pk) is None
    assert list(Absence.objects.values_list("pk", flat=True)) == [current.pk], "what was never begun is gone"


# --- What follows ---------------------------------------------------------------------------------------------


def test_questions_of_who_is_away_are_among_those_of_who_covers(office: Department, people: dict[str, User]) -> None:
    ada, bo, cleo = people.values()
    review = make_drafted(office)
    claim(review=review, user=ada)
    mine = Filters(assignee="mine")
    assert find_open([office.pk], mine, bo, limit=5) == []
    absence = away(ada, bo)
    assert find_open([office.pk], mine, bo, limit=5) == [review.pk]
    assert find_open([office.pk], mine, cleo, limit=5) == []
    assert claim(review=review, user=cleo).reason == "ada looks at it already."
    end_absence(absence=absence, user=ada)
    assert find_open([office.pk], mine, bo, limit=5) == []
    assert find_open([office.pk], mine, ada, limit=5) == [review.pk]


def test_who_covers_may_make_a_question_their_own(office: Department, people: dict[str, User]) -> None:
    review = make_drafted(office)
    claim(review=review, user=people["ada"])
    away(people["ada"], people["bo"])
    assert claim(review=review, user=people["bo"])
    review.refresh_from_db()
    assert review.assignee == people["bo"]


def test_trouble_is_told_to_who_covers_in_that_department_only(office: Department, people: dict[str, User]) -> None:
    other = make_office("other")
    ada, bo, _ = people.values()
    Member.objects.create(department=other, user=ada, role=Member.Role.ADMINISTRATOR)
    Member.objects.filter(department=office, user=ada).update(role=Member.Role.ADMINISTRATOR)
    agent = Agent.objects.get(department=office, slug="writer")
    agent.escalate_to = ada
    agent.save()
    assert targets_for_agent(agent) == ["email:ada@example.com"]
    away(ada, bo)
    assert targets_for_agent(agent) == ["email:bo@example.com"]
    assert targets_for_department(office) == ["email:bo@example.com"]
    assert targets_for_department(other) == ["email:ada@example.com"], "bo must not hear of it"


def test_an_escalation_says_who_covers(office: Department, people: dict[str, User]) -> None:
    ada, bo, _ = people.values()
    Agent.objects.filter(department=office, slug="formatter").update(escalate_to=ada)
    away(ada, bo)
    review = make_drafted(office)
    Review.objects.update(at_deadline="escalate", deadline=timezone.now() - timedelta(minutes=1))
    assert act_on_deadlines() == 1
    review.refresh_from_db()
    assert review.assignee == ada
    assert LogEntry.objects.filter(text__startswith="Now asked of ada, who is away; bo covers.").exists()


def test_a_roster_is_pure(people: dict[str, User]) -> None:
    ada, bo, _ = people.values()
    now = datetime.now().astimezone()
    roster = Roster([Absence(user=ada, cover=bo, starts_at=now, ends_at=now + DAY)])
    assert roster.absence_of(None) is None
    assert roster.absence_of(ada.pk) is not None
