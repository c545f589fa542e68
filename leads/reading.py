"""Reads a table, CSV or XLSX, row by row in constant memory. Knows nothing of leads.

A fault in one row is said of that row and the next ones are read; ``ReadError`` means that the file as a
whole, or the rest of it, cannot be read.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from leads.decoding import ReadError, detect_encoding, detect_format
from leads.workbooks import open_workbook

DELIMITERS = (",", ";", "\t", "|")
MAX_COLUMNS = 500
MAX_RECORD_CHARS = 1_000_000
_SAMPLE_CHARS = 65_536
_SAMPLE_RECORDS = 50
_MAX_COLUMN_NAME = 100
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_SEP_LINE = re.compile(r"sep=([,;\t|])[\r\n]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``cells`` by column name, or the ``problem`` with it.

    ``number`` counts as a spreadsheet does: blank rows too, and the header is row 1 unless such stand above it.
    """

    number: int
    cells: dict[str, str]
    problem: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """An open table. ``rows()`` may be walked once; ``percent()`` says how far it has got."""

    format: str
    encoding: str
    delimiter: str
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]
    percent: Callable[[], int]


Record = tuple[Sequence[str], str]
"""The cells of one record, or why it could not be read."""


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open a file as a table; ``ReadError`` if it is none, ``OSError`` if it cannot be opened."""
    with path.open("rb") as file:
        if detect_format(file) == "xlsx":
            with open_workbook(file) as (rows, percent):
                yield _table("xlsx", "", "", ((cells, "") for cells in rows), percent)
        else:
            encoding = detect_encoding(file)
            text = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
            delimiter, records = _csv_records(text)
            size = max(path.stat().st_size, 1)
            yield _table("csv", encoding, delimiter, records, lambda: min(100, file.tell() * 100 // size))


def _table(format: str, encoding: str, delimiter: str, records: Iterator[Record], percent: Callable[[], int]) -> Table:
    columns, number = _header(records)
    return Table(
        format=format,
        encoding=encoding,
        delimiter=delimiter,
        columns=columns,
        rows=lambda: _rows(records, columns, number),
        percent=percent,
    )


# --- Header and rows, the same for both formats -----------------------------------------------------------


def _header(records: Iterator[Record]) -> tuple[tuple[str, ...], int]:
    """The column names, made unique, and the number of the header's row."""
    for number, (cells, problem) in enumerate(records, start=1):
        if problem:
            raise ReadError(f"The header cannot be read: {problem}")
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > MAX_COLUMNS:
            raise ReadError(f"The table has {len(cells):,} columns; at most {MAX_COLUMNS} can be read.")
        if any(_EMAIL.fullmatch(cell.strip()) for cell in cells):
            raise ReadError(
                "The table has no header: its first row holds an e-mail address. "
                "Put the names of the columns (Name, Email, Company …) into the first row."
            )
        if any("\x00" in cell for cell in cells):
            raise ReadError("This is not a table: its header holds NUL bytes.")
        return _unique_names(cells), number
    raise ReadError("The table is empty: there is no header.")


def _unique_names(cells: Sequence[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for position, cell in enumerate(cells, start=1):
        plain = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in cell)
        base = unicodedata.normalize("NFC", " ".join(plain.split()))[:_MAX_COLUMN_NAME] or f"column {position}"
        name, copy = base, 2
        while name in names:
            name, copy = f"{base} ({copy})", copy + 1
        names[name] = None
    return tuple(names)


def _rows(records: Iterator[Record], columns: tuple[str, ...], header_number: int) -> Iterator[Row]:
    width = len(columns)
    for number, (cells, problem) in enumerate(records, start=header_number + 1):
        if problem:
            yield Row(number, {}, problem=problem)
            continue
        text = "".join(cells)
        if not text or text.isspace():
            continue
        if "\x00" in text:
            yield Row(number, {}, problem="The row holds NUL bytes.")
        elif len(cells) > width and "".join(cells[width:]).strip():
            yield Row(number, {}, problem=f"The row has {len(cells)} cells, the header {width}.")
        else:
            yield Row(number, dict(zip(columns, cells, strict=False)), note=_note(cells, width, text))


def _note(cells: Sequence[str], width: int, text: str) -> str:
    if len(cells) < width:
        return f"The row has {len(cells)} cells, the header {width}: the missing ones count as empty."
    return "The row holds characters that are not valid in the file's encoding." if "\ufffd" in text else ""


# --- CSV --------------------------------------------------------------------------------------------------


class _TooLongError(Exception):
    """A record is longer than any real one: most likely a quotation mark that is never closed."""


class _Lines:
    """The physical lines of a file. Those of the current record are kept, so that a record whose quotation
    mark is never closed costs its first line and not the rest of the file."""

    def __init__(self, file: TextIO, given_back: Sequence[str] = ()) -> None:
        self._file = file
        self._waiting = deque(given_back)
        self._taken: list[str] = []
        self._chars = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._file.readline(MAX_RECORD_CHARS + 1)
        if not line:
            raise StopIteration
        self._chars += len(line)
        if len(line) > MAX_RECORD_CHARS:
            self._skip_rest(line)
            raise _TooLongError
        self._taken.append(line)
        if self._chars > MAX_RECORD_CHARS:
            raise _TooLongError
        return line

    def start_record(self) -> None:
        """Forget the lines of the last record."""
        self._taken.clear()
        self._chars = 0

    def give_back(self) -> None:
        """Read all lines of this record but its first once more."""
        self._waiting.extendleft(reversed(self._taken[1:]))

    def _skip_rest(self, line: str) -> None:
        while line and not line.endswith(("\n", "\r")):
            line = self._file.readline(MAX_RECORD_CHARS)


def _csv_records(file: TextIO) -> tuple[str, Iterator[Record]]:
    """The delimiter, and the records after an optional ``sep=;`` line, as Excel writes one."""
    # Whole lines: what is not part of the sample is read on from the file. StringIO splits as the file does.
    sample = file.read(_SAMPLE_CHARS) + file.readline(MAX_RECORD_CHARS + 1)
    lines = list(io.StringIO(sample, newline=""))
    told = _SEP_LINE.fullmatch(lines[0]) if lines else None
    if told:
        return told[1], _records(_Lines(file, lines[1:]), told[1])
    delimiter = _guess_delimiter(lines)
    return delimiter, _records(_Lines(file, lines), delimiter)


def _records(lines: _Lines, delimiter: str) -> Iterator[Record]:
    while True:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            while True:
                lines.start_record()
                yield next(reader), ""
        except StopIteration:
            return
        except (csv.Error, _TooLongError) as error:
            lines.give_back()
            yield (), _quote_problem(error)


def _quote_problem(error: Exception) -> str:
    if isinstance(error, _TooLongError):
        return f"The row is longer than {MAX_RECORD_CHARS:,} characters. Is a quotation mark not closed?"
    if "field larger" in str(error):
        return f"A cell is longer than {csv.field_size_limit():,} characters. Is a quotation mark not closed?"
    if "end of data" in str(error):
        return "A quotation mark is opened and not closed."
    if "expected after" in str(error):
        return "Text follows a closing quotation mark. A quotation mark inside a cell is written twice."
    return f"The row cannot be read: {error}."


def _guess_delimiter(lines: list[str]) -> str:
    """The delimiter under which the first records have most often as many cells as the header.

    ``csv.Sniffer`` is not used: it takes letters' frequencies for structure and is wrong on short files.
    """
    scores = {}
    for position, delimiter in enumerate(DELIMITERS):
        widths = []
        for cells, problem in _records(_Lines(io.StringIO(), lines), delimiter):
            if problem or cells:
                widths.append(0 if problem else len(cells))
            if len(widths) == _SAMPLE_RECORDS:
                break
        if widths and widths[0] > 1:
            agreeing = sum(width == widths[0] for width in widths) / len(widths)
            scores[delimiter] = (round(agreeing, 2), widths[0], -position)
    return max(scores, key=lambda d: scores[d]) if scores else ","
