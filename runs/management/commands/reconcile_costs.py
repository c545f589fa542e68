"""``manage.py reconcile_costs``: our figures beside a usage export of the provider."""

from __future__ import annotations

import csv
from argparse import ArgumentParser
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs.reconciling import Key, Unreadable, compare, left_out, our_figures, read_export


class Command(BaseCommand):
    """Prints the differences by day and model. Ends with an error if there is one."""

    help = (
        "Compare what Kontor has recorded with a usage export of the provider (CSV with day, model and tokens by kind; "
        "costs if it has them). Days are UTC. Say --from and --to for the days that the export was made for: it has no "
        "lines for days on which the provider has seen nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--usage-export", required=True, type=Path, metavar="FILE")
        parser.add_argument("--from", dest="first", type=date.fromisoformat, help="first day (default: the export's)")
        parser.add_argument("--to", dest="last", type=date.fromisoformat, help="last day (default: the export's)")
        parser.add_argument("--api-key-env", default="", help="only departments whose key is in this variable")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["usage_export"]
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                theirs = read_export(file)
        except OSError as error:
            raise CommandError(f"The export cannot be opened: {error}") from error
        except (Unreadable, UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{path}: {error}") from error
        if not theirs:
            raise CommandError(f"{path} has no lines: there is nothing to compare.")
        first, last = options["first"] or min(theirs).day, options["last"] or max(theirs).day
        if first > last:
            raise CommandError(f"There are no days from {first} to {last}. The export has {_days(theirs)}.")
        theirs = {key: figures for key, figures in theirs.items() if first <= key.day <= last}
        ours = our_figures(first, last, options["api_key_env"])
        differences = compare(ours, theirs)
        for difference in differences:
            self.stdout.write(f"{difference.key.day}  {difference.key.model}")
            for line in difference.lines:
                self.stdout.write(f"    {line}")
        if theirs and (missing := left_out(theirs)):
            self.stdout.write(f"Not compared, as the export has no column for it: {', '.join(missing)}.")
        known = len(ours.keys() | theirs.keys())
        agreed = f"{known - len(differences)} of {known} days and models agree ({first} to {last}, UTC)."
        if differences:
            raise CommandError(agreed)
        self.stdout.write(agreed)


def _days(export: Iterable[Key]) -> str:
    days = [key.day for key in export]
    return f"{min(days)} to {max(days)}"
