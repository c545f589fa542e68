"""``manage.py sync_departments``: create the departments, agents, SOULs, rules and prices missing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.souls import SoulError
from runs.syncing import FullReport, sync_everything


class Command(BaseCommand):
    help = (
        "Creates the departments, agents, SOULs, rules and prices that are missing. "
        "Never overwrites what an administrator changed, and reports where it differs from the code."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--check",
            action="store_true",
            help="Create nothing; exit with 1 if something is missing or wrong.",
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object and nothing else.")

    def handle(self, *args: Any, **options: Any) -> None:
        check: bool = options["check"]
        try:
            report = sync_everything(dry=check)
        except (SoulError, ValueError) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(report, check), ensure_ascii=False, default=str))
        else:
            self._print(report, check)
        if check and (report.created or report.problems):
            raise SystemExit(1)

    def _print(self, report: FullReport, check: bool) -> None:
        for line in report.created:
            self.stdout.write(f"{'missing' if check else 'created'}  {line}")
        for difference in report.differences:
            self.stdout.write(f"differs  {_short(difference)}")
        for problem in report.problems:
            self.stdout.write(self.style.ERROR(f"problem  {problem}"))
        if not (report.created or report.problems):
            self.stdout.write("Nothing is missing.")


def _short(difference: Any) -> str:
    """The difference on one line: whole SOUL sections are in the admin and in the JSON."""
    line = " ".join(str(difference).split())
    return line if len(line) <= 200 else f"{line[:199]}…"


def _as_json(report: FullReport, check: bool) -> dict[str, Any]:
    return {
        "check": check,
        "missing" if check else "created": report.created,
        "differences": [asdict(difference) for difference in report.differences],
        "problems": report.problems,
    }
