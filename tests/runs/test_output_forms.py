"""Forms made from the schemas of agents, and what they send."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agents.spec import kind
from runs.views.output_forms import Input, build_inputs, errors_by_field, read_payload
from tests.factories import PAYLOADS

SALES = kind("sales")
SCHEMAS = {agent.writes: agent.schema for agent in SALES.agents if agent.writes in PAYLOADS and agent.slug != "writer"}
SCHEMAS["draft"] = SALES.agent("writer").schema


def sent(inputs: list[Input]) -> dict[str, Any]:
    """What a browser sends of a form that nobody has touched."""
    values: dict[str, Any] = {}
    for each in inputs:
        if each.kind == "table":
            values[f"{each.name}-rows"] = str(each.row_count)
            for row in each.rows:
                values |= sent(row)
        elif each.kind == "flag":
            values |= {each.name: "on"} if each.value else {}
        elif each.kind == "choice" and each.value not in each.choices:
            values[each.name] = each.choices[0]
        else:
            values[each.name] = str(each.value).replace("\n", "\r\n")
    return values


@pytest.mark.parametrize("key", SCHEMAS)
def test_a_form_that_nobody_has_touched_sends_what_was_there(key: str) -> None:
    schema = SCHEMAS[key]
    there = schema.model_validate(PAYLOADS[key]).model_dump(mode="json")
    read = read_payload(schema, sent(build_inputs(schema, there)))
    assert schema.model_validate(read).model_dump(mode="json") == there


@pytest.mark.parametrize("agent", SALES.agents, ids=lambda agent: agent.slug)
def test_every_schema_has_a_form_without_json(agent: Any) -> None:
    kinds = {each.kind for each in build_inputs(agent.schema, {})}
    assert "json" not in kinds


def test_each_kind_of_field_has_its_input() -> None:
    kinds = {each.name: each.kind for each in build_inputs(SALES.agent("reply_handler").schema, {})}
    assert kinds["f-intent"] == "choice"
    assert kinds["f-opt_out"] == "flag"
    assert kinds["f-subject"] == "line"
    assert kinds["f-body"] == "area"
    assert kinds["f-claims"] == "table"
    others = {each.name: each.kind for each in build_inputs(SALES.agent("qualifier").schema, {})}
    assert others["f-score"] == "number"
    assert others["f-fit_reasons"] == "lines"


def test_empty_rows_and_lines_are_left_out() -> None:
    schema = SALES.agent("researcher").schema
    form = {
        "f-reasoning_summary": "Because.",
        "f-company_summary": "",
        "f-facts-rows": "3",
        "f-facts-1-statement": "Three plants",
        "f-facts-1-source": "website",
        "f-unknowns": " spend \r\n\r\n",
    }
    read = read_payload(schema, form)
    assert read["facts"] == [{"statement": "Three plants", "source": "website"}]
    assert read["unknowns"] == ["spend"]


@pytest.mark.parametrize("rows", ["x", "-1", "999999999", "9" * 5_000, ""])
def test_a_number_of_rows_that_is_none_does_no_harm(rows: str) -> None:
    read = read_payload(SALES.agent("researcher").schema, {"f-facts-rows": rows})
    assert read["facts"] == []


def test_what_is_wrong_is_said_beside_the_field() -> None:
    schema = SALES.agent("fact_checker").schema
    checks = [{"claim": "a", "supported": True, "source": "", "note": ""}]
    with pytest.raises(ValidationError) as caught:
        schema.model_validate({"reasoning_summary": "", "checks": checks, "unsupported": "many"})
    found = errors_by_field(caught.value)
    assert set(found) == {"reasoning_summary", "checks", "unsupported"}
    assert found["checks"] == ["Row 1: supported is true, so source must say where the support was read"]
    shown = {each.name: each.errors for each in build_inputs(schema, {}, found)}
    assert shown["f-checks"] == found["checks"]


def test_what_is_wrong_with_the_whole_is_said_above_it() -> None:
    schema = SALES.agent("qualifier").schema
    with pytest.raises(ValidationError) as caught:
        schema.model_validate({**PAYLOADS["qualification"], "tier": "Cold"})
    assert list(errors_by_field(caught.value)) == [""]


def test_what_has_no_other_input_is_json() -> None:
    class Odd(BaseModel):
        numbers: dict[str, int]

    (made,) = build_inputs(Odd, {"numbers": {"a": 1}})
    assert made.kind == "json"
    assert read_payload(Odd, {"f-numbers": made.value}) == {"numbers": {"a": 1}}
    assert read_payload(Odd, {"f-numbers": "{"}) == {"numbers": "{"}
