"""What administrators set about drafts: rules of risk and automatic approvals."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.models import Department
from leads.department import SALES
from runs.models import Action, AutoApproval, RiskRule
from runs.syncing import sync_department
from tests.factories import agent_of, make_department

pytestmark = pytest.mark.django_db


@pytest.fixture
def sales() -> Department:
    sync_department(SALES)
    return Department.objects.get(slug="sales")


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def errors(response: Any) -> str:
    return " ".join(response.context["adminform"].form.errors.get("__all__", []))


def test_a_department_begins_with_the_rules_of_its_kind_and_keeps_its_own(sales: Department) -> None:
    assert list(sales.risk_rules.values_list("name", "risk")) == [
        ("Hot lead", 3),
        ("Unsupported claims", 2),
        ("First contact", 2),
        ("New SOUL, model or rule", 2),
    ]
    sales.risk_rules.filter(name="First contact").update(risk=1, is_enabled=False)
    report = sync_department(SALES)
    assert [str(found) for found in report.differences if "risk rule" in found.what] == [
        "risk rule “First contact”, risk: 1 here, 2 in code",
        "risk rule “First contact”, is_enabled: False here, True in code",
    ]
    assert sales.risk_rules.count() == 4


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ('{"facet": {"tier": ["Hot"]}, "marks": ["first_contact"]}', ""),
        ("{}", ""),
        ('{"mood": ["good"]}', "There is no clause “mood”."),
        ('{"marks": ["big_money"]}', "There is no mark “big_money”."),
        ('{"marks": []}', "takes a list of marks"),
        ('{"facet": {"tier": ["Lukewarm"]}}', "can never be"),
        ("[]", ""),
    ],
)
def test_a_rule_of_risk_is_checked_like_other_rules(sales: Department, root: Client, when: str, problem: str) -> None:
    data = {"department": sales.pk, "position": 9, "name": "Mine", "when": when, "risk": 3, "is_enabled": "on"}
    response = root.post(reverse("admin:runs_riskrule_add"), data)
    assert response.status_code == (200 if problem else 302)
    assert RiskRule.objects.filter(name="Mine").exists() is not bool(problem)
    if problem:
        assert problem in errors(response)


def test_a_declared_rule_is_disabled_and_not_deleted(sales: Department, root: Client) -> None:
    rule = sales.risk_rules.get(name="Hot lead")
    assert root.post(reverse("admin:runs_riskrule_delete", args=[rule.pk]), {"post": "yes"}).status_code == 403
    data = {"position": 1, "when": '{"facet": {"tier": ["Hot"]}}', "risk": 3}
    assert root.post(reverse("admin:runs_riskrule_change", args=[rule.pk]), data).status_code == 302
    rule.refresh_from_db()
    assert not rule.is_enabled


def test_an_automatic_approval_is_off_until_it_is_switched_on(sales: Department, root: Client) -> None:
    data: dict[str, Any] = {
        "department": sales.pk,
        "agent": agent_of(sales, "writer").pk,
        "name": "Warm",
        "when": '{"facet": {"tier": ["Warm"]}}',
        "max_risk": 1,
        "sample_percent": 10,
    }
    assert root.post(reverse("admin:runs_autoapproval_add"), data).status_code == 302
    rule = AutoApproval.objects.get()
    assert not rule.is_enabled
    AutoApproval.objects.update(revoked_at=timezone.now(), revoked_why="rita rejected a draft.")
    url = reverse("admin:runs_autoapproval_change", args=[rule.pk])
    response = root.post(url, {**data, "is_enabled": "on"})
    assert "Switch it on under Rules" in errors(response), "there a reason is asked for"
    rule.refresh_from_db()
    assert (rule.is_enabled, rule.revoked_why) == (False, "rita rejected a draft.")
    AutoApproval.objects.update(revoked_at=None, revoked_why="")
    assert root.post(url, {**data, "is_enabled": "on"}).status_code == 302
    rule.refresh_from_db()
    assert rule.is_enabled
    assert list(Action.objects.order_by("pk").values_list("verb", flat=True)) == [
        "auto_approval_add",
        "auto_approval_change",
    ]


def test_an_agent_of_another_department_is_refused(sales: Department, root: Client) -> None:
    other = make_department(slug="other")
    data = {"department": sales.pk, "agent": agent_of(other, "writer").pk, "name": "X", "when": "{}", "max_risk": 1}
    response = root.post(reverse("admin:runs_autoapproval_add"), {**data, "sample_percent": 10})
    assert "works in another department" in errors(response)
    assert not AutoApproval.objects.exists()
