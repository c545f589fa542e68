"""What a person changed in a text, word by word, and which of its sentences nobody has checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

_WORDS = re.compile(r"\s+|[^\s]+")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text: ``same``, ``gone`` or ``new``."""

    kind: str
    text: str


def diff_texts(before: str, after: str) -> list[Piece]:
    """Both texts as one, in pieces. Nothing is lost: the pieces but the new ones are the text before."""
    return list(_pieces(_WORDS.findall(before), _WORDS.findall(after)))


def unchecked_sentences(before: str, after: str) -> list[str]:
    """The sentences of the text that were not there word for word before, so that no check has seen them."""
    known = {_bare(sentence) for sentence in _SENTENCES.split(before)}
    found = [sentence.strip() for sentence in _SENTENCES.split(after)]
    return [sentence for sentence in found if sentence and _bare(sentence) not in known]


def _pieces(before: list[str], after: list[str]) -> Iterator[Piece]:
    for tag, i, j, k, m in SequenceMatcher(_is_gap, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield Piece("same", "".join(before[i:j]))
            continue
        if i < j:
            yield Piece("gone", "".join(before[i:j]))
        if k < m:
            yield Piece("new", "".join(after[k:m]))


def _is_gap(token: str) -> bool:
    """Whether it is nothing that two texts have in common, else a new sentence would be mixed word by word with the old
    one. Lines end where they did."""
    return token.isspace() and "\n" not in token


def _bare(sentence: str) -> str:
    return " ".join(sentence.split())
