"""The team: who reports to whom, how every agent does, and one agent with all that it is set to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Agent, Member, ModelPrice
from agents.pricing import PriceBook, UnknownPrice, load_price_book
from agents.souls import published_soul, sections_of
from runs import agent_figures, agent_settings, soul_editing
from runs.access import access_of, get_visible, require, signed_in
from runs.cost_sums import Period
from runs.costs import Ledger
from runs.edit_patterns import edit_patterns
from runs.models import TryOut
from runs.spending import load_fills
from runs.switches import describe_halt
from runs.views.answers import answer
from runs.views.prose import as_html
from runs.views.shown import show_agent_run
from runs.what_if import CacheUse, cache_by_agent, read_usages

Role = Member.Role
LATEST_RUNS = 10


@signed_in
@require_safe
def agent_list(request: HttpRequest) -> HttpResponse:
    """The chain of command of every department shown, and who reads what from whom."""
    return render(request, "runs/agents.html", _teams(request))


@signed_in
@require_safe
def agents_panel(request: HttpRequest) -> HttpResponse:
    """The part of it that changes."""
    return render(request, "runs/_agents.html", _teams(request))


@signed_in
@require_safe
def agent_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One agent: how it does, its SOUL, what it is set to."""
    agent = get_visible(request, rows(), pk=pk)
    soul = published_soul(agent)
    draft = soul_editing.newest_draft(agent)
    context = {
        **_figures(request, agent),
        "soul": soul,
        "sections": [(name, as_html(text)) for name, text in sections_of(soul).items()] if soul else [],
        "draft": draft,
        "models": _models(agent, load_price_book(), timezone.now()),
        "flow": next(f for f in agent_figures.data_flow(_colleagues(agent)) if f.agent.pk == agent.pk),
        "tell": _told(agent),
        "stamp": agent_settings.stamp(agent),
    }
    return render(request, "runs/agent.html", context)


@signed_in
@require_safe
def agent_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The part of one agent's page that changes."""
    return render(request, "runs/_agent.html", _figures(request, get_visible(request, rows(), pk=pk)))


@signed_in
@require_safe
def agent_settings_form(request: HttpRequest, pk: int) -> HttpResponse:
    """The form for administrators."""
    agent = get_visible(request, rows(), pk=pk)
    require(request, agent.department_id, Role.ADMINISTRATOR)
    form = agent_settings.AgentSettingsForm(instance=agent)
    return render(request, "runs/agent_settings.html", _form_context(request, agent, form))


@signed_in
@require_POST
def agent_change(request: HttpRequest, pk: int) -> HttpResponse:
    """Store the settings; what is wrong is said in the form."""
    agent = get_visible(request, rows(), pk=pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    seen = request.POST.get("seen", "")
    allowed, form = agent_settings.change(agent=agent, given=request.POST, user=user, seen=seen)
    url = reverse("runs:agent", args=[pk])
    if allowed:
        text = f"{agent.title} works with this from its next step on. Its first sends go to a person again."
        return answer(request, text, changed=True, url=url)
    stored = get_visible(request, rows(), pk=pk)
    context = _form_context(request, stored, form) | {"refusal": allowed.reason, "stamp": seen}
    return render(request, "runs/agent_settings.html", context)


@signed_in
@require_POST
def agent_switch(request: HttpRequest, pk: int) -> HttpResponse:
    """Switch it on or off: ``to`` is ``on`` or ``off``."""
    agent = get_visible(request, rows(), pk=pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    url, to, reason = reverse("runs:agent", args=[pk]), request.POST.get("to", ""), request.POST.get("reason", "")
    if to not in ("on", "off"):
        return answer(request, "Say whether it is to be on or off.", changed=False, url=url)
    if not agent_settings.switch(agent=agent, is_enabled=to == "on", user=user, reason=reason.strip()):
        return answer(request, f"{agent.title} is {to} already.", changed=False, url=url)
    told = "Steps that waited for it are due now." if to == "on" else "A step under way ends; nothing further starts."
    return answer(request, f"{agent.title} is switched {to}. {told}", changed=True, url=url)


def rows() -> QuerySet[Agent]:
    """Agents with what every page of theirs names."""
    return Agent.objects.select_related("department", "reports_to", "escalate_to")


def _teams(request: HttpRequest) -> dict[str, Any]:
    access = access_of(request)
    return {"access": access, "teams": agent_figures.load_teams(access.shown, now=timezone.now())}


def _figures(request: HttpRequest, agent: Agent) -> dict[str, Any]:
    """What changes by itself on an agent's page."""
    access, now = access_of(request), timezone.now()
    today = now.astimezone(UTC).date()
    period = Period(today - (agent_figures.WINDOW - agent_figures.WINDOW / agent_figures.DAYS), today)
    prices = load_price_book()
    ledger = Ledger([agent.department])  # reads what is not rolled up yet once
    days = agent_figures.load_days(ledger, agent, period)
    since = now - agent_figures.WINDOW
    verdicts, _ = agent_figures.load_verdicts(agent, since=since)
    fills = [f for f in load_fills([agent.department], now=now) if f.budget.agent_id in (None, agent.pk)]
    halt = describe_halt(access.installation)
    return {
        "access": access,
        "agent": agent,
        "standing": agent_figures.load_standings([agent], now=now, ledger=ledger)[0],
        "days": days.items(),
        "days_usd": sum(use.usd for use in days.values()),
        "days_calls": sum(use.calls for use in days.values()),
        "window": agent_figures.DAYS,
        "verdicts": verdicts,
        "trespasses": agent_figures.count_trespasses(agent, since=since),
        "cache": cache_by_agent(read_usages(ledger, period, prices, [agent.pk]), prices).get(agent.pk, CacheUse()),
        "budgets": [f for f in fills if f.budget.model in ("", agent.model)],
        "latest": [(run, show_agent_run(run, now, halt)) for run in agent_figures.latest_runs(agent, LATEST_RUNS)],
        "tries": TryOut.objects.filter(agent=agent).select_related("item", "user").order_by("-pk")[:5],
        "patterns": edit_patterns(agent=agent, limit=5),
        "can_administer": access.can(agent.department_id, Role.ADMINISTRATOR),
        "can_operate": access.can(agent.department_id, Role.OPERATOR),
        "administered": [agent.department_id] if access.can(agent.department_id, Role.ADMINISTRATOR) else [],
    }


def _form_context(request: HttpRequest, agent: Agent, form: agent_settings.AgentSettingsForm) -> dict[str, Any]:
    return {
        "access": access_of(request),
        "agent": agent,
        "form": form,
        "stamp": agent_settings.stamp(agent),
        "models": load_price_book().models,
    }


def _colleagues(agent: Agent) -> list[Agent]:
    return list(Agent.objects.filter(department=agent.department_id).order_by("pk"))


def _models(agent: Agent, prices: PriceBook, now: datetime) -> list[tuple[str, str, ModelPrice | None]]:
    """``(model, what it is for the agent, its price today)``."""
    found: list[tuple[str, str, ModelPrice | None]] = []
    for number, model in enumerate([agent.model, *agent.fallback_models]):
        try:
            price = prices.price_for(model, now.date())
        except UnknownPrice:
            price = None
        found.append((model, f"fallback {number}" if number else "its own", price))
    return found


def _told(agent: Agent) -> list[str]:
    """Whom trouble with this agent is told, the first in its chain of command who names somebody."""
    current, seen = agent, set[int]()
    while current.pk not in seen:
        seen.add(current.pk)
        person = current.escalate_to.get_username() if current.escalate_to else ""
        if person or current.escalate_channel:
            return [name for name in (person, current.escalate_channel) if name]
        if current.reports_to is None:
            break
        current = current.reports_to
    return []
