from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agents import spec as registry
from agents.models import Agent, Department, ModelPrice, Soul
from agents.souls import SoulError, create_draft, publish
from agents.spec import DepartmentSpec, RuleSpec
from leads.department import SALES
from runs.models import Rule
from runs.syncing import configuration_problems, sync_department, sync_everything
from tests.agents.desk import desk_kind

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DepartmentSpec:
    """The desk kind, and nothing else, is installed."""
    spec = desk_kind(tmp_path)
    monkeypatch.setattr(registry, "_registry", {"desk": spec})
    return spec


@pytest.fixture
def team(desk: DepartmentSpec) -> Department:
    """A department of the kind, with prices."""
    sync_everything()
    return Department.objects.get(slug="desk")


def everything() -> list[Any]:
    """Every row that a sync may write, to compare."""
    return [list(model.objects.order_by("pk").values()) for model in (Department, Agent, Soul, Rule, ModelPrice)]


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    call_command("sync_departments", *arguments)
    return capsys.readouterr().out


class TestWhatIsMissing:
    def test_a_new_department_gets_all_that_its_kind_declares(self, desk: DepartmentSpec) -> None:
        report = sync_department(desk)
        department = Department.objects.get()
        assert (department.slug, department.name, department.kind) == ("desk", "Desk", "desk")
        assert department.settings == desk.settings_schema().model_dump(mode="json")
        assert list(department.agents.values_list("slug", "writes")) == [
            ("sorter", "topic"),
            ("answerer", "answer"),
            ("replier", "answer"),
        ]
        assert list(department.rules.values_list("position", "name")) == [
            (1, "Sort what comes in"),
            (2, "Answer"),
            (3, "Answer again"),
        ]
        # The department, its agents, SOULs and rules, and the mail channel, which is off.
        assert len(report.created) == 1 + 3 + 3 + 3 + 1

    def test_agents_are_as_declared(self, team: Department) -> None:
        agent = Agent.objects.get(slug="answerer")
        assert (agent.model, agent.fallback_models) == ("claude-sonnet-5-5", ["claude-opus-5-5"])
        assert (agent.uses, agent.settings_keys, agent.tools) == (["topic"], ["company", "guide"], ["search_knowledge"])
        assert (agent.serves, agent.scope, agent.output_policy) == (["item"], "occasion", "review")

    def test_the_chain_of_command_may_point_ahead(self, team: Department) -> None:
        superiors = dict(Agent.objects.values_list("slug", "reports_to__slug"))
        assert superiors == {"sorter": "answerer", "answerer": None, "replier": "answerer"}

    def test_soul_1_of_every_agent_is_in_force(self, team: Department) -> None:
        souls = Soul.objects.order_by("agent")
        assert [(soul.number, soul.status) for soul in souls] == [(1, "published")] * 3
        assert souls[0].identity == "You are the sorter."

    def test_a_second_sync_changes_nothing(self, team: Department) -> None:
        before = everything()
        report = sync_everything()
        assert (report.created, report.differences, report.problems) == ([], [], [])
        assert everything() == before

    def test_only_what_is_missing_is_made_again(self, team: Department) -> None:
        Rule.objects.get(name="Answer").delete()
        Agent.objects.get(slug="replier").delete()
        assert sync_everything().created == ["desk: agent replier", "desk: SOUL 1 of replier", "desk: rule “Answer”"]

    def test_a_setting_that_a_release_added_comes_with_its_default(self, team: Department) -> None:
        team.settings = {"company": "Ours", "words": 50}
        team.save(update_fields=["settings"])
        assert "desk: setting guide" in sync_everything().created
        team.refresh_from_db()
        assert (team.settings["company"], team.settings["words"], team.settings["guide"]) == ("Ours", 50, "Be brief.")

    def test_the_sales_kind_is_complete_and_fits_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "_registry", {"sales": SALES})
        report = sync_everything()
        assert report.problems == []
        assert Department.objects.get(slug="sales").agents.count() == len(SALES.agents) == 10
        assert Soul.objects.filter(status="published", number=1).count() == 10
        assert sync_everything().differences == []


class TestWhatAnAdministratorChanged:
    def test_it_stays_and_is_reported(self, team: Department) -> None:
        Agent.objects.filter(slug="sorter").update(model="claude-sonnet-5-5", reports_to=None)
        Rule.objects.filter(name="Answer").update(when={"status": ["done"]}, is_enabled=False)
        draft = create_draft(
            agent=Agent.objects.get(slug="sorter"),
            sections={"identity": "You are Bo.", "responsibilities": "- Write the topic.", "prohibitions": "- No."},
            author=None,
        )
        publish(soul=draft, author=None)
        before = everything()
        report = sync_everything()
        assert report.created == []
        assert everything() == before
        found = [(d.what, d.field, d.in_code, d.in_database) for d in report.differences]
        assert ("desk: agent sorter", "model", "claude-haiku-5-5", "claude-sonnet-5-5") in found
        assert ("desk: agent sorter", "reports_to", "answerer", "") in found
        assert ("desk: SOUL 2 of sorter", "identity", "You are the sorter.", "You are Bo.") in found
        assert ("desk: rule “Answer”", "is_enabled", True, False) in found
        assert ("desk: rule “Answer”", "when", {"status": ["new"], "has": ["topic"]}, {"status": ["done"]}) in found
        assert len(found) == 6

    def test_settings_are_the_departments_own_business(self, team: Department) -> None:
        team.settings = {**team.settings, "company": "Ours"}
        team.save(update_fields=["settings"])
        report = sync_everything()
        assert (report.created, report.differences) == ([], [])


class TestProblems:
    def test_two_writers_of_one_key_are_found(self, team: Department) -> None:
        Agent.objects.filter(slug="replier").update(serves=[])
        (problem,) = configuration_problems(team)
        assert all(word in problem for word in ("answerer", "replier", "“answer”"))

    def test_a_key_that_nobody_writes_is_found(self, team: Department) -> None:
        Agent.objects.filter(slug="answerer").update(needs=["proof"], uses=["weather"])
        problems = " ".join(configuration_problems(team))
        assert "answerer needs “proof”, which no agent writes" in problems
        assert "answerer uses “weather”, which no agent writes" in problems

    def test_a_circle_is_found(self, team: Department) -> None:
        Agent.objects.filter(slug="sorter").update(needs=["answer"])
        assert any("circle" in line for line in configuration_problems(team))

    def test_a_model_without_a_price_is_found(self, team: Department) -> None:
        Agent.objects.filter(slug="sorter").update(fallback_models=["claude-nobody"])
        assert configuration_problems(team) == [
            "sorter: The model claude-nobody has no price. Enter one under Prices before an agent uses it."
        ]

    def test_settings_that_no_longer_fit_are_found(self, team: Department) -> None:
        team.settings = {**team.settings, "words": 5, "old": 1}
        team.save(update_fields=["settings"])
        problems = " ".join(sync_everything().problems)
        assert "Setting words: Input should be greater than or equal to 10" in problems
        assert "Setting old:" in problems

    def test_an_agent_that_the_release_no_longer_has_is_found(
        self, team: Department, desk: DepartmentSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "_registry", {"desk": replace(desk, agents=desk.agents[:2], rules=())})
        assert any("agent replier is enabled, but" in line for line in sync_everything().problems)

    def test_a_slug_of_another_kind_is_refused(self, desk: DepartmentSpec) -> None:
        Department.objects.create(kind="sales", slug="desk", name="Sales")
        with pytest.raises(ValueError, match="of the kind sales, not desk"):
            sync_department(desk)

    def test_a_shipped_soul_that_cannot_be_read_stops_everything(self, desk: DepartmentSpec) -> None:
        (Path(desk.souls_dir) / "replier.md").write_text("# Identity\nYou")
        with pytest.raises(SoulError, match=r"replier\.md"):
            sync_everything()
        assert not Department.objects.exists()


class TestSideBySide:
    def test_a_kind_that_has_departments_gets_no_further_one(self, desk: DepartmentSpec) -> None:
        sync_department(desk, slug="acme", name="Acme")
        report = sync_everything()
        assert [found.department for found in report.departments] == ["acme"]
        assert Department.objects.get().name == "Acme"

    def test_each_department_is_synced_by_itself(self, desk: DepartmentSpec) -> None:
        for slug in ("acme", "bolt"):
            sync_department(desk, slug=slug, name=slug.title())
        Agent.objects.get(department__slug="bolt", slug="replier").delete()
        created = [line for line in sync_everything().created if not line.startswith("price")]
        assert created == ["bolt: agent replier", "bolt: SOUL 1 of replier"]

    def test_a_rule_that_is_declared_later_joins_every_department(
        self, desk: DepartmentSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for slug in ("acme", "bolt"):
            sync_department(desk, slug=slug)
        grown = replace(desk, rules=(*desk.rules, RuleSpec("Sort again", {"trigger": ["operator"]}, ("topic",))))
        monkeypatch.setattr(registry, "_registry", {"desk": grown})
        sync_everything()
        assert Rule.objects.filter(name="Sort again", position=4).count() == 2


class TestCommand:
    def test_it_creates_and_says_so(self, desk: DepartmentSpec, capsys: pytest.CaptureFixture[str]) -> None:
        assert "created  desk: agent sorter" in run(capsys=capsys)
        assert run(capsys=capsys) == "Nothing is missing.\n"

    def test_check_creates_nothing_and_exits_1(self, desk: DepartmentSpec, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            run("--check", capsys=capsys)
        assert stopped.value.code == 1
        assert "missing  desk: agent sorter" in capsys.readouterr().out
        assert everything() == [[], [], [], [], []]

    def test_check_is_content_when_nothing_is_missing(
        self, team: Department, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Agent.objects.filter(slug="sorter").update(effort="high")
        assert "differs  desk: agent sorter, effort: 'high' here, '' in code" in run("--check", capsys=capsys)

    def test_check_exits_1_on_a_problem(self, team: Department) -> None:
        Agent.objects.filter(slug="answerer").update(needs=["proof"])
        with pytest.raises(SystemExit):
            call_command("sync_departments", "--check")

    def test_json_is_one_object_and_nothing_else(
        self, desk: DepartmentSpec, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = json.loads(run("--json", capsys=capsys))
        assert "desk: department desk" in first["created"]
        Agent.objects.filter(slug="sorter").update(effort="high")
        second = json.loads(run("--json", "--check", capsys=capsys))
        assert second["missing"] == second["problems"] == []
        assert second["differences"] == [
            {"what": "desk: agent sorter", "field": "effort", "in_code": "", "in_database": "high"}
        ]

    def test_what_cannot_be_read_is_one_sentence(self, desk: DepartmentSpec) -> None:
        (Path(desk.souls_dir) / "replier.md").unlink()
        with pytest.raises(CommandError, match="replier"):
            call_command("sync_departments")
