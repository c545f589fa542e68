"""Of two agents that write the same output, one of which replaces the other, one writes at a time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from agents.causes import Cause
from agents.models import Agent, Department
from runs.commits import commit
from runs.models import AgentRun, ModelCall, Output
from runs.staff import load_staff
from tests.engine import answered, broken_off, claim, make_office, make_queued
from tests.factories import make_agent_run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def replace_the_qualifier() -> tuple[AgentRun, AgentRun]:
    """What waits for the Qualifier, which is switched off, and what the Writer does instead, asked for later."""
    Agent.objects.filter(slug="qualifier").update(is_enabled=False)
    Agent.objects.filter(slug="writer").update(writes="qualification", scope="item", serves=[])
    old = make_queued("qualifier")
    return old, make_agent_run(old.item, "writer")


def test_what_waits_for_an_agent_that_was_replaced_ends_when_its_replacement_has_written() -> None:
    old, new = replace_the_qualifier()
    (work,) = claim()
    assert work.run_id == new.pk
    commit([answered(work)], load_staff())
    old.refresh_from_db()
    assert (old.status, old.error) == ("cancelled", "Writer wrote the qualification instead.")
    Agent.objects.filter(slug="qualifier").update(is_enabled=True)
    assert old.pk not in {work.run_id for work in claim()}
    assert not ModelCall.objects.filter(agent_run=old).exists()


def make_due(*runs: AgentRun) -> None:
    AgentRun.objects.filter(pk__in=[run.pk for run in runs]).update(due_at=timezone.now() - timedelta(seconds=1))


def test_an_agent_that_is_switched_on_again_comes_before_its_replacement_that_waits() -> None:
    old, new = replace_the_qualifier()
    Agent.objects.filter(slug="qualifier").update(is_enabled=True)
    (work,) = claim()
    new.refresh_from_db()
    assert (work.run_id, new.waiting_for.split(".")[0]) == (old.pk, "Qualifier writes the qualification instead")
    make_due(new)
    assert claim() == []
    commit([answered(work)], load_staff())
    new.refresh_from_db()
    assert (new.status, new.error) == ("cancelled", "Qualifier wrote the qualification instead.")


@pytest.mark.parametrize("replacement_is_on", [True, False])
def test_it_does_not_write_beside_its_replacement_that_is_under_way(replacement_is_on: bool) -> None:
    old, new = replace_the_qualifier()
    (work,) = claim()
    Agent.objects.filter(slug="qualifier").update(is_enabled=True)
    Agent.objects.filter(slug="writer").update(is_enabled=replacement_is_on)
    make_due(old)
    assert claim() == []
    old.refresh_from_db()
    assert (old.status, old.waiting_for.split(".")[0]) == ("queued", "Writer writes the qualification instead")
    commit([answered(work)], load_staff())
    old.refresh_from_db()
    assert old.status == "cancelled"
    assert Output.objects.get(item=old.item).agent_run_id == new.pk
    assert ModelCall.objects.count() == 1


def test_it_writes_where_its_replacement_came_to_nothing() -> None:
    old, new = replace_the_qualifier()
    (work,) = claim()
    Agent.objects.filter(slug="qualifier").update(is_enabled=True)
    commit([broken_off(work, Cause.OVERLOADED)], load_staff())
    AgentRun.objects.filter(pk=new.pk).update(status="cancelled")
    make_due(old)
    assert [work.run_id for work in claim() if work.agent.writes == "qualification"] == [old.pk]
