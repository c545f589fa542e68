"""Rules of risk and automatic approvals: their forms, and what is done to them as they stand."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from agents.models import Department, Member
from runs import rule_editing
from runs.access import access_of, get_visible, require, signed_in
from runs.allowed import Allowed
from runs.models import AutoApproval, RiskRule
from runs.risk import RISK_WORDS
from runs.rule_editing import AnyRow, Saved, is_declared, stamp
from runs.rules import CLAUSES
from runs.views.chosen import chosen_department
from runs.views.forms import read_number
from runs.views.rule_drafts import JSON, RuleForm, empty_form, sent_form, stored_form
from runs.views.rules import done, rules_url

Role = Member.Role
READS = ["GET", "HEAD", "POST"]
DEFAULT_SAMPLE = 10


@signed_in
@require_http_methods(READS)
def risk_rule_new(request: HttpRequest) -> HttpResponse:
    """The form of a new rule of risk; sent, it is saved and holds from then on."""
    return _risk_rule(request, chosen_department(request), None)


@signed_in
@require_http_methods(READS)
def risk_rule_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The form of a rule of risk; sent, it is saved."""
    row = get_visible(request, RiskRule.objects.select_related("department"), pk=pk)
    return _risk_rule(request, row.department, row)


@signed_in
@require_POST
def risk_rule_move(request: HttpRequest, pk: int) -> HttpResponse:
    """Move a rule of risk ``by`` up or down."""
    row = get_visible(request, RiskRule.objects.select_related("department"), pk=pk)
    user = require(request, row.department_id, Role.ADMINISTRATOR)
    ids = list(row.department.risk_rules.order_by("position", "pk").values_list("pk", flat=True))
    step = {"up": -1, "down": 1}.get(request.POST.get("by", ""), 0)
    allowed = rule_editing.move(row=row, user=user, to=ids.index(row.pk) + 1 + step)
    _say(request, allowed, f"“{row.name}” is moved.")
    return done(request, row.department, f"risk-{row.pk}")


@signed_in
@require_POST
def risk_rule_toggle(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable (``to=on``) or disable (``to=off``) a rule of risk."""
    return _toggle(request, get_visible(request, RiskRule.objects.select_related("department"), pk=pk), "risk")


@signed_in
@require_POST
def risk_rule_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a rule of risk that the kind does not declare."""
    return _delete(request, get_visible(request, RiskRule.objects.select_related("department"), pk=pk))


@signed_in
@require_http_methods(READS)
def auto_approval_new(request: HttpRequest) -> HttpResponse:
    """The form of a new automatic approval; sent, it is saved and still off."""
    return _auto_approval(request, chosen_department(request), None)


@signed_in
@require_http_methods(READS)
def auto_approval_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The form of an automatic approval; sent, it is saved, on or off as it was."""
    row = get_visible(request, AutoApproval.objects.select_related("department", "agent"), pk=pk)
    return _auto_approval(request, row.department, row)


@signed_in
@require_POST
def auto_approval_toggle(request: HttpRequest, pk: int) -> HttpResponse:
    """Switch an automatic approval on (``to=on``) or off; one that was revoked needs a ``reason``."""
    return _toggle(request, get_visible(request, AutoApproval.objects.select_related("department"), pk=pk), "approval")


@signed_in
@require_POST
def auto_approval_delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete an automatic approval. What it approved stays approved."""
    return _delete(request, get_visible(request, AutoApproval.objects.select_related("department"), pk=pk))


def _risk_rule(request: HttpRequest, department: Department, row: RiskRule | None) -> HttpResponse:
    user = require(request, department.pk, Role.ADMINISTRATOR)
    form = _form(request, department, row)
    risk = read_number(request.POST.get("risk", "")) if request.method == "POST" else row.risk if row else 2
    context = {"kind": "risk", "row": row, "risk": risk, "title": "rule of risk"}
    if request.method != "POST" or _is_switched(request, form):
        return _page(request, department, form, context)
    if not form.errors:
        saved = rule_editing.save_risk_rule(
            department=department,
            user=user,
            name=form.name,
            when=form.when,
            risk=risk or 0,
            row=row,
            seen=request.POST.get("seen", ""),
        )
        if saved:
            return _saved(request, department, saved, "risk")
        form.errors["form"] = list(saved.problems)
    return _page(request, department, form, context, status=422)


def _auto_approval(request: HttpRequest, department: Department, row: AutoApproval | None) -> HttpResponse:
    user = require(request, department.pk, Role.ADMINISTRATOR)
    form = _form(request, department, row)
    if request.method == "POST":
        agent = request.POST.get("agent", "")
        risk, share = (read_number(request.POST.get(name, "")) for name in ("risk", "sample_percent"))
    else:
        agent = row.agent.slug if row else ""
        risk, share = (row.max_risk, row.sample_percent) if row else (1, DEFAULT_SAMPLE)
    context: dict[str, Any] = {"kind": "approval", "row": row, "risk": risk, "share": share, "agent": agent}
    context |= {"title": "automatic approval", "agents": department.agents.order_by("pk")}
    if request.method != "POST" or _is_switched(request, form):
        return _page(request, department, form, context)
    if not form.errors:
        saved = rule_editing.save_auto_approval(
            department=department,
            user=user,
            name=form.name,
            agent=agent,
            when=form.when,
            max_risk=risk or 0,
            sample_percent=-1 if share is None else share,
            row=row,
            seen=request.POST.get("seen", ""),
        )
        if saved:
            return _saved(request, department, saved, "approval")
        form.errors["form"] = list(saved.problems)
    return _page(request, department, form, context, status=422)


def _form(request: HttpRequest, department: Department, row: AnyRow | None) -> RuleForm:
    if request.method == "POST":
        return sent_form(department, request.POST, has_want=False)
    return stored_form(department, row, has_want=False) if row else empty_form(department, has_want=False)


def _is_switched(request: HttpRequest, form: RuleForm) -> bool:
    """Whether only the other way to write the clauses was asked for; it is shown then."""
    switch = request.POST.get("switch", "")
    if switch:
        form.as_json() if switch == JSON else form.as_fields()
    return bool(switch)


def _toggle(request: HttpRequest, row: RiskRule | AutoApproval, anchor: str) -> HttpResponse:
    user = require(request, row.department_id, Role.ADMINISTRATOR)
    to = request.POST.get("to", "")
    if to not in ("on", "off"):
        messages.warning(request, "Say whether it shall be on or off.")
        return done(request, row.department, f"{anchor}-{row.pk}")
    allowed = rule_editing.switch(
        row=row,
        user=user,
        is_enabled=to == "on",
        seen=request.POST.get("seen", ""),
        reason=request.POST.get("reason", ""),
    )
    _say(request, allowed, f"“{row.name}” is {to}.")
    return done(request, row.department, f"{anchor}-{row.pk}")


def _delete(request: HttpRequest, row: RiskRule | AutoApproval) -> HttpResponse:
    user = require(request, row.department_id, Role.ADMINISTRATOR)
    allowed = rule_editing.delete(row=row, user=user, seen=request.POST.get("seen", ""))
    _say(request, allowed, f"“{row.name}” is deleted.")
    return done(request, row.department)


def _say(request: HttpRequest, allowed: Allowed, text: str) -> None:
    messages.success(request, text) if allowed else messages.warning(request, allowed.reason)


def _saved(request: HttpRequest, department: Department, saved: Saved, anchor: str) -> HttpResponse:
    row = saved.row
    assert row is not None
    off = "" if row.is_enabled else " It is off."
    messages.success(request, f"“{row.name}” is saved.{off}")
    return done(request, department, f"{anchor}-{row.pk}")


def _page(
    request: HttpRequest, department: Department, form: RuleForm, more: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    row = more["row"]
    name = "risk_rule" if more["kind"] == "risk" else "auto_approval"
    here = (
        reverse(f"runs:{name}_edit", args=[row.pk])
        if row
        else f"{reverse(f'runs:{name}_new')}?department={department.slug}"
    )
    context = {
        "access": access_of(request),
        "department": department,
        "label": department.spec.item_label,
        "form": form,
        "here": here,
        "list_url": rules_url(department),
        "seen": request.POST.get("seen", stamp(row) if row else ""),
        "is_declared": row is not None and is_declared(row),
        "risks": tuple(RISK_WORDS.items()),
        "clauses": CLAUSES,
        **more,
    }
    return render(request, "runs/risk_rule_form.html", context, status=status)
