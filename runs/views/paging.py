"""Keyset paging, newest first: as fast on the last page of a million rows as on the first, and no ``count(*)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpRequest

ModelT = TypeVar("ModelT", bound=Model)

PAGE_ROWS = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[ModelT]):
    """Some rows, newest first, with the query strings of the pages beside it; empty where there is none."""

    rows: list[ModelT]
    newer: str
    older: str


def read_page(request: HttpRequest, rows: QuerySet[ModelT], *, size: int = PAGE_ROWS) -> Page[ModelT]:
    """The page the request asks for: ``?before=<id>`` is older, ``?after=<id>`` newer, neither is the newest."""
    before, after = _number(request, "before"), _number(request, "after")
    if after is not None:
        found = list(rows.filter(pk__gt=after).order_by("pk")[: size + 1])
        has_newer, has_older = len(found) > size, True
        found = found[:size][::-1]
    else:
        rows = rows.filter(pk__lt=before) if before is not None else rows
        found = list(rows.order_by("-pk")[: size + 1])
        has_newer, has_older = before is not None, len(found) > size
        found = found[:size]
    if not found:
        return Page([], query_with(request, {}) if before is not None or after is not None else "", "")
    return Page(
        found,
        query_with(request, {"after": found[0].pk}) if has_newer else "",
        query_with(request, {"before": found[-1].pk}) if has_older else "",
    )


def _number(request: HttpRequest, name: str) -> int | None:
    value = request.GET.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


def query_with(request: HttpRequest, changes: dict[str, int]) -> str:
    """The query string of the request with another page in it."""
    params = request.GET.copy()
    for name in ("before", "after"):
        params.pop(name, None)
    for name, value in changes.items():
        params[name] = str(value)
    return f"?{params.urlencode()}"
