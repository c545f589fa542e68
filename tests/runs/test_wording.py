"""Words for what is stored as a slug, and what fields are called."""

from __future__ import annotations

import pytest
from django.template import Context, Template

from leads.department import SALES
from runs.admin_forms import DepartmentForm
from runs.models import Trigger
from runs.wording import HAPPENED, OCCASIONS, because, facet_label


def test_every_kind_of_trigger_has_words() -> None:
    assert set(HAPPENED) == set(OCCASIONS) == set(Trigger.Kind.values)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("created", "it came in"),
        ("created, operator", "it came in, an operator asked for it"),
        ("follow-up", "a follow-up is due"),
        ("the rules", "the rules"),
        ("", ""),
    ],
)
def test_what_set_off_a_run_is_said_in_words(cause: str, words: str) -> None:
    assert because(cause) == words


def test_labels_as_runs_store_them_are_all_known() -> None:
    assert {because(str(label)) for label in Trigger.Kind.labels} == set(HAPPENED.values())


def test_a_promoted_field_is_called_as_its_schema_says_else_by_its_name() -> None:
    assert facet_label("unsupported", SALES) == "number of unsupported claims"
    assert facet_label("opt_out", SALES) == "opt-out"
    assert facet_label("unsupported", None) == "unsupported"
    assert facet_label("reasoning_summary", SALES) == "reasoning summary", "promoted by nobody"


def test_pages_begin_the_words_with_a_capital() -> None:
    said = Template("{% load kontor %}{{ cause|because }}").render(Context({"cause": "reply"}))
    assert said == "A reply came in"


def test_the_form_of_a_department_names_no_column() -> None:
    labels = [str(field.label) for field in DepartmentForm.base_fields.values()]
    assert "Environment variable of the API key" in labels
    assert not [label for label in labels if label.endswith("env")]
