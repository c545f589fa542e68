"""What other rules would change for the latest items: counted, grouped, priced, and nothing written."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agents.models import Department
from runs.models import Item, Rule
from runs.router import RuleView
from runs.rule_impact import NAMED, Impact, foresee, rules_in_force, rules_with
from tests.factories import make_department, make_lead, make_output, make_trigger
from tests.test_access_walk import stored

pytestmark = pytest.mark.django_db
COLD = RuleView("Write to cold leads too", {"status": ["nurturing"], "facet": {"tier": ["Cold"]}}, ("email",))
CHAIN = ("Researcher", "Strategist", "Writer", "Fact-Checker", "Formatter")


@pytest.fixture
def office() -> Department:
    return make_department()


def make_cold(office: Department, **fields: Any) -> Item:
    """A lead that the Qualifier found cold."""
    item = make_lead(office, status="nurturing", **fields).item
    make_output(item, "intake")
    make_output(item, "qualification", facets={"tier": "Cold", "score": 20})
    return item


def with_draft(office: Department, draft: RuleView | None, name: str = "") -> Impact:
    """What the draft would change in the place of the rule of that name, or behind all."""
    rows = list(office.rules.order_by("position", "pk"))
    rule = next((row for row in rows if row.name == name), None)
    return foresee(office, rules_with(rows, draft, instead_of=rule))


def said(impact: Impact) -> list[tuple[str, tuple[str, ...], int]]:
    return [(group.kind, group.names, group.count) for group in impact.groups]


def test_the_rules_in_force_change_nothing(office: Department) -> None:
    make_lead(office, status="new")
    make_cold(office)
    impact = foresee(office, rules_in_force(office))
    assert (impact.looked_at, impact.unchanged, impact.starting, impact.groups) == (2, 2, 0, ())


def test_a_rule_that_starts_agents_says_which_for_which_items_and_how_many_steps(office: Department) -> None:
    cold = [make_cold(office) for _ in range(3)]
    make_lead(office, status="new")
    impact = with_draft(office, COLD)
    assert said(impact) == [("starts", CHAIN, 3)]
    assert impact.groups[0].items == tuple(reversed(cold))
    assert (impact.starting, impact.total_steps, impact.unchanged) == (3, 15, 1)
    titles = {agent.pk: agent.title for agent in office.agents.all()}
    assert {titles[pk]: count for pk, count in impact.steps.items()} == dict.fromkeys(CHAIN, 3)


def test_what_is_there_already_is_no_step(office: Department) -> None:
    item = make_cold(office)
    make_output(item, "research")
    assert said(with_draft(office, COLD)) == [("starts", CHAIN[1:], 1)]


def test_taking_a_rule_out_says_what_stops(office: Department) -> None:
    make_lead(office, status="new")
    impact = with_draft(office, None, "Classify what comes in")
    assert said(impact) == [("stops", ("Intake Classifier",), 1)]
    assert (impact.starting, impact.total_steps) == (0, 0)


def test_a_disabled_rule_says_which_open_triggers_would_be_put_aside(office: Department) -> None:
    item = make_lead(office, status="contacted").item
    for key in ("intake", "qualification", "email"):
        make_output(item, key)
    from_us = item.messages.create(direction="out", subject="Hello", body="Hello", at=item.created_at)
    assert from_us.pk
    make_trigger(item, "follow_up")
    impact = with_draft(office, None, "Follow up")
    assert ("closes", ("follow_up",), 1) in said(impact)
    assert any(kind == "stops" for kind, _, _ in said(impact))


def test_a_changed_rule_says_both_what_starts_and_what_stops(office: Department) -> None:
    make_lead(office, status="new")
    draft = RuleView("Classify what comes in", {"status": ["new"]}, ("research",))
    groups = said(with_draft(office, draft, "Classify what comes in"))
    assert [kind for kind, _, _ in groups] == ["starts"], "the Researcher takes what Intake writes, so both work"
    assert groups[0][1] == ("Qualifier", "Researcher")


def test_what_a_person_holds_is_left_out_and_counted(office: Department) -> None:
    make_cold(office)
    for automation in ("paused", "taken_over", "closed"):
        make_cold(office, automation=automation)
    impact = with_draft(office, COLD)
    assert (impact.looked_at, impact.held, impact.starting) == (4, 3, 1)


def test_other_departments_are_not_looked_at(office: Department) -> None:
    make_cold(make_department(slug="other"))
    assert with_draft(office, COLD).looked_at == 0


def test_it_looks_at_the_newest_and_names_some(office: Department) -> None:
    cold = [make_cold(office) for _ in range(NAMED + 5)]
    rows = list(office.rules.all())
    after = rules_with(rows, COLD, instead_of=None)
    some = foresee(office, after, limit=3)
    assert (some.looked_at, some.has_more, [item.pk for item in some.groups[0].items]) == (
        3,
        True,
        [item.pk for item in reversed(cold[-3:])],
    )
    all_of_them = foresee(office, after)
    assert (len(all_of_them.groups[0].items), all_of_them.groups[0].left_out) == (NAMED, 5)
    assert not all_of_them.has_more


def test_a_disabled_rule_beside_the_draft_does_not_count(office: Department) -> None:
    Rule.objects.create(
        department=office, position=99, name=COLD.name, when=COLD.when, want=["email"], is_enabled=False
    )
    make_cold(office)
    rows = list(office.rules.all())
    other = RuleView("Another", {"status": ["won"]}, ("email",))
    assert foresee(office, rules_with(rows, other, instead_of=None)).groups == ()


def test_the_order_of_rules_changes_nothing(office: Department) -> None:
    make_lead(office, status="new")
    item = make_lead(office, status="replied").item
    make_trigger(item, "reply")
    make_cold(office)
    assert foresee(office, list(reversed(rules_in_force(office)))).groups == ()


def test_nothing_is_written_and_the_queries_are_fixed_for_each_batch(
    office: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.rule_impact.BATCH", 10)
    for _ in range(5):
        make_cold(office)

    def count() -> int:
        with CaptureQueriesContext(connection) as seen:
            with_draft(office, COLD)
        assert not [q for q in seen.captured_queries if not q["sql"].startswith("SELECT")]
        assert not [q for q in seen.captured_queries if "FOR UPDATE" in q["sql"]]
        return len(seen)

    few = count()
    for _ in range(5):
        make_cold(office)
    before = stored()
    # A full batch is followed by a look for the next one.
    assert count() == few
    make_cold(office)
    assert count() == few + 6
    assert {name: rows for name, rows in stored().items() if name != "Item"}.keys() == before.keys() - {"Item"}
