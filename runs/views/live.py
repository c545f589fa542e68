"""The live page: one stream of everything that happens in the departments that are shown, and the log behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from runs.access import Access, access_of, signed_in
from runs.facts import AGENTS
from runs.log_lines import KINDS, WINDOW, LineFilter, read_lines
from runs.models import LogEntry
from runs.views.answers import show

FILTERS = ("level", "kind", "agent", "q")
LEVELS = ((LogEntry.Level.WARNING, "warnings and errors"), (LogEntry.Level.ERROR, "errors"))


@dataclass(frozen=True, slots=True)
class ShownLine:
    """One line; ``day`` (in the person's zone) if it is the first of that on the page. Addresses are empty where there
    is nothing to lead to."""

    entry: LogEntry
    day: date | None
    item_url: str
    run_url: str


@signed_in
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The newest lines first. The filter is in the address; ``?before=<id>`` is further back, and stands still."""
    access = access_of(request)
    before = _number(request.GET.get("before", ""))
    chosen = {name: request.GET.get(name, "").strip()[:100] for name in FILTERS}
    query = {name: value for name, value in chosen.items() if value}
    lines = read_lines(_filter(access, chosen), before=before)
    access.give_departments([*lines.rows, *(line.item for line in lines.rows if line.item)])
    context: dict[str, Any] = {
        "lines": lines,
        "rows": _show(lines.rows),
        "names_departments": len(access.shown) > 1,
        "shows": _events(access, chosen),
        # The stream does not say which agent or which text: those lines are counted and may not fit.
        "noun": "line written since|lines written since" if chosen["agent"] or chosen["q"] else "new line|new lines",
        "window": WINDOW,
        "chosen": chosen,
        "query": urlencode(query),
        "older": urlencode({**query, "before": lines.older}) if lines.older is not None else "",
        "is_back": before is not None,
        "levels": LEVELS,
        "kinds": sorted({*KINDS, *([chosen["kind"]] if chosen["kind"] else [])}),
        "agents": _agents(access),
    }
    return show(request, "runs/live.html", "runs/_live.html", context)


def _show(entries: Iterable[LogEntry]) -> list[ShownLine]:
    """The lines as the page has them. Many are about one item: each address is made once."""
    rows, last = [], None
    items: dict[int, str] = {}
    runs: dict[int, str] = {}
    for entry in entries:
        day = timezone.localtime(entry.at).date()
        item_url = run_url = ""
        if entry.item is not None:
            item_url = items.get(entry.item.pk) or items.setdefault(entry.item.pk, entry.item.get_absolute_url())
        if pk := entry.pipeline_run_id:
            run_url = runs.get(pk) or runs.setdefault(pk, reverse("runs:detail", args=[pk]))
        rows.append(ShownLine(entry, day if day != last else None, item_url, run_url))
        last = day
    return rows


def _filter(access: Access, chosen: dict[str, str]) -> LineFilter:
    level = chosen["level"] if chosen["level"] in LogEntry.Level.values else ""
    return LineFilter(access.ids, level=level, kind=chosen["kind"], agent=chosen["agent"], text=chosen["q"])


def _events(access: Access, chosen: dict[str, str]) -> str:
    """The events that concern the page, as ``data-live`` has them: ``department:1+kind:failed+level:error``."""
    kinds = [f"+kind:{chosen['kind']}"] if chosen["kind"] and " " not in chosen["kind"] else [""]
    levels = {"warning": ["+level:warning", "+level:error"], "error": ["+level:error"], "info": ["+level:info"]}
    tails = [kind + level for kind in kinds for level in levels.get(chosen["level"], [""])]
    return " ".join(f"department:{pk}{tail}" for pk in access.ids for tail in tails)


def _agents(access: Access) -> list[tuple[str, str]]:
    """Slug and name of the agents of the departments, each once."""
    names = {agent.slug: agent.title for agent in AGENTS.objects(departments=access.ids)}
    return sorted(names.items(), key=lambda pair: pair[1])


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
