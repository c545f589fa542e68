"""The action log: what people did, on which item, when, and what it changed. On a page, as CSV and as JSON.

An action on many items is one row, which leads to the rows of its items. The query string is the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.models import Budget, Department
from runs.access import Access, access_of, get_visible, may_see_system, signed_in
from runs.budget_waits import BUDGET_TARGET
from runs.models import Action, BulkAction, Item
from runs.selections import words_of
from runs.views.answers import show
from runs.views.changes import Change, read_changes
from runs.views.exports import csv_text, in_chunks, moment_text, refuse_file, send_file
from runs.views.forms import day_bounds, read_day, read_number
from runs.views.paging import read_page
from runs.wording import in_words

ACTION_ROWS = 50
RECENT_ROWS = 2_000
"""The verbs on offer are those of so many latest actions: to ask for all of them would read the whole table."""
MAX_REFUSED = 200
PERSONAL = ("absence:", "view:")
_TARGETS = {"agent_run": "step", "bulk": "action on many", "outbox": "message", "review": "question", "soul": "SOUL"}
COLUMNS = ("id", "at", "person", "department", "item", "title", "verb", "target", "before", "after", "reason", "bulk")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the log is narrowed to; empty means everything. ``until`` is the last day; both are of the person's zone."""

    person: str = ""
    verb: str = ""
    item: int | None = None
    bulk: int | None = None
    since: str = ""
    until: str = ""
    problems: tuple[str, ...] = ()
    """Sentences about what could not be read."""

    @property
    def query(self) -> str:
        """The same as a query string without the question mark."""
        names = ("person", "verb", "item", "bulk", "since", "until")
        return urlencode({name: value for name in names if (value := getattr(self, name))})


@dataclass(frozen=True, slots=True)
class ActionRow:
    """One line of the log."""

    action: Action
    changes: list[Change]
    named: str = ""
    """The own name of what it was done to, where it has one."""

    @property
    def target(self) -> str:
        """What it was done to, in words: ``question 5``. Empty where nothing is named."""
        if self.named:
            return self.named
        kind, _, name = self.action.target.partition(":")
        return f"{_TARGETS.get(kind, in_words(kind))} {name}".strip()

    @property
    def is_personal(self) -> bool:
        """Whether it is about one person's own affairs, and of no department for that."""
        return self.action.target.startswith(PERSONAL)

    @property
    def is_bulk(self) -> bool:
        """Whether it stands for many items."""
        return self.action.bulk_id is not None and self.action.item_id is None


@signed_in
@require_safe
def action_log(request: HttpRequest) -> HttpResponse:
    """Newest first; person, verb, item, days and department filter by the query string."""
    access, chosen = access_of(request), read_chosen(request)
    visible = visible_actions(request, access)
    # Departments are read already: a join reads all settings anew with every row.
    actions = filter_actions(visible, chosen).select_related(None).select_related("user", "item", "bulk")
    page = read_page(request, actions, size=ACTION_ROWS)
    access.give_departments([*page.rows, *(action.item for action in page.rows if action.item)])
    names = _names(access, page.rows)
    context = {
        "access": access,
        "chosen": chosen,
        "page": page,
        "rows": [
            ActionRow(action, read_changes(action.before, _after(action)), names.get(action.target, ""))
            for action in page.rows
        ],
        "verbs": _verbs(visible, chosen),
        "people": _people(access, chosen),
        "item": _item(request, chosen),
        **_bulk(request, chosen),
    }
    return show(request, "runs/actions.html", "runs/_actions.html", context)


@signed_in
@require_safe
def actions_csv(request: HttpRequest) -> HttpResponseBase:
    """What the filters choose as CSV, with every item of an action on many. Refused if one cannot be read."""
    chosen, zone = read_chosen(request), timezone.get_current_timezone()
    if chosen.problems:
        return refuse_file(chosen.problems)
    rows = filter_actions(visible_actions(request, access_of(request)), chosen, is_complete=True)

    def pieces() -> Iterator[str]:
        yield csv_text([COLUMNS])
        for chunk in in_chunks(rows):
            yield csv_text([[_cell(value) for value in _values(action, zone)] for action in chunk])

    return send_file(request, pieces(), name="actions.csv", content_type="text/csv")


@signed_in
@require_safe
def actions_json(request: HttpRequest) -> HttpResponseBase:
    """The same as a JSON array of objects, one to a line."""
    chosen, zone = read_chosen(request), timezone.get_current_timezone()
    if chosen.problems:
        return refuse_file(chosen.problems)
    rows = filter_actions(visible_actions(request, access_of(request)), chosen, is_complete=True)

    def pieces() -> Iterator[str]:
        start = "[\n"
        for chunk in in_chunks(rows):
            lines = [
                json.dumps(dict(zip(COLUMNS, _values(action, zone), strict=True)), default=str) for action in chunk
            ]
            yield start + ",\n".join(lines)
            start = ",\n"
        yield "[]\n" if start == "[\n" else "\n]\n"

    return send_file(request, pieces(), name="actions.json", content_type="application/json")


def visible_actions(request: HttpRequest, access: Access) -> QuerySet[Action]:
    """Actions in the departments that are shown; those on the whole installation for whoever sees the system."""
    mine = Q(department__in=access.ids)
    if len(access.ids) == len(access.departments) and may_see_system(request):
        mine |= Q(department=None)
    return Action.objects.filter(mine).select_related("user", "department", "item__department", "bulk")


def read_chosen(request: HttpRequest) -> Chosen:
    """The filters of the query string; what cannot be read is left out and said."""
    given = {name: request.GET.get(name, "").strip() for name in ("person", "verb", "item", "bulk", "since", "until")}
    numbers = {name: read_number(given[name]) for name in ("item", "bulk")}
    days = {name: given[name] if read_day(given[name]) else "" for name in ("since", "until")}
    wrong = [f"“{given[name][:40]}” is no number." for name, found in numbers.items() if given[name] and found is None]
    wrong += [f"“{given[name][:40]}” is no day (like 2026-11-30)." for name in days if given[name] and not days[name]]
    return Chosen(
        person=given["person"][:150],
        verb=given["verb"][:50],
        item=numbers["item"],
        bulk=numbers["bulk"],
        since=days["since"],
        until=days["until"],
        problems=tuple(wrong),
    )


def filter_actions(actions: QuerySet[Action], chosen: Chosen, *, is_complete: bool = False) -> QuerySet[Action]:
    """The actions that fit. Items of an action on many are left out where its own row stands for them."""
    if chosen.item is not None:
        actions = actions.filter(item=chosen.item)
    elif chosen.bulk is not None:
        actions = actions.filter(bulk=chosen.bulk)
    elif not is_complete:
        actions = actions.filter(Q(bulk=None) | Q(item=None))
    if chosen.person:
        actions = actions.filter(user__username=chosen.person)
    if chosen.verb:
        actions = actions.filter(verb=chosen.verb)
    if (since := read_day(chosen.since)) is not None:
        actions = actions.filter(at__gte=day_bounds(since)[0])
    if (until := read_day(chosen.until)) is not None:
        actions = actions.filter(at__lt=day_bounds(until)[1])
    return actions


def _after(action: Action) -> Any:
    """What an action came to; of one on many items the selection in words."""
    if action.bulk_id is None or action.department is None or "selection" not in (action.after or ()):
        return action.after
    return {**action.after, "selection": _selection(action.department, action.after["selection"])}


def _selection(department: Department, selection: Mapping[str, Any]) -> str:
    if "incident" in selection:
        return f"question {selection['incident']}"
    return ", ".join(words_of(department, selection.get("filter", selection)))


def _names(access: Access, actions: Sequence[Action]) -> dict[str, str]:
    """The own names of the departments and budgets that actions were done to, by target; a deleted one has none."""
    names = {f"department:{department.pk}": str(department) for department in access.departments}
    wanted = {number for action in actions if (number := _budget_id(action.target)) is not None}
    budgets = Budget.objects.filter(pk__in=wanted, department__in=access.ids).select_related("agent")
    for budget in budgets if wanted else ():
        of = ", ".join(
            part for part in (budget.agent.title if budget.agent else "the department", budget.model) if part
        )
        names[f"{BUDGET_TARGET}{budget.pk}"] = f"budget of {of} a {budget.period}"
    return names


def _budget_id(target: str) -> int | None:
    return read_number(target.removeprefix(BUDGET_TARGET)) if target.startswith(BUDGET_TARGET) else None


def _verbs(actions: QuerySet[Action], chosen: Chosen) -> list[str]:
    recent = actions.select_related(None).order_by("-pk").values_list("verb", flat=True)[:RECENT_ROWS]
    return sorted({*recent, *([chosen.verb] if chosen.verb else [])})


def _people(access: Access, chosen: Chosen) -> Sequence[str]:
    members = User.objects.filter(Q(memberships__department__in=access.ids) | Q(is_superuser=True))
    names = members.order_by("username").values_list("username", flat=True).distinct()
    return sorted({*names, *([chosen.person] if chosen.person else [])})


def _item(request: HttpRequest, chosen: Chosen) -> Item | None:
    if chosen.item is None:
        return None
    return get_visible(request, Item.objects.select_related("department"), pk=chosen.item)


def _bulk(request: HttpRequest, chosen: Chosen) -> dict[str, Any]:
    """The action on many items that is opened, and which items it left out and why."""
    if chosen.bulk is None:
        return {"bulk": None}
    bulk = get_visible(request, BulkAction.objects.select_related("department", "user"), pk=chosen.bulk)
    reasons = dict(list(bulk.refused.items())[:MAX_REFUSED])
    items = Item.objects.filter(pk__in=[int(pk) for pk in reasons if pk.isdigit()], department=bulk.department)
    return {
        "bulk": bulk,
        "chosen_by": _selection(bulk.department, bulk.selection),
        "refused": [(item, reasons[str(item.pk)]) for item in items.select_related("department").order_by("pk")],
        "refused_count": len(bulk.refused),
    }


def _values(action: Action, zone: tzinfo) -> list[Any]:
    item = action.item
    return [
        action.pk,
        moment_text(action.at, zone),
        action.user.get_username() if action.user else "",
        action.department.slug if action.department else "",
        action.item_id,
        item.title if item else "",
        action.verb,
        action.target,
        action.before,
        action.after,
        action.reason,
        action.bulk_id,
    ]


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return value
