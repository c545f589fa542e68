"""manage.py demo_data: what the demo starts with, and that a second time changes nothing."""

from __future__ import annotations

import io

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from agents.models import Department, KnowledgeDocument, Member
from leads.models import Lead
from runs.models import Item

pytestmark = pytest.mark.django_db(transaction=True)


def prepare(monkeypatch: pytest.MonkeyPatch, password: str = "correct-horse") -> str:
    """Run the command; what it printed."""
    monkeypatch.setenv("DEMO_PASSWORD", password)
    out = io.StringIO()
    call_command("demo_data", stdout=out)
    return out.getvalue()


def test_it_prepares_department_user_documents_and_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    sales = Department.objects.get(slug="sales")
    assert sales.agents.count() == 10
    assert KnowledgeDocument.objects.filter(department=sales).count() >= 5
    assert 30 <= Lead.objects.filter(department=sales, source="samples").count() <= 50
    assert not Item.objects.filter(department=sales, route_due_at=None).exists()
    user = authenticate(username="demo", password="correct-horse")
    assert isinstance(user, User)
    assert user.is_superuser
    assert Member.objects.get(user=user, department=sales).role == Member.Role.ADMINISTRATOR


def test_a_second_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    Lead.objects.order_by("pk").first().item.delete()  # type: ignore[union-attr]
    leads = list(Lead.objects.values_list("pk", flat=True))
    documents = list(KnowledgeDocument.objects.values_list("pk", "updated_at"))
    user = User.objects.get(username="demo")
    assert f"stay ({len(leads)})" in prepare(monkeypatch)
    assert list(Lead.objects.values_list("pk", flat=True)) == leads
    assert list(KnowledgeDocument.objects.values_list("pk", "updated_at")) == documents
    assert User.objects.get(username="demo").password == user.password


def test_another_password_replaces_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    prepare(monkeypatch, "battery-staple")
    assert authenticate(username="demo", password="battery-staple")
    assert not authenticate(username="demo", password="correct-horse")


def test_without_a_password_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMO_PASSWORD", raising=False)
    with pytest.raises(CommandError, match="Set DEMO_PASSWORD"):
        call_command("demo_data")
    assert not Department.objects.exists()
