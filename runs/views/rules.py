"""The rules of a department: the list in sentences, and what is done to one of them as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Agent, Department, Member
from runs import rule_editing
from runs.access import access_of, get_visible, require, signed_in
from runs.facts import agent_view, load_facts, rule_view
from runs.models import AgentRun, AutoApproval, Item, RiskRule, Rule
from runs.risk import RISK_WORDS, approval_sentence, risk_sentence
from runs.router import Router
from runs.rule_editing import is_declared, stamp
from runs.rule_impact import USUAL, Impact, foresee, rules_with
from runs.rules import check_configuration, rule_sentence
from runs.schedules import look_soon
from runs.views.answers import is_htmx
from runs.views.chosen import chosen_department
from runs.views.estimates import price_steps
from runs.views.forms import read_number

Role = Member.Role
LATEST_ITEMS = 100
"""For how many of so many items a rule holds is counted: the page has to be there at once."""
LATEST_STEPS = 500
"""When a rule last set something off is looked up among so many steps that are done."""
CHANGES = ("enable", "disable", "delete")


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule of the list. ``holds``: for how many of the items that were looked at it holds now."""

    rule: Rule
    place: int
    sentence: str
    holds: int
    used_at: datetime | None
    is_declared: bool
    stamp: str


@signed_in
@require_safe
def rule_list(request: HttpRequest) -> HttpResponse:
    """The rules in their order, and below them what decides the risk of drafts and who approves them."""
    department = chosen_department(request)
    context = {**list_context(request, department), **_beside(department)}
    return render(request, "runs/rules.html", context)


@signed_in
@require_POST
def rule_move(request: HttpRequest, pk: int) -> HttpResponse:
    """Move a rule ``by`` -1 or 1, or ``to`` a place."""
    rule = get_visible(request, Rule.objects.select_related("department"), pk=pk)
    user = require(request, rule.department_id, Role.ADMINISTRATOR)
    ids = list(
        Rule.objects.filter(department=rule.department_id).order_by("position", "pk").values_list("pk", flat=True)
    )
    place = ids.index(rule.pk) + 1
    to = {"up": place - 1, "down": place + 1}.get(request.POST.get("by", ""), read_number(request.POST.get("to", "")))
    if to is None:
        messages.warning(request, "Say to which place, as a number from 1.")
    elif allowed := rule_editing.move(row=rule, user=user, to=to):
        text = f"“{rule.name}” is at place {min(max(to, 1), len(ids))}. Nothing starts or stops by the order: it says "
        messages.success(request, text + "which rule is named as the reason where several want the same.")
    else:
        messages.warning(request, allowed.reason)
    if is_htmx(request):
        # The menu in which a place was typed is closed by now: the keys go on from its row.
        moved = rule.pk if "to" in request.POST else None
        context = {**list_context(request, rule.department), "is_part": True, "moved": moved}
        return render(request, "runs/_rule_list.html", context)
    return redirect(f"{rules_url(rule.department)}#rule-{rule.pk}")


@signed_in
@require_safe
def rule_change(request: HttpRequest, pk: int) -> HttpResponse:
    """What would change if the rule were enabled, disabled or deleted (``?do=``), and the button that does it."""
    rule = get_visible(request, Rule.objects.select_related("department"), pk=pk)
    require(request, rule.department_id, Role.ADMINISTRATOR)
    do = request.GET.get("do", "")
    do = do if do in CHANGES else ("disable" if rule.is_enabled else "enable")
    return render(request, "runs/rule_change.html", change_context(request, rule, do, read_limit(request.GET.get("n"))))


@signed_in
@require_POST
def rule_toggle(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable (``to=on``) or disable (``to=off``) a rule."""
    rule = get_visible(request, Rule.objects.select_related("department"), pk=pk)
    user = require(request, rule.department_id, Role.ADMINISTRATOR)
    to = request.POST.get("to", "")
    if to not in ("on", "off"):
        messages.warning(request, "Say whether it shall be enabled or disabled.")
        return done(request, rule.department, f"rule-{rule.pk}")
    allowed = rule_editing.switch(
        row=rule,
        user=user,
        is_enabled=to == "on",
        seen=request.POST.get("seen", ""),
        reason=request.POST.get("reason", ""),
    )
    if allowed:
        messages.success(
            request, f"“{rule.name}” is {'enabled' if to == 'on' else 'disabled'}. {soon(request, rule.department)}"
        )
    else:
        messages.warning(request, allowed.reason)
    return done(request, rule.department, f"rule-{rule.pk}")


@signed_in
@require_POST
def rule_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a rule that the kind does not declare."""
    rule = get_visible(request, Rule.objects.select_related("department"), pk=pk)
    user = require(request, rule.department_id, Role.ADMINISTRATOR)
    if allowed := rule_editing.delete(row=rule, user=user, seen=request.POST.get("seen", "")):
        messages.success(request, f"“{rule.name}” is deleted. {soon(request, rule.department)}")
    else:
        messages.warning(request, allowed.reason)
    return done(request, rule.department)


def rules_url(department: Department) -> str:
    """The page with the rules of a department."""
    return f"{reverse('runs:rules')}?{urlencode({'department': department.slug})}"


def done(request: HttpRequest, department: Department, anchor: str = "") -> HttpResponse:
    """Back to the list, where what was done is said."""
    url = rules_url(department) + (f"#{anchor}" if anchor else "")
    if is_htmx(request):
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return redirect(url)


def soon(request: HttpRequest, department: Department) -> str:
    """Have the schedule look at the open items within a minute if the form asks for it; what happens, in words."""
    label = department.spec.item_label
    if request.POST.get("look") == "now" and look_soon(department=department):
        return f"All open {label}s are looked at within a minute."
    return f"A {label} is looked at when something happens to it, and by the schedule."


def read_limit(value: str | None) -> int:
    """How many items are to be looked at: one of those on offer."""
    return {"500": 500, "1000": 1_000}.get(value or "", USUAL)


def impact_context(department: Department, impact: Impact) -> dict[str, Any]:
    """What the partial with the consequences shows, with a price for what would start."""
    agents = list(Agent.objects.filter(department=department, pk__in=impact.steps))
    usd, is_complete = price_steps(impact.steps, agents, timezone.now())
    return {
        "department": department,
        "label": department.spec.item_label,
        "impact": impact,
        "usd": usd,
        "is_priced": is_complete,
        "limits": (200, 500, 1_000),
    }


def change_context(request: HttpRequest, rule: Rule, do: str, limit: int) -> dict[str, Any]:
    """The consequences of switching or deleting a rule, and whether it may be done."""
    department = rule.department
    rows = list(department.rules.order_by("position", "pk"))
    after = rules_with(rows, rule_view(rule) if do == "enable" else None, instead_of=rule)
    return {
        "access": access_of(request),
        "rule": rule,
        "do": do,
        "limit": limit,
        "stamp": stamp(rule),
        "sentence": rule_sentence(rule, department.spec),
        "is_declared": is_declared(rule),
        "list_url": rules_url(department),
        **impact_context(department, foresee(department, after, limit=limit)),
    }


def list_context(request: HttpRequest, department: Department) -> dict[str, Any]:
    """What the list of rules shows."""
    access = access_of(request)
    rules = list(department.rules.order_by("position", "pk"))
    for rule in rules:
        rule.department = department
    views = [agent_view(agent) for agent in department.agents.order_by("pk")]
    holds, looked_at = _count_holding(department, rules, Router([rule_view(rule) for rule in rules], views))
    used = _last_used(department)
    label = department.spec.item_label
    return {
        "access": access,
        "department": department,
        "label": label,
        "may_change": access.can(department.pk, Role.ADMINISTRATOR),
        "looked_at": looked_at,
        "latest_steps": LATEST_STEPS,
        "problems": check_configuration([rule_view(rule) for rule in rules if rule.is_enabled], views),
        "rows": [
            RuleRow(
                rule,
                place,
                rule_sentence(rule, department.spec),
                holds.get(rule.name, 0),
                used.get(rule.name),
                is_declared(rule),
                stamp(rule),
            )
            for place, rule in enumerate(rules, start=1)
        ],
    }


def _count_holding(department: Department, rules: Sequence[Rule], router: Router) -> tuple[dict[str, int], int]:
    """For how many of the latest items each rule holds now, by name, and how many were looked at."""
    items = list(Item.objects.filter(department=department).order_by("-pk").only("pk", "status", "tags")[:LATEST_ITEMS])
    holds: dict[str, int] = {}
    for facts in load_facts(items, now=timezone.now()).values():
        for name in {view.name for view, _ in router.matching(facts)}:
            holds[name] = holds.get(name, 0) + 1
    return holds, len(items)


def _last_used(department: Department) -> dict[str, datetime]:
    """When each rule last set off a step, by name, as far as the latest steps that are done go."""
    steps = AgentRun.objects.filter(department=department, status=AgentRun.Status.DONE).order_by("-pk")
    found: dict[str, datetime] = {}
    for why, queued_at in steps.values_list("why", "queued_at")[:LATEST_STEPS]:
        name, mark, _ = why.removeprefix("“").partition("” wants ")
        if mark:
            found.setdefault(name, queued_at)
    return found


def _beside(department: Department) -> dict[str, Any]:
    """The rules of risk and the automatic approvals."""
    kind = department.spec
    risk = list(RiskRule.objects.filter(department=department).order_by("position", "pk"))
    approvals = list(AutoApproval.objects.filter(department=department).select_related("agent").order_by("pk"))
    for rule in risk:
        rule.department = department
    return {
        "risk_rows": [
            {
                "row": row,
                "sentence": risk_sentence(row, kind),
                "risk": RISK_WORDS.get(row.risk, row.risk),
                "is_declared": is_declared(row),
                "stamp": stamp(row),
            }
            for row in risk
        ],
        "approval_rows": [
            {"row": row, "sentence": approval_sentence(row, kind), "stamp": stamp(row)} for row in approvals
        ],
    }
