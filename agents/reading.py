"""Bytes from outside into text: decoding, and the readable part of an HTML page. Pure, bounded, CPU-bound."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Any

import charset_normalizer
import trafilatura

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the one of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What a page may declare. Not every codec of Python: a megabyte of `punycode` or `idna` takes minutes.
_DECLARABLE = re.compile(
    r"utf-(8|16|16-le|16-be)|iso8859-\d+|cp(1252|125\d|874|932|949|866)|koi8-[rut]|mac-(roman|cyrillic)"
    r"|shift_jis|euc_(jp|kr)|iso2022_jp|gb2312|gbk|gb18030|big5|tis-620"
)
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_:.-]{1,40})""", re.IGNORECASE)
_SAMPLE_BYTES = 65_536
_ENOUGH_BYTES = 2_000
_ENOUGH_CHARS = 200
_XML_PROLOG = re.compile(r"^\s*<\?xml[^>]{0,200}\?>")


@dataclass(frozen=True, slots=True)
class PageText:
    """The readable part of a page. Paragraphs are separated by blank lines, headings start with ``#``."""

    title: str
    text: str


def decode_text(data: bytes, declared: str | None = None) -> str:
    """Text of a file or a response body; never fails. ``declared`` is the charset of the content type.

    In this order: byte order mark, declared charset, charset in the HTML, UTF-8, a guess, Windows-1252.
    A few broken bytes (or a character cut in half at the size limit) do not make a charset wrong.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, errors="replace")
    in_html = _META.search(data, 0, 4_096)
    for candidate in (declared, in_html and in_html[1].decode("ascii"), "utf-8"):
        text = _decoded(data, candidate) if candidate else None
        if text is not None:
            return text
    return data.decode(_guess(data[:_SAMPLE_BYTES]), errors="replace")


def storable_json(value: Any) -> Any:
    """A JSON value with every text in it storable."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): storable_json(entry) for key, entry in value.items()}
    return [storable_json(entry) for entry in value] if isinstance(value, list) else value


def storable(text: str) -> str:
    """The text without what a database refuses: NUL characters and halves of surrogate pairs."""
    return text.replace("\x00", "").encode("utf-8", errors="replace").decode("utf-8")


def page_text(html: str) -> PageText:
    """What a person would read on the page, without navigation; all its text if that is almost nothing.

    Both fields are empty when there is nothing to read.
    """
    html = _XML_PROLOG.sub("", html, count=1)
    tree = trafilatura.load_html(html)
    if tree is None:
        return PageText("", "")
    title = " ".join((tree.findtext(".//title") or "").split())[:200]
    text = trafilatura.extract(tree, fast=True, favor_recall=True, include_comments=False, output_format="markdown")
    text = (text or "").strip()
    if len(text) < _ENOUGH_CHARS:
        text = max(text, trafilatura.html2txt(html).strip(), key=len)
    return PageText(title, text)


def _decoded(data: bytes, name: str) -> str | None:
    """The text in a declared charset, None if the charset is unknown or plainly not that of the data."""
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    if codec in ("ascii", "iso8859-1"):
        codec = "cp1252"  # what browsers do: the label is often wrong, and the rest is the same
    if not _DECLARABLE.fullmatch(codec):
        return None
    text = data.decode(codec, errors="replace")
    return text if text.count("\ufffd") <= 1 + len(text) // 1_000 else None


def _guess(sample: bytes) -> str:
    """The likeliest charset of text that declares none and is not UTF-8."""
    # A few accents in a short text are too little to tell single-byte charsets apart: the commonest it is.
    if len(sample) < _ENOUGH_BYTES and sum(byte > 127 for byte in sample) < len(sample) // 4:
        return "cp1252"
    guess = charset_normalizer.from_bytes(sample).best()
    return guess.encoding if guess else "cp1252"
