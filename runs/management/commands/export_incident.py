from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs.incident_export import KINDS, export_incident, file_name
from runs.models import Review


class Command(BaseCommand):
    """Writes the same zip file as the button on the incident's page."""

    help = "Write an incident with its runs, calls and log, without secrets, into a zip file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("incident", type=int, help="its number, as in the address of its page")
        parser.add_argument("--to", default="", help="the file (default: incident-<number>.zip here)")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Review.objects.filter(kind__in=KINDS).select_related("department")
        review = rows.filter(pk=options["incident"]).first()
        if review is None:
            raise CommandError(f"There is no incident {options['incident']}.")
        path = Path(options["to"] or file_name(review))
        try:
            with path.open("xb") as file:
                for piece in export_incident(review=review, user=None, sees_system=True):
                    file.write(piece)
        except FileExistsError as error:
            raise CommandError(f"{path} is there already. Name another file with --to.") from error
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
        self.stdout.write(f"{path}: {path.stat().st_size:,} bytes.")
