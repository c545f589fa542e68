"""Drafts that are alike but for what is personal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Department
from runs.alike import ALIKE, KEPT, count_alike, find_group, forget_old, likeness, personal_words, sketch
from runs.models import DraftGroup, Output, Review
from runs.staff import load_staff
from tests.engine import make_office
from tests.factories import PAYLOADS, make_agent_run, make_lead, make_output, make_review

LETTER = (
    "Dear {name},\n\nyou ship {number} consignments a month from {company}. We check every freight invoice against the "
    "contract and claim back what was charged too much. Most of our customers find three to four per cent in the first "
    "quarter. Would a call on Thursday suit you?\n\nMara Lindqvist"
)
OTHER = (
    "Hello {name}, thank you for the pleasant talk at the fair in Hanover. As promised I send the case study about "
    "furniture makers, and the price list for small teams. Please tell me when our engineer may visit {company}."
)


def words(text: str) -> list[int]:
    return sketch([text], set())


def test_the_same_letter_to_two_people_is_the_same_without_what_is_personal() -> None:
    texts = []
    for name, company, number in (("Lena Weber", "Weber Maschinen", "1,200"), ("Tom Oduya", "Oduya Foods", "90")):
        personal = personal_words({"name": name, "company": company, "message": "a " * 200})
        texts.append(sketch([LETTER.format(name=name, company=company, number=number)], personal))
    assert texts[0] == texts[1]
    assert likeness(*texts) == 1


def test_one_more_sentence_is_still_alike_and_another_letter_is_not() -> None:
    letter, other = words(LETTER), words(OTHER)
    assert likeness(letter, words(f"{LETTER} P.S. We were in the papers last week.")) >= ALIKE
    assert likeness(letter, other) < 0.1
    assert likeness([], []) == 0


def test_an_estimate_from_sketches_is_close_to_what_is_true() -> None:
    base = [f"w{'x' * (n % 7)}{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(400)]
    half = base[:200] + [f"other{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)]
    one, two = words(" ".join(base)), words(" ".join(half))
    assert len(one) == len(two) == KEPT
    assert likeness(one, two) == pytest.approx(1 / 3, abs=0.15)


@pytest.fixture
def office() -> Department:
    return make_office()


def drafted(office: Department, text: str = LETTER, *, agent: str = "formatter", key: str = "email") -> Output:
    lead = make_lead(office)
    body = text.format(name=lead.name, company=lead.company, number=lead.pk)
    run = make_agent_run(lead.item, agent, status="done")
    return make_output(lead.item, key, agent_run=run, payload={**PAYLOADS["email"], "body": body})


def grouped(output: Output, purpose: str = "item") -> DraftGroup | None:
    desk = load_staff().desks[output.item.department_id]
    return find_group(output.item, output, purpose, desk, now=timezone.now())


@pytest.mark.django_db
def test_drafts_of_one_agent_for_one_purpose_find_each_other(office: Department) -> None:
    first = grouped(drafted(office))
    assert first is not None
    assert grouped(drafted(office)) == first
    assert grouped(drafted(office, OTHER)) != first
    assert grouped(drafted(office), "follow_up") != first, "of another purpose"
    assert grouped(drafted(make_office("other"))) != first, "of another department"
    assert DraftGroup.objects.count() == 4


@pytest.mark.django_db
def test_what_a_person_wrote_is_in_no_group(office: Department) -> None:
    output = make_output(make_lead(office).item, "email")
    assert grouped(output) is None
    assert DraftGroup.objects.count() == 0


@pytest.mark.django_db
def test_finding_a_group_takes_a_fixed_number_of_queries(
    office: Department, django_assert_max_num_queries: Any
) -> None:
    for _ in range(5):
        grouped(drafted(office))
    output, desk = drafted(office), load_staff().desks[office.pk]
    with django_assert_max_num_queries(4):
        find_group(output.item, output, "item", desk, now=timezone.now())


@pytest.mark.django_db
def test_only_open_questions_count_and_old_sketches_are_forgotten(office: Department) -> None:
    outputs = [drafted(office) for _ in range(3)]
    group = grouped(outputs[0])
    assert group is not None
    reviews = [make_review(output.item, output=output, group=group) for output in outputs]
    Review.objects.filter(pk=reviews[0].pk).update(status="withdrawn")
    assert count_alike([group.pk]) == {group.pk: 2}
    assert forget_old(now=timezone.now() + timedelta(days=29)) == 0
    assert forget_old(now=timezone.now() + timedelta(days=31)) == 1
    assert forget_old(now=timezone.now() + timedelta(days=31)) == 0
    assert grouped(drafted(office)) != group
