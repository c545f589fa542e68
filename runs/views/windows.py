"""Keyset paging for filters that no index serves: a page looks through so many rows at most, and says how far it got.

Newest first, like ``runs.views.paging``. However rare what is looked for, a page takes no longer than reading
``SPAN`` rows; where it has found fewer than it shows, its link to older ones goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpRequest

from runs.views.forms import read_number
from runs.views.paging import PAGE_ROWS, Page, query_with

ModelT = TypeVar("ModelT", bound=Model)

SPAN = 8_000
"""A page that asks each row whether it has a certain call takes 70 ms for so many in PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Window(Generic[ModelT]):
    """A page, and the id down to which was looked; 0 where nothing older is left unseen."""

    page: Page[ModelT]
    looked_to: int


def read_window(
    request: HttpRequest,
    rows: QuerySet[ModelT],
    everything: QuerySet[ModelT],
    *,
    ends: Callable[[ModelT], bool],
    size: int = PAGE_ROWS,
) -> Window[ModelT]:
    """A page of ``rows``, which are those of ``everything`` that a filter lets through.

    ``ends`` says of a row that no older one can be let through.
    """
    before, after = read_number(request.GET.get("before", "")), read_number(request.GET.get("after", ""))
    newest = everything.order_by("-pk").values_list("pk", flat=True).first() or 0
    if after is not None:
        found = list(rows.filter(pk__gt=after, pk__lte=after + SPAN).order_by("pk")[: size + 1])
        ceiling = found[size - 1].pk if len(found) > size else after + SPAN
        newer = query_with(request, {"after": ceiling}) if ceiling < newest else ""
        return Window(Page(found[:size][::-1], newer, query_with(request, {"before": after + 1})), 0)
    top = min(before - 1, newest) if before is not None else newest
    floor = max(top - SPAN, 0)
    found = list(rows.filter(pk__lte=top, pk__gt=floor).order_by("-pk")[: size + 1])
    is_full = len(found) > size
    found = found[:size]
    newer = query_with(request, {"after": top}) if top < newest else ""
    if is_full:
        return Window(Page(found, newer, query_with(request, {"before": found[-1].pk})), 0)
    below = everything.filter(pk__lte=floor).order_by("-pk").first() if floor else None
    is_more = below is not None and not ends(below)
    older = query_with(request, {"before": floor + 1}) if is_more else ""
    return Window(Page(found, newer, older), floor + 1 if is_more else 0)
