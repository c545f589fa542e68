"""The rules of a department, those of risk, and what needs no person."""

from django.urls import path

from runs.views import risk_rules, rule_forms, rules

urlpatterns = [
    path("rules/", rules.rule_list, name="rules"),
    path("rules/new/", rule_forms.rule_new, name="rule_new"),
    path("rules/preview/", rule_forms.rule_preview, name="rule_preview"),
    path("rules/impact/", rule_forms.rule_impact, name="rule_impact"),
    path("rules/try/", rule_forms.rule_try, name="rule_try"),
    path("rules/<int:pk>/", rule_forms.rule_edit, name="rule_edit"),
    path("rules/<int:pk>/move/", rules.rule_move, name="rule_move"),
    path("rules/<int:pk>/change/", rules.rule_change, name="rule_change"),
    path("rules/<int:pk>/toggle/", rules.rule_toggle, name="rule_toggle"),
    path("rules/<int:pk>/delete/", rules.rule_delete, name="rule_delete"),
    path("rules/risk/new/", risk_rules.risk_rule_new, name="risk_rule_new"),
    path("rules/risk/<int:pk>/", risk_rules.risk_rule_edit, name="risk_rule_edit"),
    path("rules/risk/<int:pk>/move/", risk_rules.risk_rule_move, name="risk_rule_move"),
    path("rules/risk/<int:pk>/toggle/", risk_rules.risk_rule_toggle, name="risk_rule_toggle"),
    path("rules/risk/<int:pk>/delete/", risk_rules.risk_rule_delete, name="risk_rule_delete"),
    path("rules/approvals/new/", risk_rules.auto_approval_new, name="auto_approval_new"),
    path("rules/approvals/<int:pk>/", risk_rules.auto_approval_edit, name="auto_approval_edit"),
    path("rules/approvals/<int:pk>/toggle/", risk_rules.auto_approval_toggle, name="auto_approval_toggle"),
    path("rules/approvals/<int:pk>/delete/", risk_rules.auto_approval_delete, name="auto_approval_delete"),
]
