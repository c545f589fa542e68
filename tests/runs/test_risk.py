"""How risky a draft is: what the kind says, raised by an administrator's rules."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Department
from agents.spec import Facts, OutputFact
from runs import outbox
from runs.models import Output, RiskRule
from runs.risk import judge_risk
from runs.staff import load_staff
from tests.engine import make_office
from tests.factories import make_lead, make_outbox, make_output, make_user

pytestmark = pytest.mark.django_db
HOT = OutputFact("qualification", facets={"tier": "Hot"})


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def output(office: Department) -> Output:
    return make_output(make_lead(office).item, "email")


def rule(office: Department, name: str, when: dict[str, Any], risk: int, **fields: Any) -> RiskRule:
    return RiskRule.objects.create(department=office, name=name, when=when, risk=risk, **fields)


def judged(output: Output, facts: Facts | None = None, base: int = 1) -> tuple[int, str]:
    desk = load_staff().desks[output.item.department_id]
    return judge_risk(output, facts or Facts("drafted", (HOT,)), desk, base=base)


def test_without_rules_it_is_what_the_kind_says(output: Output) -> None:
    assert judged(output) == (1, "")
    assert judged(output, base=3) == (3, "")


def test_the_highest_rule_that_holds_counts_and_is_named(office: Department, output: Output) -> None:
    rule(office, "Hot lead", {"facet": {"tier": ["Hot"]}}, 3)
    rule(office, "Also hot", {"facet": {"tier": ["Hot", "Warm"]}}, 3, position=1)
    rule(office, "Drafted", {"status": ["drafted"]}, 2)
    rule(office, "Cold", {"facet": {"tier": ["Cold"]}}, 3)
    rule(office, "Off", {}, 3, is_enabled=False)
    assert judged(output) == (3, "Hot lead; Also hot")


def test_a_rule_never_lowers_what_the_kind_says(office: Department, output: Output) -> None:
    rule(office, "Easy", {}, 1)
    assert judged(output, base=2) == (2, "")


def test_a_first_contact_is_one_until_something_was_sent(office: Department, output: Output) -> None:
    rule(office, "First contact", {"marks": ["first_contact"]}, 2)
    assert judged(output) == (2, "First contact")
    assert judged(output, Facts("contacted", marks=frozenset({"contacted"}))) == (1, "")


def test_a_soul_is_new_until_enough_approved_mails_have_left(office: Department, output: Output) -> None:
    rule(office, "New", {"marks": ["new_soul"]}, 2)
    assert judged(output) == (2, "New")
    configuration = outbox.configuration_of(load_staff().desks[office.pk])
    approver = make_user("rita")
    for number in range(outbox.PROVEN_SENDS):
        make_outbox(
            output.item,
            output=output,
            key=f"x:{number}",
            status="sent",
            configuration=configuration,
            approved_by=approver,
        )
    assert judged(output) == (1, "")


@pytest.mark.parametrize("when", [{"marks": ["unheard_of"]}, {"marks": "first_contact"}, {"mood": ["good"]}])
def test_what_nobody_understands_never_holds(office: Department, output: Output, when: dict[str, Any]) -> None:
    rule(office, "Odd", when, 3)
    assert judged(output) == (1, "")


def test_rules_of_another_department_do_not_count(output: Output) -> None:
    rule(make_office("other"), "Theirs", {}, 3)
    assert judged(output) == (1, "")
