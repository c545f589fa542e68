"""Rules as people write them: what is refused, with which words, and how a rule reads."""

from __future__ import annotations

from typing import Any

import pytest

from agents.spec import RuleSpec
from leads.department import SALES
from runs.router import RuleView
from runs.rules import CLAUSES, check_configuration, check_rule, rule_sentence, say_values, validate_rule
from tests.runs.routing import agent, rule, views

RULES, AGENTS = views(SALES)


def refusals(when: Any, want: Any = ("email",)) -> list[str]:
    """What is wrong with such a rule in a sales department."""
    return validate_rule(when, want, kind=SALES, agents=AGENTS)


@pytest.mark.parametrize("spec", SALES.rules, ids=lambda spec: spec.name)
def test_every_rule_that_sales_ships_can_be_saved(spec: RuleSpec) -> None:
    view = RuleView(spec.name, spec.when, spec.want)
    assert check_rule(view, kind=SALES, rules=RULES, agents=AGENTS) == []


def test_a_valid_rule_with_every_clause_is_not_refused() -> None:
    when = {
        "status": ["new", "qualified"],
        "has": ["intake"],
        "lacks": ["research"],
        "failed": ["qualifier"],
        "trigger": ["reply"],
        "facet": {"tier": ["Hot"], "opt_out": [False], "score": [70], "unsupported": [0]},
        "tags": ["vip"],
    }
    assert set(when) == set(CLAUSES)
    assert refusals(when) == []


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ({"stauts": ["new"]}, ("no clause “stauts”", "status, has, lacks, failed, trigger, facet, tags")),
        ({"status": ["nwe"]}, ("no status “nwe”", "Known statuses: new, qualified")),
        ({"has": ["mail"]}, ("no output key “mail”", "draft, email")),
        ({"lacks": ["mail"]}, ("no output key “mail”", "draft, email")),
        ({"failed": ["email"]}, ("no agent “email”", "intake, qualifier")),
        ({"trigger": ["answer"]}, ("no kind of trigger “answer”", "Known kinds of trigger: created, reply")),
        ({"facet": {"teir": ["Hot"]}}, ("no promoted field “teir”", "tier")),
        ({"facet": {"tier": ["hot"]}}, ("“tier” can never be 'hot'",)),
        ({"facet": {"opt_out": [1]}}, ("“opt_out” can never be 1",)),
        ({"facet": {"score": [101]}}, ("“score” can never be 101",)),
        ({"facet": {"tier": [["Hot"]]}}, ("“tier” can never be ['Hot']",)),
        ({"facet": {"tier": "Hot"}}, ("“tier” takes a list of values",)),
        ({"facet": {"tier": []}}, ("“tier” takes a list of values",)),
        ({"facet": {}}, ("“facet” takes an object",)),
        ({"facet": ["tier"]}, ("“facet” takes an object",)),
        ({"status": "new"}, ("“status” takes a list of statuses",)),
        ({"status": []}, ("“status” takes a list of statuses",)),
        ({"tags": [1]}, ("“tags” takes a list of tags",)),
        (["status"], ("“when” is an object", "status, has")),
        ({"trigger": ["decision"]}, ("No agent writes “draft” for a decision",)),
    ],
)
def test_a_mistake_is_refused_with_what_is_known(when: Any, words: tuple[str, ...]) -> None:
    [sentence] = refusals(when, ("draft",))
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("want", "word"),
    [
        ([], "Choose at least one output"),
        ("email", "Choose at least one output"),
        ([1], "Choose at least one output"),
        (["mail"], "no output key “mail”"),
        (["crm_update"], "No agent writes “crm_update” for the item"),
    ],
)
def test_a_want_that_cannot_come_is_refused(want: Any, word: str) -> None:
    [sentence] = refusals({"status": ["new"]}, want)
    assert word in sentence


def test_every_mistake_is_told_at_once() -> None:
    assert len(refusals({"stauts": ["new"], "has": ["mail"], "tags": "vip"}, ["mail"])) == 4


@pytest.mark.parametrize(
    ("when", "want", "sentence"),
    [
        (
            {"status": ["new", "qualified"], "facet": {"tier": ["Hot", "Warm"]}},
            "email",
            "When the lead is new or qualified and its tier is Hot or Warm, the email is wanted.",
        ),
        (
            {"facet": {"tier": ["Hot"]}, "failed": ["qualifier"]},
            "draft email",
            "When the qualifier has failed and the lead’s tier is Hot, the draft and the email are wanted.",
        ),
        (
            {"trigger": ["reply", "follow_up"], "status": ["a", "b", "opted_out"], "facet": {"opt_out": [False]}},
            "a b c",
            "When a reply came in or a follow-up is due, the lead is a, b or opted out, and its opt-out is no, "
            "the a, the b and the c are wanted.",
        ),
        (
            {"has": ["x", "y"], "lacks": ["z", "q"], "tags": ["vip"]},
            "email",
            "When the lead is tagged vip, it has the x and the y, and it has no z and no q, the email is wanted.",
        ),
        (
            {"status": ["drafted"], "facet": {"unsupported": [1, 2, 3], "category": ["job_application"]}},
            "email",
            "When the lead is waiting for approval and its number of unsupported claims is 1 to 3 and its kind of "
            "message is job application, the email is wanted.",
        ),
        (
            {"trigger": ["created", "operator"], "facet": {"intent": ["not_now"]}},
            "email",
            "When the lead came in or an operator asked for it and its reply intent is not now, the email is wanted.",
        ),
        ({"failed": ["a", "b"]}, "email", "When the a and b have failed, the email is wanted."),
        ({"colour": ["red"]}, "email", "When the unknown clause “colour” holds, the email is wanted."),
        ({}, "email", "The email is always wanted."),
        ({}, "", "Nothing is wanted yet: choose at least one output."),
        ({}, "email draft", "The email and the draft are always wanted."),
    ],
)
def test_a_rule_reads_as_one_sentence(when: dict[str, Any], want: str, sentence: str) -> None:
    assert rule_sentence(rule(want, **when), SALES) == sentence


def test_the_shipped_configuration_of_sales_fits_together() -> None:
    assert check_configuration(RULES, AGENTS) == []


@pytest.mark.parametrize(
    ("agents", "words"),
    [
        ([agent("a", "goal"), agent("b", "goal")], "a and b both write “goal” for every other occasion and the item"),
        (
            [agent("a", "goal"), agent("b", "goal", serves="reply")],
            "a and b both write “goal” for a reply.",
        ),
        ([agent("a", "goal", needs="ghost")], "a needs “ghost”, which no agent writes"),
        ([agent("a", "goal", serves="reply")], "wants “goal”, which no agent writes for the item"),
        ([agent("a", "goal", is_enabled=False)], "wants “goal”, but a, who writes it, is disabled"),
        ([agent("a", "goal", uses="b"), agent("b", uses="goal")], "circle: a → b → a"),
    ],
)
def test_what_does_not_fit_together_is_told_in_one_sentence(agents: list[Any], words: str) -> None:
    [sentence] = check_configuration([rule("goal")], agents)
    assert words in sentence


def test_a_disabled_second_writer_is_no_mistake() -> None:
    agents = [agent("a", "goal"), agent("b", "goal", is_enabled=False)]
    assert check_configuration([rule("goal")], agents) == []


def test_a_rule_for_a_trigger_is_checked_for_that_kind() -> None:
    [sentence] = check_configuration(
        [rule("goal", "Log it", trigger=["decision"])], [agent("a", "goal", serves="item")]
    )
    assert sentence == "The rule “Log it” wants “goal”, which no agent writes for a decision."


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, 2, 3, 4], ["1 to 4"]),
        ([1, 2], ["1 or 2"]),
        ([5, 7, 8, 9, 3], ["5", "7 to 9", "3"]),
        ([True, False], ["yes", "no"]),
        (["Hot", 1], ["Hot", "1"]),
        ([], []),
    ],
)
def test_numbers_in_a_row_are_said_as_one(values: list[Any], words: list[str]) -> None:
    assert say_values(values) == words
