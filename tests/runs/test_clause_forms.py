"""Clauses as fields of a form, and back."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import QueryDict

from leads.department import SALES
from runs.clause_forms import fits_form, read_boxes, vocabulary, with_errors, write_boxes
from runs.risk import KNOWN_MARKS
from tests.runs.routing import views

_, AGENTS = views(SALES)
KNOWN = vocabulary(SALES, AGENTS)
FULL: dict[str, Any] = {
    "status": ["new", "won"],
    "trigger": ["reply"],
    "has": ["intake"],
    "lacks": ["research"],
    "failed": ["qualifier"],
    "facet": {"tier": ["Hot", "Cold"], "opt_out": [False], "score": [1, 70, 71, 72], "language": ["de", "en"]},
    "tags": ["vip", "fair"],
}


def sent(text: str) -> QueryDict:
    return QueryDict(text)


@pytest.mark.parametrize("rule", SALES.rules, ids=lambda rule: rule.name)
def test_every_rule_that_ships_can_be_edited_in_fields(rule: Any) -> None:
    assert fits_form(rule.when, list(rule.want), KNOWN)


@pytest.mark.parametrize("rule", SALES.risk_rules, ids=lambda rule: rule.name)
def test_so_can_every_rule_of_risk(rule: Any) -> None:
    assert fits_form(rule.when, None, vocabulary(SALES, AGENTS, KNOWN_MARKS))


def test_every_clause_survives_the_form() -> None:
    assert fits_form(FULL, ["email"], KNOWN)


def test_what_a_browser_sends_becomes_clauses() -> None:
    data = "status=new&status=won&facet-tier=Hot&facet-opt_out=no&facet-score=70-72,+5&tags=vip,,+fair&want=email"
    when, want, errors = read_boxes(sent(data), KNOWN)
    assert when == {
        "status": ["new", "won"],
        "facet": {"tier": ["Hot"], "score": [70, 71, 72, 5], "opt_out": [False]},
        "tags": ["vip", "fair"],
    }
    assert (want, errors) == (["email"], {})


@pytest.mark.parametrize("text", ["much", "9-5", "1-99999", "1.5", "--1", "1-999, 1-999", "9" * 5_000])
def test_a_number_that_is_none_is_told_and_kept(text: str) -> None:
    data = sent(f"facet-score={text}")
    when, want, errors = read_boxes(data, KNOWN)
    assert set(errors) == {"facet-score"}
    box = next(box for box in with_errors(write_boxes(when, want, KNOWN), errors, data) if box.name == "facet-score")
    assert (box.text, len(box.errors)) == (text, 1)


@pytest.mark.parametrize(
    "when",
    [
        {"mood": ["good"]},
        {"status": "new"},
        {"status": [["new"]]},
        {"tags": ["a, b"]},
        {"facet": {"score": ["70"]}},
        {"facet": {"weather": ["fine"]}},
        {"facet": ["tier"]},
        {"facet": {"tier": [None]}},
        {"status": []},
        [],
        None,
    ],
)
def test_what_the_fields_cannot_say_stays_json(when: Any) -> None:
    assert not fits_form(when, [], KNOWN)


def test_a_word_that_is_no_longer_known_is_shown_and_kept() -> None:
    boxes = {box.name: box for box in write_boxes({"status": ["gone"]}, ["email"], KNOWN)}
    assert [option for option in boxes["status"].options if option.is_chosen][0].label == "gone (unknown)"
    assert fits_form({"status": ["gone"]}, ["email"], KNOWN)


def test_numbers_in_a_row_are_written_as_a_span() -> None:
    boxes = {box.name: box for box in write_boxes({"facet": {"score": [1, 2, 3, 7, -2, -1]}}, [], KNOWN)}
    assert boxes["facet-score"].text == "1-3, 7, -2--1"
    assert fits_form({"facet": {"score": [1, 2, 3, 7, -2, -1]}}, [], KNOWN)


def test_marks_are_offered_to_rules_of_risk_alone() -> None:
    assert "marks" not in {box.name for box in write_boxes({}, [], KNOWN)}
    boxes = {box.name for box in write_boxes({}, None, vocabulary(SALES, AGENTS, KNOWN_MARKS))}
    assert "marks" in boxes
    assert "want" not in boxes
