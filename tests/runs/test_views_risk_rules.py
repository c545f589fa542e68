"""Rules of risk and automatic approvals on the page of rules."""

from __future__ import annotations

import html as entities
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents.models import Department, Member
from runs import rule_editing
from runs.models import Action, AutoApproval, RiskRule
from runs.rule_editing import stamp
from tests.factories import agent_of, make_department, make_user
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db
RISK = {"name": "Big ones", "facet-score": "90-100", "risk": "3"}
APPROVAL = {"name": "Warm", "agent": "writer", "facet-tier": "Warm", "risk": "1", "sample_percent": "10"}


@pytest.fixture
def office() -> Department:
    return make_department()


@pytest.fixture
def client(office: Department) -> Client:
    client = Client()
    client.force_login(make_user("ada", department=office, role=Member.Role.ADMINISTRATOR))
    return client


def make_risk(office: Department, **fields: Any) -> RiskRule:
    return RiskRule.objects.create(department=office, **{"name": "Mine", "when": {"status": ["new"]}, **fields})


def make_approval(office: Department, **fields: Any) -> AutoApproval:
    values = {"name": "Mine", "agent": agent_of(office, "writer"), "when": {"facet": {"tier": ["Warm"]}}, **fields}
    return AutoApproval.objects.create(department=office, **values)


def text_of(response: Any) -> str:
    return entities.unescape(response.content.decode())


def test_both_are_sentences_on_the_page(office: Department, client: Client) -> None:
    make_risk(office, when={"marks": ["first_contact"], "facet": {"tier": ["Hot"]}}, risk=3)
    make_approval(office, revoked_at=timezone.now(), revoked_why="rita rejected a draft.")
    html = text_of(client.get(reverse("runs:rules")))
    assert (
        "When the lead’s tier is Hot and nothing was sent to the person before, the risk of a draft is at least high."
        in html
    )
    assert (
        "Drafts of the Writer of low risk are approved without a person when the lead’s tier is Warm; "
        "10 of 100 go to a person all the same." in html
    )
    assert "rita rejected a draft." in html


def test_a_rule_of_risk_is_written_changed_moved_switched_and_deleted(office: Department, client: Client) -> None:
    first = make_risk(office, name="First", position=1)
    assert client.post(reverse("runs:risk_rule_new"), RISK).status_code == 302
    rule = RiskRule.objects.get(name="Big ones")
    assert (rule.when, rule.risk, rule.is_enabled) == ({"facet": {"score": list(range(90, 101))}}, 3, True)
    edit = reverse("runs:risk_rule_edit", args=[rule.pk])
    assert 'value="90-100"' in text_of(client.get(edit))
    client.post(edit, {**RISK, "risk": "2", "seen": stamp(rule)})
    client.post(reverse("runs:risk_rule_move", args=[rule.pk]), {"by": "up"})
    rule.refresh_from_db()
    first.refresh_from_db()
    assert (rule.risk, rule.position, first.position) == (2, 1, 2)
    toggle = reverse("runs:risk_rule_toggle", args=[rule.pk])
    client.post(toggle, {"to": "off"})
    client.post(toggle, {"to": "off"})
    client.post(reverse("runs:risk_rule_delete", args=[rule.pk]))
    assert list(RiskRule.objects.all()) == [first]
    verbs = list(Action.objects.order_by("pk").values_list("verb", flat=True))
    assert verbs == ["risk_rule_add", "risk_rule_change", "risk_rule_move", "risk_rule_disable", "risk_rule_delete"]


def test_an_automatic_approval_begins_switched_off(office: Department, client: Client) -> None:
    assert client.post(reverse("runs:auto_approval_new"), {**APPROVAL, "is_enabled": "on"}).status_code == 302
    rule = AutoApproval.objects.get()
    assert (rule.agent.slug, rule.when, rule.max_risk, rule.sample_percent, rule.is_enabled) == (
        "writer",
        {"facet": {"tier": ["Warm"]}},
        1,
        10,
        False,
    )
    url = reverse("runs:auto_approval_toggle", args=[rule.pk])
    client.post(url, {"to": "on"})
    rule.refresh_from_db()
    assert rule.is_enabled
    edit = reverse("runs:auto_approval_edit", args=[rule.pk])
    client.post(edit, {**APPROVAL, "sample_percent": "20", "seen": stamp(rule)})
    rule.refresh_from_db()
    assert (rule.is_enabled, rule.sample_percent) == (True, 20), "a change leaves it on"


def test_a_revocation_meanwhile_is_not_undone_by_an_edit(
    office: Department, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = make_approval(office, name="Warm", is_enabled=True)
    check_name = rule_editing.check_name

    def reject_a_draft(*args: Any) -> list[str]:
        AutoApproval.objects.update(is_enabled=False, revoked_at=timezone.now(), revoked_why="rita rejected a draft.")
        return check_name(*args)

    monkeypatch.setattr(rule_editing, "check_name", reject_a_draft)
    assert client.post(reverse("runs:auto_approval_edit", args=[rule.pk]), APPROVAL).status_code == 302
    rule.refresh_from_db()
    assert (rule.sample_percent, rule.is_enabled, rule.revoked_why) == (10, False, "rita rejected a draft.")
    assert rule.revoked_at is not None


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks the whole database")
def test_a_revocation_takes_turns_with_switching_it_on(office: Department, client: Client) -> None:
    rule = make_approval(office)
    with CaptureQueriesContext(connection) as seen:
        client.post(reverse("runs:auto_approval_toggle", args=[rule.pk]), {"to": "on"})
    locks = [query["sql"] for query in seen if 'FOR NO KEY UPDATE OF "runs_autoapproval"' in query["sql"]]
    assert len(locks) == 1


def test_one_that_was_revoked_needs_a_reason_to_approve_again(office: Department, client: Client) -> None:
    rule = make_approval(office, revoked_at=timezone.now(), revoked_why="rita rejected a draft.")
    url = reverse("runs:auto_approval_toggle", args=[rule.pk])
    for data in ({"to": "on"}, {"to": "on", "reason": "  "}):
        assert "Say why it may approve again." in text_of(client.post(url, data, follow=True))
        rule.refresh_from_db()
        assert not rule.is_enabled
    assert not Action.objects.exists()
    client.post(url, {"to": "on", "reason": "The Writer has a new SOUL."})
    rule.refresh_from_db()
    assert (rule.is_enabled, rule.revoked_at, rule.revoked_why) == (True, None, "")
    action = Action.objects.get()
    assert (action.verb, action.reason) == ("auto_approval_enable", "The Writer has a new SOUL.")
    assert action.before == {"is_enabled": False, "revoked_why": "rita rejected a draft."}
    assert action.after == {"is_enabled": True, "revoked_why": ""}


def test_editing_does_not_bring_a_revoked_one_back(office: Department, client: Client) -> None:
    rule = make_approval(office, revoked_at=timezone.now(), revoked_why="rita rejected a draft.")
    client.post(reverse("runs:auto_approval_edit", args=[rule.pk]), {**APPROVAL, "is_enabled": "on"})
    rule.refresh_from_db()
    assert (rule.name, rule.is_enabled, rule.revoked_why) == ("Warm", False, "rita rejected a draft.")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("risk_rule_new", {**RISK, "name": ""}, "Give it a name."),
        ("risk_rule_new", {**RISK, "risk": "9"}, "The risk is 1, 2 or 3."),
        ("risk_rule_new", {**RISK, "facet-score": "lots"}, "is not a whole number"),
        ("risk_rule_new", {**RISK, "marks": "big_money"}, "There is no mark “big_money”"),
        ("risk_rule_new", {**RISK, "mode": "json", "when_json": '{"mood": [1]}'}, "There is no clause “mood”"),
        ("auto_approval_new", {**APPROVAL, "agent": "nobody"}, "Choose whose drafts"),
        ("auto_approval_new", {**APPROVAL, "sample_percent": "101"}, "0 to 100"),
        ("auto_approval_new", {**APPROVAL, "sample_percent": ""}, "0 to 100"),
        ("auto_approval_new", {**APPROVAL, "facet-tier": "Lukewarm"}, "can never be"),
    ],
)
def test_what_is_wrong_is_refused_in_words(
    office: Department, client: Client, name: str, data: dict[str, str], text: str
) -> None:
    response = client.post(reverse(f"runs:{name}"), data)
    assert response.status_code == 422
    assert text in text_of(response)
    assert not RiskRule.objects.filter(name=RISK["name"]).exists()
    assert not AutoApproval.objects.exists()


def test_a_declared_rule_of_risk_keeps_its_name_and_stays(office: Department, client: Client) -> None:
    rule = make_risk(office, name="Hot lead", when={"facet": {"tier": ["Hot"]}})
    response = client.post(reverse("runs:risk_rule_edit", args=[rule.pk]), {**RISK, "name": "Else"})
    assert "keeps its name" in text_of(response)
    html = text_of(client.post(reverse("runs:risk_rule_delete", args=[rule.pk]), follow=True))
    assert "ships with Kontor" in html
    assert RiskRule.objects.filter(name="Hot lead").exists()


def test_others_find_nothing_and_get_is_refused(office: Department, client: Client) -> None:
    risk, approval = make_risk(office), make_approval(office)
    people: list[User] = [
        make_user("olga", department=office),
        make_user("stan", department=make_department(slug="other"), role=Member.Role.ADMINISTRATOR),
    ]
    for name, pk in (("risk_rule", risk.pk), ("auto_approval", approval.pk)):
        for verb in ("edit", "toggle", "delete", *(["move"] if name == "risk_rule" else [])):
            url = reverse(f"runs:{name}_{verb}", args=[pk])
            assert Client().post(url)["Location"].startswith(reverse("login"))
            assert client.get(url).status_code == (200 if verb == "edit" else 405)
            for person in people:
                other = Client()
                other.force_login(person)
                assert other.post(url, {"to": "off", "by": "up"}).status_code == 404
    assert RiskRule.objects.filter(pk=risk.pk, is_enabled=True).exists()
    assert AutoApproval.objects.filter(pk=approval.pk).exists()
    assert not Action.objects.exists()


def test_htmx_is_sent_back_to_the_list(office: Department, client: Client) -> None:
    url = reverse("runs:risk_rule_toggle", args=[make_risk(office).pk])
    response = client.post(url, {"to": "off"}, headers=HTMX)
    assert response.status_code == 204
    assert response["HX-Redirect"].startswith(reverse("runs:rules"))
