from __future__ import annotations

from typing import Any

import pytest
from django import forms
from pydantic import BaseModel

from agents.settings_form import PREFIX, entries, form_fields, read_settings
from leads.schemas import SalesSettings
from tests.agents.desk import DeskSettings


def shown(schema: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """What a browser sends back when nothing was changed."""
    fields = form_fields(schema, values)
    form = type("Form", (forms.Form,), dict(fields))({name: f.initial for name, f in fields.items()})
    assert form.is_valid(), form.errors
    return dict(form.cleaned_data)


def test_every_setting_has_a_field_of_its_shape() -> None:
    assert {entry.key: entry.shape for entry in entries(DeskSettings)} == {
        "company": "text",
        "guide": "text",
        "words": "integer",
        "greet": "tick",
        "days": "lines",
        "stops": "choices",
        "facts": "records",
        "limits": "json",
    }
    assert form_fields(DeskSettings, {})[PREFIX + "company"].label == "Company"


@pytest.mark.parametrize("schema", [DeskSettings, SalesSettings])
def test_an_unchanged_form_brings_back_the_same_settings(schema: type[BaseModel]) -> None:
    values = schema().model_dump(mode="json")
    assert read_settings(schema, shown(schema, values)) == (values, {})


def test_what_was_stored_is_what_is_shown() -> None:
    values = {**DeskSettings().model_dump(mode="json"), "days": [1, 2, 3], "greet": False, "stops": []}
    assert read_settings(DeskSettings, shown(DeskSettings, values))[0] == values


def test_lines_and_records_are_read() -> None:
    cleaned = shown(DeskSettings, {})
    cleaned |= {
        PREFIX + "days": "3\n\n 9 \n",
        PREFIX + "facts": "We ship to Łódź | Catalogue#2\nOpen on Sundays | Website",
    }
    settings, errors = read_settings(DeskSettings, cleaned)
    assert errors == {}
    assert settings["days"] == [3, 9]
    assert settings["facts"][1] == {"statement": "Open on Sundays", "source": "Website"}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("company", "", "at least 1 character"),
        ("words", 5, "greater than or equal to 10"),
        ("days", "4\nsoon", "'soon' is not a number. Write one number a line."),
        ("days", "1\n2\n3\n4", "at most 3 items"),
        ("facts", "We ship", "has 1 parts. Each line has 2: statement | source."),
        ("facts", "We ship | A\n | B", "line 2, statement: String should have at least 1 character"),
        ("limits", "{day: 3}", "This is not JSON"),
        ("limits", '{"day": "soon"}', "day: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_stands_at_its_field(key: str, value: Any, sentence: str) -> None:
    settings, errors = read_settings(DeskSettings, shown(DeskSettings, {}) | {PREFIX + key: value})
    assert settings == {}
    assert list(errors) == [PREFIX + key]
    assert sentence in " ".join(errors[PREFIX + key])


def test_a_stored_value_that_no_longer_fits_is_shown_and_refused() -> None:
    values = {**DeskSettings().model_dump(mode="json"), "days": "soon", "facts": ["We ship"]}
    fields = form_fields(DeskSettings, values)
    assert fields[PREFIX + "days"].initial == '"soon"'
    _, errors = read_settings(DeskSettings, shown(DeskSettings, values))
    assert set(errors) == {PREFIX + "days", PREFIX + "facts"}
