"""Writing a rule: the form, its sentence while one types, what it would change, and what it does to one item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from agents.models import Department, Member
from runs import rule_editing
from runs.access import access_of, get_visible, require, signed_in
from runs.facts import load_facts
from runs.models import Item, Rule
from runs.router import Router
from runs.rule_editing import agent_views, stamp
from runs.rule_impact import Impact, foresee, rules_in_force, rules_with
from runs.rule_trials import Trial, try_rules
from runs.rules import CLAUSES
from runs.views.answers import is_htmx
from runs.views.chosen import chosen_department
from runs.views.forms import read_number
from runs.views.rule_drafts import JSON, RuleForm, confirmation, empty_form, sent_form, stored_form
from runs.views.rules import done, impact_context, read_limit, rules_url, soon

Role = Member.Role
FOUND = 8
"""So many items are offered when one is looked for."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a form is about: the rule that is changed, None for a new one, and who changes it."""

    department: Department
    rule: Rule | None
    user: User


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def rule_new(request: HttpRequest) -> HttpResponse:
    """The form of a new rule; sent, it is saved behind all others."""
    department = chosen_department(request)
    user = require(request, department.pk, Role.ADMINISTRATOR)
    subject = Subject(department, None, user)
    if request.method == "POST":
        return _save(request, subject)
    return _page(request, subject, empty_form(department, has_want=True))


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def rule_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The form of a rule; sent, it is saved. What would start or stop has to be confirmed first."""
    rule = get_visible(request, Rule.objects.select_related("department"), pk=pk)
    subject = Subject(rule.department, rule, require(request, rule.department_id, Role.ADMINISTRATOR))
    if request.method == "POST":
        return _save(request, subject)
    return _page(request, subject, stored_form(rule.department, rule, has_want=True))


@signed_in
@require_POST
def rule_preview(request: HttpRequest) -> HttpResponse:
    """The sentence of the rule as it stands in the form, or what is wrong with it. Saves nothing."""
    subject = _subject(request)
    form = sent_form(subject.department, request.POST, has_want=True)
    if is_htmx(request):
        return render(request, "runs/_rule_preview.html", {"form": form})
    return _page(request, subject, form)


@signed_in
@require_POST
def rule_impact(request: HttpRequest) -> HttpResponse:
    """What the rule as it stands in the form would change for the latest items. Saves nothing."""
    subject = _subject(request)
    form = sent_form(subject.department, request.POST, has_want=True)
    context: dict[str, Any] = {"form": form, "limit": read_limit(request.POST.get("n"))}
    if not form.errors:
        impact = _foresee(subject, form, context["limit"])
        context |= impact_context(subject.department, impact)
    if is_htmx(request):
        return render(request, "runs/_rule_impact.html", context)
    return _page(request, subject, form, context)


@signed_in
@require_POST
def rule_try(request: HttpRequest) -> HttpResponse:
    """The router's decision about one item under the draft beside that under the rules in force. Saves nothing.

    ``item`` is its id; without one, ``q`` is looked for and what was found is offered.
    """
    subject = _subject(request)
    form = sent_form(subject.department, request.POST, has_want=True)
    context = {"form": form, "q": request.POST.get("q", "").strip()[:100], "label": subject.department.spec.item_label}
    if not form.errors:
        context |= _tried(request, subject, form)
    if is_htmx(request):
        return render(request, "runs/_rule_trial.html", context)
    return _page(request, subject, form, context)


def _tried(request: HttpRequest, subject: Subject, form: RuleForm) -> dict[str, Any]:
    department = subject.department
    number = read_number(request.POST.get("item", ""))
    if number is None:
        return {"found": _search(department, request.POST.get("q", "").strip()[:100])}
    item = get_visible(request, Item.objects.filter(department=department), pk=number)
    item.department = department
    facts = load_facts([item], now=timezone.now())[item.pk]
    agents, after = agent_views(department), _rules_after(subject, form)
    before = Router(rules_in_force(department), agents)
    trial: Trial = try_rules(before, Router(after, agents), facts, department.spec)
    titles = {agent.slug: agent.title for agent in department.agents.all()}
    status = department.spec.status_spec(trial.facts.status).label
    return {"item": item, "trial": trial, "titles": titles, "status_label": status}


def _search(department: Department, text: str) -> list[Item]:
    """Some of the latest items that the kind's own list would find."""
    rows = Item.objects.filter(department=department)
    if text and department.spec.select is not None:
        rows = department.spec.select(department, {"q": text})
    elif text:
        rows = rows.filter(title__icontains=text)
    return list(rows.order_by("-pk").only("pk", "title", "status")[:FOUND])


def _save(request: HttpRequest, subject: Subject) -> HttpResponse:
    form = sent_form(subject.department, request.POST, has_want=True)
    if switch := request.POST.get("switch", ""):
        form.as_json() if switch == JSON else form.as_fields()
        return _page(request, subject, form)
    if not form.errors:
        lines = rule_editing.check_draft(form.draft, subject.department, rule=subject.rule)
        if lines:
            form.errors["form"] = lines
    if form.errors:
        return _page(request, subject, form, status=422)
    if request.POST.get("confirmed") != confirmation(form.draft):
        impact = _foresee(subject, form, read_limit(request.POST.get("n")))
        if impact.groups:
            context = {"is_asking": True, "limit": read_limit(request.POST.get("n"))}
            return _page(request, subject, form, context | impact_context(subject.department, impact))
    saved = rule_editing.save_rule(
        department=subject.department,
        user=subject.user,
        draft=form.draft,
        rule=subject.rule,
        seen=request.POST.get("seen", ""),
    )
    if saved.row is None:
        form.errors["form"] = list(saved.problems)
        return _page(request, subject, form, status=422)
    messages.success(request, f"“{saved.row.name}” is saved. {soon(request, subject.department)}")
    return done(request, subject.department, f"rule-{saved.row.pk}")


def _subject(request: HttpRequest) -> Subject:
    """What the form is about, by its ``rule`` and ``for`` (the department's slug)."""
    if number := read_number(request.POST.get("rule", "")):
        rule = get_visible(request, Rule.objects.select_related("department"), pk=number)
        return Subject(rule.department, rule, require(request, rule.department_id, Role.ADMINISTRATOR))
    slug = request.POST.get("for", "")
    department = next((each for each in access_of(request).departments if each.slug == slug), None)
    department = department or chosen_department(request)
    return Subject(department, None, require(request, department.pk, Role.ADMINISTRATOR))


def _rules_after(subject: Subject, form: RuleForm) -> Any:
    rows = list(subject.department.rules.order_by("position", "pk"))
    return rules_with(rows, form.draft.view if form.is_enabled else None, instead_of=subject.rule)


def _foresee(subject: Subject, form: RuleForm, limit: int) -> Impact:
    return foresee(subject.department, _rules_after(subject, form), limit=limit)


def _page(
    request: HttpRequest, subject: Subject, form: RuleForm, more: dict[str, Any] | None = None, *, status: int = 200
) -> HttpResponse:
    rule = subject.rule
    here = (
        reverse("runs:rule_edit", args=[rule.pk])
        if rule
        else rules_url(subject.department).replace(reverse("runs:rules"), reverse("runs:rule_new"))
    )
    context = {
        "access": access_of(request),
        "department": subject.department,
        "label": subject.department.spec.item_label,
        "rule": rule,
        "form": form,
        "here": here,
        "list_url": rules_url(subject.department),
        # What was seen when the form was first opened, else a second try would overwrite what came between.
        "seen": request.POST.get("seen", stamp(rule) if rule else ""),
        "confirmed": confirmation(form.draft),
        "is_declared": rule is not None and rule_editing.is_declared(rule),
        "clauses": CLAUSES,
        "limit": read_limit(request.POST.get("n")),
        **(more or {}),
    }
    return render(request, "runs/rule_form.html", context, status=status)
