"""The forms behind the admin pages of departments, agents, rules, budgets and suppressions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from croniter import croniter
from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from agents.admin_access import ModelForm
from agents.efforts import why_not_effort
from agents.models import Agent, Budget, Department
from agents.pricing import UnknownPrice, load_price_book
from agents.settings_form import PREFIX, form_fields, read_settings
from agents.spec import ITEM, DepartmentSpec, kinds
from agents.syncing import default_settings
from agents.tools import tool
from runs.addresses import normalise_entry
from runs.budget_floors import copy_with, why_too_small
from runs.facts import agent_view, rule_view
from runs.models import Rule, Suppression
from runs.router import RuleView
from runs.rules import CLAUSES, check_configuration, check_rule, validate_rule
from runs.variables import variables_in, why_not_name

MAX_OUTPUT_TOKENS = 128_000
MAX_TIMEOUT_SECONDS = 300
"""A shift drains for this long; a call that may take longer would be cut off at every deployment."""

_LIMITS = ("limit_usd", "limit_tokens")
CHOSEN = ("needs", "uses", "fields", "settings_keys", "tools", "serves")
"""Columns of ``Agent`` that hold a list of known words, shown as ticks."""


class NewDepartmentForm(ModelForm[Department]):
    """What a new department needs; its agents, SOULs, rules and settings come from the kind."""

    kind = forms.ChoiceField()

    class Meta:
        model = Department
        fields = ("kind", "slug", "name", "time_zone")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = self.fields["kind"]
        if isinstance(kind, forms.ChoiceField):
            kind.choices = [(spec.kind, spec.label) for spec in kinds()]

    def clean(self) -> dict[str, Any]:
        """The settings begin with the kind's defaults, so that the model's own check has something to check."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        spec = next((spec for spec in kinds() if spec.kind == cleaned.get("kind")), None)
        if spec is not None:
            self.instance.settings = default_settings(spec)
        return cleaned


class DepartmentForm(ModelForm[Department]):
    """An existing department. ``department_form`` adds a field for each of its settings."""

    class Meta:
        model = Department
        fields = ("name", "time_zone", "schedule", "api_key_env", "webhook_secret_env")
        labels = {
            "api_key_env": "Environment variable of the API key",
            "webhook_secret_env": "Environment variable of the webhooks’ secret",
        }

    def clean_schedule(self) -> str:
        """A cron expression of five fields, or nothing."""
        schedule = " ".join(self.cleaned_data["schedule"].split())
        if schedule and not (len(schedule.split(" ")) == 5 and croniter.is_valid(schedule)):
            raise ValidationError(
                "This is no cron expression. Write minute, hour, day, month and weekday, for example 0 */6 * * *."
            )
        return schedule

    def clean(self) -> dict[str, Any]:
        """Put the settings together again and have the kind's schema check them."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        spec = self.instance.spec
        settings, errors = read_settings(spec.settings_schema, cleaned, self.instance.settings)
        for name, sentences in errors.items():
            for sentence in sentences:
                is_here = name in self.fields
                self.add_error(name if is_here else None, sentence if is_here else f"{name[len(PREFIX) :]}: {sentence}")
        # After an error nothing is saved; the defaults keep the model's check from saying it a second time.
        self.instance.settings = default_settings(spec) if errors or self.errors else settings
        return cleaned


def department_form(
    department: Department, columns: Sequence[str] | None = None, keys: Collection[str] | None = None
) -> type[DepartmentForm]:
    """The form of one department, with a field for each setting of its kind, named ``settings_<key>``.

    ``columns`` and ``keys``: only these columns and settings, else all of them.
    """
    fields: dict[str, Any] = dict(form_fields(department.spec.settings_schema, department.settings, keys))
    if columns is not None:
        fields["Meta"] = type("Meta", (DepartmentForm.Meta,), {"fields": tuple(columns)})
    return type("DepartmentForm", (DepartmentForm,), fields)


class RuleForm(ModelForm[Rule]):
    """A rule, tried on the kind's samples before it is saved."""

    class Meta:
        model = Rule
        fields = ("department", "position", "name", "when", "want", "is_enabled")
        help_texts = {
            "when": "Every clause must hold. " + " ".join(f"{name}: {what}." for name, what in CLAUSES.items()),
            "want": 'The output keys that are then wanted, for example ["email"].',
        }

    def clean_when(self) -> Any:
        """Nothing at all is the rule that always holds."""
        return self.cleaned_data["when"] or {}

    def clean(self) -> dict[str, Any]:
        """Refuse what the router would not understand, and an enabled rule that undoes itself on a sample."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        department: Department | None = cleaned.get("department") or _department_of(self.instance)
        if self.errors or department is None:
            return cleaned
        agents = [agent_view(agent) for agent in department.agents.order_by("pk")]
        when, want = cleaned.get("when", {}), cleaned.get("want")
        problems = validate_rule(when, want, kind=department.spec, agents=agents)
        if not problems and cleaned.get("is_enabled"):
            others = department.rules.filter(is_enabled=True).exclude(pk=self.instance.pk)
            name = cleaned.get("name") or self.instance.name
            problems = check_rule(
                RuleView(name=name, when=when, want=tuple(want or ())),
                kind=department.spec,
                rules=[rule_view(rule) for rule in others],
                agents=agents,
            )
        if problems:
            raise ValidationError(problems)
        return cleaned


class BudgetForm(ModelForm[Budget]):
    """A limit, of at least one kind, above zero."""

    class Meta:
        model = Budget
        fields = ("department", "agent", "model", "period", "limit_usd", "limit_tokens", "is_enabled")

    def clean(self) -> dict[str, Any]:
        """The agent belongs to the department, the model has a price, no limit is below zero."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        department = cleaned.get("department") or _department_of(self.instance)
        agent: Agent | None = cleaned.get("agent")
        if agent is not None and department is not None and agent.department_id != department.pk:
            self.add_error("agent", f"{agent.slug} works in another department.")
        if cleaned.get("model") and cleaned["model"] not in load_price_book().models:
            self.add_error("model", f"No price is known for {cleaned['model']}, so nothing would ever count here.")
        for name in _LIMITS:
            if cleaned.get(name) is not None and cleaned[name] < 0:
                self.add_error(name, "A limit is not below zero.")
        # What is not changed is not looked at: more may be allowed once of a budget that has become too small.
        if not self.errors and (self.instance.pk is None or {*_LIMITS, "is_enabled"} & {*self.changed_data}):
            for name, sentence in why_too_small(copy_with(self.instance, cleaned)).items():
                self.add_error(name, sentence)
        return cleaned


class SuppressionForm(ModelForm[Suppression]):
    """An address, or ``@domain``, that no department writes to."""

    class Meta:
        model = Suppression
        fields = ("address", "reason", "note")

    def clean_address(self) -> str:
        """In the form in which addresses are compared."""
        try:
            return normalise_entry(self.cleaned_data["address"])
        except ValueError as error:
            raise ValidationError(f"Enter a valid email address, or @domain: {error}") from error


class AgentForm(ModelForm[Agent]):
    """One agent, with the words that each of its lists may hold."""

    user: User | None = None
    """Who fills it in."""

    fallback_models = forms.CharField(
        required=False, help_text="In the order in which they are tried, separated by commas."
    )

    class Meta:
        model = Agent
        fields = "__all__"  # noqa: DJ007 - the admin page chooses the fields

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, words in agent_choices(self.instance).items():
            if name in self.fields:
                self.fields[name] = _ticks(self.fields[name], words)
        if "fallback_models" in self.fields:
            self.initial["fallback_models"] = ", ".join(self.instance.fallback_models)
        self._offer_people()

    def clean_fallback_models(self) -> list[str]:
        """The models that are tried next, each with a price."""
        names = [name.strip() for name in self.cleaned_data["fallback_models"].split(",")]
        models = [name for name in names if name]
        for model in models:
            _require_price(model)
        return models

    def clean_model(self) -> str:
        """A model that has a price today."""
        model: str = self.cleaned_data["model"]
        _require_price(model)
        return model

    def clean_tools(self) -> list[str]:
        """Tools that this release has."""
        names: list[str] = self.cleaned_data["tools"]
        for name in names:
            try:
                tool(name)
            except KeyError as error:
                raise ValidationError(str(error.args[0])) from error
        return names

    def clean_max_tokens(self) -> int:
        """1 to 128,000, what the largest models write at once."""
        return _between(self.cleaned_data["max_tokens"], 1, MAX_OUTPUT_TOKENS, "tokens")

    def clean_timeout_seconds(self) -> int:
        """5 to 300 seconds."""
        return _between(self.cleaned_data["timeout_seconds"], 5, MAX_TIMEOUT_SECONDS, "seconds")

    def clean_reports_to(self) -> Agent | None:
        """An agent of the same department that does not itself report, however indirectly, to this one."""
        superior: Agent | None = self.cleaned_data["reports_to"]
        above = superior
        while above is not None:
            if above.pk == self.instance.pk:
                raise ValidationError("The chain of command would be a circle.")
            above = above.reports_to
        return superior

    def clean(self) -> dict[str, Any]:
        """Lists keep their order, and the department's agents must still fit together."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for name in CHOSEN:
            if name in cleaned:
                before = getattr(self.instance, name)
                cleaned[name] = _in_order(before, cleaned[name])
        if {"model", "fallback_models", "effort"} & set(self.changed_data):
            self._check_effort(cleaned)
        if "escalate_channel" in self.changed_data and self.user is not None:
            names = variables_in(cleaned.get("escalate_channel", ""))
            if problem := why_not_name(department=self.instance.department, user=self.user, names=names):
                self.add_error("escalate_channel", problem)
        if not self.errors:
            self._check_wiring(cleaned)
        return cleaned

    def _check_effort(self, cleaned: Mapping[str, Any]) -> None:
        """The API refuses every request with an effort that its model does not take; fallbacks get the same one."""
        for model in dict.fromkeys([cleaned.get("model", ""), *cleaned.get("fallback_models", ())]):
            if problem := why_not_effort(cleaned.get("effort", ""), model):
                self.add_error("effort", problem)

    def _check_wiring(self, cleaned: Mapping[str, Any]) -> None:
        """Refuse what does not fit now and did fit before: an old fault must not keep anybody from a repair."""
        agent = self.instance
        stored = Agent.objects.get(pk=agent.pk)
        colleagues = Agent.objects.filter(department=agent.department_id).exclude(pk=agent.pk)
        others = [agent_view(each) for each in colleagues]
        rules = [rule_view(rule) for rule in Rule.objects.filter(department=agent.department_id, is_enabled=True)]
        before = check_configuration(rules, [*others, agent_view(stored)])
        for name, value in cleaned.items():
            setattr(stored, name, value)
        after = check_configuration(rules, [*others, agent_view(stored)])
        if fresh := [line for line in after if line not in before]:
            raise ValidationError(fresh)

    def _offer_people(self) -> None:
        department = self.instance.department_id
        superior, person = self.fields.get("reports_to"), self.fields.get("escalate_to")
        if isinstance(superior, forms.ModelChoiceField):
            team = Agent.objects.filter(department=department)
            superior.queryset = team.exclude(pk=self.instance.pk)
        if isinstance(person, forms.ModelChoiceField):
            members = Q(memberships__department=department) | Q(is_superuser=True)
            person.queryset = User.objects.filter(members, is_active=True).distinct()


def agent_choices(agent: Agent) -> dict[str, list[str]]:
    """For each list of an agent the words it may hold; a word that it holds already stays possible."""
    spec = agent.department.spec
    team = list(Agent.objects.filter(department=agent.department_id))
    keys = _union([each.writes] for each in team)
    known = {
        "needs": keys,
        "uses": keys,
        "fields": _union(each.fields for each in spec.agents),
        "settings_keys": list(spec.settings_schema.model_fields),
        "tools": _union(each.tools for each in spec.agents),
        "serves": occasion_kinds(spec),
    }
    return {name: _union((words, getattr(agent, name))) for name, words in known.items()}


def occasion_kinds(spec: DepartmentSpec) -> list[str]:
    """The kinds of occasion that the kind's agents and rules know."""
    triggers = (rule.when.get("trigger", ()) for rule in spec.rules)
    return _union(([ITEM], *(each.serves for each in spec.agents), *triggers))


def _department_of(row: Rule | Budget) -> Department | None:
    return row.department if row.department_id else None


def _union(lists: Iterable[Iterable[str]]) -> list[str]:
    """Every word once, in the order in which they come."""
    return list(dict.fromkeys(word for words in lists for word in words))


def _ticks(field: forms.Field, words: list[str]) -> forms.MultipleChoiceField:
    return forms.MultipleChoiceField(
        choices=[(word, word) for word in words],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        label=field.label,
        help_text=field.help_text,
    )


def _in_order(before: list[str], chosen: list[str]) -> list[str]:
    """What was there keeps its place, what is new comes after it: the order is the order of the prompt."""
    return [word for word in before if word in chosen] + [word for word in chosen if word not in before]


def _require_price(model: str) -> None:
    try:
        load_price_book().price_for(model, timezone.now().date())
    except UnknownPrice as error:
        raise ValidationError(str(error)) from error


def _between(value: int, least: int, most: int, unit: str) -> int:
    if not least <= value <= most:
        raise ValidationError(f"{least:,} to {most:,} {unit}.")
    return value
