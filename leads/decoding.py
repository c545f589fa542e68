"""Says what a file is and in which encoding its text is written, from its bytes and never from its name."""

from __future__ import annotations

import codecs
from typing import BinaryIO, Literal

import charset_normalizer

_SAMPLE_BYTES = 65_536
_CHUNK_BYTES = 1_048_576
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_REFUSED = (
    (b"\xd0\xcf\x11\xe0", "This is an old Excel file (.xls) or a protected one. Save it as .xlsx or .csv."),
    (b"%PDF", "This is a PDF. Export the table as .csv or .xlsx."),
    (b"\x1f\x8b", "This file is compressed (gzip). Unpack it first."),
    (b"7z\xbc\xaf", "This file is compressed (7z). Unpack it first."),
    (b"Rar!", "This file is compressed (RAR). Unpack it first."),
    (b"\x89PNG", "This is a picture, not a table."),
    (b"\xff\xd8\xff", "This is a picture, not a table."),
    (b"SQLite format 3", "This is a database, not a table. Export the table as .csv."),
)
_HTML = (b"<!doctype html", b"<html", b"<table", b"<?xml")
# What charset-normalizer may overrule Windows-1252 with. It cannot tell the Latin code pages apart in a short
# text, so those are not asked about; Mac OS Roman it knows by the many wrong signs the others would show.
_OTHERS = ("cp1251", "cp1253", "koi8_r", "cp932", "gb18030", "big5", "euc_kr", "mac_roman")
_LATIN = ("cp1252", "cp1250", "cp1254")


class ReadError(Exception):
    """The file cannot be read. The text is a sentence for the person who gave it, and says what to do."""


def detect_format(file: BinaryIO) -> Literal["csv", "xlsx"]:
    """What the file is; ``ReadError`` if it is neither, or empty. Leaves the file at its start."""
    head = file.read(_SAMPLE_BYTES)
    file.seek(0)
    if not head.strip():
        raise ReadError("The file is empty.")
    for magic, sentence in _REFUSED:
        if head.startswith(magic):
            raise ReadError(sentence)
    if head.startswith(b"PK\x03\x04"):
        return "xlsx"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        raise ReadError("This is a web page or an XML file, not a table. Save it as .xlsx or .csv.")
    return "csv"


def detect_encoding(file: BinaryIO) -> str:
    """The codec of a text file, which is read once from end to end; leaves the file at its start.

    In this order: byte order mark, UTF-16 by its zero bytes, UTF-8, what charset-normalizer is sure of,
    Windows-1252. ``ReadError`` if it is no text.
    """
    head = file.read(_SAMPLE_BYTES)
    file.seek(0)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        return _utf16_without_mark(head)
    if _control_share(head) > 0.02:
        raise ReadError("This is not a table: the file holds binary data.")
    sample = _first_part_that_is_not_utf8(file)
    file.seek(0)
    if sample is None or _is_utf8_with_a_few_faults(sample):
        return "utf-8"
    return _advised(sample)


def _control_share(head: bytes) -> float:
    controls = sum(head.count(bytes([code])) for code in (*range(1, 9), *range(14, 27), *range(28, 32)))
    return controls / len(head)


def _utf16_without_mark(head: bytes) -> str:
    """Delimiters and line ends are ASCII: in UTF-16 their zero bytes stand on one side, and they are found."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    name = "utf-16-le" if odd > even else "utf-16-be"
    if min(even, odd) * 20 <= max(even, odd) and (even + odd) * 50 > len(head):
        try:
            text = head[: len(head) // 2 * 2].decode(name)
        except UnicodeDecodeError as error:
            # A pair of surrogates may be cut in half at the end of the sample.
            text = head[: error.start].decode(name) if error.start > len(head) - 4 else "\0"
        if "\0" not in text and any(sign in text for sign in ",;\t|\r\n"):
            return name
    raise ReadError("This is not a table: the file holds NUL bytes. Save it again as .csv (UTF-8) or .xlsx.")


def _first_part_that_is_not_utf8(file: BinaryIO) -> bytes | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := file.read(_CHUNK_BYTES):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            return bytes(error.object)[max(0, error.start - 1_000) :][:_SAMPLE_BYTES]
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return bytes(error.object)
    return None


def _is_utf8_with_a_few_faults(sample: bytes) -> bool:
    text = sample.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    right = sum(1 for char in text if char > "\x7f") - wrong
    return right > 10 * wrong


def _advised(sample: bytes) -> str:
    matches = charset_normalizer.from_bytes(sample, cp_isolation=[*_OTHERS, *_LATIN])
    best = matches.best()
    if best is None or best.encoding not in _OTHERS:
        return "cp1252"
    rivals = [m for m in matches if m.encoding in _LATIN and m.chaos <= best.chaos]
    return "cp1252" if rivals else best.encoding
