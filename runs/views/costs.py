"""What the work costs: by any dimension over any days, against the period before, and what other models had cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from agents.models import Agent, Member
from agents.pricing import shipped_batch_price
from agents.statements import Among, Statement
from runs.access import Access, access_of, signed_in
from runs.cost_items import STATUS, path_of
from runs.cost_moves import TOKENS
from runs.cost_report import Line, Report, make_reports
from runs.cost_sums import Cost, Period
from runs.costs import CALL_DIMENSIONS, CHECKS, dimensions
from runs.model_quality import judged_by_model
from runs.models import ModelCall
from runs.review_figures import Verdicts
from runs.spending import Pause, load_fills, paused_by_budget
from runs.views.answers import show
from runs.views.exports import csv_text, send_file
from runs.views.forms import read_number
from runs.views.paging import read_page
from runs.views.shown import show_model_call

PERIODS = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last_month": "Last month",
    "custom": "From … to",
}
EARLIEST, LATEST = date(2020, 1, 1), date(2099, 12, 31)
CSV_COLUMNS = (
    *("key", "label", "calls", "items", *TOKENS),
    *("cost_usd", "waste_usd", "estimated_usd", "before_usd", "cache_saved_usd"),
)
CALLS_BY = {
    "agent": "agent_id",
    "model": "model",
    "soul": "soul_id",
    "item": "item_id",
}
"""Dimensions whose rows open the calls behind them, by the column of the call; a department is chosen by its slug."""
APART = {"try_outs": "Calls of try-outs", "checks": "Calls of checks", "waste": "Calls that brought nothing"}
"""What the calls behind a figure above the table are called, by what its link asks for."""
_AGENTS = Statement(lambda: Agent.objects.filter(Among("pk", "agents")))


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody asked to see."""

    name: str
    period: Period
    by: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``share`` is of the dearest line, in percent, for its bar; ``pause`` of an agent."""

    line: Line
    share: int
    url: str
    pause: Pause | None = None


@signed_in
@require_safe
def costs(request: HttpRequest) -> HttpResponse:
    """The page; every choice is in the URL."""
    access = access_of(request)
    choice = read_choice(request, access)
    context = costs_context(request, access, choice)
    return show(request, "runs/costs.html", "runs/_costs.html", context)


def costs_context(request: HttpRequest, access: Access, choice: Choice) -> dict[str, Any]:
    """Everything the page shows, in a fixed number of queries."""
    (report,) = make_reports(access.shown, choice.period, [choice.by])
    agents = _load_agents(report, access)
    fills = load_fills(access.shown, now=timezone.now())
    pauses = paused_by_budget(agents, fills=fills) if choice.by == "agent" else {}
    return {
        "access": access,
        "choice": choice,
        "periods": PERIODS,
        "dimensions": dimensions([department.spec for department in access.shown]),
        "report": report,
        "rows": _rows(request, access, choice, report, pauses),
        "has_tokens": choice.by in CALL_DIMENSIONS,
        "what_if": _what_if(request, report, agents, judged_by_model([d.pk for d in access.shown], choice.period)),
        "budgets": fills,
        "administered": [d.pk for d in access.shown if access.can(d.pk, Member.Role.ADMINISTRATOR)],
        "query": request.GET.urlencode(),
    }


@signed_in
@require_safe
def costs_csv(request: HttpRequest) -> StreamingHttpResponse:
    """The table as CSV, exact to the last digit, and its sum as the last line."""
    access = access_of(request)
    choice = read_choice(request, access)
    (report,) = make_reports(access.shown, choice.period, [choice.by])
    rows = [csv_row(line, line.cache.saved_usd if line.cache else None) for line in report.lines]
    whole = [csv_row(report.whole, report.saving_usd)] if rows else []
    lines = csv_text([CSV_COLUMNS, *rows, *whole])
    name = f"costs-by-{choice.by}-{choice.period.first}-{choice.period.last}.csv"
    return send_file(request, iter([lines]), name=name, content_type="text/csv")


def csv_row(line: Line, saved_usd: Decimal | None) -> list[Any]:
    """One line of an export. What is not known is empty; amounts have 8 places."""
    cost = line.cost
    amounts = (cost.usd, cost.waste_usd, line.estimated_usd, line.before_usd, saved_usd)
    texts = ("" if usd is None else f"{usd:.8f}" for usd in amounts)
    return [cost.key, cost.label, cost.calls, cost.items or "", *line.tokens.values(), *texts]


@signed_in
@require_safe
def cost_calls(request: HttpRequest) -> HttpResponse:
    """The calls behind a line of the table, newest first."""
    access = access_of(request)
    choice = read_choice(request, access)
    begin, end = choice.period.moments
    calls = ModelCall.objects.filter(department__in=access.ids, started_at__gte=begin, started_at__lt=end)
    asked = _asked(request)
    for name, value in asked.items():
        # Of a model as in the sums: the one that answered, or that was asked.
        of_model = Q(model_used=value) | Q(model_used="", model_asked=value)
        calls = calls.filter(of_model if name == "model" else Q((CALLS_BY[name], value)))
    for name in _of_items(access):
        if value := request.GET.get(name, ""):
            calls = calls.filter(**{f"item__{path_of(access.shown, name)}": value})
    if request.GET.get("try_outs"):
        calls = calls.filter(try_out__isnull=False)
    if request.GET.get("checks"):
        calls = calls.filter(item=None)
    if request.GET.get("waste"):
        calls = calls.exclude(cause="", error="")
    page = read_page(request, calls.select_related("agent", "item", "agent_run"))
    context = {
        "access": access,
        "choice": choice,
        "page": page,
        "title": next((title for name, title in APART.items() if request.GET.get(name)), "Calls"),
        "narrowed": _narrowed(request, access, asked, page.rows),
        "back": _back(request, access, asked, choice),
        "rows": [(call, show_model_call(call)) for call in page.rows],
    }
    return show(request, "runs/cost_calls.html", "runs/_cost_calls.html", context)


def _asked(request: HttpRequest) -> dict[str, str]:
    """By which of ``CALLS_BY`` the address narrows, and to what; what is no id narrows nothing."""
    given = {name: request.GET.get(name, "") for name in CALLS_BY}
    return {
        name: value for name, value in given.items() if value and (name == "model" or read_number(value) is not None)
    }


def _narrowed(request: HttpRequest, access: Access, asked: Mapping[str, str], calls: Sequence[ModelCall]) -> list[str]:
    """What these calls have in common, in words; of what has no call nothing is said."""
    shown = {name: request.GET[name] for name in ("model", *_of_items(access)) if request.GET.get(name)}
    if STATUS in shown:
        shown[STATUS] = access.shown[0].spec.status_spec(shown[STATUS]).label
    for call in calls[:1]:
        shown |= {"agent": call.agent.title} if "agent" in asked else {}
        shown |= (
            {"SOUL": f"{call.soul.number or 'draft'} of {call.agent.title}"} if "soul" in asked and call.soul else {}
        )
        shown |= {"item": call.item.title} if "item" in asked and call.item else {}
    return [f"{name} {value}" for name, value in shown.items()]


def _back(request: HttpRequest, access: Access, asked: Mapping[str, str], choice: Choice) -> str:
    """The costs page that the calls were opened from: the same days, by what they have in common."""
    by = next((name for name in (*asked, *_of_items(access)) if request.GET.get(name)), choice.by)
    kept = {name: request.GET[name] for name in ("department", "period", "from", "to") if request.GET.get(name)}
    return f"{reverse('runs:costs')}?{urlencode({**kept, 'by': by})}"


def read_choice(request: HttpRequest, access: Access) -> Choice:
    """Period and dimension from the URL; 404 for a dimension nobody has. Bad dates are the last 30 days."""
    today = timezone.now().astimezone(UTC).date()
    name = request.GET.get("period", "30d")
    by = request.GET.get("by", "agent")
    if by not in dimensions([department.spec for department in access.shown]):
        raise Http404("Costs cannot be broken down by this.")
    return Choice(name if name in PERIODS else "30d", _period(request, name, today), by)


def _period(request: HttpRequest, name: str, today: date) -> Period:
    first_of_month = today.replace(day=1)
    match name:
        case "today":
            return Period(today, today)
        case "7d":
            return Period(today - timedelta(days=6), today)
        case "month":
            return Period(first_of_month, today)
        case "last_month":
            last = first_of_month - timedelta(days=1)
            return Period(last.replace(day=1), last)
        case "custom":
            try:
                first, last = (datetime.fromisoformat(request.GET[key]).date() for key in ("from", "to"))
            except (KeyError, ValueError):
                return Period(today - timedelta(days=29), today)
            # No further: the days before, and the day after, are looked at too.
            return Period(*sorted(min(max(day, EARLIEST), LATEST) for day in (first, last)))
    return Period(today - timedelta(days=29), today)


def _rows(
    request: HttpRequest, access: Access, choice: Choice, report: Report, pauses: Mapping[int, Pause]
) -> list[Row]:
    dearest = max((line.cost.usd for line in report.lines), default=Decimal(0))
    url_of = _calls_urls(request, access, choice)
    return [
        Row(
            line,
            round(line.cost.usd * 100 / dearest) if dearest else 0,
            url_of(line.cost),
            pauses.get(line.cost.key),
        )
        for line in report.lines
    ]


def _of_items(access: Access) -> list[str]:
    """Dimensions of what items are, which open the calls of those that are it now."""
    known = dimensions([department.spec for department in access.shown])
    return [name for name in known if name not in ("day", "department", *CALLS_BY)]


def _calls_urls(request: HttpRequest, access: Access, choice: Choice) -> Callable[[Cost], str]:
    """For a line the address of the calls behind it, empty where there is none. What all have is written once."""
    kept = request.GET.copy()
    replaced = ("period", "from", "to") if choice.by == "day" else ("checks", choice.by)
    for name in ("before", "after", "by", *replaced):
        kept.pop(name, None)
    base = f"{reverse('runs:cost_calls')}?{kept.urlencode()}{'&' if kept else ''}"
    slugs = {department.pk: department.slug for department in access.shown}
    has_calls = choice.by in (*CALLS_BY, *_of_items(access))

    def url_of(cost: Cost) -> str:
        if choice.by == "day":
            return f"{base}period=custom&from={cost.key}&to={cost.key}"
        if choice.by == "department":
            return f"{base}department={quote(slugs[cost.key])}"
        if cost.key == CHECKS:
            return f"{base}checks=1"
        return f"{base}{choice.by}={quote(str(cost.key))}" if has_calls and cost.key not in (None, "") else ""

    return url_of


def _load_agents(report: Report, access: Access) -> list[Agent]:
    """Those who made the calls, department by department."""
    agents = _AGENTS.objects(agents={row.agent_id for row in report.usages})
    known = {department.pk: (number, department) for number, department in enumerate(access.shown)}
    for agent in agents:
        agent.department = known[agent.department_id][1]
    return sorted(agents, key=lambda agent: (known[agent.department_id][0], agent.pk))


def _what_if(
    request: HttpRequest, report: Report, agents: Sequence[Agent], judged: Mapping[str, Verdicts]
) -> dict[str, Any]:
    """The same tokens on one model only, with what people thought of what it wrote, as batches, and on the model chosen
    for each agent by ``if_<agent id>``."""
    chosen = {agent.pk: request.GET.get(f"if_{agent.pk}", "") for agent in agents}
    now_usd = report.whole.cost.usd
    return {
        "batched_usd": report.as_batches(now_usd),
        "batch": shipped_batch_price(),
        "single": [
            (model, usd, usd - now_usd, report.as_batches(usd), judged.get(model)) for model, usd in report.by_model
        ],
        "agents": [(agent, chosen[agent.pk]) for agent in agents],
        "several": len({agent.department_id for agent in agents}) > 1,
        "models": report.prices.models,
        "chosen_usd": report.chosen_usd(chosen),
    }
