"""What an import would do, before it does it: for the upload page and for ``import_leads --dry-run``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agents.models import Department
from leads.decoding import ReadError
from leads.importing import batches, read_rows
from leads.intake import Landed, preview_leads
from leads.mapping import LeadRow, check_mapping
from leads.reading import Row, Table, open_table

SHOWN_ROWS = 20
SHOWN_REJECTS = 50
PREVIEW_SECONDS = 2.0
_COUNTED = ("created", "merged", "unchanged", "rejected")


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """A few hundred rows as they would be imported: leads with their fate, and ``(number, reason)`` of the rest."""

    leads: list[tuple[LeadRow, Landed]]
    rejected: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the file: what it is taken for, and the first value in it."""

    name: str
    target: str
    sample: str


@dataclass(slots=True)
class Preview:
    """The first rows as they would be imported. The counts are of ``checked`` rows: all, if ``is_complete``."""

    format: str
    encoding: str
    delimiter: str
    columns: list[Column]
    rows: list[tuple[LeadRow, Landed]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    rejects: list[tuple[int, str]] = field(default_factory=list)
    checked: int = 0
    is_complete: bool = True
    problem: str = ""

    @property
    def more_rejects(self) -> int:
        """Rejected rows that are not among those shown."""
        return self.counts["rejected"] - len(self.rejects)


def check_table(
    table: Table, *, department: Department, source: str, mapping: Mapping[str, str]
) -> Iterator[CheckedBatch]:
    """Every row of the table and what would become of it; nothing is written.

    Addresses are remembered as numbers, so that a duplicate far below counts as merged: 60 bytes a row.
    """
    seen: set[int] = set()
    for batch in batches(table.rows()):
        leads, rejected = read_rows(batch, mapping)
        landed = preview_leads(department=department, rows=leads, source=source)
        checked = []
        for lead, fate in zip(leads, landed, strict=True):
            keys = {hash(key) for key in ((1, lead.email), (2, lead.external_id)) if key[1]}
            if fate.what == "created" and keys & seen:
                fate = replace(fate, what="merged")
            seen |= keys
            checked.append((lead, fate))
        yield CheckedBatch(checked, rejected)


def preview_file(
    path: Path, *, department: Department, source: str, mapping: Mapping[str, str], seconds: float = PREVIEW_SECONDS
) -> Preview:
    """The preview of a file; ``ReadError`` if it is no table, ``MappingError`` if the mapping does not fit it.

    It stops after ``seconds`` and says so: a web page does not wait for 100,000 rows.
    """
    deadline = time.monotonic() + seconds
    with open_table(path) as table:
        checked_mapping = check_mapping(mapping, table.columns)
        first: list[Row] = []
        preview = Preview(table.format, table.encoding, table.delimiter, [])
        watched = replace(table, rows=lambda: _watch(table.rows(), first))
        try:
            for batch in check_table(watched, department=department, source=source, mapping=checked_mapping):
                _add(preview, batch)
                if time.monotonic() > deadline:
                    preview.is_complete = False
                    break
        except ReadError as error:
            preview.problem = str(error)
        preview.columns = [Column(n, t, _sample(first, n)) for n, t in checked_mapping.items()]
    return preview


def list_columns(path: Path, mapping: Mapping[str, str]) -> list[Column]:
    """The columns alone, for a mapping that does not hold: what a person needs to mend it."""
    with open_table(path) as table:
        first: list[Row] = []
        for _ in _watch(table.rows(), first):
            if len(first) >= SHOWN_ROWS:
                break
        return [Column(name, mapping.get(name, ""), _sample(first, name)) for name in table.columns]


def _add(preview: Preview, batch: CheckedBatch) -> None:
    preview.checked += len(batch.leads) + len(batch.rejected)
    for _, landed in batch.leads:
        preview.counts[landed.what] += 1
    preview.counts["rejected"] += len(batch.rejected)
    preview.rows += batch.leads[: SHOWN_ROWS - len(preview.rows)]
    preview.rejects += batch.rejected[: SHOWN_REJECTS - len(preview.rejects)]


def _watch(rows: Iterator[Row], first: list[Row]) -> Iterator[Row]:
    for row in rows:
        if len(first) < SHOWN_ROWS and not row.problem:
            first.append(row)
        yield row


def _sample(rows: list[Row], column: str) -> str:
    return next((value.strip() for row in rows if (value := row.cells.get(column, "")).strip()), "")[:80]
