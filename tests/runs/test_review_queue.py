"""The order of the queue, who looks at what, and how it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Department, Member
from runs import review_figures
from runs.models import Action, Output, Review
from runs.review_figures import read_figures
from runs.review_queue import (
    MOST_COUNTED,
    Filters,
    Place,
    assign,
    assignable,
    claim,
    count_open,
    find_neighbours,
    find_open,
    place_of,
    read_filters,
    read_place,
    release,
)
from runs.rewrites import correct
from runs.views.diffs import diff_texts, unchecked_sentences
from tests.engine import in_threads, make_office
from tests.factories import make_agent_run, make_lead, make_output, make_review, make_user
from tests.runs.desk import make_drafted

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def rita(office: Department) -> User:
    return make_user("rita", department=office, role=Member.Role.REVIEWER)


@pytest.fixture
def sam(office: Department) -> User:
    return make_user("sam", department=office, role=Member.Role.OPERATOR)


# --- Order ----------------------------------------------------------------------------------------------------


def test_from_every_place_the_neighbours_are_the_next_in_the_order(office: Department, rita: User) -> None:
    item, now = make_lead(office).item, timezone.now()
    for number in range(12):
        deadline = None if number % 4 == 3 else now + timedelta(hours=number % 3)
        make_review(item, risk=number % 3 + 1, deadline=deadline)
    found = find_open([office.pk], Filters(), rita, limit=20)
    rows = Review.objects.in_bulk(found)
    keys = [(-rows[pk].risk, rows[pk].deadline or datetime.max.replace(tzinfo=UTC), pk) for pk in found]
    assert len(keys) == 12
    assert keys == sorted(keys)
    for number, pk in enumerate(found):
        place = read_place(str(place_of(rows[pk])))
        assert place is not None
        assert find_open([office.pk], Filters(), rita, limit=20, behind=place) == found[number + 1 :]
        assert find_neighbours([office.pk], Filters(), rita, place)[1] == (found[number - 1] if number else None)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"kind": "failure"},
        {"risk": "2"},
        {"assignee": "mine"},
        {"assignee": "unassigned"},
        {"snoozed": "1"},
        {"kind": "failure", "risk": "1", "assignee": "mine"},
    ],
)
def test_neighbours_are_those_of_the_list_with_the_same_filters(
    office: Department, rita: User, given: dict[str, str]
) -> None:
    item, now = make_lead(office).item, timezone.now()
    kinds, people, until = (Review.Kind.FAILURE, Review.Kind.BUDGET), (rita, None), (None, now + timedelta(hours=1))
    for number in range(24):
        about: dict[str, Any] = {"item": item if number % 2 == 0 else None, "department": office}
        asked = {"risk": number % 3 + 1, "deadline": now + timedelta(hours=number % 5), "ask": "?"}
        of_whom = {"assignee": people[number // 2 % 2], "snoozed_until": until[number // 4 % 2]}
        Review.objects.create(kind=kinds[number % 2], **about, **asked, **of_whom)
    make_review(make_lead(make_office(slug="other")).item)
    for filters in (Filters(**given), Filters(**given)):  # compiled by the first
        found = find_open([office.pk], filters, rita, limit=30)
        assert found
        for number, pk in enumerate(found):
            behind = found[number + 1] if number + 1 < len(found) else None
            before_it = found[number - 1] if number else None
            place = place_of(Review.objects.get(pk=pk))
            assert find_neighbours([office.pk], filters, rita, place) == (behind, before_it)
            assert find_open([office.pk], filters, rita, limit=30, behind=place) == found[number + 1 :]


def test_filters_of_one_shape_are_one_statement_with_other_values(office: Department, rita: User) -> None:
    item = make_lead(office).item
    low, other, high = (make_review(item, risk=risk) for risk in (1, 1, 3))
    assert find_neighbours([office.pk], Filters(risk="3"), rita, place_of(high)) == (None, None)
    assert find_neighbours([office.pk], Filters(risk="1"), rita, place_of(low)) == (other.pk, None)


@pytest.mark.parametrize(
    "text",
    [
        *("", "3", "3~now~1", "3~2026-01-01~1", "x~2026-01-01T00:00:00+00:00~1", "~~", "3~0001-01-01T00:00:00+14:00~1"),
        *("99~2026-01-01T00:00:00+00:00~1", f"3~2026-01-01T00:00:00+00:00~{2**63}", "3~2026-01-01T00:00:00+00:00~-1"),
    ],
)
def test_what_is_no_place_is_none(text: str) -> None:
    assert read_place(text) is None


def test_a_place_survives_an_address() -> None:
    place = Place(3, datetime(2026, 3, 1, 9, 30, tzinfo=UTC), 7)
    assert read_place(str(place)) == place


def test_filters_that_do_not_exist_are_none() -> None:
    assert read_filters({"kind": "draft", "risk": "3", "assignee": "mine"}).values == {
        "kind": "draft",
        "risk": "3",
        "assignee": "mine",
    }
    assert read_filters({"kind": "x", "risk": "4", "assignee": "y"}).values == {}


def test_the_badge_counts_to_a_thousand_in_one_query(office: Department, django_assert_num_queries: Any) -> None:
    item = make_lead(office).item
    asked = {"department": office, "item": item, "kind": "failure", "ask": "?"}
    Review.objects.bulk_create(Review(**asked) for _ in range(MOST_COUNTED + 5))
    with django_assert_num_queries(1):
        assert count_open([office.pk]) == MOST_COUNTED
    assert count_open([]) == 0


# --- Who looks at it ------------------------------------------------------------------------------------------


def test_one_person_claims_and_lets_go(rita: User, sam: User) -> None:
    review = make_drafted()
    assert claim(review=review, user=rita)
    assert claim(review=review, user=sam).reason == "rita looks at it already."
    assert not claim(review=review, user=rita)
    assert not release(review=review, user=sam)
    assert release(review=review, user=rita)
    assert not release(review=review, user=rita)
    assert list(Action.objects.order_by("pk").values_list("verb", "user__username")) == [
        ("claim_review", "rita"),
        ("release_review", "rita"),
    ]


def test_somebody_else_is_asked_also_away_from_another(rita: User, sam: User) -> None:
    review = make_drafted()
    assert claim(review=review, user=rita)
    assert assign(review=review, user=rita, to=sam)
    review.refresh_from_db()
    assert review.assignee == sam
    action = Action.objects.latest("pk")
    assert (action.verb, action.before, action.after) == ("assign_review", {"assignee": "rita"}, {"assignee": "sam"})


def test_only_who_may_answer_is_asked(office: Department, rita: User, sam: User) -> None:
    viewer = make_user("vera", department=office, role=Member.Role.VIEWER)
    stranger = make_user("stan", department=make_office("other"), role=Member.Role.ADMINISTRATOR)
    review = make_drafted(office)
    for person in (viewer, stranger):
        assert assign(review=review, user=rita, to=person).reason == f"{person} cannot answer questions of Sales."
    assert assignable(review) == [rita, sam]


def test_what_is_answered_is_nobodys_to_claim(rita: User) -> None:
    review = make_drafted()
    Review.objects.update(status="answered", answer="approve", answered_by=rita, answered_at=timezone.now())
    assert "answered already by rita" in claim(review=review, user=rita).reason


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_claim_at_once_one_does(rita: User, sam: User) -> None:
    review = make_drafted()
    people = [rita, sam, rita, sam]
    won = in_threads(lambda number: bool(claim(review=review, user=people[number])), 4)
    assert sum(won) == 1
    review.refresh_from_db()
    assert review.assignee == people[won.index(True)]


# --- Figures --------------------------------------------------------------------------------------------------


def answered(answer: str, rita: User | None, *, minutes: int = 10, days_ago: int = 0, office: Department) -> Review:
    review = make_drafted(office)
    at = timezone.now() - timedelta(days=days_ago)
    told = {"status": "answered", "answer": answer, "answered_by": rita, "answered_at": at}
    Review.objects.filter(pk=review.pk).update(created_at=at - timedelta(minutes=minutes), **told)
    return review


def test_the_figures_of_people_by_agent(office: Department, rita: User, django_assert_num_queries: Any) -> None:
    for minutes, answer in (
        (10, "approve"),
        (20, "approve"),
        (30, "approve_edited"),
        (40, "reject"),
        (90, "send_back"),
    ):
        answered(answer, rita, minutes=minutes, office=office)
    answered("approve", None, office=office)
    answered("reject", rita, days_ago=31, office=office)
    answered("reject", rita, office=make_office("other"))
    oldest = make_drafted(office)
    Review.objects.filter(pk=oldest.pk).update(created_at=timezone.now() - timedelta(days=3))
    item = make_lead(office).item
    make_review(item, agent_run=make_agent_run(item, "qualifier", status="failed"))
    item = make_lead(office).item
    run = make_agent_run(item, "intake", status="done")
    output = make_output(item, "intake", agent_run=run)
    assert correct(output=output, user=rita, changes={"category": "spam"})
    again = Output.objects.get(item=item, key="intake", is_current=True)
    assert correct(output=again, user=rita, changes={"category": "lead"}), "a person's own, which counts against nobody"
    with django_assert_num_queries(3):
        figures = read_figures([office.pk], now=timezone.now())
    assert figures.waiting == 2
    assert figures.oldest_at is not None
    assert (timezone.now() - figures.oldest_at).days == 3
    assert figures.median_seconds == pytest.approx(1_800)
    total = figures.total
    assert (total.decided, total.approval_rate, total.edited_share, total.corrected) == (5, 0.6, 1 / 3, 1)
    rows = {row.title: row for row in figures.agents}
    assert (rows["Formatter"].waiting, rows["Formatter"].rejected, rows["Formatter"].sent_back) == (1, 1, 1)
    assert (rows["Qualifier"].waiting, rows["Intake Classifier"].corrected) == (1, 1)


@pytest.mark.parametrize(("minutes", "median"), [((10,), 10), ((10, 30), 20), ((90, 10, 20, 30), 25)])
def test_the_median_is_that_of_the_middle(
    office: Department, rita: User, minutes: tuple[int, ...], median: int
) -> None:
    for each in minutes:
        answered("approve", rita, minutes=each, office=office)
    assert read_figures([office.pk]).median_seconds == pytest.approx(60 * median)


def test_only_the_latest_decisions_are_looked_at(
    office: Department, rita: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_figures, "MOST_READ", 2)
    for days_ago, answer in ((3, "reject"), (2, "approve"), (1, "send_back")):
        answered(answer, rita, minutes=days_ago, days_ago=days_ago, office=office)
    figures = read_figures([office.pk])
    assert (figures.total.approved, figures.total.sent_back, figures.total.rejected) == (1, 1, 0)
    assert figures.median_seconds == pytest.approx(90)
    assert figures.is_cut, "and it is said"
    monkeypatch.setattr(review_figures, "MOST_READ", 4)
    assert not read_figures([office.pk]).is_cut


def test_without_a_decision_there_is_no_share(office: Department) -> None:
    figures = read_figures([office.pk])
    assert (figures.waiting, figures.oldest_at, figures.median_seconds) == (0, None, None)
    assert (figures.total.approval_rate, figures.total.edited_share) == (None, None)


# --- What was changed -----------------------------------------------------------------------------------------


def test_a_difference_loses_nothing_of_either_text() -> None:
    was, now = "Dear Lena,\n\nwe save 20 % of costs.\nMara", "Dear Lena,\n\nwe check all of costs, always.\nMara L."
    pieces = diff_texts(was, now)
    assert "".join(piece.text for piece in pieces if piece.kind != "new") == was
    assert "".join(piece.text for piece in pieces if piece.kind != "gone") == now


def test_another_sentence_stands_behind_the_old_one_and_not_between_its_words() -> None:
    was, now = "Hello.\n\nMay I show it, tomorrow or later?\n\nMara", "Hello.\n\nDoes Thursday suit you?\n\nMara"
    assert [(piece.kind, piece.text) for piece in diff_texts(was, now)] == [
        ("same", "Hello.\n\n"),
        ("gone", "May I show it, tomorrow or later?"),
        ("new", "Does Thursday suit you?"),
        ("same", "\n\nMara"),
    ]


def test_a_sentence_that_was_not_there_is_unchecked() -> None:
    was = "Dear Lena,\n\nYou ship 1,200 loads. We check them.\nMara"
    now = "Dear Lena,\n\nYou ship 1,300 loads.  We check them. We halve your costs!\nMara"
    assert unchecked_sentences(was, now) == ["You ship 1,300 loads.", "We halve your costs!"]
    assert unchecked_sentences(was, was) == []
