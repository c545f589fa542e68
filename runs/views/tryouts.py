"""Trying an agent: choose SOUL, model and items, see what it would cost, and read the answers beside what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.models import Agent, Member, Soul
from agents.souls import name_of
from agents.spec import ITEM, DepartmentSpec
from runs import tryouts
from runs.access import access_of, get_visible, require, signed_in
from runs.models import AgentRun, Item, ModelCall, Output, Trigger, TryOut
from runs.reruns import models_for
from runs.staff import Staff, load_staff
from runs.views.agents import find_agent
from runs.views.answers import answer
from runs.views.cards import Card, build_card
from runs.views.diffs import Piece, diff_texts
from runs.views.forms import read_number
from runs.views.prose import as_html
from runs.views.shown import Shown
from runs.wording import in_words

Role = Member.Role
OFFERED = 15
FOUND = 20
_SHOWN = {
    TryOut.Status.QUEUED: Shown("queued", "neutral", "clock", note="A worker takes it in a moment.", is_live=True),
    TryOut.Status.RUNNING: Shown("running", "progress", "loader-2", is_live=True),
    TryOut.Status.DONE: Shown("done", "good", "circle-check"),
    TryOut.Status.FAILED: Shown("failed", "bad", "circle-x"),
    TryOut.Status.STOPPED: Shown("stopped", "neutral", "ban"),
}


@dataclass(frozen=True, slots=True)
class Offer:
    """An item that may be ticked, with what its status is called, and the occasion it would be tried for."""

    item: Item
    status: str
    trigger: Trigger | None
    is_chosen: bool
    bound_usd: Decimal
    problem: str

    @property
    def value(self) -> str:
        """What the form sends: ``12`` or ``12:34``, item and trigger."""
        return f"{self.item.pk}:{self.trigger.pk}" if self.trigger else str(self.item.pk)


@dataclass(frozen=True, slots=True)
class Result:
    """One try-out as its page shows it. ``changes``: by field, what differs from the output that was current."""

    row: TryOut
    shown: Shown
    card: Card | None
    current: Card | None
    changes: tuple[tuple[str, list[Piece]], ...]
    calls: Sequence[ModelCall]

    @property
    def cost_usd(self) -> Decimal:
        """What its calls have cost so far."""
        return sum((call.cost_usd for call in self.calls), Decimal(0))

    @property
    def is_estimate(self) -> bool:
        """Whether the end of a call was not seen."""
        return any(call.is_estimate for call in self.calls)

    @property
    def seconds(self) -> float | None:
        """From its start to its end."""
        if self.row.started_at is None or self.row.ended_at is None:
            return None
        return (self.row.ended_at - self.row.started_at).total_seconds()


@signed_in
@require_safe
def tryout(request: HttpRequest, pk: int) -> HttpResponse:
    """The form. ``?item=`` ticks one (``12``, or ``12:34`` with its occasion), ``?q=`` looks for others.

    ``?soul=draft`` and ``?model=`` choose.
    """
    agent = find_agent(request, pk)
    require(request, agent.department_id, Role.OPERATOR)
    souls = list(Soul.objects.filter(agent=agent).order_by("-number", "-pk"))
    in_force = next((soul for soul in souls if soul.status == Soul.Status.PUBLISHED), None)
    soul = _soul(souls, request.GET.get("soul", "")) or in_force or next(iter(souls), None)
    model = request.GET.get("model", "") or agent.model
    staff = load_staff(only=agent.department_id)
    context = {
        "access": access_of(request),
        "agent": agent,
        "souls": [(each, _soul_value(each), name_of(each)) for each in souls],
        "soul": soul,
        "models": models_for(agent, staff.prices),
        "model": model,
        "offers": _offers(request, agent, soul, model, staff) if soul else [],
        "asked": request.GET.get("item", ""),
        "words": request.GET.get("q", ""),
        "most": tryouts.MOST_ITEMS,
        "under_way": TryOut.objects.filter(user__pk=request.user.pk or 0, status__in=TryOut.ACTIVE)
        .order_by("pk")
        .first(),
        "has_price": model in staff.prices.models,
    }
    return render(request, "runs/tryout.html", context)


@signed_in
@require_POST
def tryout_start(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue one for each item ticked."""
    agent = find_agent(request, pk)
    user = require(request, agent.department_id, Role.OPERATOR)
    url = reverse("runs:tryout", args=[pk])
    souls = list(Soul.objects.filter(agent=agent))
    soul = _soul(souls, request.POST.get("soul", ""))
    wanted = _wanted(agent, request.POST.getlist("item"))
    if soul is None:
        return answer(request, "Choose a SOUL that this agent has.", changed=False, url=url)
    model = request.POST.get("model", "") or agent.model
    url += "?" + urlencode({"soul": _soul_value(soul), "model": model, "item": request.POST.get("item", "")})
    allowed, made = tryouts.start(agent=agent, wanted=wanted, soul=soul, model=model, user=user)
    if not allowed:
        return answer(request, allowed.reason, changed=False, url=url)
    return redirect("runs:tryout_result", made[0].pk)


@signed_in
@require_safe
def tryout_result(request: HttpRequest, pk: int) -> HttpResponse:
    """The answers of those that were started together."""
    return render(request, "runs/tryout_result.html", _result_context(request, pk))


@signed_in
@require_safe
def tryout_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The part of it that changes."""
    return render(request, "runs/_tryout.html", _result_context(request, pk))


@signed_in
@require_POST
def tryout_stop(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop those that were started together and are not over."""
    row = get_visible(request, TryOut.objects.all(), pk=pk)
    user = require(request, row.department_id, Role.OPERATOR)
    together = TryOut.objects.filter(batch=row.batch, status__in=TryOut.ACTIVE).select_related("item").order_by("pk")
    stopped = sum(tryouts.stop(try_out=each, user=user) for each in together)
    text = "It is stopped. What was spent stays in the accounts." if stopped else "It is over already."
    return answer(request, text, changed=bool(stopped), url=reverse("runs:tryout_result", args=[pk]))


def _result_context(request: HttpRequest, pk: int) -> dict[str, Any]:
    first = get_visible(request, TryOut.objects.select_related("agent__department", "soul", "user"), pk=pk)
    together = list(
        TryOut.objects.filter(batch=first.batch).select_related("item", "trigger", "compared_with").order_by("pk")
    )
    calls: dict[int, list[ModelCall]] = {}
    for call in ModelCall.objects.filter(try_out__in=together).order_by("pk"):
        calls.setdefault(call.try_out_id or 0, []).append(call)
    spec = first.agent.department.spec
    results = [_result(row, spec, calls.get(row.pk, [])) for row in together]
    return {
        "access": access_of(request),
        "first": first,
        "agent": first.agent,
        "results": results,
        "is_active": any(row.is_active for row in together),
        "sections": [(name, as_html(text)) for name, text in first.sections.items()],
        "total_usd": sum((result.cost_usd for result in results), Decimal(0)),
        "can_operate": access_of(request).can(first.department_id, Role.OPERATOR),
    }


def _result(row: TryOut, spec: DepartmentSpec, calls: list[ModelCall]) -> Result:
    card = None
    if row.payload is not None:
        # Never saved: the negative id keeps what its card opens and closes apart from the outputs'.
        made = Output(pk=-row.pk, item_id=row.item_id, key=row.agent.writes, payload=row.payload, number=0)
        card = build_card(made, spec)
    current = build_card(row.compared_with, spec) if row.compared_with else None
    return Result(row, _shown(row), card, current, _changes(row), calls)


def _shown(row: TryOut) -> Shown:
    if row.is_lost(timezone.now()):
        note = "Its worker has not been heard of; it ends as failed within a minute or two."
        return Shown("lost", "warning", "alert-triangle", note=note, is_live=True)
    return _SHOWN[TryOut.Status(row.status)]


def _changes(row: TryOut) -> tuple[tuple[str, list[Piece]], ...]:
    """By field, texts that differ from the output that was current."""
    if row.payload is None or row.compared_with is None or not isinstance(row.compared_with.payload, dict):
        return ()
    before, found = row.compared_with.payload, []
    for name, after in row.payload.items():
        was = before.get(name)
        if was != after:
            found.append((name, diff_texts(_text(was), _text(after))))
    return tuple(found)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_text(entry) for entry in value)
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(entry)}" for name, entry in value.items())
    return "" if value is None else str(value)


def _offers(request: HttpRequest, agent: Agent, soul: Soul, model: str, staff: Staff) -> list[Offer]:
    """Items to choose from: the one that was asked for, what was looked for, else those it worked on last."""
    given, words = request.GET.get("item", ""), request.GET.get("q", "").strip()
    asked = read_number(given.partition(":")[0])
    found: list[Item] = []
    items = Item.objects.filter(department=agent.department_id)
    if asked is not None:
        found += items.filter(pk=asked)
    if words:
        named = items.filter(title__icontains=words).order_by("-pk")[:FOUND]
        found += [item for item in named if item not in found]
    elif not found:
        found = _worked_on(agent) or list(items.order_by("-pk")[:OFFERED])
    occasions = _occasions(agent, found)
    if ":" in given:
        occasions |= {one.item.pk: one.trigger for one in _wanted(agent, [given])}
    wanted = [tryouts.Wanted(item, occasions[item.pk]) for item in found if item.pk in occasions]
    foreseen = tryouts.preview(agent=agent, wanted=wanted, soul=soul, model=model, staff=staff)
    idle = [item for item in found if item.pk == asked and item.pk not in occasions]
    spec = agent.department.spec
    status = {item.pk: spec.status_spec(item.status).label for item in found}
    return [Offer(item, status[item.pk], None, False, Decimal(0), _nothing_to_do(agent)) for item in idle] + [
        Offer(one.item, status[one.item.pk], one.trigger, one.item.pk == asked, seen.bound_usd, seen.problem)
        for one, seen in zip(wanted, foreseen, strict=True)
    ]


def _nothing_to_do(agent: Agent) -> str:
    kinds = " and no ".join(in_words(kind) for kind in agent.serves if kind != ITEM)
    return f"It has no {kinds or 'occasion'} yet, for which {agent.title} works."


def _worked_on(agent: Agent) -> list[Item]:
    latest = AgentRun.objects.filter(agent=agent, status=AgentRun.Status.DONE).order_by("-pk")
    ids = list(dict.fromkeys(latest.values_list("item_id", flat=True)[: 4 * OFFERED]))[:OFFERED]
    items = Item.objects.in_bulk(ids)
    return [items[pk] for pk in ids if pk in items]


def _occasions(agent: Agent, items: Sequence[Item]) -> dict[int, Trigger | None]:
    """By item what it would be tried for: the newest trigger of a kind it serves, else the item itself if it does.

    Items for which it has nothing to do are left out.
    """
    of_item = agent.works_for(ITEM)
    found: dict[int, Trigger | None] = {item.pk: None for item in items} if of_item else {}
    kinds = [kind for kind in agent.serves if kind != ITEM]
    if agent.scope == Agent.Scope.OCCASION and kinds:
        for trigger in Trigger.objects.filter(item__in=items, kind__in=kinds).order_by("pk"):
            found[trigger.item_id] = trigger
    return found


def _wanted(agent: Agent, values: Sequence[str]) -> list[tryouts.Wanted]:
    """The items of a form; what is not of the agent's department, or no number, is left out."""
    found = []
    for value in values[: tryouts.MOST_ITEMS + 1]:
        item_text, _, trigger_text = value.partition(":")
        item_id, trigger_id = read_number(item_text), read_number(trigger_text)
        item = Item.objects.filter(department=agent.department_id, pk=item_id).first() if item_id else None
        if item is None:
            continue
        if trigger_id is not None:
            trigger = Trigger.objects.filter(item=item, pk=trigger_id).first()
            if trigger is None or not agent.works_for(trigger.kind):
                continue
            found.append(tryouts.Wanted(item, trigger))
        elif agent.works_for(ITEM):
            found.append(tryouts.Wanted(item))
    return found


def _soul(souls: Sequence[Soul], value: str) -> Soul | None:
    drafts = sorted((soul for soul in souls if soul.number is None), key=lambda soul: -soul.pk)
    if value == "draft":
        return next(iter(drafts), None)
    return next((soul for soul in souls if _soul_value(soul) == value), None)


def _soul_value(soul: Soul) -> str:
    return str(soul.number) if soul.number is not None else "draft"
