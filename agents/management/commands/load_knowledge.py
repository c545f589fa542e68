"""Puts documents into a department's knowledge from files, as the upload page does from the browser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.knowledge import DocumentError, add_document, read_document
from agents.models import Department

SUFFIXES = (".md", ".markdown", ".txt", ".text", ".html", ".htm")
_HEADING = re.compile(r"^\s*#\s+(.+?)\s*#*\s*$")


class Command(BaseCommand):
    help = "Load documents (.md, .txt, .html) for a department's agents to search; again changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        """Files or folders, and the department."""
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="A file, or a folder of files.")
        parser.add_argument("--department", default="sales", help="Slug of the department (default: sales).")

    def handle(self, *args: Any, **options: Any) -> None:
        """Load every file; those that cannot be read are listed at the end and make the exit code 1."""
        try:
            department = Department.objects.get(slug=options["department"])
        except Department.DoesNotExist:
            known = ", ".join(Department.objects.values_list("slug", flat=True)) or "none; run sync_departments first"
            raise CommandError(f"There is no department {options['department']!r}. There is: {known}.") from None
        loaded, refused = 0, []
        for path in find_files(options["paths"]):
            try:
                text = read_document(path.name, path.read_bytes())
                add_document(department=department, title=find_title(path, text), text=text, source=path.name)
            except (DocumentError, OSError) as error:
                refused.append(f"{path}: {error}")
            else:
                loaded += 1
        if options["verbosity"]:
            self.stdout.write(f"{loaded} documents are in the knowledge of {department.name}.")
        if refused:
            raise CommandError("These files were left out:\n" + "\n".join(refused))


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and the readable ones in folders named; CommandError for what is not there."""
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            yield path
        else:
            raise CommandError(f"There is no file or folder {str(path)!r}.")


def find_title(path: Path, text: str) -> str:
    """The first heading of a Markdown document, else the file's name in words."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    heading = _HEADING.match(first)
    return heading.group(1) if heading else path.stem.replace("-", " ").replace("_", " ").strip().capitalize()
