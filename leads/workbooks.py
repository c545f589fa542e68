"""Reads the first worksheet of an Excel workbook row by row. Only its shared texts are held in memory."""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import openpyxl

from leads.decoding import ReadError

_MAX_SHARED_STRINGS_BYTES = 100 * 1024 * 1024
_MAX_SHEET_BYTES = 1 * 1024 * 1024 * 1024
_SHEET_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!"}


@contextmanager
def open_workbook(file: BinaryIO) -> Iterator[tuple[Iterator[list[str]], Callable[[], int]]]:
    """The rows of the first worksheet as text, and a function that says how many per cent are read.

    ``ReadError`` at once, or later from the rows, if the file is damaged or too large.
    """
    _refuse_bombs(file)
    try:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        sheet = workbook.worksheets[0]
        expected = sheet.max_row or 0
    except Exception as error:  # openpyxl answers damaged files with whatever its parsers raise
        raise ReadError(f"The workbook is damaged and cannot be read ({type(error).__name__}).") from error
    sheet.reset_dimensions()  # many programs write them wrong, and rows would be cut there
    done = 0

    def rows() -> Iterator[list[str]]:
        nonlocal done
        for done, cells in enumerate(_sheet_rows(sheet), start=1):  # noqa: B007 - percent reads it
            yield [_cell_text(value) for value in cells]

    try:
        yield rows(), lambda: min(100, done * 100 // expected) if expected else 0
    finally:
        workbook.close()


def _sheet_rows(sheet: Any) -> Iterator[tuple[Any, ...]]:
    rows = sheet.iter_rows(values_only=True)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # as above, and only here: a fault of ours must not look like a damaged file
            raise ReadError(f"The worksheet is damaged from here on ({type(error).__name__}).") from error
        yield row


def _refuse_bombs(file: BinaryIO) -> None:
    """``zipfile`` reads no more of a member than its directory admits to, so the sizes can be trusted."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info.file_size for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ReadError("The workbook is damaged and cannot be read.") from error
    file.seek(0)
    if "xl/workbook.xml" not in members:
        raise ReadError("This archive is no Excel workbook. Save the table as .xlsx or .csv.")
    if members.get("xl/sharedStrings.xml", 0) > _MAX_SHARED_STRINGS_BYTES:
        raise ReadError("The workbook holds more text than can be read at once. Save the table as .csv.")
    if max(members.values()) > _MAX_SHEET_BYTES:
        raise ReadError("The workbook is too large when unpacked. Save the table as .csv.")


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "" if value in _SHEET_ERRORS else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return str(value)
