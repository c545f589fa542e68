"""From the router's decisions to rows: agent runs, pipeline runs, handled triggers, the item's status."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from agents.models import Department
from agents.spec import Facts
from runs import dispatch
from runs.commits import commit
from runs.dispatch import MAX_HANDLED, route_due
from runs.models import AgentRun, Item, LogEntry, PipelineRun, Review, Rule, Trigger
from runs.router import Decision, Router
from runs.staff import load_staff
from runs.triggers import record_reply
from tests.engine import answered, claim, in_threads, make_due, make_office
from tests.factories import PAYLOADS, make_agent_run, make_item, make_lead, make_message, make_output, make_trigger

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def office() -> Department:
    return make_office()


def route(limit: int = 100) -> int:
    """Route what is due, as a shift does."""
    return route_due(limit, staff=load_staff())


def due_lead(**fields: Any) -> Item:
    """A new lead that is due for a decision."""
    return make_lead(route_due_at=timezone.now(), **fields).item


def due_customer() -> Item:
    """A lead that outreach is done with: only a decision brings new work."""
    item = due_lead()
    make_output(item, "intake", facets={"category": "spam"})
    make_output(item, "qualification", facets={"tier": "Cold"})
    return item


def started(item: Item) -> list[tuple[str, int | None]]:
    """The agent runs of an item that are queued, with their occasions."""
    runs = AgentRun.objects.filter(item=item, status="queued").order_by("pk")
    return [(run.agent.slug, run.trigger_id) for run in runs]


def picture() -> list[Any]:
    """Everything that routing could change."""
    return [
        list(AgentRun.objects.order_by("pk").values()),
        list(PipelineRun.objects.order_by("pk").values()),
        list(Trigger.objects.order_by("pk").values()),
        list(Item.objects.order_by("pk").values("pk", "status", "route_due_at", "priority", "flag")),
        LogEntry.objects.count(),
    ]


def test_a_new_lead_gets_its_first_agent_run_and_a_pipeline_run() -> None:
    item = due_lead(priority=40)
    make_trigger(item, "created")
    began = timezone.now()
    assert route() == 1
    run = AgentRun.objects.get()
    assert (run.agent.slug, run.status, run.trigger, run.priority) == ("intake", "queued", None, 40)
    assert run.why.startswith("“Classify what comes in” wants intake")
    assert run.due_at >= began
    pipeline = PipelineRun.objects.get()
    assert (pipeline.item, pipeline.status, pipeline.cause) == (item, "active", "created")
    assert run.pipeline_run == pipeline
    item.refresh_from_db()
    assert item.route_due_at is None
    assert LogEntry.objects.get(agent_run=run).text.startswith("Wanted: ")


def test_a_pipeline_run_that_nothing_woke_was_wanted_by_the_rules() -> None:
    due_lead()
    route()
    assert PipelineRun.objects.get().cause == "the rules"


def test_routing_again_changes_nothing() -> None:
    item = due_lead()
    make_trigger(item, "created")
    route()
    before = picture()
    assert route() == 0
    make_due(item)
    assert route() == 1
    after = picture()
    assert after == before


def test_an_item_that_is_done_stays_done() -> None:
    item = due_lead()
    for key in ("intake", "qualification", "research", "strategy", "draft", "fact_check", "email"):
        make_output(item, key)
    route()
    assert not AgentRun.objects.exists()
    assert not PipelineRun.objects.exists()
    item.refresh_from_db()
    assert item.status == "drafted"


@pytest.mark.parametrize("automation", ["paused", "taken_over", "closed"])
def test_an_item_that_is_not_active_is_not_routed(automation: str) -> None:
    item = due_lead(automation=automation)
    assert route() == 0
    item.refresh_from_db()
    assert item.route_due_at is not None


@pytest.mark.parametrize("state", ["draining", "stopped"])
def test_a_department_that_does_not_work_is_not_routed(state: str) -> None:
    due_lead()
    Department.objects.update(state=state)
    assert route() == 0
    assert not AgentRun.objects.exists()


def test_it_costs_as_many_queries_for_forty_items_as_for_one(django_assert_max_num_queries: Any) -> None:
    counts = []
    staff = load_staff()
    for size in (1, 40):
        for number in range(size):
            item = due_lead()
            make_trigger(item, "created")
            make_trigger(item, "follow_up", due_at=timezone.now() + timedelta(days=1))
            if number % 2:
                make_output(item, "intake")
        with django_assert_max_num_queries(60) as queries:
            assert route_due(size, staff=staff) == size
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_the_most_urgent_are_routed_first() -> None:
    bulk, person = due_lead(priority=90), due_lead(priority=0)
    assert route(1) == 1
    assert started(person)
    assert not started(bulk)


# --- Pipeline runs --------------------------------------------------------------------------------------------


def test_a_trigger_during_a_run_joins_it() -> None:
    item = due_lead()
    route()
    first = PipelineRun.objects.get()
    make_output(item, "qualification", facets={"tier": "Cold"})
    decision = make_trigger(item, "decision")
    make_due(item)
    route()
    assert PipelineRun.objects.get() == first
    assert {run.pipeline_run_id for run in AgentRun.objects.all()} == {first.pk}
    assert started(item) == [("intake", None)], "what is used is settled first"
    commit([answered(claim()[0])], load_staff())
    assert ("crm_scribe", decision.pk) in started(item)
    assert {run.pipeline_run_id for run in AgentRun.objects.all()} == {first.pk}


def test_the_database_refuses_a_second_active_pipeline_run() -> None:
    item = due_lead()
    route()
    with pytest.raises(IntegrityError), transaction.atomic():
        PipelineRun.objects.create(item=item, started_at=timezone.now())


def test_a_pipeline_run_is_completed_when_nothing_more_is_wanted() -> None:
    item = due_lead(priority=0)
    route()
    commit([answered(claim()[0], {**PAYLOADS["intake"], "category": "spam"})], load_staff())
    pipeline = PipelineRun.objects.get()
    assert pipeline.status == "completed"
    assert pipeline.ended_at is not None
    item.refresh_from_db()
    assert (item.status, item.route_due_at) == ("rejected", None)
    assert item.priority == Item.Priority.NORMAL, "what somebody waited for is done"
    assert LogEntry.objects.get(kind="finished").pipeline_run_id == pipeline.pk


def test_a_run_that_is_still_queued_keeps_the_pipeline_run_open() -> None:
    item = due_lead()
    route()
    make_due(item)
    route()
    assert PipelineRun.objects.get().status == "active"


def test_what_comes_after_the_end_is_another_pipeline_run() -> None:
    item = due_lead(status="contacted")
    for key in ("intake", "qualification"):
        make_output(item, key)
    make_message(item, "out")
    make_trigger(item, "decision")
    route()
    first = PipelineRun.objects.get()
    commit([answered(claim()[0], {**PAYLOADS["crm_update"], "stage": "unchanged"})], load_staff())
    first.refresh_from_db()
    assert first.status == "completed"
    make_trigger(item, "decision")
    make_due(item)
    route()
    assert PipelineRun.objects.exclude(pk=first.pk).get().status == "active"


# --- Triggers -------------------------------------------------------------------------------------------------


def test_a_trigger_is_handled_once_everything_wanted_for_it_is_settled() -> None:
    item = due_customer()
    decision = make_trigger(item, "decision")
    route()
    decision.refresh_from_db()
    assert decision.status == "open"
    assert started(item) == [("crm_scribe", decision.pk)]
    commit([answered(claim()[0])], load_staff())
    decision.refresh_from_db()
    assert (decision.status, decision.settled_note) == ("handled", "Everything the rules want for it is settled.")
    assert decision.settled_at is not None


def test_a_trigger_that_no_rule_mentions_is_noted_at_once() -> None:
    item = due_lead()
    trigger = make_trigger(item, "schedule")
    route()
    trigger.refresh_from_db()
    assert (trigger.status, trigger.settled_note) == ("noted", "No enabled rule asks for anything on schedule.")


def test_triggers_of_one_kind_are_taken_one_after_the_other() -> None:
    item = due_customer()
    first, second = make_trigger(item, "decision"), make_trigger(item, "decision")
    route()
    assert started(item) == [("crm_scribe", first.pk)]
    commit([answered(claim()[0])], load_staff())
    assert started(item) == [("crm_scribe", second.pk)]
    commit([answered(claim()[0])], load_staff())
    assert set(Trigger.objects.values_list("status", flat=True)) == {"handled"}
    assert item.outputs.filter(key="crm_update", is_current=True).count() == 2


def test_a_trigger_in_the_future_makes_the_item_due_at_its_time() -> None:
    item = due_lead()
    soon, later = timezone.now() + timedelta(days=4), timezone.now() + timedelta(days=11)
    make_trigger(item, "follow_up", due_at=later)
    follow_up = make_trigger(item, "follow_up", due_at=soon)
    make_trigger(item, "follow_up", due_at=soon - timedelta(days=1), status="noted")
    route()
    item.refresh_from_db()
    assert item.route_due_at == soon
    follow_up.refresh_from_db()
    assert follow_up.status == "open"


def test_more_triggers_than_one_routing_settles_make_the_item_due_again() -> None:
    item = due_lead()
    make_output(item, "intake", facets={"category": "spam"})
    for _ in range(MAX_HANDLED + 5):
        decision = make_trigger(item, "decision")
        make_output(item, "crm_update", trigger=decision, facets={"stage": "unchanged"})
    route()
    item.refresh_from_db()
    assert item.route_due_at is not None
    route()
    assert not Trigger.objects.filter(status="open").exists()
    item.refresh_from_db()
    assert item.route_due_at is None


def test_who_asked_for_a_run_is_told_when_there_is_nothing_to_do() -> None:
    item = due_lead(priority=0)
    make_output(item, "intake", facets={"category": "spam"})
    make_trigger(item, "operator")
    route()
    assert LogEntry.objects.get(kind="decision").text.startswith("Nothing to do: ")
    item.refresh_from_db()
    assert item.priority == Item.Priority.NORMAL, "nobody waits any more"


# --- Status ---------------------------------------------------------------------------------------------------


def test_a_change_of_status_is_logged_with_its_labels() -> None:
    item = due_lead()
    make_output(item, "intake", facets={"category": "spam"})
    route()
    entry = LogEntry.objects.get(kind="status")
    assert (entry.text, entry.data) == ("Status: New → Not a lead.", {"from": "new", "to": "rejected"})


def test_the_new_status_counts_in_the_same_decision() -> None:
    item = due_lead()
    make_output(item, "intake")
    make_output(item, "qualification", facets={"tier": "Hot"})
    route()
    item.refresh_from_db()
    assert item.status == "qualified"
    assert {slug for slug, _ in started(item)} == {"researcher"}


# --- What goes wrong ------------------------------------------------------------------------------------------


def test_an_item_that_cannot_be_routed_is_put_off_and_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = due_lead(tags=["broken"], priority=0), due_lead()
    decide = Router.decide

    def fragile(router: Router, facts: Facts) -> Decision:
        if "broken" in facts.tags:
            raise ValueError("no such clause")
        return decide(router, facts)

    monkeypatch.setattr(Router, "decide", fragile)
    route()
    assert started(good)
    bad.refresh_from_db()
    assert bad.flag == "Kontor could not decide what is next: ValueError: no such clause"
    assert bad.route_due_at is not None
    assert bad.route_due_at > timezone.now() + timedelta(seconds=30)
    monkeypatch.undo()
    make_due(bad)
    route()
    assert started(bad)
    bad.refresh_from_db()
    assert bad.flag == "", "what was wrong is right again"


def test_other_flags_stay_until_a_person_has_seen_to_them() -> None:
    item = due_lead(flag="Qualifier failed: worker lost.")
    route()
    item.refresh_from_db()
    assert item.flag == "Qualifier failed: worker lost."


def test_a_database_that_is_away_is_told_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    item = due_lead()

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("terminating connection")

    monkeypatch.setattr(dispatch, "route", away)
    with pytest.raises(OperationalError):
        route()
    item.refresh_from_db()
    assert item.flag == ""


def test_a_failed_agent_does_not_come_back_with_the_next_routing() -> None:
    item = due_lead()
    make_agent_run(item, "intake", status="failed")
    make_agent_run(item, "qualifier", status="failed")
    route()
    assert started(item) == []
    assert PipelineRun.objects.get().status == "degraded"


def test_rules_that_are_switched_off_want_nothing() -> None:
    Rule.objects.update(is_enabled=False)
    item = due_lead()
    route()
    assert started(item) == []


@pytest.mark.django_db(transaction=True)
def test_an_item_is_routed_once_however_many_shifts_look() -> None:
    items = [due_lead() for _ in range(12)]
    routed = in_threads(lambda _: sum(route(5) for _ in range(4)), 4)
    assert sum(routed) == len(items)
    assert AgentRun.objects.count() == PipelineRun.objects.count() == len(items)


@pytest.mark.django_db(transaction=True)
def test_a_trigger_that_comes_in_while_the_item_is_routed_is_not_missed() -> None:
    item = due_customer()
    if connection.vendor != "postgresql":
        pytest.skip("one writer at a time")
    with transaction.atomic():
        locked = Item.objects.select_for_update().get(pk=item.pk)
        make_trigger(locked, "decision")
        assert in_threads(lambda _: route(), 1) == [0], "a locked item is left to who holds it"
        Item.objects.filter(pk=item.pk).update(route_due_at=timezone.now())
    assert route() == 1
    assert started(item) == [("crm_scribe", Trigger.objects.get().pk)]


def test_departments_are_routed_by_their_own_rules() -> None:
    other = make_office("other")
    Rule.objects.filter(department=other).delete()
    ours = make_lead(Department.objects.get(slug="sales"), route_due_at=timezone.now()).item
    theirs = make_item(other, route_due_at=timezone.now())
    assert route() == 2
    assert started(ours) == [("intake", None)]
    assert started(theirs) == []


def test_a_due_trigger_that_no_rule_takes_is_shown_to_a_person_once() -> None:
    item = due_customer()
    trigger = make_trigger(item, "follow_up", due_at=timezone.now())
    Rule.objects.filter(name="Follow up").update(when={"trigger": ["follow_up"], "status": ["nurturing"]})
    route()
    review = Review.objects.get(kind="fell_through")
    assert "follow-up" in review.ask
    assert "no rule takes it up" in LogEntry.objects.get(kind="review").text
    trigger.refresh_from_db()
    assert trigger.status == "open", "it is neither lost nor called handled"
    Item.objects.update(route_due_at=timezone.now())
    route()
    assert Review.objects.filter(kind="fell_through").count() == 1


def test_a_reply_of_somebody_we_took_for_spam_is_read() -> None:
    item = due_lead()
    make_output(item, "intake", payload=PAYLOADS["intake"] | {"category": "spam"})
    route()
    assert started(item) == []
    record_reply(item=item, body="I meant it: what does it cost?")
    route()
    item.refresh_from_db()
    assert item.status == "replied"
    assert started(item) == [("qualifier", None)], "what the Reply Handler uses comes first"
    assert not Review.objects.filter(kind="fell_through").exists()
