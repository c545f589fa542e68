"""The live log of the departments that are shown."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from runs.access import access_of, signed_in
from runs.models import LogEntry
from runs.views.answers import show
from runs.views.paging import read_page

LOG_ROWS = 100
KINDS = ("decision", "started", "output", "waiting", "failed", "lost", "retry", "review", "answer", "trigger", "sent")


@signed_in
@require_safe
def log_page(request: HttpRequest) -> HttpResponse:
    """The newest lines first; ``?level=`` and ``?kind=`` filter, and the query string is the page."""
    access = access_of(request)
    entries = LogEntry.objects.filter(department__in=access.ids)
    chosen = {name: request.GET.get(name, "") for name in ("level", "kind")}
    entries = entries.filter(**{name: value for name, value in chosen.items() if value})
    rows = entries.select_related("item", "agent_run__agent", "department")
    context: dict[str, Any] = {
        "access": access,
        "page": read_page(request, rows, size=LOG_ROWS),
        "chosen": chosen,
        "levels": LogEntry.Level.choices,
        "kinds": KINDS,
    }
    return show(request, "runs/log.html", "runs/_log.html", context)
