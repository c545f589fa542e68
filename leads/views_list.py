"""The list of leads: filters, order, columns and views in the address, the same as a file, and what is done to many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.models import Department, Member
from leads.columns import COLUMNS, LIST, ORDERS, choose, order_of
from leads.exporting import write_csv
from leads.filters import (
    AGES,
    AUTOMATION,
    TIERS,
    WAITING,
    Filters,
    chips,
    clean_params,
    filter_leads,
    find_owners,
    find_sources,
    read_filters,
)
from leads.listing import StatusCount, count_by_status, load_leads, read_rows
from leads.models import Lead
from leads.progress import STAGES
from runs.access import Access, access_of, signed_in
from runs.allowed import Allowed, no
from runs.models import SavedView
from runs.saved_views import SavableList, can_change, can_share, choice_of, register_list, views_for
from runs.selections import can_act_on_many, read_filter
from runs.switches import describe_halt
from runs.views.answers import is_htmx, show
from runs.views.exports import refuse_file, send_file
from runs.views.ordering import read_ordered_page
from runs.views.paging import Page

Role = Member.Role
register_list(SavableList(LIST, "leads:list", tuple(COLUMNS), clean_params))


@signed_in
@require_safe
def lead_list(request: HttpRequest) -> HttpResponse:
    """Leads; all that is chosen stands in the query string. Opened without any, a person's own view comes first."""
    access, filters, user = access_of(request), read_filters(request.GET), cast(User, request.user)
    choice = choice_of(user, LIST)
    views = views_for(user, LIST, access)
    begun = next((view for view in views if view.pk == choice.default_view_id), None)
    if begun is not None and not is_htmx(request) and not set(request.GET) - {"department"}:
        return redirect(f"{reverse('leads:list')}?{_view_query(begun)}")
    current = next((view for view in views if str(view.pk) == request.GET.get("view")), None)
    chosen = choose(current.columns if current and current.columns else choice.columns)
    sort, order = order_of(request.GET.get("sort", ""))
    owners, rows = find_owners(access.ids), filter_leads(access, filters, user_id=user.pk)
    page = read_ordered_page(request, rows, order, lambda ids: load_leads(ids, owners), departments=access.ids)
    access.give_departments(lead.item for lead in page.rows)
    counts = count_by_status(access, filters)
    operated = [department for department in access.shown if access.can(department.pk, Role.OPERATOR)]
    context = {
        "access": access,
        "filters": filters,
        "query": urlencode(_params(filters, sort)),
        "all_query": replace(filters, status="", ids=()).query,
        "fixed_query": filters.fixed(user.pk).query,
        "page": page,
        "rows": [(row, row.lead, row.lead.item) for row in read_rows(page.rows, describe_halt(access.installation))],
        "counts": counts,
        "matching": _matching(access, filters, page, counts),
        "chosen": chosen,
        # Every column: to look for one that is not there takes a template long, in each row.
        "show": {name: name in chosen.names for name in COLUMNS},
        "sort": sort,
        "order": order,
        "views": [(view, _view_query(view), can_change(view, access, user), view == current) for view in views],
        "begun": begun,
        "can_operate": bool(operated),
        "operated": {department.pk for department in operated},
        "narrower": _narrower(operated, filters, sort),
        "shareable": [department for department in access.shown if can_share(department, access)],
        "bulk_allowed": _bulk_allowed(access, filters),
        "department": operated[0] if len(operated) == 1 else None,
        **_choices(access, filters, owners),
    }
    response = show(request, "leads/list.html", "leads/_list.html", context)
    if is_htmx(request) and request.headers.get("Kontor-Refresh") is None:
        # A form sends its empty fields too; the address is to be one that can be read and passed on.
        query = urlencode({**_params(filters, sort), **_cursor(request)})
        response["HX-Push-Url"] = f"{reverse('leads:list')}?{query or 'all=1'}"
    return response


@signed_in
@require_safe
def lead_csv(request: HttpRequest) -> HttpResponseBase:
    """All leads that fit the filters as a file, with the columns that are shown. Refused if one cannot be read."""
    access, filters, user = access_of(request), read_filters(request.GET), cast(User, request.user)
    if filters.problems:
        return refuse_file(filters.problems)
    view = next((view for view in views_for(user, LIST, access) if str(view.pk) == request.GET.get("view")), None)
    chosen = choose(view.columns if view and view.columns else choice_of(user, LIST).columns)
    leads = filter_leads(access, filters, user_id=user.pk)
    pieces = write_csv(leads, chosen, timezone.get_current_timezone())
    return send_file(request, pieces, name="leads.csv", content_type="text/csv")


def _choices(access: Access, filters: Filters, owners: Sequence[User]) -> dict[str, Any]:
    """What the fields of the filter offer, and what is set."""
    narrowing = ("stage", "automation", "source", "owner", "flag", "waiting", "cost_min", "cost_max", "age")
    return {
        "tiers": TIERS,
        "stages": [(slug, label) for slug, (label, _) in STAGES.items()],
        "automations": AUTOMATION.items(),
        "waitings": WAITING.items(),
        "ages": [(slug, label) for slug, (label, _) in AGES.items()],
        "sources": find_sources(access.ids),
        "owners": [(str(owner.pk), owner) for owner in owners],
        "orders": ORDERS.items(),
        "columns": COLUMNS.items(),
        "chips": chips(filters, {owner.pk: str(owner) for owner in owners}),
        "is_narrowed": any(getattr(filters, name) for name in narrowing),
    }


def _matching(access: Access, filters: Filters, page: Page[Lead], counts: list[StatusCount]) -> int | None:
    """How many leads fit, where that is known without counting them, and all may be of one client."""
    if len(access.shown) > 1:
        return None
    if not page.newer and not page.older:
        return len(page.rows)
    listed = [count.count for count in counts if count.is_chosen or not filters.status]
    if set(filters.params) - {"status"} or any(count is None or count.is_more for count in listed):
        return None
    return sum(count.number for count in listed if count is not None)


def _bulk_allowed(access: Access, filters: Filters) -> Allowed:
    """Whether one action may be done to all that the list shows: in one department, and not without a filter."""
    operated = [department for department in access.shown if access.can(department.pk, Role.OPERATOR)]
    if len(operated) != 1:
        return no("An action on all that match is about one client's leads. Choose one:")
    if filters.problems:
        return no("A filter could not be read. Correct it first.")
    return can_act_on_many(operated[0], read_filter(operated[0].spec, filters.params)[0], access)


def _narrower(operated: Sequence[Department], filters: Filters, sort: str) -> list[tuple[Department, str]]:
    """Of several departments the way to the same list of each: an action on all that match is about one of them."""
    if len(operated) < 2:
        return []
    return [(each, urlencode({**_params(filters, sort), "department": each.slug})) for each in operated]


def _params(filters: Filters, sort: str) -> dict[str, str]:
    return {**filters.params, **({"sort": sort} if sort != "newest" else {})}


def _cursor(request: HttpRequest) -> dict[str, str]:
    return {name: value for name in ("view", "before", "after", "at") if (value := request.GET.get(name, ""))}


def _view_query(view: SavedView) -> str:
    params = view.params if isinstance(view.params, dict) else {}
    # In the order of the filters: a JSON column does not keep its own.
    return urlencode({**clean_params(params), "view": view.pk})
