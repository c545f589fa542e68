from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import transform_schema
from pydantic import BaseModel, ValidationError

from leads.department import SALES
from leads.schemas import (
    TIER_FLOORS,
    Check,
    Draft,
    Email,
    FactCheck,
    Intake,
    Qualification,
    ReplyDraft,
    SalesSettings,
    tier_of,
)

SCHEMAS = [agent.schema for agent in SALES.agents]
ALLOWED = {
    "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "format", "items", "minItems",
    "properties", "required", "title", "type",
}  # fmt: skip


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema object inside a schema."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key in ("items",):
        yield from nodes(schema.get(key))
    for key in ("properties", "$defs"):
        for sub in schema.get(key, {}).values():
            yield from nodes(sub)
    for sub in schema.get("anyOf", []):
        yield from nodes(sub)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.__name__)
class TestEverySchema:
    def test_it_is_named_after_its_class(self, schema: type[BaseModel]) -> None:
        assert transform_schema(schema)["title"] == schema.__name__

    def test_it_begins_with_a_reasoning_summary(self, schema: type[BaseModel]) -> None:
        assert next(iter(transform_schema(schema)["properties"])) == "reasoning_summary"

    def test_the_api_takes_it(self, schema: type[BaseModel]) -> None:
        for node in nodes(transform_schema(schema)):
            assert set(node) <= ALLOWED
            if "properties" in node:
                assert node["additionalProperties"] is False
                # Optional keys are limited by the API, and an agent that may leave out an answer will.
                assert set(node.get("required", [])) == set(node["properties"])

    def test_its_maps_are_not_lost(self, schema: type[BaseModel]) -> None:
        objects = [n for n in nodes(transform_schema(schema)) if n.get("type") == "object"]
        assert all(node["properties"] for node in objects)

    def test_it_does_not_refer_to_itself(self, schema: type[BaseModel]) -> None:
        wire = transform_schema(schema)
        assert "$ref" not in wire
        for definition in wire.get("$defs", {}).values():
            assert "$ref" not in json.dumps(definition)

    def test_it_costs_few_tokens(self, schema: type[BaseModel]) -> None:
        assert len(json.dumps(transform_schema(schema), separators=(",", ":"))) < 1_400

    def test_it_refuses_extra_keys(self, schema: type[BaseModel]) -> None:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            schema.model_validate({"send_mail_now": True})


def qualification(**changes: Any) -> dict[str, Any]:
    base = {"reasoning_summary": "Fits.", "score": 80, "tier": "Hot", "fit_reasons": [], "missing_information": []}
    return {**base, "confidence": "high", **changes}


def reply(**changes: Any) -> dict[str, Any]:
    base = {"reasoning_summary": "Wants a call.", "intent": "interested", "urgency": "high", "opt_out": False}
    answer = {"answer_needed": True, "confidence": "high", "subject": "Re: x", "body": "Hello", "claims": []}
    return {**base, **answer, **changes}


NO_ANSWER = {"answer_needed": False, "subject": "", "body": ""}


class TestQualification:
    @pytest.mark.parametrize(
        ("score", "tier"), [(0, "Cold"), (39, "Cold"), (40, "Warm"), (69, "Warm"), (70, "Hot"), (100, "Hot")]
    )
    def test_the_tier_follows_from_the_score(self, score: int, tier: str) -> None:
        assert tier_of(score) == tier
        assert Qualification.model_validate(qualification(score=score, tier=tier)).score == score
        for other in set(TIER_FLOORS) - {tier}:
            with pytest.raises(ValidationError, match=f"a score of {score} is {tier}"):
                Qualification.model_validate(qualification(score=score, tier=other))

    @pytest.mark.parametrize("score", [-1, 101])
    def test_a_score_outside_0_to_100_is_refused(self, score: int) -> None:
        with pytest.raises(ValidationError, match="score"):
            Qualification.model_validate(qualification(score=score))


class TestReplyDraft:
    @pytest.mark.parametrize(
        "changes",
        [{}, {"intent": "unsubscribe", "opt_out": True, **NO_ANSWER}, {"intent": "out_of_office", **NO_ANSWER}],
    )
    def test_decisions_that_agree_are_taken(self, changes: dict[str, Any]) -> None:
        ReplyDraft.model_validate(reply(**changes))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"intent": "unsubscribe"}, "opt_out must be true"),
            ({"opt_out": True}, "answer_needed must be false"),
            ({"body": ""}, "must not be empty"),
            ({"subject": " "}, "must not be empty"),
            ({"answer_needed": False}, "must be empty"),
        ],
    )
    def test_decisions_that_contradict_each_other_are_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            ReplyDraft.model_validate(reply(**changes))


class TestMails:
    @pytest.mark.parametrize("subject", ["Hello\nBcc: all@evil.example", "a\rb", "a\u2028b", "a\x00b", ""])
    def test_a_subject_that_could_become_a_header_is_refused(self, subject: str) -> None:
        with pytest.raises(ValidationError, match="subject"):
            Email.model_validate({"reasoning_summary": "x", "subject": subject, "body": "b", "removed_claims": []})
        with pytest.raises(ValidationError, match="subject"):
            Draft.model_validate({"reasoning_summary": "x", "subject": subject, "body": "b", "claims": []})


class TestFactCheck:
    def check(self, **changes: Any) -> dict[str, Any]:
        return {"claim": "3.8 %", "supported": True, "source": "Pricing#1", "note": "", **changes}

    def test_the_count_must_be_right(self) -> None:
        checks = [self.check(), self.check(supported=False, source="", note="no source")]
        good = {"reasoning_summary": "x", "checks": checks, "unsupported": 1}
        assert FactCheck.model_validate(good).unsupported == 1
        with pytest.raises(ValidationError, match="1 checks are not supported"):
            FactCheck.model_validate({**good, "unsupported": 0})

    def test_support_without_a_source_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="where the support was read"):
            Check.model_validate(self.check(source=""))


class TestIntake:
    @pytest.mark.parametrize(("name", "value"), [("language", "English"), ("country", "Germany"), ("category", "hot")])
    def test_codes_and_categories_are_checked(self, name: str, value: str) -> None:
        good = {"reasoning_summary": "x", "category": "lead", "language": "de", "country": "", "summary": "s"}
        Intake.model_validate({**good, "confidence": "low"})
        with pytest.raises(ValidationError, match=name):
            Intake.model_validate({**good, "confidence": "low", name: value})


class TestSalesSettings:
    def test_the_defaults_are_valid_and_survive_json(self) -> None:
        stored = json.loads(SalesSettings().model_dump_json())
        assert SalesSettings.model_validate(stored) == SalesSettings()
        assert stored["cadence"] == [4, 7]

    @pytest.mark.parametrize(
        "wrong", [{"cadence": [0]}, {"cadence": [400]}, {"max_body_words": 5}, {"stop_rules": ["rain"]}, {"tonne": "x"}]
    )
    def test_wrong_settings_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            SalesSettings.model_validate(wrong)
