"""``manage.py costs``: the figures of the costs page as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, date, timedelta
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from agents.models import Agent, Department
from agents.pricing import shipped_batch_price
from runs.cost_report import Line, Report, make_reports
from runs.cost_sums import Period
from runs.costs import dimensions
from runs.model_quality import judged_by_model


class Command(BaseCommand):
    """Prints one JSON object: the sum, what came of it, what other models had cost, and every line by dimensions."""

    help = "Print what model calls cost as JSON, with everything that the costs page shows. Days are UTC."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--by",
            action="append",
            default=[],
            help="agent, model, soul, department, day, item, status, ...; may be repeated (default: agent)",
        )
        parser.add_argument("--from", dest="first", type=_day, help="first day, YYYY-MM-DD (default: 30 days ago)")
        parser.add_argument("--to", dest="last", type=_day, help="last day (default: today)")
        parser.add_argument("--department", action="append", default=[], help="slug; default: all")
        parser.add_argument(
            "--what-if",
            action="append",
            default=[],
            metavar="AGENT=MODEL",
            help="what the same tokens had cost if this agent had used that model; may be repeated",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        departments = list(Department.objects.all())
        if unknown := set(options["department"]) - {department.slug for department in departments}:
            raise CommandError(f"There is no department {', '.join(sorted(unknown))}.")
        chosen = [d for d in departments if not options["department"] or d.slug in options["department"]]
        known, by = dimensions([department.spec for department in chosen]), options["by"] or ["agent"]
        if wrong := [name for name in by if name not in known]:
            raise CommandError(f"Costs cannot be broken down by {wrong[0]!r}, only by {', '.join(known)}.")
        last = options["last"] or timezone.now().astimezone(UTC).date()
        period = Period(options["first"] or last - timedelta(days=29), last)
        if period.first > period.last:
            raise CommandError("--from lies after --to.")
        reports = make_reports(chosen, period, dict.fromkeys(by))
        choices = _choices(options["what_if"], chosen, reports[0])
        self.stdout.write(json.dumps(_as_json(reports, chosen, choices), indent=2, ensure_ascii=False))


def _choices(given: Sequence[str], departments: Sequence[Department], report: Report) -> dict[int, str]:
    """Agent ids to models. CommandError for what is no agent or no model."""
    found: dict[int, str] = {}
    for text in given:
        slug, _, model = text.partition("=")
        ids = list(Agent.objects.filter(department__in=departments, slug=slug).values_list("pk", flat=True))
        if not ids:
            raise CommandError(f"No agent of these departments is called {slug!r}.")
        if model not in report.prices.models:
            raise CommandError(f"{model!r} has no price; these have: {', '.join(report.prices.models)}.")
        found |= dict.fromkeys(ids, model)
    return found


def _as_json(reports: Sequence[Report], departments: Sequence[Department], choices: dict[int, str]) -> dict[str, Any]:
    report = reports[0]
    whole = report.whole.cost
    judged = judged_by_model([department.pk for department in departments], report.period)
    chosen_usd = report.chosen_usd(choices)
    return {
        "from": str(report.period.first),
        "to": str(report.period.last),
        "compared_with": {"from": str(report.period.before.first), "to": str(report.period.before.last)},
        "departments": [department.slug for department in departments],
        "total": {**_line(report.whole), "waste_percent": report.waste_percent},
        "prompt_cache": {"read_percent": whole.cached_percent, "saved_usd": _usd(report.saving_usd)},
        "try_outs": {"calls": report.try_outs.calls, "cost_usd": _usd(report.try_outs.usd)},
        "checks": {"calls": report.checks.calls, "cost_usd": _usd(report.checks.usd)},
        "outcomes": [{"outcome": one.name, "count": one.count, "usd_each": _usd(one.usd)} for one in report.outcomes],
        "what_if": {
            "one_model": {model: _usd(usd) for model, usd in report.by_model},
            "as_batches": {
                "source": shipped_batch_price().source,
                "as_it_was": _usd(report.as_batches(whole.usd)),
                "one_model": {model: _usd(report.as_batches(usd)) for model, usd in report.by_model},
            },
            "judged": {
                model: {"decided": one.decided, "approved_as_written": one.approved} for model, one in judged.items()
            },
            "chosen_usd": _usd(chosen_usd),
        },
        "by": {one.by: [_line(line) for line in one.lines] for one in reports},
    }


def _line(line: Line) -> dict[str, Any]:
    """Amounts as text, because JSON's numbers do not keep the last digit. What is not known is null."""
    cost, cache = line.cost, line.cache
    found = {
        "key": str(cost.key) if isinstance(cost.key, date) else cost.key,
        "label": cost.label,
        "calls": cost.calls,
        "items": cost.items or None,
        "tokens": line.tokens,
        "cost_usd": _usd(cost.usd),
        "waste_usd": _usd(cost.waste_usd),
        "estimated_usd": _usd(line.estimated_usd),
        "before_usd": _usd(line.before_usd),
        "change_percent": line.change_percent,
    }
    if cache is not None:
        found["prompt_cache"] = {"read_percent": cache.hit_percent, "saved_usd": _usd(cache.saved_usd)}
    return found


def _usd(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:.8f}"


def _day(text: str) -> date:
    day = date.fromisoformat(text)
    if not 2000 <= day.year < 2100:
        raise ValueError("No call was made on that day.")
    return day
