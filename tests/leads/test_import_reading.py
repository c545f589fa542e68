"""Tables: formats, encodings, delimiters, and faults that cost one row and not the file."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leads.decoding import ReadError
from leads.reading import MAX_RECORD_CHARS, Row, open_table

GERMAN = "Vorname;Nachname;Firma\r\nJürgen;Weiß;Größe & Söhne\r\nFrançois;Lefèvre;Café – Zürich\r\n"


def _read(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    with open_table(path) as table:
        return table.columns, list(table.rows())


def _file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "table"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(ReadError) as refused:
        _read(path)
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (GERMAN.encode(), "utf-8"),
        (GERMAN.encode("utf-8-sig"), "utf-8-sig"),
        (GERMAN.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + GERMAN.encode("utf-16-be"), "utf-16"),
        (GERMAN.encode("utf-16-le"), "utf-16-le"),
        (GERMAN.encode("utf-16-be"), "utf-16-be"),
        (GERMAN.encode("utf-32"), "utf-32"),
        (GERMAN.encode("cp1252"), "cp1252"),
    ],
)
def test_it_finds_the_encoding(tmp_path: Path, content: bytes, encoding: str) -> None:
    with open_table(_file(tmp_path, content)) as table:
        rows = list(table.rows())
        assert table.encoding == encoding
        assert table.delimiter == ";"
        assert table.columns == ("Vorname", "Nachname", "Firma")
    assert rows[0] == Row(2, {"Vorname": "Jürgen", "Nachname": "Weiß", "Firma": "Größe & Söhne"})
    assert rows[1].cells["Firma"] == "Café – Zürich"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Имя;Фамилия;Компания\r\nИван;Петров;Балкан Мебел\r\n", "cp1251"),
        ("姓名;公司\r\n王小明;北京科技有限公司\r\n", "gb18030"),
        ("名前;会社\r\n田中健一;旭木工株式会社\r\n", "cp932"),
        ("name,email\r\nJörg Müller,j@x.example\r\n", "cp1252"),
    ],
)
def test_it_takes_advice_on_texts_that_are_not_utf8(tmp_path: Path, text: str, encoding: str) -> None:
    with open_table(_file(tmp_path, text.encode(encoding))) as table:
        assert table.encoding == encoding
        assert ";".join(table.columns) == text.splitlines()[0].replace(",", ";")


def test_a_late_foreign_byte_decides_the_encoding_of_the_whole_file(tmp_path: Path) -> None:
    lines = ["name,city"] + [f"lead {n},Berlin" for n in range(200_000)] + ["Jörg,Köln"]
    _, rows = _read(_file(tmp_path, "\n".join(lines).encode("cp1252")))
    assert rows[-1].cells == {"name": "Jörg", "city": "Köln"}


def test_a_few_broken_bytes_do_not_turn_utf8_into_another_encoding(tmp_path: Path) -> None:
    good = "name,city\n" + "Jürgen,Zürich\n" * 30
    _, rows = _read(_file(tmp_path, good.encode() + b"J\xfcrgen,Bern\n"))
    assert rows[0].cells["name"] == "Jürgen"
    assert rows[-1].cells["name"] == "J\ufffdrgen"
    assert "not valid" in rows[-1].note


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_it_finds_the_delimiter_although_others_stand_in_the_cells(tmp_path: Path, delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["name", "note", "email"])
    writer.writerow(["Weiß, Anna", "a;b|c\td, and more; really", "anna@x.example"])
    writer.writerow(["Bo", "1,5; 2,5", "bo@x.example"])
    with open_table(_file(tmp_path, text.getvalue())) as table:
        assert table.delimiter == delimiter
        assert next(iter(table.rows())).cells["note"] == "a;b|c\td, and more; really"


def test_a_single_column_is_a_table(tmp_path: Path) -> None:
    assert _read(_file(tmp_path, "email\na@x.example\n")) == (
        ("email",),
        [Row(2, {"email": "a@x.example"})],
    )


def test_it_heeds_the_line_in_which_excel_names_the_delimiter(tmp_path: Path) -> None:
    columns, rows = _read(_file(tmp_path, "sep=|\r\na,b|c\r\n1,2|3\r\n"))
    assert columns == ("a,b", "c")
    assert rows[0].cells == {"a,b": "1,2", "c": "3"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_known(tmp_path: Path, end: str) -> None:
    _, rows = _read(_file(tmp_path, end.join(["a,b", '1,"two\u2028lines\x85"', "3,4", ""])))
    assert [list(row.cells.values()) for row in rows] == [["1", "two\u2028lines\x85"], ["3", "4"]]


def test_columns_without_a_name_or_with_the_same_name_are_told_apart(tmp_path: Path) -> None:
    columns, rows = _read(_file(tmp_path, "Email,,Phone,Phone\na@x.example,x,1,2\n"))
    assert columns == ("Email", "column 2", "Phone", "Phone (2)")
    assert rows[0].cells["Phone (2)"] == "2"


def test_rows_are_numbered_as_in_a_spreadsheet(tmp_path: Path) -> None:
    _, rows = _read(_file(tmp_path, '\n\na,b\n1,"x\ny"\n,\n\n2,z\n'))
    assert [(row.number, row.cells["a"]) for row in rows] == [(4, "1"), (7, "2")]


def test_ragged_rows_are_reported_one_by_one(tmp_path: Path) -> None:
    _, rows = _read(_file(tmp_path, "a,b\n1,2,3\n4\n5,6,\n"))
    assert rows[0].problem == "The row has 3 cells, the header 2."
    assert rows[1].cells == {"a": "4"}
    assert "missing ones count as empty" in rows[1].note
    assert rows[2] == Row(4, {"a": "5", "b": "6"})


def test_a_quotation_mark_that_never_closes_costs_one_row(tmp_path: Path) -> None:
    lines = ["a,b", '1,"broken'] + [f"{n},ok" for n in range(2, 50)]
    _, rows = _read(_file(tmp_path, "\n".join(lines)))
    assert rows[0].problem == "A quotation mark is opened and not closed."
    assert [row.cells["a"] for row in rows[1:]] == [str(n) for n in range(2, 50)]


def test_a_quotation_mark_that_swallows_a_large_file_costs_one_row(tmp_path: Path) -> None:
    lines = ["a,b", '1,"broken'] + [f"{n},{'x' * 90}" for n in range(2, 5_000)]
    _, rows = _read(_file(tmp_path, "\n".join(lines)))
    assert "not closed" in rows[0].problem
    assert len(rows) == 1 + 4_998
    assert not any(row.problem for row in rows[1:])


def test_text_after_a_closing_quotation_mark_is_reported(tmp_path: Path) -> None:
    _, rows = _read(_file(tmp_path, 'a,b\n"Acme" GmbH,2\n3,4\n'))
    assert "Text follows a closing quotation mark" in rows[0].problem
    assert rows[1].cells == {"a": "3", "b": "4"}


def test_an_oversized_cell_is_reported_and_the_next_row_read(tmp_path: Path) -> None:
    _, rows = _read(_file(tmp_path, f"a,b\n1,{'x' * 200_000}\n3,4\n"))
    assert "longer than 131,072 characters" in rows[0].problem
    assert rows[1].cells == {"a": "3", "b": "4"}


def test_an_endless_line_is_reported_and_the_next_row_read(tmp_path: Path) -> None:
    _, rows = _read(_file(tmp_path, f"a,b\n1,{'x,' * MAX_RECORD_CHARS}\n3,4\n"))
    assert "longer than 1,000,000 characters" in rows[0].problem
    assert rows[1].cells == {"a": "3", "b": "4"}


def test_a_row_with_nul_bytes_is_reported(tmp_path: Path) -> None:
    padding = "0,some ordinary text\n" * 5_000
    _, rows = _read(_file(tmp_path, "a,b\n" + padding + "1,x\x00y\n2,z\n"))
    assert rows[-2].problem == "The row holds NUL bytes."
    assert rows[-1].cells == {"a": "2", "b": "z"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t\n", "empty"),
        (b",,\n,,\n", "no header"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "old Excel file"),
        (b"%PDF-1.7\n%abc", "PDF"),
        (b"\x1f\x8b\x08\x00abc", "compressed"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "picture"),
        (b"<!DOCTYPE html><html><table>", "web page"),
        (bytes(range(256)) * 20, "NUL bytes"),
        (bytes(range(1, 32)) * 20, "binary"),
        (b"a,b\n1,\x002\n", "NUL bytes"),
        (b"anna@x.example,Anna\nbo@x.example,Bo\n", "no header"),
        (",".join(f"c{n}" for n in range(501)).encode(), "501 columns"),
        (b'a,"b\n1,2\n', "header cannot be read"),
        (b"PK\x03\x04 and then nothing", "damaged"),
    ],
)
def test_what_is_no_table_is_refused_with_a_reason(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in _refusal(_file(tmp_path, content))


# --- XLSX --------------------------------------------------------------------------------------------------


def _workbook(tmp_path: Path, rows: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in rows:
        sheet.append(row)
    path = tmp_path / "book"
    book.save(path)
    return path


def test_a_workbook_is_read_as_text(tmp_path: Path) -> None:
    naive = datetime(2026, 3, 1, 9, 30)  # noqa: DTZ001 - workbooks know no time zones
    values: list[object] = [7, 7.0, 2.5, True, date(2026, 3, 1), naive, None, "#N/A", "ü"]
    header: list[object] = [f"c{n}" for n in range(len(values))]
    path = _workbook(tmp_path, [header, values, [None] * 9, ["x"]])
    with open_table(path) as table:
        assert table.format == "xlsx"
        rows = list(table.rows())
        assert table.percent() == 100
    expected = ["7", "7", "2.5", "true", "2026-03-01", "2026-03-01T09:30:00", "", "", "ü"]
    assert list(rows[0].cells.values()) == expected
    assert (rows[1].number, rows[1].cells["c0"]) == (4, "x")


def test_an_archive_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "no Excel workbook" in _refusal(path)


def test_a_workbook_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
        with archive.open("xl/sharedStrings.xml", "w") as member:
            for _ in range(101):
                member.write(b"0" * 1_048_576)
    assert "more text than can be read" in _refusal(path)


def test_a_damaged_worksheet_gives_what_stands_before_the_damage(tmp_path: Path) -> None:
    path = _workbook(tmp_path, [["a"], ["1"], ["2"]])
    broken = tmp_path / "broken"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(broken, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info, data.replace(b"</sheetData>", b"<oops") if "sheet1" in info.filename else data)
    with open_table(broken) as table:
        rows = table.rows()
        assert next(rows).cells == {"a": "1"}
        with pytest.raises(ReadError, match="damaged"):
            list(rows)


# --- Fuzz --------------------------------------------------------------------------------------------------


def _walk(content: bytes) -> str:
    """Read all of it; the sentence of the refusal, or nothing."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            with open_table(Path(file.name)) as table:
                for row in table.rows():
                    assert row.number > 1
                    assert set(row.cells) <= set(table.columns)
        except ReadError as error:
            return str(error)
    return ""


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_are_a_table_or_refused(content: bytes) -> None:
    assert _walk(content)[-1:] in ("", ".")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='ab,;\t|"\n\r =é\x00\u2028', max_size=200), st.sampled_from(["utf-8", "utf-16", "cp1252"]))
def test_random_text_is_a_table_or_refused(text: str, encoding: str) -> None:
    assert _walk(text.encode(encoding, errors="ignore"))[-1:] in ("", ".")


_BOOK = io.BytesIO()
_book = openpyxl.Workbook()
_book.worksheets[0].append(["email", "name"])
_book.worksheets[0].append(["a@x.example", "Anna"])
_book.save(_BOOK)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(_BOOK.getvalue()) - 1), st.binary(min_size=1, max_size=30))
def test_damaged_workbooks_are_read_or_refused(position: int, damage: bytes) -> None:
    content = bytearray(_BOOK.getvalue())
    content[position : position + len(damage)] = damage
    assert _walk(bytes(content))[-1:] in ("", ".")


_CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff\ufffd"), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(_CELLS, _CELLS, _CELLS).map(lambda row: ("x", *row)), max_size=8),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
)
def test_valid_tables_come_back_as_they_were(rows: list[tuple[str, ...]], delimiter: str, encoding: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("key", "one", "two", "three"), *rows])
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.getvalue().encode(encoding))
        file.flush()
        _, found = _read(Path(file.name))
    assert [tuple(row.cells.values()) for row in found] == rows
    assert [row.number for row in found] == list(range(2, len(rows) + 2))
