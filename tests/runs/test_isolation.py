"""Two departments of one kind side by side: no row crosses."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from agents.budgets import Ask, Granted, Refused, reserve
from agents.knowledge import add_document, search_documents
from agents.models import Agent, Budget, BudgetPeriod, Department, Soul
from agents.pricing import sync_prices
from agents.souls import create_draft, publish, published_soul, roll_back
from leads.department import SALES
from leads.models import Lead
from runs.access import access_for, departments_for
from runs.dispatch import route_due
from runs.facts import load_facts, load_routers
from runs.models import AgentRun, Item, LogEntry, Rule
from runs.staff import load_staff
from runs.syncing import sync_department
from tests.crossings import checked, crossings
from tests.factories import (
    agent_of,
    make_agent_run,
    make_item,
    make_lead,
    make_model_call,
    make_output,
    make_review,
    make_rule,
    make_tool_call,
    make_trigger,
    make_user,
)

pytestmark = pytest.mark.django_db

TEXTS = {"identity": "You are another one.", "responsibilities": "Work.", "prohibitions": "Never lie."}


@pytest.fixture
def acme() -> Department:
    sync_prices()
    sync_department(SALES, slug="acme", name="Acme")
    return Department.objects.get(slug="acme")


@pytest.fixture
def bolt(acme: Department) -> Department:
    sync_department(SALES, slug="bolt", name="Bolt")
    return Department.objects.get(slug="bolt")


def snapshot(department: Department) -> list[object]:
    """All that configures a department."""
    return [
        Department.objects.filter(pk=department.pk).values().get(),
        list(Agent.objects.filter(department=department).order_by("pk").values()),
        list(Soul.objects.filter(agent__department=department).order_by("pk").values()),
        list(Rule.objects.filter(department=department).order_by("pk").values()),
    ]


def fill(department: Department) -> Item:
    """A lead with a row in most tables."""
    lead = make_lead(department, email="lena@example.com", external_id="7")
    trigger = make_trigger(lead.item, "reply", payload={"body": "Yes"})
    run = make_agent_run(lead.item, "reply_handler", trigger=trigger, status=AgentRun.Status.DONE)
    make_tool_call(make_model_call(run))
    output = make_output(lead.item, "draft", trigger=trigger, agent_run=run)
    make_review(lead.item, output=output, agent_run=run)
    return lead.item


class TestConfiguration:
    def test_each_has_agents_souls_and_rules_of_its_own(self, acme: Department, bolt: Department) -> None:
        for department in (acme, bolt):
            assert department.agents.count() == len(SALES.agents)
            assert Soul.objects.filter(agent__department=department, status="published").count() == len(SALES.agents)
            assert department.rules.count() == len(SALES.rules)
            superiors = Agent.objects.filter(department=department, reports_to__isnull=False)
            assert {agent.reports_to.department_id for agent in superiors if agent.reports_to} == {department.pk}
        assert crossings() == []

    def test_what_one_changes_the_other_does_not_have(self, acme: Department, bolt: Department) -> None:
        before = snapshot(bolt)
        acme.settings = {**acme.settings, "company_name": "Acme"}
        acme.save(update_fields=["settings"])
        acme.agents.update(effort="max", is_enabled=False)
        acme.rules.all().delete()
        writer = agent_of(acme, "writer")
        publish(soul=create_draft(agent=writer, sections=TEXTS, author=None), author=None)
        roll_back(agent=writer, number=1, author=None)
        sync_department(SALES, slug="acme")
        assert snapshot(bolt) == before

    def test_a_soul_number_belongs_to_one_agent(self, acme: Department, bolt: Department) -> None:
        ours, theirs = agent_of(acme, "writer"), agent_of(bolt, "writer")
        publish(soul=create_draft(agent=ours, sections=TEXTS, author=None), author=None)
        assert [soul.number for soul in (published_soul(ours), published_soul(theirs)) if soul] == [2, 1]

    def test_one_that_is_deleted_takes_nothing_of_the_other(self, acme: Department, bolt: Department) -> None:
        before = snapshot(bolt)
        acme.delete()
        assert snapshot(bolt) == before

    def test_documents_are_found_at_home_only(self, acme: Department, bolt: Department) -> None:
        add_document(department=acme, title="Terms", text="The margin of the Kolibri is 60 %.")
        assert search_documents(department_id=acme.pk, query="Kolibri margin")
        assert not search_documents(department_id=bolt.pk, query="Kolibri margin")


class TestItems:
    def test_one_person_can_be_a_lead_of_both(self, acme: Department, bolt: Department) -> None:
        ours = make_lead(acme, email="lena@example.com", external_id="7")
        theirs = make_lead(bolt, email="lena@example.com", external_id="7")
        assert ours.item_id != theirs.item_id
        with pytest.raises(IntegrityError), transaction.atomic():
            make_lead(acme, email="lena@example.com")
        assert Lead.objects.filter(email="lena@example.com").count() == 2

    def test_facts_of_an_item_are_its_own(self, acme: Department, bolt: Department) -> None:
        fill(bolt)
        ours = make_lead(acme, email="lena@example.com").item
        facts = load_facts([ours], now=timezone.now())[ours.pk]
        assert (facts.outputs, facts.runs, facts.triggers, facts.marks) == ((), (), (), frozenset())

    def test_rules_of_one_decide_nothing_for_the_other(self, acme: Department, bolt: Department) -> None:
        make_rule(acme, when={"status": ["new"]}, want=["research"])
        item = make_item(acme)
        facts = load_facts([item], now=timezone.now())[item.pk]
        decided = {pk: router.decide(facts) for pk, router in load_routers([acme, bolt]).items()}
        assert "researcher" in {waiting.agent for waiting in decided[acme.pk].waiting}
        assert decided[bolt.pk].waiting == ()
        assert [start.agent for start in decided[bolt.pk].start] == ["intake"]

    def test_routing_both_at_once_crosses_nothing(self, acme: Department, bolt: Department) -> None:
        items = [make_lead(department, route_due_at=timezone.now()).item for department in (acme, bolt) * 5]
        while route_due(100, staff=load_staff()):
            pass
        runs = AgentRun.objects.select_related("item", "agent")
        assert {run.item_id for run in runs} == {item.pk for item in items}
        assert all(run.department_id == run.item.department_id == run.agent.department_id for run in runs)
        assert LogEntry.objects.filter(department=acme).exists()
        assert crossings() == []

    def test_a_department_that_stands_still_holds_up_nobody(self, acme: Department, bolt: Department) -> None:
        Department.objects.filter(pk=acme.pk).update(state=Department.State.STOPPED)
        make_lead(acme, route_due_at=timezone.now())
        make_lead(bolt, route_due_at=timezone.now())
        while route_due(100, staff=load_staff()):
            pass
        assert set(AgentRun.objects.values_list("department_id", flat=True)) == {bolt.pk}


class TestMoney:
    def test_what_one_spends_leaves_the_others_budget_alone(self, acme: Department, bolt: Department) -> None:
        for department in (acme, bolt):
            Budget.objects.create(department=department, period=Budget.Period.DAY, limit_usd=1)
            writer = agent_of(department, "writer")
            Budget.objects.create(department=department, agent=writer, period=Budget.Period.DAY, limit_usd=1)
        asks = [
            Ask(key, department.pk, agent_of(department, "writer").pk, "claude-sonnet-5-5", Decimal("0.8"), 10)
            for key, department in enumerate((acme, acme, bolt))
        ]
        with transaction.atomic():
            answers = reserve(asks, now=timezone.now())
        assert [type(answers[key]) for key in range(3)] == [Granted, Refused, Granted]
        for answer, department in ((answers[0], acme), (answers[2], bolt)):
            assert isinstance(answer, Granted)
            periods = BudgetPeriod.objects.filter(pk__in=answer.period_ids)
            assert {period.budget.department_id for period in periods} == {department.pk}
        assert crossings() == []


class TestPeople:
    def test_a_member_of_one_does_not_see_the_other(self, acme: Department, bolt: Department) -> None:
        olga = make_user("olga", department=acme, role="administrator")
        assert list(departments_for(olga)) == [acme]
        assert access_for(olga).ids == [acme.pk]
        assert not access_for(olga).can(bolt.pk, "viewer")


class TestTheCheckItself:
    def test_it_compares_what_matters(self) -> None:
        compared = checked()
        assert {"department", "item", "agent", "soul"} <= set(compared["AgentRun"])
        assert {"item", "department"} <= set(compared["Lead"])
        assert {"agent_run", "model_call"} <= set(compared["ToolCall"])
        assert {"department", "agent"} <= set(compared["Budget"])
        assert {"department", "reports_to"} <= set(compared["Agent"])

    def test_rows_of_two_full_departments_do_not_cross(self, acme: Department, bolt: Department) -> None:
        for department in (acme, bolt):
            fill(department)
        assert crossings() == []

    def test_it_finds_a_row_that_crosses(self, acme: Department, bolt: Department) -> None:
        run = make_agent_run(make_item(acme), "writer")
        AgentRun.objects.filter(pk=run.pk).update(agent=agent_of(bolt, "writer"))
        assert crossings() == [f"AgentRun {run.pk}: department and agent"]

    def test_it_finds_a_superior_from_another_department(self, acme: Department, bolt: Department) -> None:
        writer = agent_of(acme, "writer")
        Agent.objects.filter(pk=writer.pk).update(reports_to=agent_of(bolt, "strategist"))
        assert crossings() == [f"Agent {writer.pk}: department and reports_to"]
