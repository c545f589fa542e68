"""The team: who reports to whom, how every agent does, and one agent with all that it is set to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import IntegerField, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Agent, Member, ModelPrice
from agents.pricing import PriceBook, UnknownPrice, load_price_book
from agents.souls import published_soul, sections_of
from agents.statements import Given, Statement
from runs import agent_figures, agent_month, agent_settings, soul_editing
from runs.access import access_of, get_visible, require, signed_in
from runs.costs import Ledger
from runs.edit_patterns import WINDOW, edit_patterns
from runs.models import TryOut
from runs.spending import load_fills
from runs.switches import describe_halt
from runs.views.answers import answer
from runs.views.prose import as_html
from runs.views.shown import show_agent_run

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
    agent = find_agent(request, pk)
    soul = published_soul(agent)
    draft = soul_editing.newest_draft(agent)
    prices, team = load_price_book(), _team(agent)
    context = {
        **_figures(request, agent, prices),
        "soul": soul,
        "sections": [(name, as_html(text)) for name, text in sections_of(soul).items()] if soul else [],
        "draft": draft,
        "models": _models(agent, prices, timezone.now()),
        "flow": next(f for f in agent_figures.data_flow(team) if f.agent.pk == agent.pk),
        "tell": _told(agent),
        "stamp": agent_settings.stamp(agent),
    }
    return render(request, "runs/agent.html", context)


@signed_in
@require_safe
def agent_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The part of one agent's page that changes."""
    return render(request, "runs/_agent.html", _figures(request, find_agent(request, pk), load_price_book()))


@signed_in
@require_safe
def agent_settings_form(request: HttpRequest, pk: int) -> HttpResponse:
    """The form for administrators."""
    agent = find_agent(request, pk)
    require(request, agent.department_id, Role.ADMINISTRATOR)
    form = agent_settings.AgentSettingsForm(instance=agent)
    return render(request, "runs/agent_settings.html", _form_context(request, agent, form))


@signed_in
@require_POST
def agent_change(request: HttpRequest, pk: int) -> HttpResponse:
    """Store the settings; what is wrong is said in the form."""
    agent = find_agent(request, pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    seen = request.POST.get("seen", "")
    allowed, form = agent_settings.change(agent=agent, given=request.POST, user=user, seen=seen)
    url = reverse("runs:agent", args=[pk])
    if allowed:
        text = f"{agent.title} works with this from its next step on. Its first sends go to a person again."
        return answer(request, text, changed=True, url=url)
    stored = find_agent(request, pk)
    context = _form_context(request, stored, form) | {"refusal": allowed.reason, "stamp": seen}
    return render(request, "runs/agent_settings.html", context)


@signed_in
@require_POST
def agent_switch(request: HttpRequest, pk: int) -> HttpResponse:
    """Switch it on or off: ``to`` is ``on`` or ``off``."""
    agent = find_agent(request, pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    url, to, reason = reverse("runs:agent", args=[pk]), request.POST.get("to", ""), request.POST.get("reason", "")
    if to not in ("on", "off"):
        return answer(request, "Say whether it is to be on or off.", changed=False, url=url)
    if not agent_settings.switch(agent=agent, is_enabled=to == "on", user=user, reason=reason.strip()):
        return answer(request, f"{agent.title} is {to} already.", changed=False, url=url)
    told = "Steps that waited for it are due now." if to == "on" else "A step under way ends; nothing further starts."
    return answer(request, f"{agent.title} is switched {to}. {told}", changed=True, url=url)


def find_agent(request: HttpRequest, pk: int) -> Agent:
    """An agent that the person may see, with its department, else 404."""
    agent = get_visible(request, Agent.objects.all(), pk=pk)
    access_of(request).give_departments([agent])
    return agent


def _teams(request: HttpRequest) -> dict[str, Any]:
    access = access_of(request)
    return {"access": access, "teams": agent_figures.load_teams(access.shown, now=timezone.now())}


def _figures(request: HttpRequest, agent: Agent, prices: PriceBook) -> dict[str, Any]:
    """What changes by itself on an agent's page."""
    access, now = access_of(request), timezone.now()
    period = agent_month.last_days(now)
    costs = agent_month.load_costs(Ledger([agent.department]), agent, period, prices)
    fills = load_fills([agent.department], now=now)
    today_usd = {agent.pk: costs.days[period.last].usd}
    (standing,) = agent_figures.load_standings([agent], now=now, fills=fills, costs=today_usd)
    department = agent.department_id
    own = [f for f in fills if f.budget.covers(department_id=department, agent_id=agent.pk, model=agent.model)]
    latest, halt = agent_month.latest_runs(agent, LATEST_RUNS), describe_halt(access.installation)
    return {
        "access": access,
        "agent": agent,
        "standing": standing,
        "costs": costs,
        "window": agent_month.DAYS,
        "verdicts": agent_month.load_verdicts(agent, period),
        "trespasses": agent_month.count_trespasses(agent, since=period.moments[0]),
        "budgets": own,
        "latest": [(run, number, show_agent_run(run, now, halt)) for run, number in latest],
        "tries": _latest_tries(agent),
        "patterns": edit_patterns(agent=agent, since=now - WINDOW, limit=5),
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


def _latest_tries(agent: Agent) -> QuerySet[TryOut]:
    """Without their texts and answers, which nobody sees here."""
    shown = ("soul_name", "model", "status", "created_at", "item__title", "user__username")
    return TryOut.objects.filter(agent=agent).select_related("item", "user").only(*shown).order_by("-pk")[:5]


def _team(agent: Agent) -> list[Agent]:
    """All agents of its department, itself included, who know whom they report to and whom they tell of trouble."""
    team = _TEAM.objects(department=agent.department_id)
    by_pk = {each.pk: each for each in team}
    for each in (*team, agent):
        if each.reports_to_id is None or each.reports_to_id in by_pk:
            each.reports_to = by_pk.get(each.reports_to_id or 0)
    agent.escalate_to = by_pk[agent.pk].escalate_to
    return team


_TEAM = Statement(
    lambda: (
        Agent.objects.filter(department=Given("department", IntegerField()))
        .select_related("escalate_to")
        .order_by("pk")
    )
)


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
