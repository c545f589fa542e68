from __future__ import annotations

import csv
import itertools
import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from agents.models import Department
from leads.decoding import ReadError
from leads.department import SALES
from leads.import_jobs import LostLeaseError, open_command_job
from leads.import_preview import check_table
from leads.importing import run_import
from leads.mapping import MappingError, check_mapping
from leads.models import ImportJob, ImportRemark
from leads.reading import Table, open_table

ON_SCREEN = 20
COUNTS = ("imported", "merged", "unchanged", "rejected")
Remarks = Iterable[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Stored:
    """Remarks in the database, which may be many: read anew, a few at a time, whenever they are walked."""

    query: QuerySet[ImportRemark, tuple[int, str]]

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return iter(self.query.iterator(chunk_size=1_000))


class Command(BaseCommand):
    help = "Import a CSV or XLSX file of leads. The same command again continues an import that was interrupted."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--department", default="sales", metavar="SLUG", help="Default: sales.")
        parser.add_argument("--source", default="", metavar="NAME", help="Default: the name of the file.")
        parser.add_argument("--mapping", type=Path, metavar="FILE", help='JSON: {"column": "field"}.')
        parser.add_argument("--rejects", type=Path, metavar="FILE", help="Write every rejected row to a CSV file.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be done, and do nothing.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object and nothing else.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit code 0 if any row is a lead now (or would be), 1 otherwise."""
        as_json = options["json"]
        try:
            report, rejects, notes = self._import(options)
            if options["rejects"]:
                _write_rejects(options["rejects"], rejects)
        except (ReadError, MappingError, OSError) as error:
            self._refuse(_sentence(error), as_json=as_json)
        except LostLeaseError:
            self._refuse("Another import_leads has taken over this file.", as_json=as_json)
        if as_json:
            report["rejects"] = [{"row": number, "reason": reason} for number, reason in rejects]
            report["notes"] = [{"row": number, "note": note} for number, note in notes]
            self.stdout.write(json.dumps(report, ensure_ascii=False))
        else:
            self._print(report, rejects, notes)
        if not report["imported"] + report["merged"] + report["unchanged"]:
            sys.exit(1)

    def _import(self, options: dict[str, Any]) -> tuple[dict[str, Any], Remarks, Remarks]:
        started = time.monotonic()
        path: Path = options["file"]
        department = self._department(options["department"], as_json=options["json"])
        source = (options["source"] or path.name)[:80]
        with open_table(path) as table:
            mapping = check_mapping(_read_mapping(options["mapping"]), table.columns)
            report = {"file": str(path), "department": department.slug, "source": source}
            report |= _describe(table, mapping, is_dry=options["dry_run"])
            if options["dry_run"]:
                counts, rejects, notes = _dry_run(table, department, source, mapping)
        if not options["dry_run"]:
            job, is_continued = open_command_job(department=department, path=path, source=source, mapping=mapping)
            run_import(job, path)
            report |= {"job": job.pk, "continued": is_continued}
            counts, rejects, notes = _result(job)
        return report | counts | {"seconds": round(time.monotonic() - started, 3)}, rejects, notes

    def _department(self, slug: str, *, as_json: bool) -> Department:
        department = Department.objects.filter(slug=slug, kind=SALES.kind).first()
        if department is None:
            known = ", ".join(Department.objects.filter(kind=SALES.kind).values_list("slug", flat=True))
            there_are = f"There are: {known}." if known else "Run `manage.py sync_departments` first."
            self._refuse(f"There is no sales department {slug!r}. {there_are}", as_json=as_json)
        return department

    def _refuse(self, sentence: str, *, as_json: bool) -> NoReturn:
        if as_json:
            self.stdout.write(json.dumps({"error": sentence}, ensure_ascii=False))
            sys.exit(1)
        raise CommandError(sentence)

    def _print(self, report: dict[str, Any], rejects: Remarks, notes: Remarks) -> None:
        would = "would be " if report["dry_run"] else ""
        if report.get("continued"):
            self.stdout.write("An import of this file was interrupted; this one continues it.")
        for name in COUNTS:
            self.stdout.write(f"{report[name]:>9,} {would}{name}")
        self._list("Rejected", rejects, report["rejected"])
        self._list("Noted", notes, report["noted"])
        if report["error"]:
            self.stdout.write(f"The file could not be read to its end: {report['error']}")
        self.stdout.write(f"{report['seconds']:.1f} s.")

    def _list(self, heading: str, remarks: Remarks, total: int) -> None:
        if not total:
            return
        self.stdout.write(f"{heading}:")
        for number, text in itertools.islice(remarks, ON_SCREEN):
            self.stdout.write(f"  row {number}: {text}")
        if total > ON_SCREEN:
            self.stdout.write(f"  … and {total - ON_SCREEN:,} more: --json or --rejects FILE lists all.")


def _describe(table: Table, mapping: dict[str, str], *, is_dry: bool) -> dict[str, Any]:
    return {
        "dry_run": is_dry,
        "format": table.format,
        "encoding": table.encoding,
        "delimiter": table.delimiter,
        "columns": mapping,
    }


def _dry_run(
    table: Table, department: Department, source: str, mapping: dict[str, str]
) -> tuple[dict[str, Any], Remarks, Remarks]:
    counts: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    rejects: list[tuple[int, str]] = []
    notes: list[tuple[int, str]] = []
    error = ""
    try:
        for batch in check_table(table, department=department, source=source, mapping=mapping):
            for _, landed in batch.leads:
                counts["imported" if landed.what == "created" else landed.what] += 1
                notes += [(landed.number, note) for note in landed.notes]
            rejects += batch.rejected
    except ReadError as problem:
        error = str(problem)
    return counts | {"rejected": len(rejects), "noted": len(notes), "error": error}, rejects, notes


def _result(job: ImportJob) -> tuple[dict[str, Any], Remarks, Remarks]:
    remarks = job.remarks.order_by("row_number", "pk").values_list("row_number", "text")
    rejects = remarks.filter(kind=ImportRemark.Kind.REJECTED)
    notes = remarks.filter(kind=ImportRemark.Kind.NOTE)
    counts = {"imported": job.created, "merged": job.merged, "unchanged": job.unchanged}
    counts |= {"rejected": job.rejected, "noted": notes.count()}
    return counts | {"error": job.error}, Stored(rejects), Stored(notes)


def _read_mapping(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise MappingError(f"{path} is not JSON: {error}.") from error
    if not isinstance(given, dict):
        raise MappingError(f'{path} must hold one JSON object: {{"column": "field"}}.')
    return given


def _write_rejects(path: Path, rejects: Remarks) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("row", "reason"))
        writer.writerows(rejects)


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"There is no file {error.filename}."
    return str(error)
