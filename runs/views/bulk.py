"""One action on all items that a filter has chosen: the question before it, its progress, stopping it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from agents.models import Department, Member
from agents.statements import AnyOf
from runs import bulk as bulks
from runs import selections
from runs.access import access_of, get_visible, require, signed_in
from runs.allowed import no
from runs.models import BulkAction, Item
from runs.views.answers import answer
from runs.views.forms import read_moment, read_number
from runs.views.menu import item_list_url
from runs.views.paging import read_page

Role = Member.Role
SHOWN = 200
TYPED = ("verb", "reason", "until", "choice_", "ticked")
"""What somebody has typed and chosen in the question, beside the filter: it is there again after a refusal.

``ticked`` is all that they had ticked where that was of several departments: the way back to the others.
"""


@signed_in
@require_safe
def bulk_new(request: HttpRequest) -> HttpResponse:
    """What an action would do to everything that fits the filter: in each department on its own.

    Of rows that are ticked while several departments are shown the page asks first which department is meant.
    """
    ticked = [] if request.GET.get("department") else _ticked(request)
    if len(ticked) == 1:
        department = ticked[0][0]
    elif not request.GET.get("department") and len(_operated(request)) > 1:
        rows = [(each, len(ids), _for_department(request, each, ids)) for each, ids in ticked]
        return render(request, "runs/bulk_departments.html", {"access": access_of(request), "ticked": rows})
    else:
        department = _department(request, request.GET)
    require(request, department.pk, Role.OPERATOR)
    chosen, problems = selections.read_filter(department.spec, request.GET, request.user.pk)
    verb = request.GET.get("verb", "")
    allowed = selections.can_act_on_many(department, chosen, access_of(request))
    if problems:
        allowed = no(" ".join(problems))
    elif not chosen:
        allowed = no("Nothing is chosen. Tick rows of the list, or filter it: nothing is done to everything at once.")
    foreseen = selections.foresee(department, chosen)
    if allowed and not foreseen.ids:
        allowed = no("Nothing fits the filter.")
    labels = selections.labels_of(department)
    context = {
        "access": access_of(request),
        "department": department,
        "chosen": chosen,
        "words": selections.words_of(department, chosen),
        "list_url": f"{item_list_url(department.spec)}?{urlencode(chosen)}",
        "verbs": labels,
        "verb": verb if verb in labels else "pause",
        "own_verbs": [
            (name, own, own.choices(department), request.GET.get(f"choice_{name}", ""))
            for name, own in selections.own_verbs(department).items()
        ],
        "reason": request.GET.get("reason", ""),
        "until": request.GET.get("until", ""),
        "until_verbs": selections.UNTIL,
        "ticked": request.GET.get("ticked", ""),
        "allowed": allowed,
        "foreseen": foreseen,
        "ids": ",".join(map(str, foreseen.ids)) if allowed and foreseen.total <= selections.MOST_NAMED else "",
    }
    return render(request, "runs/bulk_new.html", context)


@signed_in
@require_POST
def bulk_start(request: HttpRequest) -> HttpResponse:
    """Begin it. The filter comes as in the question before it."""
    department = _department(request, request.POST)
    user = require(request, department.pk, Role.OPERATOR)
    chosen, problems = selections.read_filter(department.spec, request.POST, user.pk)
    verb, reason = request.POST.get("verb", ""), request.POST.get("reason", "").strip()
    until, problem = read_moment(request.POST.get("until", ""), department)
    typed = {name: value for name, value in request.POST.items() if value and name.startswith(TYPED)}
    again = f"{reverse('runs:bulk_new')}?{urlencode({**typed, **chosen, 'department': department.slug})}"
    if problem or problems:
        return answer(request, problem or " ".join(problems), changed=False, url=again)
    seen = read_number(request.POST.get("seen", ""))
    named = [number for text in request.POST.get("items", "").split(",") if (number := read_number(text)) is not None]
    started = selections.start(
        department=department,
        user=user,
        verb=verb,
        chosen=chosen,
        reason=reason,
        until=until,
        seen=seen,
        ids=named,
        choice=request.POST.get(f"choice_{verb}", ""),
    )
    if not isinstance(started, BulkAction):
        return answer(request, started.reason, changed=False, url=again)
    text = f"{bulks.label_of(started)}: {started.done} of {started.total} done."
    if started.status == BulkAction.Status.RUNNING:
        text = f"{bulks.label_of(started)}: begun with {started.total}. This page follows it."
    others = f"?{urlencode({'ticked': typed['ticked']})}" if "ticked" in typed else ""
    return answer(request, text, changed=True, url=f"{reverse('runs:bulk', args=[started.pk])}{others}")


@signed_in
@require_safe
def bulk_list(request: HttpRequest) -> HttpResponse:
    """The actions on many of the departments shown, newest first."""
    access = access_of(request)
    rows = BulkAction.objects.filter(department__in=access.ids).select_related("department", "user").defer("selection")
    page = read_page(request, rows)
    shown = [(bulk, bulks.label_of(bulk)) for bulk in page.rows]
    return render(request, "runs/bulk_list.html", {"access": access, "page": page, "rows": shown})


@signed_in
@require_safe
def bulk_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """How far it is, and what was left out and why."""
    context = {**_context(request, pk), "ticked": request.GET.get("ticked", "")}
    return render(request, "runs/bulk.html", context)


@signed_in
@require_safe
def bulk_panel(request: HttpRequest, pk: int) -> HttpResponse:
    """The changing part of that page."""
    return render(request, "runs/_bulk.html", _context(request, pk))


@signed_in
@require_POST
def bulk_abort(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop it; what is done stays done."""
    bulk = get_visible(request, BulkAction.objects.select_related("department"), pk=pk)
    user = require(request, bulk.department_id, Role.OPERATOR)
    changed = bulks.abort(bulk=bulk, user=user)
    bulk.refresh_from_db()
    text = f"Stopped after {bulk.done} of {bulk.total}." if changed else bulks.can_abort(bulk).reason
    return answer(request, text, changed=changed, url=_url(bulk))


def _url(bulk: BulkAction) -> str:
    if incident := bulk.selection.get("incident"):
        return reverse("runs:incident", args=[incident])
    return reverse("runs:bulk", args=[bulk.pk])


def _operated(request: HttpRequest) -> list[Department]:
    access = access_of(request)
    return [department for department in access.departments if access.can(department.pk, Role.OPERATOR)]


def _ticked(request: HttpRequest) -> list[tuple[Department, list[int]]]:
    """To which of the departments that the person operates the ticked rows belong, and which to each."""
    operated = _operated(request)
    numbers = (read_number(text.strip()) for text in ",".join(request.GET.getlist("ids")).split(","))
    items = Item.objects.filter(AnyOf("pk", [number for number in numbers if number is not None]))
    found: defaultdict[int, list[int]] = defaultdict(list)
    for department_id, pk in items.filter(department__in=operated).order_by("pk").values_list("department_id", "pk"):
        found[department_id].append(pk)
    return [(department, found[department.pk]) for department in operated if department.pk in found]


def _for_department(request: HttpRequest, department: Department, ids: Sequence[int]) -> str:
    """The question about what is ticked in one department, which leads back to all that is ticked."""
    params = request.GET.copy()
    params["department"] = department.slug
    params["ticked"] = ",".join(params.getlist("ids"))
    params["ids"] = ",".join(map(str, ids))
    return params.urlencode()


def _department(request: HttpRequest, values: Mapping[str, Any]) -> Department:
    """The department that is meant; without a name the only one there is, else 404."""
    access = access_of(request)
    rows: QuerySet[Department] = Department.objects.all()
    if slug := str(values.get("department", "")):
        return get_visible(request, rows, path="pk", slug=slug)
    operated = [pk for pk in access.ids if access.can(pk, Role.OPERATOR)]
    return get_visible(request, rows, path="pk", pk=operated[0] if len(operated) == 1 else 0)


def _context(request: HttpRequest, pk: int) -> dict[str, Any]:
    rows = BulkAction.objects.select_related("department", "user")
    bulk = get_visible(request, rows, pk=pk)
    left_out = dict(list(bulk.refused.items())[:SHOWN])
    items = Item.objects.filter(pk__in=left_out, department=bulk.department_id).select_related("department")
    left = bulk.total - bulk.done - len(bulk.refused)
    chosen = bulk.selection.get("filter", {})
    can_operate = access_of(request).can(bulk.department_id, Role.OPERATOR)
    return {
        "access": access_of(request),
        "bulk": bulk,
        "label": bulks.label_of(bulk),
        "words": selections.words_of(bulk.department, chosen),
        "list_url": f"{item_list_url(bulk.department.spec)}?{urlencode(chosen)}",
        "left_out": [(item, left_out[str(item.pk)]) for item in items.order_by("pk")],
        "left": left,
        "percent": round(100 * (bulk.total - left) / bulk.total) if bulk.total else 100,
        "can_abort": can_operate and bulks.can_abort(bulk).ok,
        "shown": SHOWN,
    }
