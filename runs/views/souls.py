"""SOULs: the draft that is worked on, history, any two side by side, publishing, rolling back, discarding."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from agents.caching import minimum_tokens, text_tokens
from agents.models import Agent, Member, Soul
from agents.models.agent import SECTIONS
from agents.souls import diff_souls, find_problems, name_of, published_soul, sections_of, shipped_sections
from runs import agent_month, soul_editing
from runs.access import access_of, require, signed_in
from runs.costs import Ledger
from runs.outbox import PROVEN_SENDS
from runs.views.agents import find_agent
from runs.views.answers import answer
from runs.views.forms import read_number
from runs.views.prose import as_html

Role = Member.Role
LONGEST_SUGGESTION = 500


@signed_in
@require_safe
def soul_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The draft, or the SOUL in force to begin one from; who may not write reads.

    ``?from=`` begins from an older one, or from the one that came with this release: ``shipped``.

    ``?suggest=`` is what reviewers change again and again; it is shown, and the person decides where it goes.
    """
    agent = find_agent(request, pk)
    draft = soul_editing.newest_draft(agent)
    origin = draft or published_soul(agent)
    if (number := read_number(request.GET.get("from", ""))) is not None:
        origin = get_object_or_404(Soul, agent=agent, number=number)
    is_shipped = request.GET.get("from") == "shipped"
    texts = shipped_sections(agent) if is_shipped else sections_of(origin)
    context = _edit_context(request, agent, texts, draft, note=draft.note if draft else "")
    context["suggestion"] = request.GET.get("suggest", "")[:LONGEST_SUGGESTION]
    context["replaces"] = draft is not None and (is_shipped or origin != draft)
    return render(request, "runs/soul_edit.html", context)


@signed_in
@require_POST
def soul_save(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep what was written as the draft. A refusal shows it again, with the reason, and nothing is lost."""
    agent = find_agent(request, pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    texts, note = _texts(request), request.POST.get("note", "")
    allowed, draft = soul_editing.save_draft(
        agent=agent, sections=texts, note=note, user=user, seen=request.POST.get("seen", "")
    )
    if not allowed or draft is None:
        context = _edit_context(request, agent, texts, soul_editing.newest_draft(agent), note=note)
        context |= {"refusal": allowed.reason, "problems": find_problems(texts)}
        return render(request, "runs/soul_edit.html", context)
    messages.success(request, "The draft is saved. The agent works with the published SOUL until you publish it.")
    goes = {"publish": "runs:soul_publish", "try": "runs:tryout"}.get(request.POST.get("then", ""), "runs:soul_edit")
    return redirect(reverse(goes, args=[pk]) + ("?soul=draft" if goes == "runs:tryout" else ""))


@signed_in
@require_POST
def soul_preview(request: HttpRequest, pk: int) -> HttpResponse:
    """What the text in the form would change, how long it is, and what is wrong with it. Nothing is stored."""
    agent = find_agent(request, pk)
    require(request, agent.department_id, Role.ADMINISTRATOR)
    return render(request, "runs/_soul_preview.html", _preview(agent, _texts(request)))


@signed_in
@require_safe
def soul_history(request: HttpRequest, pk: int) -> HttpResponse:
    """Every version: by whom, when, why, what it cost and what reviewers thought of it."""
    agent = find_agent(request, pk)
    versions = list(Soul.objects.filter(agent=agent).select_related("author").order_by("-number", "-pk"))
    today = timezone.now().astimezone(UTC).date()
    use = agent_month.load_soul_use(Ledger([agent.department]), agent, today)
    verdicts = agent_month.verdicts_by_soul(agent)
    found = [(soul, use.get(soul.pk), verdicts.get(soul.pk)) for soul in versions if soul.number]
    context = {
        "access": access_of(request),
        "agent": agent,
        "versions": found,
        "numbers": [soul.number for soul, _, _ in found],
        "drafts": [soul for soul in versions if soul.number is None],
        "can_administer": access_of(request).can(agent.department_id, Role.ADMINISTRATOR),
        "most_read": agent_month.MOST_READ,
    }
    return render(request, "runs/soul_history.html", context)


@signed_in
@require_safe
def soul_diff(request: HttpRequest, pk: int) -> HttpResponse:
    """Two versions side by side: ``?from=2&to=3``; ``draft`` is the draft. Without ``from`` the one in force."""
    agent = find_agent(request, pk)
    new = _version(agent, request.GET.get("to", ""))
    old = _version(agent, request.GET.get("from", "")) if request.GET.get("from") else published_soul(agent)
    if new is None:
        raise Http404("There is no such version.")
    context = {
        "access": access_of(request),
        "agent": agent,
        "old": old,
        "new": new,
        "old_name": _named(old),
        "new_name": _named(new),
        "diff": diff_souls(old, new),
        "numbers": list(Soul.objects.filter(agent=agent, number__isnull=False).values_list("number", flat=True)),
    }
    return render(request, "runs/soul_diff.html", context)


@signed_in
@require_safe
def soul_publish(request: HttpRequest, pk: int) -> HttpResponse:
    """What publishing the draft means, before it is done."""
    agent = find_agent(request, pk)
    require(request, agent.department_id, Role.ADMINISTRATOR)
    draft = soul_editing.newest_draft(agent)
    if draft is None:
        messages.warning(request, "There is no draft to publish. Write one first.")
        return redirect("runs:soul_edit", pk)
    context = _consequences(request, agent, draft) | {"draft": draft}
    context["stamp"] = soul_editing.stamp(draft, context["in_force"])
    return render(request, "runs/soul_publish.html", context)


@signed_in
@require_POST
def soul_publish_do(request: HttpRequest, pk: int) -> HttpResponse:
    """Publish the draft that was shown."""
    agent = find_agent(request, pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    draft = soul_editing.newest_draft(agent)
    here = reverse("runs:soul_publish", args=[pk])
    if draft is None:
        text = "There is no draft any more: somebody has published or discarded it."
        return answer(request, text, changed=False, url=reverse("runs:agent", args=[pk]))
    given = {"note": request.POST.get("note", ""), "seen": request.POST.get("seen", "")}
    if not (allowed := soul_editing.publish_draft(draft=draft, user=user, **given)):
        return answer(request, allowed.reason, changed=False, url=here)
    number = Soul.objects.values_list("number", flat=True).get(pk=draft.pk)
    text = f"SOUL {number} is in force for every later step of {agent.title}."
    return answer(request, text, changed=True, url=reverse("runs:agent", args=[pk]))


@signed_in
@require_safe
def soul_rollback(request: HttpRequest, pk: int) -> HttpResponse:
    """What going back to ``?number=`` means, before it is done."""
    agent = find_agent(request, pk)
    require(request, agent.department_id, Role.ADMINISTRATOR)
    old = _version(agent, request.GET.get("number", ""))
    if old is None or old.status != Soul.Status.RETIRED:
        messages.warning(request, "Choose a version that is not in force.")
        return redirect("runs:soul_history", pk)
    context = _consequences(request, agent, old) | {"back_to": old}
    context["stamp"] = soul_editing.stamp(context["in_force"])
    return render(request, "runs/soul_publish.html", context)


@signed_in
@require_POST
def soul_rollback_do(request: HttpRequest, pk: int) -> HttpResponse:
    """Publish the text of an older version as a new number."""
    agent = find_agent(request, pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    number, note = read_number(request.POST.get("number", "")), request.POST.get("note", "")
    url = reverse("runs:agent", args=[pk])
    if number is None:
        return answer(request, "Choose a version to go back to.", changed=False, url=url)
    seen = request.POST.get("seen", "")
    allowed, copy = soul_editing.roll_back_to(agent=agent, number=number, note=note, user=user, seen=seen)
    if copy is None:
        return answer(request, allowed.reason, changed=False, url=reverse("runs:soul_history", args=[pk]))
    return answer(request, f"SOUL {copy.number} is in force: the text of SOUL {number}.", changed=True, url=url)


@signed_in
@require_POST
def soul_discard(request: HttpRequest, pk: int) -> HttpResponse:
    """Throw the draft away; its text stays in the list of actions."""
    agent = find_agent(request, pk)
    user = require(request, agent.department_id, Role.ADMINISTRATOR)
    draft, url = soul_editing.newest_draft(agent), reverse("runs:agent", args=[pk])
    if draft is None:
        return answer(request, "There is no draft any more.", changed=False, url=url)
    allowed = soul_editing.discard_draft(draft=draft, user=user, seen=request.POST.get("seen", ""))
    text = "The draft is discarded. Its text stays in the list of actions." if allowed else allowed.reason
    return answer(request, text, changed=allowed.ok, url=url)


def _edit_context(
    request: HttpRequest, agent: Agent, texts: dict[str, str], draft: Soul | None, *, note: str
) -> dict[str, Any]:
    access = access_of(request)
    return {
        **_preview(agent, texts),
        "access": access,
        "draft": draft,
        "fields": [(name, texts[name], as_html(texts[name])) for name in SECTIONS],
        "note": note,
        "stamp": soul_editing.stamp(draft),
        "can_administer": access.can(agent.department_id, Role.ADMINISTRATOR),
    }


def _preview(agent: Agent, texts: dict[str, str]) -> dict[str, Any]:
    in_force = published_soul(agent)
    shown = Soul(agent=agent, **texts)
    diff = diff_souls(in_force, shown)
    return {
        "agent": agent,
        "in_force": in_force,
        "diff": diff,
        "is_changed": any(part.is_changed for part in diff),
        "words": sum(len(text.split()) for text in texts.values()),
        "tokens": text_tokens(shown.text, agent.model),
        "cache_minimum": minimum_tokens(agent.model),
        "problems": find_problems(texts),
        "empty": [name for name in SECTIONS if not texts[name].strip()],
    }


def _consequences(request: HttpRequest, agent: Agent, new: Soul) -> dict[str, Any]:
    in_force = published_soul(agent)
    return {
        "access": access_of(request),
        "agent": agent,
        "in_force": in_force,
        "diff": diff_souls(in_force, new),
        "foreseen": soul_editing.foresee(agent),
        "proven_sends": PROVEN_SENDS,
    }


def _texts(request: HttpRequest) -> dict[str, str]:
    return {name: request.POST.get(name, "").replace("\r\n", "\n") for name in SECTIONS}


def _version(agent: Agent, text: str) -> Soul | None:
    if text == "draft":
        return soul_editing.newest_draft(agent)
    number = read_number(text)
    return Soul.objects.filter(agent=agent, number=number).first() if number is not None else None


def _named(soul: Soul | None) -> str:
    if soul is None:
        return "nothing"
    return f"{name_of(soul)}, in force" if soul.status == Soul.Status.PUBLISHED else name_of(soul)
