"""What people change again and again: found sentence by sentence, counted by agent, person and day."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from agents.models import Agent, Department, Member
from runs.edit_patterns import compare_texts, edit_patterns, patterns_by_agent, personal_parts
from runs.models import EditPattern, Output, Review
from runs.reviews import approve, approve_edited, undo
from tests.engine import make_office
from tests.factories import PAYLOADS, agent_of, make_user
from tests.runs.desk import mail_of, make_drafted

BODY = "Dear {name},\n\nI hope this finds you well. You ship 1,200 loads. We check them.\n\nBest\nMara"


def told(before: str, after: str, **personal: str) -> list[tuple[str, str, str, str]]:
    edits = compare_texts({"body": before}, {"body": after}, personal_parts(personal))
    return [(edit.kind, edit.place, edit.text, edit.became) for edit in edits]


def test_a_sentence_that_is_gone_new_or_different() -> None:
    before = BODY.format(name="Lena")
    assert told(before, before.replace("I hope this finds you well. ", "")) == [
        ("removed", "opening", "I hope this finds you well.", "")
    ]
    assert told(before, before.replace("We check them.", "We check all of them.")) == [
        ("changed", "body", "We check them.", "We check all of them.")
    ]
    assert told(before, before.replace("Mara", "Mara\nP.S. Till Friday.")) == [
        ("added", "closing", "P.S.", ""),
        ("added", "closing", "Till Friday.", ""),
    ]
    assert told(before, before) == []


def test_names_numbers_and_case_are_no_difference() -> None:
    texts = [BODY.format(name=name).replace("1,200", number) for name, number in (("Lena", "90"), ("Tom", "7.5"))]
    first, second = (
        compare_texts({"body": text}, {"body": text.replace("You ship", "You move")}, personal_parts({"name": name}))
        for text, name in zip(texts, ("Lena Weber", "Tom Oduya"), strict=True)
    )
    assert [edit.text for edit in first] == ["You ship # loads."]
    assert [edit.digest for edit in first] == [edit.digest for edit in second]
    assert told("Dear Lena,\n\nHELLO there.", "Dear Lena,\n\nhello there.") == []


def test_the_subject_is_one_sentence() -> None:
    edits = compare_texts({"subject": "Hello. You there"}, {"subject": "Freight"}, {})
    assert [(edit.kind, edit.place, edit.text) for edit in edits] == [("changed", "subject", "Hello. You there")]


# --- Counted with an approval ---------------------------------------------------------------------------------


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def rita(office: Department) -> User:
    return make_user("rita", department=office, role=Member.Role.REVIEWER)


def drafted(office: Department, body: str = BODY) -> Review:
    """A question about a mail whose body the Writer has drafted in the same words."""
    review = make_drafted(office)
    payload = {**PAYLOADS["email"], "body": body.format(name="Lena")}
    mail = mail_of(review)
    Output.objects.filter(pk=mail.pk).update(payload=payload)
    draft = {**PAYLOADS["draft"], "body": body.format(name="Lena")}
    Output.objects.filter(pk__in=mail.made_from, key="draft").update(payload=draft)
    return review


def edit(review: Review, user: User, old: str, new: str) -> None:
    body = mail_of(review).payload["body"]
    assert approve_edited(review=review, user=user, changes={"body": body.replace(old, new)})


@pytest.mark.django_db
def test_what_is_changed_twice_is_a_pattern_of_who_wrote_the_words(office: Department, rita: User) -> None:
    sam = make_user("sam", department=office)
    for user in (rita, rita, sam):
        edit(drafted(office), user, "I hope this finds you well. ", "")
    edit(drafted(office), rita, "We check them.", "We check all of them.")
    assert approve(review=drafted(office), user=rita)
    writer = agent_of(office, "writer")
    [pattern] = edit_patterns(agent=writer)
    assert pattern.sentence == "removed “I hope this finds you well.” 3 times"
    assert pattern.people == {"rita": 2, "sam": 1}
    assert pattern.suggestion == "Never write “I hope this finds you well.”"
    [mine] = edit_patterns(agent=writer, user=rita)
    assert mine.count == 2
    assert edit_patterns(agent=agent_of(office, "formatter")) == []
    assert EditPattern.objects.count() == 3, "one row for a person, a day and a habit"


@pytest.mark.django_db
def test_a_place_that_is_rewritten_each_time_otherwise_is_a_pattern_too(office: Department, rita: User) -> None:
    for opening in ("Congratulations on the fair.", "You asked for a price.", "Three plants, one invoice pile."):
        review = drafted(office, BODY.replace("I hope this finds you well.", opening))
        edit(review, rita, opening, f"Short: {opening}")
    [pattern] = edit_patterns(agent=agent_of(office, "writer"))
    assert pattern.sentence == "changed the opening 3 times"
    assert "Short: Three plants" in pattern.suggestion


@pytest.mark.django_db
def test_what_only_the_formatter_wrote_is_the_formatters(office: Department, rita: User) -> None:
    for _ in range(2):
        review = drafted(office)
        mail = mail_of(review)
        body = mail.payload["body"] + "\nSent with care."
        Output.objects.filter(pk=mail.pk).update(payload={**mail.payload, "body": body})
        edit(review, rita, "\nSent with care.", "")
    assert [p.text for p in edit_patterns(agent=agent_of(office, "formatter"))] == ["Sent with care."]
    assert edit_patterns(agent=agent_of(office, "writer")) == []


@pytest.mark.django_db
def test_an_answer_that_is_taken_back_counts_no_more(office: Department, rita: User) -> None:
    reviews = [drafted(office) for _ in range(2)]
    for review in reviews:
        edit(review, rita, "I hope this finds you well. ", "")
    assert undo(review=reviews[0], user=rita)
    assert edit_patterns(agent=agent_of(office, "writer")) == [], "once is no pattern"
    assert EditPattern.objects.get().count == 1


@pytest.mark.django_db
def test_only_the_last_sixty_days_count_and_each_department_for_itself(
    office: Department, rita: User, django_assert_max_num_queries: Any
) -> None:
    for _ in range(2):
        edit(drafted(office), rita, "I hope this finds you well. ", "")
    writer = Agent.objects.get(department=office, slug="writer")
    # PostgreSQL is asked for the time besides.
    with django_assert_max_num_queries(2):
        assert len(edit_patterns(agent=writer)) == 1
    with django_assert_max_num_queries(3):
        assert [agent for agent, _ in patterns_by_agent([office.pk])] == [writer]
    assert patterns_by_agent([make_office("other").pk]) == []
    EditPattern.objects.update(day=(timezone.now() - timedelta(days=61)).date())
    assert edit_patterns(agent=writer) == []
    assert len(edit_patterns(agent=writer, since=timezone.now() - timedelta(days=90))) == 1
