"""The settings of a department, a page for each section, and what changing them does."""

from __future__ import annotations

import os
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_http_methods, require_safe

from agents.models import Agent, Budget, Department, Member
from runs.access import Access, access_of, require, signed_in
from runs.admin_forms import department_form
from runs.channels import SLACK_URL
from runs.escalation import targets_for_agent, targets_for_department
from runs.models import Action
from runs.outbox import PROVEN_SENDS
from runs.schedules import next_run
from runs.settings_editing import VERB, Section, change_settings, sections_of, stamp, values_of
from runs.views.answers import is_htmx
from runs.views.changes import read_changes
from runs.views.chosen import chosen_department
from runs.views.menu import item_list_url
from runs.views.outbox import describe_channels

Role = Member.Role
RECENT = 300
"""The latest changes of a section are looked for among so many of the department's settings."""
SHOWN_CHANGES = 5


@signed_in
@require_safe
def settings(request: HttpRequest) -> HttpResponse:
    """The first page of the chosen department's settings; a list of departments if several could be meant."""
    access = access_of(request)
    if access.current is None and len(access.departments) > 1:
        return render(request, "runs/settings_list.html", {"access": access, "departments": access.departments})
    department = chosen_department(request)
    section = sections_of(department.spec)[0]
    return _page(request, department, section, _form(department, section))


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def department_settings(request: HttpRequest, department: str, section: str) -> HttpResponse:
    """One section; sent, it is saved by administrators. All members read."""
    row = next((each for each in access_of(request).departments if each.slug == department), None)
    if row is None:
        raise Http404("There is no such department.")
    sections = sections_of(row.spec)
    shown = next((each for each in sections if each.slug == section), None)
    if shown is None:
        raise Http404("There is no such section of settings.")
    if request.method == "POST":
        return _save(request, row, shown)
    return _page(request, row, shown, _form(row, shown))


def settings_url(department: Department, section: str = "department") -> str:
    """The page of one section."""
    return reverse("runs:department_settings", args=[department.slug, section])


def _save(request: HttpRequest, department: Department, section: Section) -> HttpResponse:
    user = require(request, department.pk, Role.ADMINISTRATOR)
    if not section.is_form:
        raise Http404("There is nothing to save here.")
    seen = request.POST.get("seen", "")
    form = _form(department, section, request.POST)
    if not form.is_valid():
        return _page(request, department, section, form, seen=seen, status=422)
    settings_now = form.instance.settings
    values = {name: form.cleaned_data[name] for name in section.columns}
    values |= {key: settings_now.get(key) for key in section.keys}
    # The form has written what it read into its own copy of the department.
    allowed = change_settings(department=department, user=user, section=section, values=values, seen=seen)
    if allowed:
        messages.success(request, f"{section.label}: saved.")
    elif seen and seen != stamp(Department.objects.get(pk=department.pk), section):
        form.add_error(None, allowed.reason)
        return _page(request, department, section, form, seen=seen, status=422)
    else:
        messages.warning(request, allowed.reason)
    if is_htmx(request):
        return HttpResponse(status=204, headers={"HX-Redirect": settings_url(department, section.slug)})
    return redirect(settings_url(department, section.slug))


def _form(department: Department, section: Section, data: Any = None) -> Any:
    if not section.is_form:
        return None
    copy = Department.objects.get(pk=department.pk)
    form = department_form(copy, section.columns, section.keys)(data, instance=copy)
    for name, field in form.fields.items():
        field.widget.attrs.pop("size", None)
        field.widget.attrs.pop("cols", None)
        is_ticks = isinstance(field.widget, forms.CheckboxInput | forms.CheckboxSelectMultiple)
        field.widget.attrs["class"] = "form-check-input" if is_ticks else "form-control"
        if data is not None and form.errors.get(name):
            field.widget.attrs["aria-invalid"] = "true"
    if "time_zone" in form.fields:
        form.fields["time_zone"].widget.attrs["list"] = "time-zones"
    return form


def _page(
    request: HttpRequest, department: Department, section: Section, form: Any, *, seen: str = "", status: int = 200
) -> HttpResponse:
    access = access_of(request)
    sections = sections_of(department.spec)
    context = {
        "access": access,
        "department": department,
        "label": department.spec.item_label,
        "kind": department.spec.label,
        "sections": [(each, settings_url(department, each.slug)) for each in sections],
        "section": section,
        "form": form,
        "here": settings_url(department, section.slug),
        "fields": [_shown(field) for field in form] if form else [],
        "seen": seen or (stamp(department, section) if form else ""),
        "may_change": access.can(department.pk, Role.ADMINISTRATOR),
        "is_staff": bool(getattr(request.user, "is_staff", False)),
        "readers": _readers(department, section),
        "proven": PROVEN_SENDS,
        "list_url": item_list_url(department.spec),
        "changes": _recent_changes(department, section),
        **_beside(access, department, section),
    }
    return render(request, "runs/settings.html", context, status=status)


def _shown(field: Any) -> dict[str, Any]:
    widget = field.field.widget
    return {
        "field": field,
        "is_tick": isinstance(widget, forms.CheckboxInput),
        "is_ticks": isinstance(widget, forms.CheckboxSelectMultiple),
        "chosen": [str(value) for value in field.value() or []]
        if isinstance(widget, forms.CheckboxSelectMultiple)
        else [],
    }


def _readers(department: Department, section: Section) -> list[str]:
    """The agents that are told a setting of the section, by what a person calls them."""
    if not section.keys:
        return []
    team = department.agents.order_by("pk")
    return [agent.title for agent in team if set(agent.settings_keys) & set(section.keys)]


def _recent_changes(department: Department, section: Section) -> list[dict[str, Any]]:
    names = {*section.columns, *section.keys}
    if not names:
        return []
    rows = Action.objects.filter(department=department, verb=VERB).order_by("-pk").select_related("user")[:RECENT]
    ours = [row for row in rows if names & set(row.after)]
    return [
        {"action": row, "changes": read_changes(_of(row.before, names), _of(row.after, names))}
        for row in ours[:SHOWN_CHANGES]
    ]


def _of(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _beside(access: Access, department: Department, section: Section) -> dict[str, Any]:
    """What a section shows beside its form, or instead of one."""
    if section.slug == "department":
        return {"time_zones": _time_zones()}
    if section.slug == "schedule":
        return {"next_times": _next_times(department)}
    if section.slug == "keys":
        names = [values_of(department, section)[name] for name in section.columns]
        return {"variables": [(name, bool(os.environ.get(name))) for name in names]}
    if section.slug == "channels":
        return {"channels": describe_channels(Access(access.departments, access.roles, department))}
    if section.slug == "members":
        return {"members": department.members.select_related("user").order_by("user__username")}
    if section.slug == "budgets":
        return {"budgets": Budget.objects.filter(department=department).select_related("agent").order_by("pk")}
    return _alerts(department) if section.slug == "alerts" else {}


@cache
def _time_zones() -> SafeString:
    """The options of the field. Kept: they stand in 600 files, and stay while a process lives."""
    return format_html_join("", '<option value="{}"></option>', ((name,) for name in sorted(available_timezones())))


def _next_times(department: Department) -> list[tuple[str, datetime]]:
    """The next three times of the schedule, as the clocks of the department show them."""
    found: list[tuple[str, datetime]] = []
    at: datetime | None = timezone.now()
    for _ in range(3):
        at = next_run(department, at) if at else None
        if at:
            found.append((f"{at.astimezone(ZoneInfo(department.time_zone)):%a %d %b %Y, %H:%M}", at))
    return found


def _alerts(department: Department) -> dict[str, Any]:
    team = list(department.agents.select_related("reports_to", "escalate_to", "department").order_by("pk"))
    by_id = {agent.pk: agent for agent in team}
    for agent in team:
        agent.reports_to = by_id.get(agent.reports_to_id) if agent.reports_to_id else None
    return {
        "targets": targets_for_department(department),
        "agent_targets": [(agent.title, targets_for_agent(agent)) for agent in team if _names_somebody(agent)],
        "slack": (SLACK_URL, bool(os.environ.get(SLACK_URL))),
    }


def _names_somebody(agent: Agent) -> bool:
    """Whether the agent, or one above it, says whom to tell."""
    seen: set[int] = set()
    current: Agent | None = agent
    while current is not None and current.pk not in seen:
        seen.add(current.pk)
        if current.escalate_to_id or current.escalate_channel.strip():
            return agent.is_enabled
        current = current.reports_to
    return False
