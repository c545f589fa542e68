"""Tidies what outsiders wrote into the fields of a lead. Pure; only an e-mail address that is none fails."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any
from urllib.parse import urlsplit

LIMITS = {
    "name": 200,
    "email": 320,
    "company": 200,
    "title": 200,
    "phone": 60,
    "website": 300,
    "country": 80,
    "external_id": 120,
    "message": 20_000,
}
"""The most characters of each field."""

MAX_ATTRIBUTES = 200
_MAX_ATTRIBUTE = 2_000
_MAX_ATTRIBUTE_NAME = 100
_MAX_DEPTH = 4
# Control characters, halves of surrogate pairs, and invisible signs that turn the direction of text around.
# Joiners stay: they are part of emoji and of several scripts.
_UNWANTED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_NOTHING = {"-", "--", "n/a", "#n/a", "(null)"}
_PHONE_NOISE = re.compile(r"[^0-9A-Za-z+()/.,;:# -]")
_EMAIL_PARTS = re.compile(r"[\s,;|<>()\[\]\"']+")


def clean_line(text: str) -> str:
    """One line: unwanted characters out, Unicode composed, white space single; empty if it says nothing."""
    line = " ".join(text.split())
    if not line.isprintable() and _UNWANTED.search(line):
        line = " ".join(_UNWANTED.sub("", line).split())
    if not line.isascii():
        line = unicodedata.normalize("NFC", line)
    return "" if line.lower() in _NOTHING else line


def clean_text(text: str) -> str:
    """Several lines: as ``clean_line``, but white space stays as it is, and line ends become ``\\n``."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isprintable():
        text = _UNWANTED.sub("", text.replace("\u2028", "\n").replace("\u2029", "\n\n"))
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.strip()


def split_emails(cell: str) -> list[str]:
    """The parts of a cell that look like addresses: ``Ann <ann@a.com>; b@b.com`` has two."""
    parts = (part.removeprefix("mailto:") for part in _EMAIL_PARTS.split(cell))
    return [part for part in parts if "@" in part]


def tidy_phone(text: str) -> str:
    """A phone number as it was written, without the apostrophe of spreadsheets and other noise."""
    return " ".join(_PHONE_NOISE.sub(" ", text).split()) if any(c.isdigit() for c in text) else ""


def tidy_website(text: str) -> str:
    """The address of a website with its scheme, the host in lower case; empty if it is no such address."""
    candidate = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(candidate)
        host = parts.hostname or ""
    except ValueError:
        return ""
    if parts.scheme.lower() not in ("http", "https") or "." not in host.strip(".") or " " in candidate:
        return ""
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl()


def clean_attribute_name(name: str) -> str:
    """The name of an attribute: one line, at most 100 characters."""
    return clean_line(name)[:_MAX_ATTRIBUTE_NAME]


def clean_attribute(value: Any, depth: int = 0) -> Any:
    """A JSON value that every database stores: text cleaned and cut, numbers finite, at most four levels."""
    if isinstance(value, str):
        return clean_text(value)[:_MAX_ATTRIBUTE]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) and abs(value) < 1e100 else str(value)
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)[:_MAX_ATTRIBUTE]
    if depth >= _MAX_DEPTH:
        return clean_text(repr(value))[:_MAX_ATTRIBUTE]
    if isinstance(value, dict):
        entries = list(value.items())[:MAX_ATTRIBUTES]
        return {clean_attribute_name(str(k)): clean_attribute(v, depth + 1) for k, v in entries}
    return [clean_attribute(entry, depth + 1) for entry in list(value)[:MAX_ATTRIBUTES]]
