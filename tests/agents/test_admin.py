from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.db.models.signals import ModelSignal, pre_save
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents import spec as registry
from agents.budgets import BUDGET_WAIT
from agents.knowledge import search_documents
from agents.models import Agent, Budget, BudgetPeriod, Department, KnowledgeDocument, Member, ModelPrice, Soul
from agents.pricing import load_price_book
from agents.souls import create_draft, published_soul
from agents.spec import DepartmentSpec
from leads.department import SALES
from runs.models import Action, AgentRun, Item, PipelineRun, Rule, Suppression
from runs.syncing import sync_department, sync_everything
from tests.agents.desk import desk_kind

pytestmark = pytest.mark.django_db

SETTINGS = {
    "settings_company": "Acme",
    "settings_guide": "Be brief.",
    "settings_words": "100",
    "settings_greet": "on",
    "settings_days": "4\n7",
    "settings_stops": ["reply"],
    "settings_facts": "We ship | Catalogue#1",
    "settings_limits": '{"day": 3}',
}
NO_MEMBERS = {
    "members-TOTAL_FORMS": "0",
    "members-INITIAL_FORMS": "0",
    "members-MIN_NUM_FORMS": "0",
    "members-MAX_NUM_FORMS": "1000",
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DepartmentSpec:
    """The desk kind, and nothing else, is installed."""
    spec = desk_kind(tmp_path)
    monkeypatch.setattr(registry, "_registry", {"desk": spec})
    return spec


@pytest.fixture
def acme(desk: DepartmentSpec) -> Department:
    """A department with agents, SOULs, rules and prices."""
    sync_department(desk, slug="acme", name="Acme")
    sync_everything()
    return Department.objects.get(slug="acme")


@pytest.fixture
def bolt(acme: Department, desk: DepartmentSpec) -> Department:
    """Another one of the same kind."""
    sync_department(desk, slug="bolt", name="Bolt")
    return Department.objects.get(slug="bolt")


@pytest.fixture
def root(client: Client) -> Client:
    """Signed in as a superuser."""
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def alice(acme: Department) -> Client:
    """Signed in as the administrator of Acme: staff, without any of Django's own permissions."""
    user = User.objects.create_user("alice", is_staff=True)
    Member.objects.create(department=acme, user=user, role=Member.Role.ADMINISTRATOR)
    client = Client()
    client.force_login(user)
    return client


def page(row: Any, action: str = "change") -> str:
    """The address of a row's admin page."""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{action}", args=[row.pk])


def listing(model: Any, action: str = "changelist") -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{action}")


@contextmanager
def receiver_of(signal: ModelSignal, function: Callable[..., None], sender: type[Model]) -> Iterator[None]:
    """Have a function called when a row of the model is about to be saved."""
    signal.connect(function, sender=sender)
    try:
        yield
    finally:
        signal.disconnect(function, sender=sender)


def errors_of(response: Any) -> str:
    """Everything that a refused form says."""
    assert response.status_code == 200
    form = response.context["adminform"].form
    return " ".join(str(line) for lines in form.errors.values() for line in lines)


def agent_data(agent: Agent, **changes: Any) -> dict[str, Any]:
    names = (
        *("job", "model", "effort", "max_tokens", "timeout_seconds", "serves", "needs", "uses", "fields"),
        *("field_chars", "settings_keys", "tools", "output_policy", "latency_target_seconds"),
        "escalate_channel",
    )
    values = {name: getattr(agent, name) for name in names}
    values |= {
        "fallback_models": ", ".join(agent.fallback_models),
        "reports_to": agent.reports_to_id or "",
        "escalate_to": "",
        "is_enabled": "on",
    }
    if agent.conversation:
        values["conversation"] = "on"
    return {**values, **changes}


class TestEveryPage:
    def test_every_list_and_every_form_opens(self, root: Client, acme: Department) -> None:
        create_draft(agent=acme.agents.all()[0], sections={}, author=None)
        budget = Budget.objects.create(department=acme, period="day", limit_usd=1)
        BudgetPeriod.objects.create(budget=budget, starts_at=timezone.now(), ends_at=timezone.now() + timedelta(days=1))
        Item.objects.create(department=acme, title="A question")
        ours = [m for m in admin.site._registry if m._meta.app_label in ("agents", "runs", "leads")]
        assert len(ours) > 15
        for model in ours:
            assert root.get(listing(model)).status_code == 200, model
            row = model._default_manager.first()
            if row is not None:
                assert root.get(page(row)).status_code == 200, model
            adding = root.get(listing(model, "add")).status_code
            assert adding in (200, 403), model

    @pytest.mark.parametrize("model", [Item, AgentRun, PipelineRun])
    def test_nobody_edits_what_the_engine_writes(self, root: Client, acme: Department, model: Any) -> None:
        item = Item.objects.create(department=acme, title="A question")
        assert root.post(listing(model, "add"), {"title": "x"}).status_code == 403
        assert root.post(page(item), {"title": "Changed"}).status_code == 403
        assert root.post(page(item, "delete"), {"post": "yes"}).status_code == 403
        item.refresh_from_db()
        assert item.title == "A question"

    def test_search_and_filters_work(self, root: Client, acme: Department) -> None:
        Item.objects.create(department=acme, title="Where is my order")
        assert "Where is my order" in root.get(listing(Item), {"q": "order"}).content.decode()
        assert "Where is my order" not in root.get(listing(Item), {"q": "invoice"}).content.decode()


class TestWhoSeesWhat:
    def test_an_administrator_sees_their_department_only(self, alice: Client, bolt: Department) -> None:
        Item.objects.create(department=bolt, title="A question to Bolt")
        Item.objects.create(department=Department.objects.get(slug="acme"), title="A question to Acme")
        assert alice.get(listing(Department)).context["cl"].result_count == 1
        assert alice.get(listing(Agent)).context["cl"].result_count == 3
        assert alice.get(listing(Soul)).context["cl"].result_count == 3
        assert alice.get(listing(Rule)).context["cl"].result_count == 3
        items = alice.get(listing(Item)).content.decode()
        assert "A question to Acme" in items
        assert "A question to Bolt" not in items

    def test_pages_of_other_departments_do_not_exist(self, alice: Client, bolt: Department) -> None:
        soul = Soul.objects.filter(agent__department=bolt)[0]
        rows = [bolt, bolt.agents.all()[0], soul, bolt.rules.all()[0]]
        for row in rows:
            response = alice.get(page(row))
            assert response.status_code == 302
            assert response["Location"] == reverse("admin:index")

    def test_forms_offer_no_other_department(self, alice: Client, bolt: Department) -> None:
        for model in (Rule, Budget, KnowledgeDocument):
            assert "Bolt" not in alice.get(listing(model, "add")).content.decode()
        agent = Agent.objects.get(department__slug="acme", slug="sorter")
        offered = alice.get(page(agent)).context["adminform"].form.fields["reports_to"].queryset
        assert {row.department.slug for row in offered} == {"acme"}

    def test_a_row_cannot_be_put_into_another_department(self, alice: Client, bolt: Department) -> None:
        data = {"department": bolt.pk, "period": "day", "limit_usd": "1", "is_enabled": "on"}
        assert "valid choice" in errors_of(alice.post(listing(Budget, "add"), data))
        assert not Budget.objects.exists()

    @pytest.mark.parametrize("model", [ModelPrice, Suppression])
    def test_what_belongs_to_everybody_is_the_superusers(self, alice: Client, model: Any) -> None:
        assert alice.get(listing(model)).status_code == 403
        assert alice.get(listing(model, "add")).status_code == 403

    def test_only_superusers_add_and_delete_departments(self, alice: Client, acme: Department) -> None:
        assert alice.get(listing(Department, "add")).status_code == 403
        assert alice.post(page(acme, "delete"), {"post": "yes"}).status_code == 403

    @pytest.mark.parametrize("role", [Member.Role.VIEWER, Member.Role.REVIEWER, Member.Role.OPERATOR])
    def test_other_roles_administer_nothing(self, acme: Department, role: str, client: Client) -> None:
        user = User.objects.create_user("olga", is_staff=True)
        Member.objects.create(department=acme, user=user, role=role)
        client.force_login(user)
        assert client.get(listing(Department)).status_code == 403
        assert client.get(page(acme.agents.all()[0])).status_code == 403

    def test_an_administrator_who_is_not_staff_is_sent_away(self, acme: Department, client: Client) -> None:
        user = User.objects.create_user("adam")
        Member.objects.create(department=acme, user=user, role=Member.Role.ADMINISTRATOR)
        client.force_login(user)
        assert client.get(listing(Department)).status_code == 302

    def test_users_of_other_clients_are_not_shown(self, alice: Client, acme: Department) -> None:
        User.objects.create_user("somebody-of-another-client")
        assert "somebody-of-another-client" not in alice.get(page(acme)).content.decode()
        assert "somebody-of-another-client" not in alice.get(page(acme.agents.all()[0])).content.decode()


class TestDepartments:
    def data(self, **changes: Any) -> dict[str, Any]:
        values = {
            "name": "Acme",
            "time_zone": "UTC",
            "schedule": "0 */6 * * *",
            "api_key_env": "ACME_KEY",
            "webhook_secret_env": "ACME_SECRET",
        }
        return {**values, **SETTINGS, **NO_MEMBERS, **changes}

    def test_a_new_one_gets_all_that_its_kind_declares(self, root: Client, desk: DepartmentSpec) -> None:
        data = {"kind": "desk", "slug": "new", "name": "New", "time_zone": "Europe/Berlin"}
        added = root.post(listing(Department, "add"), data)
        assert (added.status_code, added["Location"]) == (302, reverse("runs:first_steps", args=[data["slug"]]))
        department = Department.objects.get(slug="new")
        assert (department.name, department.time_zone) == ("New", "Europe/Berlin")
        assert (department.agents.count(), department.rules.count()) == (3, 3)
        assert Soul.objects.filter(agent__department=department, status="published").count() == 3

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [({"kind": "nothing"}, "valid choice"), ({"slug": "acme"}, "already exists"), ({"time_zone": "Mars"}, "IANA")],
    )
    def test_a_new_one_that_cannot_be_is_refused(
        self, root: Client, acme: Department, change: dict[str, str], sentence: str
    ) -> None:
        data = {"kind": "desk", "slug": "new", "name": "New", "time_zone": "UTC", **change}
        assert sentence in errors_of(root.post(listing(Department, "add"), data))
        assert Department.objects.count() == 1

    def test_settings_are_saved_from_their_fields(self, alice: Client, acme: Department) -> None:
        data = self.data(settings_company="Acme & Sons", settings_days="1\n2\n3", settings_stops=["reply", "decision"])
        data.pop("settings_greet")
        assert alice.post(page(acme), data).status_code == 302
        acme.refresh_from_db()
        assert acme.settings["company"] == "Acme & Sons"
        assert acme.settings["days"] == [1, 2, 3]
        assert acme.settings["stops"] == ["reply", "decision"]
        assert acme.settings["greet"] is False
        assert acme.settings["limits"] == {"day": 3}
        assert acme.api_key_env == "ACME_KEY"

    @pytest.mark.parametrize(
        ("field", "value", "sentence"),
        [
            ("settings_words", "5", "greater than or equal to 10"),
            ("settings_words", "many", "whole number"),
            ("settings_facts", "We ship", "Each line has 2"),
            ("settings_stops", ["never"], "valid choice"),
            ("schedule", "every day", "no cron expression"),
            ("schedule", "0 25 * * *", "no cron expression"),
            ("schedule", "0 0 1 * * 30", "no cron expression"),
            ("time_zone", "Mars/Base", "is not a time zone"),
            ("api_key_env", "sk-ant-123", "environment variable"),
        ],
    )
    def test_what_is_wrong_is_said_at_its_field(
        self, alice: Client, acme: Department, field: str, value: Any, sentence: str
    ) -> None:
        response = alice.post(page(acme), self.data(**{field: value}))
        assert sentence in errors_of(response)
        assert field in response.context["adminform"].form.errors
        before = acme.settings
        acme.refresh_from_db()
        assert acme.settings == before

    def test_an_empty_schedule_is_never(self, alice: Client, acme: Department) -> None:
        assert alice.post(page(acme), self.data(schedule="")).status_code == 302
        acme.refresh_from_db()
        assert acme.schedule == ""

    def test_stored_settings_that_no_longer_fit_can_be_repaired(self, alice: Client, acme: Department) -> None:
        Department.objects.update(settings={"words": "many", "old": 1})
        assert alice.get(page(acme)).status_code == 200
        assert "greater than" in errors_of(alice.post(page(acme), self.data(settings_words="1")))
        assert alice.post(page(acme), self.data()).status_code == 302
        acme.refresh_from_db()
        assert set(acme.settings) == {name.removeprefix("settings_") for name in SETTINGS}

    def test_saving_leaves_alone_what_workers_write(self, alice: Client, acme: Department) -> None:
        def work(**kwargs: Any) -> None:
            Department.objects.update(state="draining", stopped_by_error="401")

        # A worker writes between the moment at which the page reads the row and the one at which it saves.
        with receiver_of(pre_save, work, Department):
            alice.post(page(acme), self.data(name="Renamed", state="running", slug="other"))
        acme.refresh_from_db()
        assert (acme.name, acme.slug, acme.state, acme.stopped_by_error) == ("Renamed", "acme", "draining", "401")

    def test_one_that_never_ran_can_be_deleted(self, root: Client, acme: Department) -> None:
        assert root.post(page(acme, "delete"), {"post": "yes"}).status_code == 302
        assert not Soul.objects.exists()

    def test_one_with_items_cannot(self, root: Client, acme: Department) -> None:
        Item.objects.create(department=acme, title="A question")
        root.post(page(acme, "delete"), {"post": "yes"})
        assert Department.objects.filter(pk=acme.pk).exists()


class TestAgents:
    def agent(self, department: Department, slug: str = "answerer") -> Agent:
        return Agent.objects.get(department=department, slug=slug)

    def test_a_change_is_saved_and_lists_keep_their_order(self, alice: Client, acme: Department) -> None:
        agent = self.agent(acme)
        Agent.objects.filter(pk=agent.pk).update(settings_keys=["guide", "company"])
        data = agent_data(agent, effort="high", settings_keys=["company", "words", "guide"], tools=[])
        assert alice.post(page(agent), data).status_code == 302
        agent.refresh_from_db()
        assert (agent.effort, agent.tools) == ("high", [])
        assert agent.settings_keys == ["guide", "company", "words"]

    def test_saving_without_a_change_makes_no_difference_to_the_code(self, alice: Client, acme: Department) -> None:
        for agent in acme.agents.all():
            assert alice.post(page(agent), agent_data(agent)).status_code == 302
        assert sync_everything().differences == []

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"model": "claude-nobody"}, "claude-nobody has no price"),
            ({"fallback_models": "claude-opus-5-5, gpt"}, "gpt has no price"),
            ({"needs": ["weather"]}, "weather is not one of the available choices"),
            ({"uses": ["weather"]}, "weather is not one of the available choices"),
            ({"fields": ["salary"]}, "salary is not one of the available choices"),
            ({"tools": ["send_mail"]}, "send_mail is not one of the available choices"),
            ({"effort": "extreme"}, "extreme is not one of the available choices"),
            ({"serves": ["item", "reply"]}, "“answer”"),
            ({"serves": []}, "“answer”"),
            ({"needs": ["answer"]}, "circle"),
            ({"timeout_seconds": "900"}, "5 to 300 seconds"),
            ({"max_tokens": "0"}, "1 to 128,000 tokens"),
        ],
    )
    def test_what_would_not_work_is_refused(
        self, alice: Client, acme: Department, change: dict[str, Any], sentence: str
    ) -> None:
        agent = self.agent(acme)
        before = Agent.objects.filter(pk=agent.pk).values().get()
        assert sentence in errors_of(alice.post(page(agent), agent_data(agent, **change)))
        assert Agent.objects.filter(pk=agent.pk).values().get() == before

    def test_a_second_writer_can_be_prepared_while_it_is_disabled(self, alice: Client, acme: Department) -> None:
        agent = self.agent(acme, "replier")
        data = agent_data(agent, serves=["item"])
        assert "“answer”" in errors_of(alice.post(page(agent), data))
        data.pop("is_enabled")
        # The rule that wants its answer to a reply would then have nobody.
        Rule.objects.filter(name="Answer again").delete()
        assert alice.post(page(agent), data).status_code == 302

    def test_an_old_fault_does_not_keep_anybody_from_a_repair(self, alice: Client, acme: Department) -> None:
        Agent.objects.filter(slug="replier").update(serves=["item"])
        agent = self.agent(acme)
        assert alice.post(page(agent), agent_data(agent, effort="low")).status_code == 302

    def test_the_chain_of_command_is_no_circle(self, alice: Client, acme: Department) -> None:
        agent = self.agent(acme)
        data = agent_data(agent, reports_to=self.agent(acme, "sorter").pk)
        assert "circle" in errors_of(alice.post(page(agent), data))

    def test_what_is_bound_to_code_cannot_be_changed(self, alice: Client, acme: Department) -> None:
        agent = self.agent(acme)
        alice.post(page(agent), agent_data(agent, writes="topic", slug="other", scope="item"))
        agent.refresh_from_db()
        assert (agent.writes, agent.slug, agent.scope) == ("answer", "answerer", "occasion")
        assert alice.get(listing(Agent, "add")).status_code == 403
        assert alice.post(page(agent, "delete"), {"post": "yes"}).status_code == 403


class TestSales:
    def test_every_page_of_a_sales_department_can_be_saved_as_it_is(
        self, root: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "_registry", {"sales": SALES})
        sync_everything()
        department = Department.objects.get(slug="sales")
        for agent in department.agents.all():
            assert root.post(page(agent), agent_data(agent)).status_code == 302, agent
        for rule in department.rules.all():
            values = {"position": rule.position, "when": json.dumps(rule.when), "want": json.dumps(rule.want)}
            assert root.post(page(rule), {**values, "is_enabled": "on"}).status_code == 302, rule
        shown = root.get(page(department)).context["adminform"].form
        values = {name: shown.get_initial_for_field(field, name) for name, field in shown.fields.items()}
        assert root.post(page(department), {**values, **NO_MEMBERS}).status_code == 302
        assert sync_everything().differences == []
        before = department.settings
        department.refresh_from_db()
        assert department.settings == before


class TestSouls:
    """They are written on the agents' pages; here they are looked at."""

    TEXTS: ClassVar[dict[str, str]] = {"identity": "You are Ada.", "responsibilities": "Ask.", "prohibitions": "None."}

    def test_nothing_is_written_here(self, root: Client, acme: Department) -> None:
        agent = Agent.objects.get(slug="answerer")
        draft = create_draft(agent=agent, sections=self.TEXTS, author=None)
        soul = published_soul(agent)
        assert soul is not None
        for row in (draft, soul):
            assert "_save" not in root.get(page(row)).content.decode()
            assert root.post(page(row), self.TEXTS).status_code == 403
            assert root.post(page(row, "delete"), {"post": "yes"}).status_code == 403
        assert root.get(listing(Soul, "add"), {"agent": agent.pk}).status_code == 403
        chosen = {"action": "delete_selected", "_selected_action": [draft.pk], "post": "yes"}
        root.post(listing(Soul), chosen)
        assert agent.souls.count() == 2
        soul.refresh_from_db()
        assert (soul.identity, soul.status) == ("You are the answerer.", "published")

    def test_an_agent_leads_to_where_its_soul_is_edited(self, root: Client, acme: Department) -> None:
        agent = Agent.objects.get(slug="answerer")
        html = root.get(page(agent)).content.decode()
        assert "SOUL 1" in html
        assert reverse("runs:soul_edit", args=[agent.pk]) in html


class TestRules:
    def data(self, department: Department, **changes: Any) -> dict[str, Any]:
        values = {
            "department": department.pk,
            "position": "9",
            "name": "Sort again",
            "when": '{"trigger": ["operator"]}',
            "want": '["topic"]',
            "is_enabled": "on",
        }
        return {**values, **changes}

    def test_a_rule_is_added_and_shown_as_its_sentence(self, alice: Client, acme: Department) -> None:
        assert alice.post(listing(Rule, "add"), self.data(acme)).status_code == 302
        assert Rule.objects.get(name="Sort again").when == {"trigger": ["operator"]}
        assert "the topic is wanted." in alice.get(listing(Rule)).content.decode()

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"when": '{"colour": ["red"]}'}, "There is no clause “colour”. Known clauses:"),
            ({"when": '{"status": ["sold"]}'}, "There is no status “sold”"),
            ({"when": "{"}, "valid JSON"),
            ({"want": '["weather"]'}, "There is no output key “weather”"),
            ({"want": "[]"}, "at least one"),
        ],
    )
    def test_what_the_router_would_not_understand_is_refused(
        self, alice: Client, acme: Department, change: dict[str, str], sentence: str
    ) -> None:
        response = alice.post(listing(Rule, "add"), self.data(acme, **change))
        said = errors_of(response)
        assert sentence in said or (change.get("want") == "[]" and "required" in said)
        assert Rule.objects.count() == 3

    def test_a_declared_rule_is_disabled_but_neither_renamed_nor_deleted(self, alice: Client, acme: Department) -> None:
        rule = acme.rules.get(name="Answer")
        data = self.data(acme, when='{"status": ["new"]}', want='["answer"]', name="Other")
        data.pop("is_enabled")
        assert alice.post(page(rule), data).status_code == 302
        assert alice.post(page(rule, "delete"), {"post": "yes"}).status_code == 403
        rule.refresh_from_db()
        assert (rule.name, rule.is_enabled, rule.when) == ("Answer", False, {"status": ["new"]})

    def test_an_own_rule_can_be_deleted(self, alice: Client, acme: Department) -> None:
        alice.post(listing(Rule, "add"), self.data(acme))
        rule = Rule.objects.get(name="Sort again")
        assert alice.post(page(rule, "delete"), {"post": "yes"}).status_code == 302
        assert not Rule.objects.filter(name="Sort again").exists()


class TestBudgets:
    def waiting_run(self, department: Department) -> AgentRun:
        item = Item.objects.create(department=department, title="A question")
        now = timezone.now()
        return AgentRun.objects.create(
            department=department,
            item=item,
            agent=department.agents.all()[0],
            pipeline_run=PipelineRun.objects.create(item=item, started_at=now),
            why="Because",
            due_at=now + timedelta(hours=9),
            queued_at=now,
            waiting_for=f"{BUDGET_WAIT} department: 1.00 USD a day",
        )

    def test_a_budget_is_added(self, alice: Client, acme: Department) -> None:
        data = {"department": acme.pk, "period": "day", "limit_usd": "5", "is_enabled": "on"}
        assert alice.post(listing(Budget, "add"), data).status_code == 302
        assert Budget.objects.get().limit_usd == 5

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"limit_usd": ""}, "Set a limit"),
            ({"limit_usd": "-1"}, "not below zero"),
            ({"model": "claude-nobody"}, "No price is known for claude-nobody"),
        ],
    )
    def test_one_that_limits_nothing_is_refused(
        self, alice: Client, acme: Department, change: dict[str, str], sentence: str
    ) -> None:
        data = {"department": acme.pk, "period": "day", "limit_usd": "5", "is_enabled": "on", **change}
        assert sentence in errors_of(alice.post(listing(Budget, "add"), data))

    def test_an_agent_of_another_department_is_refused(self, root: Client, acme: Department, bolt: Department) -> None:
        data = {"department": acme.pk, "agent": bolt.agents.all()[0].pk, "period": "day", "limit_usd": "5"}
        assert "works in another department" in errors_of(root.post(listing(Budget, "add"), data))

    def test_raising_it_makes_waiting_runs_due(self, alice: Client, acme: Department, bolt: Department) -> None:
        budget = Budget.objects.create(department=acme, period="day", limit_usd=1)
        ours, theirs = self.waiting_run(acme), self.waiting_run(bolt)
        periods = {f"periods-{name}_FORMS": "0" for name in ("TOTAL", "INITIAL")}
        assert alice.post(page(budget), {"limit_usd": "9", "is_enabled": "on", **periods}).status_code == 302
        ours.refresh_from_db()
        theirs.refresh_from_db()
        assert ours.due_at <= timezone.now() < theirs.due_at

    def test_an_extra_is_allowed_without_touching_what_is_reserved(self, alice: Client, acme: Department) -> None:
        budget = Budget.objects.create(department=acme, period="day", limit_usd=1)
        now = timezone.now()
        period = BudgetPeriod.objects.create(
            budget=budget, starts_at=now, ends_at=now + timedelta(days=1), reserved_usd=Decimal("0.5")
        )
        data = {
            "limit_usd": "1",
            "is_enabled": "on",
            "periods-TOTAL_FORMS": "1",
            "periods-INITIAL_FORMS": "1",
            "periods-0-id": period.pk,
            "periods-0-budget": budget.pk,
            "periods-0-extra_usd": "2",
            "periods-0-extra_tokens": "0",
            "periods-0-reserved_usd": "0",
        }

        def work(**kwargs: Any) -> None:
            BudgetPeriod.objects.update(reserved_usd=Decimal("0.7"))

        with receiver_of(pre_save, work, BudgetPeriod):
            assert alice.post(page(budget), data).status_code == 302
        period.refresh_from_db()
        assert [period.extra_usd, period.reserved_usd] == [2, Decimal("0.7")]
        action = Action.objects.get()
        assert (action.verb, action.after, action.user_id) == ("allow_once", {"extra_usd": "2.00000000"}, _alice())
        refused = alice.post(page(budget), {**data, "periods-0-extra_usd": "-1"})
        assert "greater than or equal to 0" in refused.content.decode()

    def test_whatever_is_done_to_it_is_written_down_like_on_the_page(self, alice: Client, acme: Department) -> None:
        data = {"department": acme.pk, "period": "day", "limit_usd": "5", "is_enabled": "on"}
        alice.post(listing(Budget, "add"), data)
        budget = Budget.objects.get()
        periods = {f"periods-{name}_FORMS": "0" for name in ("TOTAL", "INITIAL")}
        for _ in range(2):
            assert alice.post(page(budget), {"limit_usd": "9", **periods}).status_code == 302
        run = self.waiting_run(acme)
        assert alice.post(page(budget, "delete"), {"post": "yes"}).status_code == 302
        run.refresh_from_db()
        assert run.due_at <= timezone.now()
        actions = list(Action.objects.order_by("pk").values_list("verb", "before", "after"))
        assert [verb for verb, _, _ in actions] == ["create_budget", "change_budget", "delete_budget"]
        assert actions[1][1:] == (
            {"limit_usd": "5.00000000", "is_enabled": "True"},
            {"limit_usd": "9.00000000", "is_enabled": "False"},
        )
        assert set(Action.objects.values_list("user", flat=True)) == {_alice()}

    def test_several_are_deleted_one_by_one(self, alice: Client, acme: Department) -> None:
        budgets = [Budget.objects.create(department=acme, period=period, limit_usd=1) for period in ("day", "month")]
        run = self.waiting_run(acme)
        data = {"action": "delete_selected", "_selected_action": [one.pk for one in budgets], "post": "yes"}
        assert alice.post(listing(Budget), data).status_code == 302
        assert not Budget.objects.exists()
        assert Action.objects.filter(verb="delete_budget").count() == 2
        run.refresh_from_db()
        assert run.due_at <= timezone.now()


def _alice() -> int:
    return User.objects.get(username="alice").pk


class TestPrices:
    DATA = {
        "model": "claude-next",
        "effective_from": "2026-12-01",
        "prompt_tokens_over": "0",
        "input_usd": "1",
        "output_usd": "2",
        "cache_write_5m_usd": "1.25",
        "cache_write_1h_usd": "2",
        "cache_read_usd": "0.1",
        "source": "Price list",
    }

    def test_a_price_is_added_corrected_and_deleted(self, root: Client) -> None:
        assert root.post(listing(ModelPrice, "add"), self.DATA).status_code == 302
        price = ModelPrice.objects.get()
        changes = {**self.DATA, "input_usd": "9", "model": "claude-other", "effective_from": "2026-12-24"}
        assert root.post(page(price), changes).status_code == 302
        price.refresh_from_db()
        assert (price.model, str(price.effective_from)) == ("claude-next", "2026-12-01")
        assert price.input_usd == 9
        assert root.post(page(price, "delete"), {"post": "yes"}).status_code == 302

    @pytest.mark.parametrize("how", ["page", "action"])
    @pytest.mark.parametrize(
        ("over", "words"), [(0, "has no price, and agents work on it"), (100_000, "would be priced as short ones")]
    )
    def test_a_price_that_calls_of_today_need_stays(
        self, root: Client, acme: Department, how: str, over: int, words: str
    ) -> None:
        Agent.objects.update(model="claude-sonnet-5-5", fallback_models=["claude-haiku-5-5"])
        price = ModelPrice.objects.get(model="claude-haiku-5-5", prompt_tokens_over=over)
        action = {"action": "delete_selected", "_selected_action": [price.pk], "post": "yes"}
        address, data = (page(price, "delete"), {"post": "yes"}) if how == "page" else (listing(ModelPrice), action)
        response = root.post(address, data)
        assert words in response.content.decode()
        assert ModelPrice.objects.filter(pk=price.pk).exists()

    def test_a_price_goes_where_another_takes_its_place_or_nobody_needs_it(
        self, root: Client, acme: Department
    ) -> None:
        Agent.objects.update(model="claude-haiku-5-5")
        known = ModelPrice.objects.get(model="claude-haiku-5-5", prompt_tokens_over=0)
        newer = ModelPrice.objects.get(pk=known.pk)
        newer.pk, newer.effective_from = None, known.effective_from + timedelta(days=1)
        newer.save()
        unused = ModelPrice.objects.create(**{**self.DATA, "model": "claude-nobody", "effective_from": "2026-01-01"})
        future = ModelPrice.objects.create(**{**self.DATA, "model": "claude-haiku-5-5", "effective_from": "2099-01-01"})
        for price in (newer, unused, future):
            assert root.post(page(price, "delete"), {"post": "yes"}).status_code == 302
            assert not ModelPrice.objects.filter(pk=price.pk).exists()
        both = {"action": "delete_selected", "post": "yes"}
        newer.pk = None
        newer.save()
        assert (
            "has no price"
            in root.post(listing(ModelPrice), {**both, "_selected_action": [known.pk, newer.pk]}).content.decode()
        )
        assert ModelPrice.objects.filter(model="claude-haiku-5-5").count() == 3

    def test_a_price_below_zero_is_refused(self, root: Client) -> None:
        response = root.post(listing(ModelPrice, "add"), {**self.DATA, "input_usd": "-1"})
        assert "not below zero" in errors_of(response)

    def test_the_history_of_a_price_keeps_what_it_was(self, root: Client) -> None:
        root.post(listing(ModelPrice, "add"), self.DATA)
        price = ModelPrice.objects.get()
        root.post(page(price), {**self.DATA, "input_usd": "9.5", "source": ""})
        history = root.get(page(price, "history")).content.decode()
        assert "Changed input_usd from 1.00000000 to 9.5, source from Price list to ." in history

    @pytest.mark.parametrize("is_late", [True, False])
    def test_who_enters_or_corrects_a_price_late_hears_what_calls_before_it_cost(
        self, root: Client, is_late: bool
    ) -> None:
        day = timezone.now().astimezone(UTC).date() + timedelta(days=0 if is_late else 1)
        data = {**self.DATA, "effective_from": str(day)}
        hint = f"recompute_costs --from {day} --model claude-next shows the difference"
        added = root.post(listing(ModelPrice, "add"), data, follow=True)
        changed = root.post(page(ModelPrice.objects.get()), {**data, "input_usd": "9"}, follow=True)
        for response in (added, changed):
            assert (hint in response.content.decode()) is is_late

    @pytest.mark.parametrize("name", ["input_usd", "output_usd"])
    def test_a_price_of_nothing_is_refused(self, root: Client, name: str) -> None:
        response = root.post(listing(ModelPrice, "add"), {**self.DATA, name: "0", "cache_read_usd": "0"})
        assert errors_of(response).count("at 0 no budget would ever hold this model") == 1
        assert not ModelPrice.objects.exists()

    def test_a_price_for_longer_prompts_does_not_end_unnoticed(self, root: Client) -> None:
        long = {"prompt_tokens_over": "100000", "input_usd": "5"}
        for changes in ({}, long):
            assert root.post(listing(ModelPrice, "add"), {**self.DATA, **changes}).status_code == 302
        cheaper = {**self.DATA, "effective_from": "2027-01-01"}
        response = root.post(listing(ModelPrice, "add"), cheaper)
        assert "more than 100,000 tokens" in errors_of(response)
        assert "Enter first what those cost from 2027-01-01 on" in errors_of(response)
        assert 'value="2027-01-01"' in response.content.decode()
        for changes in (long, {}):
            assert root.post(listing(ModelPrice, "add"), {**cheaper, **changes}).status_code == 302
        assert load_price_book().price_for("claude-next", date(2027, 1, 2), 100_001).input_usd == 5


class TestSuppressions:
    @pytest.mark.parametrize(
        ("typed", "address"), [(" Ann@Example.COM ", "ann@example.com"), ("@Example.com", "@example.com")]
    )
    def test_addresses_and_domains_are_entered_in_one_form(self, root: Client, typed: str, address: str) -> None:
        root.post(listing(Suppression, "add"), {"address": typed, "reason": "manual"})
        assert Suppression.objects.get().address == address

    @pytest.mark.parametrize("typed", ["example.com", "ann@", "@", "ann example.com"])
    def test_anything_else_is_refused(self, root: Client, typed: str) -> None:
        response = root.post(listing(Suppression, "add"), {"address": typed, "reason": "manual"})
        assert "valid email address" in errors_of(response)


class TestDocuments:
    def test_a_file_becomes_a_document_that_is_found(self, alice: Client, acme: Department) -> None:
        upload = SimpleUploadedFile("Warranty.md", "Five years on pumps from Łódź.".encode())
        response = alice.post(listing(KnowledgeDocument, "add"), {"department": acme.pk, "upload": upload})
        assert response.status_code == 302
        document = KnowledgeDocument.objects.get()
        assert (document.title, document.source) == ("Warranty", "Warranty.md")
        assert search_documents(department_id=acme.pk, query="pumps")

    def test_a_changed_text_is_found_by_its_new_words(self, alice: Client, acme: Department) -> None:
        data = {"department": acme.pk, "title": "Terms", "text": "About pumps."}
        alice.post(listing(KnowledgeDocument, "add"), data)
        document = KnowledgeDocument.objects.get()
        alice.post(page(document), {**data, "text": "About valves."})
        assert not search_documents(department_id=acme.pk, query="pumps")
        assert search_documents(department_id=acme.pk, query="valves")

    def test_a_file_that_cannot_be_read_is_refused(self, alice: Client, acme: Department) -> None:
        upload = SimpleUploadedFile("terms.pdf", b"%PDF-1.7")
        response = alice.post(listing(KnowledgeDocument, "add"), {"department": acme.pk, "upload": upload})
        assert "is a PDF file" in errors_of(response)

    def test_neither_text_nor_file_is_refused(self, alice: Client, acme: Department) -> None:
        response = alice.post(listing(KnowledgeDocument, "add"), {"department": acme.pk, "title": "Terms"})
        assert "unless a file is uploaded" in errors_of(response)
