"""Answers by schema: generic values, answer books, and values made to fit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from agents.prompts import AgentInput, data_block, repair_message, user_message
from agents.simulator import answers
from agents.simulator.answers import (
    AnswerBookError,
    Question,
    answer,
    read_question,
    register_answers,
    schema_title,
)
from agents.simulator.schemas import check_schema
from agents.simulator.values import Filler, fit, has_shape
from tests.simulator_fixture import SimulatorServer


class Part(BaseModel):
    name: str
    weight: float | None


class Whole(BaseModel):
    parts: list[Part] = Field(min_length=2, max_length=3)
    kind: Literal["a", "b"]
    score: int = Field(ge=1, le=5)
    label: str = Field(max_length=10)
    extra: str = ""


SCHEMA = anthropic.transform_schema(Whole)
GOOD = {"parts": [{"name": "x", "weight": 1.5}] * 2, "kind": "a", "score": 3, "label": "fine"}
ITEM = {"company": "Acme", "message": "Chairs please"}


@pytest.fixture(autouse=True)
def _books() -> Iterator[None]:
    """Books registered by a test are gone afterwards."""
    before = dict(answers._books)
    yield
    answers._books.clear()
    answers._books.update(before)


def filler() -> Filler:
    return Filler(ITEM, random.Random(1))


def body(messages: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {"model": "claude-haiku-5-5", "messages": messages, **changes}


def test_a_question_holds_the_data_of_the_request() -> None:
    data = AgentInput(
        item=ITEM,
        outputs={"research": {"facts": ["one"]}},
        trigger={"kind": "reply", "payload": {"text": "<Hello> & goodbye"}},
        conversation={"summary": "None", "messages": []},
        notes=("Shorter",),
    )
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "found"}]}
    question = read_question(
        body(
            [
                {"role": "user", "content": user_message(data, "draft")},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "x", "input": {}}]},
                {"role": "user", "content": [result]},
            ],
            system=[{"type": "text", "text": "SOUL"}, {"type": "text", "text": "Contract"}],
        ),
        seed=0,
    )
    assert question.item == ITEM
    assert question.outputs == {"research": {"facts": ["one"]}}
    assert question.trigger == {"kind": "reply", "payload": {"text": "<Hello> & goodbye"}}
    assert question.conversation == {"summary": "None", "messages": []}
    assert question.notes == ["Shorter"]
    assert question.tool_results == ["found"]

    assert question.system == "SOUL\nContract"


def test_what_a_tool_found_comes_out_of_its_delimiters() -> None:
    found = data_block("search_knowledge", "[Pricing#3] · First audit\nIt is free of charge.")
    body = {
        "model": "claude-sonnet-5-5",
        "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": found}]}],
    }
    assert read_question(body, 0).tool_results == ["[Pricing#3] · First audit\nIt is free of charge."]


def test_a_repair_turn_asks_about_the_same_data() -> None:
    first = [{"role": "user", "content": user_message(AgentInput(item=ITEM), "draft")}]
    second = [
        *first,
        {"role": "assistant", "content": "{}"},
        {"role": "user", "content": repair_message("kind: field required")},
    ]
    one, two = read_question(body(first), 0), read_question(body(second), 0)
    assert one.item == two.item == ITEM
    assert one.rng.random() == two.rng.random()


def test_data_blocks_that_are_no_json_are_left_out() -> None:
    question = read_question(body([{"role": "user", "content": '<data kind="item">\nnot json\n</data>'}]), 0)
    assert question.item == {}


def test_the_title_is_found_behind_a_reference() -> None:
    assert schema_title(SCHEMA) == "Whole"
    assert schema_title({"$ref": "#/$defs/Whole", "$defs": {"Whole": {"type": "object"}}}) == "Whole"
    assert schema_title({"type": "object"}) == ""


def test_a_book_answers_for_its_title() -> None:
    register_answers("Whole", lambda question: {**GOOD, "label": question.item["company"]})
    assert answer(Question(item=ITEM), SCHEMA) == {**GOOD, "label": "Acme"}


def test_a_book_that_breaks_the_schema_is_made_to_fit() -> None:
    wrong = {"parts": [{"name": 7}], "kind": "z", "score": 99, "label": "much too long a label", "spare": 1}
    register_answers("Whole", lambda question: wrong)
    value = answer(Question(item=ITEM), SCHEMA)
    assert Whole.model_validate(value)
    assert set(value) == {"parts", "kind", "score", "label"}
    assert value["score"] == 5
    assert value["label"] == "much too l"


def test_a_book_that_fails_names_itself_in_a_500() -> None:
    def broken(question: Question) -> dict[str, Any]:
        raise KeyError("budget")

    register_answers("Whole", broken)
    with pytest.raises(AnswerBookError, match="'Whole' failed: KeyError"):
        answer(Question(), SCHEMA)
    with SimulatorServer() as server:
        client = anthropic.Anthropic(api_key="key", base_url=server.base_url, max_retries=0)
        config: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
        with pytest.raises(anthropic.InternalServerError, match="'Whole' failed"):
            client.messages.create(
                model="claude-haiku-5-5",
                max_tokens=100,
                messages=[{"role": "user", "content": "Hello"}],
                output_config=config,
            )


def test_what_fits_stays_as_it_is() -> None:
    assert fit(GOOD, SCHEMA, filler()) == GOOD


def test_an_optional_key_may_stay_away_and_null_is_kept() -> None:
    value = {**GOOD, "parts": [{"name": "x", "weight": None}] * 2}
    assert fit(value, SCHEMA, filler()) == value


@pytest.mark.parametrize(
    ("schema", "check"),
    [
        ({"type": "string", "format": "date-time"}, lambda v: v.endswith("Z")),
        ({"type": "string", "format": "email"}, lambda v: "@" in v),
        ({"type": "string", "description": "{minLength: 80}"}, lambda v: len(v) >= 80),
        ({"type": "integer", "description": "{exclusiveMinimum: 5, maximum: 6}"}, lambda v: v == 6),
        ({"type": "number", "description": "{maximum: -3}"}, lambda v: v <= -3),
        ({"type": "null"}, lambda v: v is None),
        ({"const": 4}, lambda v: v == 4),
        ({"type": ["string", "null"]}, lambda v: isinstance(v, str)),
        ({"allOf": [{"type": "object", "properties": {"a": {"const": 1}}}]}, lambda v: v == {"a": 1}),
        ({"type": "array"}, lambda v: isinstance(v, list)),
    ],
)
def test_a_value_is_made_for_every_kind_of_schema(schema: dict[str, Any], check: Any) -> None:
    assert check(filler().value(schema, schema))


def test_a_property_named_like_a_field_gets_its_value() -> None:
    schema = {"type": "object", "properties": {"company": {"type": "string"}}}
    assert filler().value(schema, schema) == {"company": "Acme"}


_LEAVES: list[Any] = [
    (str, ...),
    (int, Field(ge=-5, le=5)),
    (float | None, ...),
    (Literal["x", "y"], ...),
    (list[Part], ...),
    (Part | None, ...),
    (bool, ...),
]


@given(st.lists(st.sampled_from(_LEAVES), max_size=8), st.integers(0, 1000))
def test_any_model_can_be_answered_and_the_answer_needs_no_fitting(leaves: list[Any], seed: int) -> None:
    fields: dict[str, Any] = {f"field_{number}": leaf for number, leaf in enumerate(leaves)}
    model = create_model("Any", **fields)
    schema = anthropic.transform_schema(model)
    check_schema(schema, "schema")
    made = Filler(ITEM, random.Random(seed))
    value = made.value(schema, schema)
    model.model_validate(value)
    assert has_shape(value, schema, schema)
    assert fit(value, schema, made) == value


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(Whole.model_fields, _JSON)))
def test_whatever_a_book_returns_the_answer_satisfies_the_schema(value: Any) -> None:
    Whole.model_validate(fit(value, SCHEMA, filler()))
