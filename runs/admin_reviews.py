"""Admin pages of what decides about drafts: rules of risk, and automatic approvals."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from agents.admin_access import ModelForm
from agents.models import Department
from runs.admin_noted import NotedAdmin
from runs.facts import agent_view
from runs.models import AutoApproval, RiskRule
from runs.risk import KNOWN_MARKS, MARKS, validate_risk_when
from runs.rules import CLAUSES

WHEN = "Every clause must hold. " + " ".join(
    f"{name}: {what}." for name, what in {**CLAUSES, MARKS: f"a list of {', '.join(KNOWN_MARKS)}; all are so"}.items()
)
RISKS = ((1, "1 low"), (2, "2 medium"), (3, "3 high"))


def _check_when(cleaned: dict[str, Any], department: Department | None) -> None:
    """Refuse clauses that nobody would understand."""
    if department is None:
        return
    agents = [agent_view(agent) for agent in department.agents.order_by("pk")]
    problems = validate_risk_when(cleaned.get("when", {}), kind=department.spec, agents=agents)
    if problems:
        raise ValidationError(problems)


class RiskRuleForm(ModelForm[RiskRule]):
    """When an item looks like this, a draft about it has at least this risk."""

    when = forms.JSONField(required=False, initial=dict, help_text=WHEN)
    risk = forms.TypedChoiceField(coerce=int, choices=RISKS)

    class Meta:
        model = RiskRule
        fields = ("department", "position", "name", "when", "risk", "is_enabled")

    def clean_when(self) -> Any:
        """Nothing at all is the rule that always holds."""
        return self.cleaned_data["when"] or {}

    def clean(self) -> dict[str, Any]:
        """As rules are checked."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            _check_when(cleaned, cleaned.get("department") or self.instance.department)
        return cleaned


class AutoApprovalForm(ModelForm[AutoApproval]):
    """Which drafts of one agent need no person."""

    when = forms.JSONField(required=False, initial=dict, help_text=WHEN)
    max_risk = forms.TypedChoiceField(coerce=int, choices=RISKS, initial=1)

    class Meta:
        model = AutoApproval
        fields = ("department", "agent", "name", "when", "max_risk", "sample_percent", "is_enabled")

    def clean_when(self) -> Any:
        """Nothing at all: every draft of the agent."""
        return self.cleaned_data["when"] or {}

    def clean(self) -> dict[str, Any]:
        """The agent belongs to the department; one that was revoked comes back on the page of rules, with a reason."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        department = cleaned.get("department") or (self.instance.department if self.instance.pk else None)
        if self.errors or department is None:
            return cleaned
        agent = cleaned.get("agent")
        if agent is not None and agent.department_id != department.pk:
            raise ValidationError(f"{agent} works in another department.")
        _check_when(cleaned, department)
        if cleaned.get("is_enabled") and self.instance.revoked_at is not None:
            raise ValidationError("It was switched off by itself. Switch it on under Rules, where you say why.")
        return cleaned


@admin.register(RiskRule)
class RiskRuleAdmin(NotedAdmin[RiskRule]):
    """Rules of risk. Those the kind declares are disabled instead of deleted or renamed."""

    form = RiskRuleForm
    list_display = ("name", "risk", "position", "is_enabled", "department")
    list_filter = ("department", "is_enabled")
    list_select_related = ("department",)

    def get_readonly_fields(self, request: HttpRequest, obj: RiskRule | None = None) -> tuple[str, ...]:
        """The next sync would bring a declared rule back under its old name."""
        if obj is None:
            return ()
        return ("department", "name") if _is_declared(obj) else ("department",)

    def has_delete_permission(self, request: HttpRequest, obj: RiskRule | None = None) -> bool:
        """Likewise."""
        return super().has_delete_permission(request, obj) and (obj is None or not _is_declared(obj))


@admin.register(AutoApproval)
class AutoApprovalAdmin(NotedAdmin[AutoApproval]):
    """Automatic approvals: off until somebody switches one on, and off by themselves after a rejection."""

    form = AutoApprovalForm
    list_display = ("name", "agent", "max_risk", "sample_percent", "is_enabled", "revoked_why", "department")
    list_filter = ("department", "is_enabled")
    list_select_related = ("department", "agent")

    def get_readonly_fields(self, request: HttpRequest, obj: AutoApproval | None = None) -> tuple[str, ...]:
        """It stays in its department; why it was revoked is shown."""
        return ("department", "revoked_at", "revoked_why") if obj else ()


def _is_declared(rule: RiskRule) -> bool:
    return rule.name in {declared.name for declared in rule.department.spec.risk_rules}
