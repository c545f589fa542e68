"""What a person's correction implies for the rest of an output, so that it fits its schema again."""

from __future__ import annotations

from typing import Any

import pytest

from leads.corrections import correct
from leads.schemas import Qualification, ReplyDraft
from tests.factories import PAYLOADS

REPLY: dict[str, Any] = {
    "reasoning_summary": "They ask for the price.",
    "intent": "question",
    "urgency": "normal",
    "opt_out": False,
    "answer_needed": True,
    "confidence": "low",
    "subject": "Re: Price",
    "body": "Plans start at 490 euros.",
    "claims": [{"text": "Plans start at 490 euros", "source": "Pricing#1"}],
}


@pytest.mark.parametrize(("tier", "score"), [("Hot", 84), ("Warm", 69), ("Cold", 39)])
def test_another_tier_takes_the_nearest_score_along(tier: str, score: int) -> None:
    found = correct("qualification", PAYLOADS["qualification"], {"tier": tier})
    assert (found["tier"], found["score"], found["confidence"]) == (tier, score, "high")
    Qualification.model_validate(found)


@pytest.mark.parametrize("intent", ["interested", "objection", "not_now", "out_of_office", "wrong_person", "other"])
def test_another_intent_leaves_the_answer(intent: str) -> None:
    found = correct("draft", REPLY, {"intent": intent})
    assert (found["intent"], found["body"], found["confidence"]) == (intent, REPLY["body"], "high")
    ReplyDraft.model_validate(found)


def test_who_wants_no_more_mails_gets_no_answer() -> None:
    found = correct("draft", REPLY, {"intent": "unsubscribe"})
    assert (found["opt_out"], found["answer_needed"], found["subject"], found["claims"]) == (True, False, "", [])
    ReplyDraft.model_validate(found)


def test_who_was_taken_for_somebody_who_opts_out_is_not() -> None:
    payload = {**REPLY, "intent": "unsubscribe", "opt_out": True, "answer_needed": False}
    found = correct("draft", {**payload, "subject": "", "body": "", "claims": []}, {"intent": "not_now"})
    assert (found["opt_out"], found["answer_needed"]) == (False, False)
    ReplyDraft.model_validate(found)


def test_no_answer_needed_empties_the_answer() -> None:
    found = correct("draft", REPLY, {"answer_needed": False})
    assert (found["subject"], found["body"]) == ("", "")
    ReplyDraft.model_validate(found)


def test_a_first_draft_has_no_intent_to_settle() -> None:
    assert correct("draft", PAYLOADS["draft"], {"subject": "New"}) == {**PAYLOADS["draft"], "subject": "New"}
