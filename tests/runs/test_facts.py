"""What the router is told about items, and that telling costs the same for one item as for many."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.models import Agent
from agents.spec import Facts, OutputFact, RunFact, TriggerFact
from runs.facts import load_facts, load_router, load_routers
from runs.models import AgentRun, Item, Output, Review, Rule, Trigger
from tests.factories import (
    make_agent_run,
    make_department,
    make_item,
    make_message,
    make_output,
    make_review,
    make_rule,
    make_trigger,
)
from tests.runs.routing import started

pytestmark = pytest.mark.django_db


def facts_of(item: Item) -> Facts:
    """The facts of one item now."""
    return load_facts([item], now=timezone.now())[item.pk]


def test_an_item_with_nothing_has_its_status_and_tags() -> None:
    item = make_item(status="new", tags=["vip", "lang:de"])
    assert facts_of(item) == Facts("new", tags=frozenset({"vip", "lang:de"}))


def test_only_current_outputs_count_each_with_its_occasion() -> None:
    item = make_item()
    reply = make_trigger(item, "reply")
    make_output(item, "research", is_current=False)
    make_output(item, "qualification", facets={"tier": "Hot"})
    make_output(item, "draft", facets={}, trigger=reply, is_stale=True, verdict=Output.Verdict.REJECTED)
    assert facts_of(item).outputs == (
        OutputFact("qualification", None, {"tier": "Hot"}),
        OutputFact("draft", reply.pk, {}, "rejected", True),
    )


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (AgentRun.Status.QUEUED, "active"),
        (AgentRun.Status.RUNNING, "active"),
        (AgentRun.Status.FAILED, "failed"),
        (AgentRun.Status.DONE, None),
        (AgentRun.Status.CANCELLED, None),
        (AgentRun.Status.SUPERSEDED, None),
    ],
)
def test_runs_count_while_they_are_active_or_have_failed(status: str, state: Any) -> None:
    item = make_item()
    reply = make_trigger(item, "reply")
    make_agent_run(item, "reply_handler", status=status, trigger=reply)
    is_running = status == AgentRun.Status.RUNNING
    assert facts_of(item).runs == ((RunFact("reply_handler", reply.pk, state, is_running),) if state else ())


def test_open_triggers_count_and_say_whether_they_are_due() -> None:
    item = make_item()
    now = timezone.now()
    later = make_trigger(item, "follow_up", due_at=now + timedelta(days=4))
    due = make_trigger(item, "reply", due_at=now)
    make_trigger(item, "created", status=Trigger.Status.HANDLED)
    make_trigger(item, "operator", status=Trigger.Status.NOTED)
    assert load_facts([item], now=now)[item.pk].triggers == (
        TriggerFact(later.pk, "follow_up", False),
        TriggerFact(due.pk, "reply", True),
    )


@pytest.mark.parametrize(
    ("directions", "marks"),
    [
        ((), set()),
        (("out", "out"), {"contacted"}),
        (("in",), {"replied"}),
        (("in", "out", "note"), {"contacted", "replied", "answered"}),
        (("in", "out", "in"), {"contacted", "replied"}),
    ],
)
def test_the_conversation_leaves_its_marks(directions: tuple[str, ...], marks: set[str]) -> None:
    item = make_item()
    for direction in (*directions, "note"):
        make_message(item, direction)
    assert facts_of(item).marks == marks


def test_a_suppressed_person_is_marked() -> None:
    assert facts_of(make_item(tags=["suppressed"])).marks == {"suppressed"}


def test_an_open_question_about_a_draft_is_marked_and_others_are_not() -> None:
    item = make_item()
    make_review(item)
    assert facts_of(item).marks == set()
    review = make_review(item, output=make_output(item, "email"))
    assert facts_of(item).marks == {"awaiting_review"}
    Review.objects.filter(pk=review.pk).update(status=Review.Status.ANSWERED)
    assert facts_of(item).marks == set()


def fill(item: Item) -> None:
    """Something of everything that is loaded."""
    make_output(item, "qualification")
    make_agent_run(item, "writer")
    make_trigger(item, "reply")
    make_message(item, "out")
    make_review(item, output=make_output(item, "email"))


def test_many_items_cost_as_many_queries_as_one(django_assert_num_queries: Any) -> None:
    department = make_department()
    items = [make_item(department) for _ in range(7)]
    for item in items:
        fill(item)
    for count in (1, 7):
        with django_assert_num_queries(5):
            found = load_facts(items[:count], now=timezone.now())
        assert set(found) == {item.pk for item in items[:count]}
        assert all(len(facts.outputs) == 2 and len(facts.runs) == 1 for facts in found.values())


def test_no_item_gets_the_facts_of_another() -> None:
    department = make_department()
    full, empty = make_item(department), make_item(department)
    fill(full)
    found = load_facts([full, empty], now=timezone.now())
    assert found[empty.pk] == Facts("new")


def test_no_items_have_no_facts() -> None:
    assert load_facts([], now=timezone.now()) == {}


def test_a_router_is_made_of_the_department_s_rows(django_assert_num_queries: Any) -> None:
    department = make_department()
    with django_assert_num_queries(2):
        router = load_router(department)
    assert started(router.decide(Facts("new"))) == {("intake", None)}


def test_disabled_rules_and_agents_start_nothing() -> None:
    department = make_department()
    Agent.objects.filter(department=department, slug="intake").update(is_enabled=False)
    assert load_router(department).decide(Facts("new")).finished
    Agent.objects.filter(department=department).update(is_enabled=True)
    Rule.objects.filter(department=department).update(is_enabled=False)
    assert load_router(department).decide(Facts("new")).finished


def test_rules_are_tried_in_their_position() -> None:
    department = make_department()
    Rule.objects.filter(department=department).delete()
    make_rule(department, name="Second", position=2, when={}, want=["intake"])
    make_rule(department, name="First", position=1, when={}, want=["intake"])
    [start] = load_router(department).decide(Facts("new")).start
    assert start.why == "“First” wants intake"


def test_departments_share_two_queries_and_nothing_else(django_assert_num_queries: Any) -> None:
    one, other = make_department(), make_department(slug="other")
    Rule.objects.filter(department=other).delete()
    with django_assert_num_queries(2):
        routers = load_routers([one, other])
    assert started(routers[one.pk].decide(Facts("new"))) == {("intake", None)}
    assert routers[other.pk].decide(Facts("new")).finished
