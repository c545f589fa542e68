from __future__ import annotations

import time

import pytest

from agents.reading import decode_text, page_text, storable

GERMAN = "Größe, Maß und Übermaß für Brauereien: fünf €"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_the_usual_encodings_are_told_apart(encoding: str) -> None:
    assert decode_text(GERMAN.encode(encoding)) == GERMAN


def test_another_alphabet_is_recognised_without_a_declaration() -> None:
    text = "Мы делаем насосы для пивоварен на севере страны с тысяча девятьсот пятьдесят четвёртого года. "
    assert decode_text(text.encode("cp1251")) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Насосы для пивоварен", "koi8-r"),
        ("ビールのポンプ", "shift_jis"),
        ("啤酒厂的泵", "gb18030"),
        (GERMAN, "cp1252"),
    ],
)
def test_a_declared_charset_is_used(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding), encoding) == text
    page = f'<html><meta charset="{encoding}"><p>{text}'
    assert decode_text(page.encode(encoding)) == page


@pytest.mark.parametrize("declared", ["punycode", "idna", "unicode_escape", "rot13", "zlib", "no such", "\x00", ""])
def test_a_charset_no_page_has_is_ignored(declared: str) -> None:
    assert decode_text(GERMAN.encode(), declared) == GERMAN


def test_a_wrong_declaration_gives_way() -> None:
    assert decode_text((GERMAN * 5).encode("cp1252"), "utf-8") == GERMAN * 5


def test_a_character_cut_in_half_does_not_change_the_charset() -> None:
    assert decode_text((GERMAN + "€").encode()[:-1], "utf-8") == GERMAN + "\ufffd"


def test_a_page_is_read_without_its_navigation() -> None:
    page = page_text(
        "<?xml version='1.0' encoding='utf-8'?><html><head><title> Acme \n GmbH </title></head><body>"
        "<nav>Home Imprint</nav><main><h1>About us</h1>"
        + "".join(f"<p>We have made pumps for breweries in the north since 195{n}.</p>" for n in range(6))
        + "</main><script>alert(1)</script></body></html>"
    )
    assert page.title == "Acme GmbH"
    assert page.text.startswith("# About us\n\nWe have made pumps")
    assert "alert" not in page.text
    assert "Imprint" not in page.text


def test_a_sparse_page_gives_all_its_text() -> None:
    page = page_text("<html><body><nav>Acme</nav><div><span>Tel.</span><b>040 1234</b></div></body></html>")
    assert "040 1234" in page.text


@pytest.mark.parametrize("html", ["", " ", "\x00", "<", "<html></html>", "<!-- -->", "<script>x</script>"])
def test_a_page_with_nothing_to_read_is_empty(html: str) -> None:
    assert page_text(html).text in ("", "<")


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 200_000 + "x",
        "<" * 1_000_000,
        "<a " + "x=1 " * 250_000,
        "<table><tr><td>" * 60_000,
        "&" * 900_000,
    ],
)
def test_hostile_markup_neither_crashes_nor_hangs(html: str) -> None:
    started = time.monotonic()
    assert isinstance(page_text(html).text, str)
    assert time.monotonic() - started < 20


def test_what_a_database_refuses_is_taken_out() -> None:
    assert storable("a\x00b\ud800c") == "ab?c"
