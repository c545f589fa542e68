"""What was made from something that has changed since says so, and nothing runs again by itself."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Department, Soul
from agents.souls import create_draft, publish, sections_of
from leads.models import Lead
from runs import dispatch, tasks
from runs.commits import commit
from runs.models import AgentRun, Item, Output
from runs.staff import load_staff
from runs.staleness import OLDER_INPUTS, OLDER_SOUL, find_stale, mark_older_souls
from tests.engine import answered, claim, make_due, make_office
from tests.factories import agent_of, make_lead, make_message, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    return make_office()


@pytest.fixture
def item(office: Department) -> Item:
    """A lead for which every agent of the first mail has worked."""
    found = make_lead(office).item
    make_due(found)
    dispatch.route_due(10, staff=load_staff())
    while works := claim():
        commit([answered(work) for work in works], load_staff())
    assert found.outputs.count() == 7
    return found


def stale(item: Item) -> dict[str, str]:
    """The reasons by key."""
    outputs = list(item.outputs.filter(is_current=True).select_related("agent_run__agent", "trigger"))
    keys = {output.pk: output.key for output in outputs}
    return {keys[pk]: reason for pk, reason in find_stale(item, outputs).items()}


def publish_new(office: Department, slug: str) -> None:
    agent = agent_of(office, slug)
    sections = sections_of(Soul.objects.get(agent=agent, status="published"))
    sections["identity"] += " You are brief."
    assert publish(soul=create_draft(agent=agent, sections=sections, author=None), author=None)


def test_what_was_just_made_is_fresh(item: Item) -> None:
    assert stale(item) == {}


def test_it_reads_what_the_agents_are_given_and_no_more(item: Item, django_assert_num_queries: Any) -> None:
    """Agents, SOULs and rules; outputs, messages, notes of who sent back, and the item's own fields."""
    outputs = list(item.outputs.filter(is_current=True).select_related("agent_run__agent", "trigger"))
    for some in (outputs[:1], outputs):
        with django_assert_num_queries(7):
            assert find_stale(item, some) == {}


def test_an_older_soul_is_said_at_once_and_marked_within_a_minute(office: Department, item: Item) -> None:
    publish_new(office, "writer")
    assert stale(item) == {"draft": OLDER_SOUL}
    before = AgentRun.objects.count()
    tasks.every_minute()
    assert set(Output.objects.filter(is_stale=True).values_list("key", flat=True)) == {"draft"}
    assert mark_older_souls() == 0
    make_due(item)
    dispatch.route_due(10, staff=load_staff())
    assert AgentRun.objects.count() == before, "nothing runs again by itself"
    assert Output.objects.filter(is_current=True).count() == 7, "nothing is retired"


def test_a_changed_field_makes_old_what_was_made_of_it(item: Item) -> None:
    Lead.objects.filter(pk=item.pk).update(title="Chief of nothing")
    assert stale(item) == dict.fromkeys(("intake", "qualification", "research", "strategy", "draft"), OLDER_INPUTS)


def test_a_replaced_input_makes_old_what_used_it(item: Item) -> None:
    old = item.outputs.get(key="research")
    Output.objects.filter(pk=old.pk).update(is_current=False)
    Output.objects.create(item=item, key="research", number=2, payload=old.payload, schema_version="1")
    assert set(stale(item)) == {"strategy", "draft", "fact_check"}


def test_the_card_says_so(office: Department, item: Item, client: Any) -> None:
    client.force_login(make_user(department=office))
    assert OLDER_SOUL not in client.get(item.get_absolute_url()).content.decode()
    publish_new(office, "researcher")
    assert OLDER_SOUL in client.get(item.get_absolute_url()).content.decode()


def test_news_of_the_conversation_does_not_count(item: Item) -> None:
    make_message(item, "out")
    assert stale(item) == {}
