"""Admin pages: departments, agents, rules, budgets, suppressions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import BigIntegerField, DecimalField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html

from agents.admin_access import ScopedAdmin, SuperuserAdmin, TabularInline
from agents.models import Agent, Budget, BudgetPeriod, Department, Member
from agents.settings_form import PREFIX
from agents.souls import published_soul
from agents.spec import kind
from runs import (  # noqa: F401 - register the channels, what is read only, and what decides drafts
    admin_channels,
    admin_engine,
    admin_reviews,
)
from runs.admin_forms import (
    AgentForm,
    BudgetForm,
    NewDepartmentForm,
    RuleForm,
    SuppressionForm,
    department_form,
)
from runs.admin_noted import NotedAdmin
from runs.budget_changes import CHANGEABLE, EXTRAS, change_budget, create_budget, delete_budget, set_extras
from runs.models import Rule, Suppression
from runs.rules import rule_sentence
from runs.settings_editing import COLUMNS, write_changes
from runs.syncing import sync_department

_GONE = "This budget was deleted meanwhile: nothing was changed."


class MemberInline(TabularInline[Member, Department]):
    """Who works in the department, and as what. Administrators change roles and remove people.

    Only superusers add people: the list of all users of the installation is no client's business.
    """

    model = Member
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(getattr(request.user, "is_superuser", False))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Likewise."""
        return () if self.has_add_permission(request) else ("user",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change the department; the page has asked already."""
        return True

    has_change_permission = has_delete_permission = has_view_permission


@admin.register(Department)
class DepartmentAdmin(ScopedAdmin[Department]):
    """A new one is made from its kind; an existing one is configured, each setting in a field of its own."""

    department_path = "pk"
    list_display = ("name", "slug", "kind", "state", "schedule", "schedule_next_at")
    inlines = (MemberInline,)
    readonly_fields = ("kind", "slug", "state", "schedule_last_at", "schedule_next_at", "stopped_by_error")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A new client is the installation's business."""
        return bool(getattr(request.user, "is_superuser", False))

    def has_delete_permission(self, request: HttpRequest, obj: Department | None = None) -> bool:
        """Likewise. The database refuses it once the department has items, runs or calls."""
        return self.has_add_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Department | None = None) -> tuple[str, ...]:
        """Kind and slug are chosen once; the state has its own switch, which says what it will do."""
        return () if obj is None else self.readonly_fields

    def get_fieldsets(self, request: HttpRequest, obj: Department | None = None) -> Any:
        """The kind's settings follow the department's own fields."""
        if obj is None:
            return [(None, {"fields": ("kind", "slug", "name", "time_zone")})]
        keys = obj.spec.settings_schema.model_fields
        schedule = ("schedule", "schedule_last_at", "schedule_next_at")
        return [
            (None, {"fields": ("name", "kind", "slug", "state", "stopped_by_error", "time_zone", *schedule)}),
            ("Settings", {"fields": tuple(PREFIX + key for key in keys)}),
            ("Secrets", {"fields": ("api_key_env", "webhook_secret_env")}),
        ]

    def get_form(self, request: HttpRequest, obj: Department | None = None, change: bool = False, **kwargs: Any) -> Any:
        """A form whose settings are those of the department's kind."""
        form = NewDepartmentForm if obj is None else department_form(obj)
        return super().get_form(request, obj, change, **{**kwargs, "form": form})

    def get_inlines(self, request: HttpRequest, obj: Department | None) -> Any:
        """Members once there is something to be a member of."""
        return () if obj is None else self.inlines

    def save_model(
        self, request: HttpRequest, obj: Department, form: forms.ModelForm[Department], change: bool
    ) -> None:
        """A new department gets everything that its kind declares."""
        if change:
            self._save_settings(request, obj, form)
            return
        sync_department(kind(obj.kind), slug=obj.slug, name=obj.name)
        obj.pk = Department.objects.get(slug=obj.slug).pk
        obj.save(force_update=True, update_fields=["time_zone"])

    def response_add(self, request: HttpRequest, obj: Department, post_url_continue: str | None = None) -> HttpResponse:
        """On to what the new department still needs before anything may leave it."""
        return redirect("runs:first_steps", obj.slug)

    def _save_settings(self, request: HttpRequest, obj: Department, form: forms.ModelForm[Department]) -> None:
        """The same way as the pages of settings: what is changed is an Action."""
        values = {name: getattr(obj, name) for name in form.changed_data if name in COLUMNS}
        if any(name.startswith(PREFIX) for name in form.changed_data):
            values |= obj.settings
        if isinstance(request.user, User):
            with transaction.atomic():
                held = Department.objects.select_for_update(no_key=True).get(pk=obj.pk)
                allowed = write_changes(held, request.user, values)
            if not allowed and form.changed_data:
                self.message_user(request, f"Settings: {allowed.reason}", messages.ERROR)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Who may delete a department may delete what it is made of; protected rows still refuse."""
        deleted, counts, _, protected = super().get_deleted_objects(objs, request)
        return deleted, counts, set(), protected


@admin.register(Agent)
class AgentAdmin(ScopedAdmin[Agent]):
    """Agents come from the kind; here they are tuned. What is bound to code (key, scope) is only shown."""

    form = AgentForm
    list_display = ("slug", "department", "model", "effort", "writes", "reports_to", "is_enabled", "soul")
    list_filter = ("is_enabled", "model")
    search_fields = ("slug", "job")
    list_select_related = ("department", "reports_to")
    readonly_fields = ("department", "slug", "writes", "scope", "soul")
    fieldsets = (
        (None, {"fields": ("department", "slug", "job", "is_enabled", "soul")}),
        ("Model", {"fields": ("model", "fallback_models", "effort", "max_tokens", "timeout_seconds")}),
        (
            "What it takes and writes",
            {
                "fields": (
                    *("writes", "scope", "serves", "needs", "uses", "fields", "field_chars"),
                    *("settings_keys", "conversation", "tools"),
                )
            },
        ),
        (
            "Who answers for it",
            {
                "fields": (
                    *("output_policy", "reports_to", "escalate_to", "escalate_channel"),
                    "latency_target_seconds",
                )
            },
        ),
    )

    def get_form(self, request: HttpRequest, obj: Agent | None = None, change: bool = False, **kwargs: Any) -> Any:
        """The form knows who asks."""
        form = super().get_form(request, obj, change, **kwargs)
        form.user = request.user  # type: ignore[attr-defined]
        return form

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Agents are declared in code, because their output has a schema there."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Agent | None = None) -> bool:
        """Declared ones would come back with the next sync, and runs refer to the others: disable instead."""
        return False

    @admin.display(description="SOUL")
    def soul(self, agent: Agent) -> str:
        """The version in force, and where it is edited."""
        soul = published_soul(agent)
        text = f"SOUL {soul.number}" if soul else "none"
        return format_html('{} · <a href="{}">edit</a>', text, reverse("runs:soul_edit", args=[agent.pk]))


@admin.register(Rule)
class RuleAdmin(NotedAdmin[Rule]):
    """Rules, each as its sentence. Those the kind declares are disabled instead of deleted or renamed."""

    form = RuleForm
    list_display = ("sentence", "name", "position", "is_enabled", "department")
    list_display_links = ("sentence",)
    list_filter = ("department", "is_enabled")
    list_select_related = ("department",)
    fields = ("sentence", "department", "position", "name", "when", "want", "is_enabled")

    def get_readonly_fields(self, request: HttpRequest, obj: Rule | None = None) -> tuple[str, ...]:
        """The next sync would bring a declared rule back under its old name."""
        if obj is None:
            return ("sentence",)
        return ("sentence", "department", "name") if _is_declared(obj) else ("sentence", "department")

    def has_delete_permission(self, request: HttpRequest, obj: Rule | None = None) -> bool:
        """Likewise."""
        return super().has_delete_permission(request, obj) and (obj is None or not _is_declared(obj))

    @admin.display(description="rule", ordering="position")
    def sentence(self, rule: Rule) -> str:
        """What a person reads."""
        return rule_sentence(rule, rule.department.spec) if rule.pk else "Shown once it is saved."


class BudgetPeriodInline(TabularInline[BudgetPeriod, Budget]):
    """What was reserved and spent; an extra can be allowed once."""

    model = BudgetPeriod
    extra = 0
    max_num = 0
    can_delete = False
    ordering = ("-starts_at",)
    readonly_fields = (*("starts_at", "ends_at", "reserved_usd", "spent_usd", "reserved_tokens", "spent_tokens"),)
    fields = (*readonly_fields, *EXTRAS)
    formfield_overrides = {DecimalField: {"min_value": Decimal(0)}, BigIntegerField: {"min_value": 0}}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change the budget; the page has asked already."""
        return True

    has_change_permission = has_view_permission


@admin.register(Budget)
class BudgetAdmin(ScopedAdmin[Budget]):
    """Raising a budget makes the runs that wait for it due at once."""

    form = BudgetForm
    list_display = ("__str__", "limit_usd", "limit_tokens", "is_enabled")
    list_filter = ("department", "period", "is_enabled")
    list_select_related = ("department", "agent")
    inlines = (BudgetPeriodInline,)
    fields = ("department", "agent", "model", "period", "limit_usd", "limit_tokens", "is_enabled")

    def get_readonly_fields(self, request: HttpRequest, obj: Budget | None = None) -> tuple[str, ...]:
        """What a budget counts stays, else what it has counted would be wrong."""
        return ("department", "agent", "model", "period") if obj else ()

    def get_inlines(self, request: HttpRequest, obj: Budget | None) -> Any:
        """Periods are made by what is spent."""
        return () if obj is None else self.inlines

    def save_model(self, request: HttpRequest, obj: Budget, form: Any, change: bool) -> None:
        """As on the costs page: who did it and what was before is written down."""
        user = cast(User, request.user)
        if not change:
            create_budget(budget=obj, user=user)
            return
        changes = {name: form.cleaned_data[name] for name in form.changed_data if name in CHANGEABLE}
        try:
            change_budget(budget=obj, changes=changes, user=user)
        except Budget.DoesNotExist as error:
            raise Http404(_GONE) from error

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Only what was allowed once: workers reserve and spend in the same rows meanwhile."""
        formset.save(commit=False)
        for period, names in formset.changed_objects:
            extras = {name: getattr(period, name) for name in names if name in EXTRAS}
            try:
                set_extras(period=period, extras=extras, user=cast(User, request.user))
            except Budget.DoesNotExist as error:
                raise Http404(_GONE) from error
        formset.save_m2m()

    def delete_model(self, request: HttpRequest, obj: Budget) -> None:
        """Without the budget nothing waits for it."""
        delete_budget(budget=obj, user=cast(User, request.user))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """One after the other, so that each is written down."""
        for budget in queryset.select_related("department", "agent"):
            delete_budget(budget=budget, user=cast(User, request.user))


@admin.register(Suppression)
class SuppressionAdmin(SuperuserAdmin[Suppression]):
    """Holds in every department of the installation, and so belongs to none of their administrators."""

    form = SuppressionForm
    list_display = ("address", "reason", "note", "created_at")
    list_filter = ("reason",)
    search_fields = ("address", "note")


def _is_declared(rule: Rule) -> bool:
    return rule.name in {declared.name for declared in rule.department.spec.rules}
