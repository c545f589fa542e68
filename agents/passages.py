"""Documents into passages that an agent can cite, text into words that both databases index alike. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

PASSAGE_WORDS = 120
PASSAGE_CHARS = 1_200
MAX_QUERY_WORDS = 16
_MAX_WORD_CHARS = 64
_MAX_HEADING_LINE = 400

_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_HEADING = re.compile(r"#{1,6}[ \t]+(.+?)[ \t#]*$")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n")
# Scripts written without spaces: every character is a word, or nothing inside a sentence could be found.
_IDEOGRAPH = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_WORDS = re.compile(rf"{_IDEOGRAPH}|(?:(?!{_IDEOGRAPH})[^\W_])+")
# Letters with a stroke, and such: Unicode does not call their marks accents.
_STROKES = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"})
# fmt: off
_STOP_WORDS = frozenset([
    "a", "about", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from",
    "has", "have", "how", "i", "in", "is", "it", "its", "of", "on", "or", "our", "that", "the",
    "their", "they", "this", "to", "was", "we", "what", "when", "where", "which", "who", "why",
    "will", "with", "you", "your", "das", "dem", "den", "der", "des", "die", "ein", "eine", "einer",
    "eines", "fur", "im", "ist", "mit", "oder", "sind", "und", "von", "wie", "wir", "zu",
])
# fmt: on


@dataclass(frozen=True, slots=True)
class Passage:
    """About 120 words of a document. ``first`` and ``last`` are paragraph numbers, counted from 1."""

    first: int
    last: int
    heading: str
    text: str


def split_passages(text: str) -> list[Passage]:
    """Passages in the order of the text. Blank lines separate paragraphs, a heading (``# …``) begins one.

    Short neighbours are put together up to ``PASSAGE_WORDS``; a longer paragraph is split between sentences.
    """
    passages: list[Passage] = []
    pending: list[tuple[int, str]] = []
    heading = ""

    def flush() -> None:
        if pending:
            joined = "\n".join(piece for _, piece in pending)
            passages.append(Passage(pending[0][0], pending[-1][0], heading, joined))
            pending.clear()

    for number, section, piece in _pieces(text):
        if section != heading:
            flush()
            heading = section
        if pending and not _fits("\n".join([*(p for _, p in pending), piece])):
            flush()
        pending.append((number, piece))
    flush()
    return passages


def search_words(text: str) -> list[str]:
    """The words of a text as they are indexed and searched: folded, without accents, letters and digits only.

    Both databases therefore see the same words, whatever their own rules for accents and punctuation are,
    and nothing a query holds can be taken for an operator.
    """
    plain = unicodedata.normalize("NFKD", text).casefold().translate(_STROKES)
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    plain = unicodedata.normalize("NFKC", plain)
    return [word[:_MAX_WORD_CHARS] for word in _WORDS.findall(plain)]


def query_words(query: str) -> list[str]:
    """The distinct words to look for, at most ``MAX_QUERY_WORDS``; little ones only if no others."""
    words = list(dict.fromkeys(search_words(query)))
    telling = [word for word in words if word not in _STOP_WORDS]
    return (telling or words)[:MAX_QUERY_WORDS]


def _pieces(text: str) -> Iterator[tuple[int, str, str]]:
    """``(paragraph number, heading it stands under, text)``, no piece longer than a passage."""
    heading = ""
    blocks = _BLANK_LINES.split(text.replace("\r\n", "\n").replace("\r", "\n").strip())
    for number, block in enumerate(blocks, start=1):
        lines: list[str] = []
        for line in block.split("\n"):
            title = _HEADING.match(line.strip()) if len(line) < _MAX_HEADING_LINE else None
            if title is None:
                lines.append(line.rstrip())
                continue
            yield from ((number, heading, piece) for piece in _split_long("\n".join(lines)))
            heading, lines = title[1][:200], []
        yield from ((number, heading, piece) for piece in _split_long("\n".join(lines)))


def _split_long(paragraph: str) -> Iterator[str]:
    paragraph = paragraph.strip()
    if _fits(paragraph):
        yield from [paragraph] if paragraph else []
        return
    current = ""
    for sentence in map(str.strip, _SENTENCE_END.split(paragraph)):
        joined = f"{current} {sentence}".strip()
        if current and not _fits(joined):
            yield current
            joined = sentence
        while not _fits(joined):
            head = _head(joined)
            yield head
            joined = joined[len(head) :].strip()
        current = joined
    if current:
        yield current


def _fits(text: str) -> bool:
    return len(text) <= PASSAGE_CHARS and len(text.split()) <= PASSAGE_WORDS


def _head(text: str) -> str:
    """As much of a sentence that is too long as fits, cut between words where there are any."""
    window = text[: PASSAGE_CHARS + 1]
    words = list(re.finditer(r"\S+", window))
    if len(words) > PASSAGE_WORDS:
        return window[: words[PASSAGE_WORDS - 1].end()]
    space = window.rfind(" ")
    return window[: space if space > 0 else PASSAGE_CHARS].rstrip()
