"""Two texts side by side, line by line, with what is the same in both folded away. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, zip_longest

from runs.views.bodies import Section
from runs.views.diffs import Piece, diff_texts

CONTEXT = 2
"""How many lines that are the same are shown before and after a difference."""
MOST_LINES = 1_500
"""Longer texts that differ are not matched line by line: that takes a time which grows with the square."""
MOST_CHARACTERS = 1_000
"""In longer lines that differ the words are not compared."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line on the left, one on the right, or both. ``kind``: same, gone (left only), new (right only), changed."""

    kind: str
    left: tuple[Piece, ...] | None
    right: tuple[Piece, ...] | None


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are shown, or, where ``is_folded``, rows that are the same on both sides and stay folded."""

    rows: tuple[Row, ...]
    is_folded: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """One section of both sides. ``state``: same, changed, gone (left only), new (right only)."""

    key: str
    title: str
    state: str
    blocks: tuple[Block, ...]
    gone: int
    new: int
    """How many lines only the left side, and only the right side has."""


def compare_sections(left: Sequence[Section], right: Sequence[Section]) -> list[Compared]:
    """Both sides section by section, in the order of the right side; what only the left has keeps its place."""
    before = {section.key: section for section in left}
    after = {section.key: section for section in right}
    return [_compare(before.get(key), after.get(key)) for key in _merged(list(before), list(after))]


def _merged(left: list[str], right: list[str]) -> list[str]:
    found = list(right)
    for number, key in enumerate(left):
        if key not in found:
            earlier = [found.index(other) for other in left[:number] if other in found]
            found.insert(max(earlier, default=-1) + 1, key)
    return found


def _compare(left: Section | None, right: Section | None) -> Compared:
    section = right or left
    assert section is not None  # a key comes from one of them
    before, after = left.lines if left else [], right.lines if right else []
    rows = list(_rows(before, after))
    state = "new" if left is None else "gone" if right is None else "same" if before == after else "changed"
    gone = sum(row.kind in ("gone", "changed") for row in rows)
    new = sum(row.kind in ("new", "changed") for row in rows)
    return Compared(section.key, section.title, state, tuple(_fold(rows)), gone, new)


def _rows(before: list[str], after: list[str]) -> Iterator[Row]:
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    yield from (_same(line) for line in before[:start])
    yield from _differing(before[start : len(before) - end], after[start : len(after) - end])
    yield from (_same(line) for line in before[len(before) - end :])


def _common(before: Sequence[str], after: Sequence[str]) -> int:
    """How many lines both begin with."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(before), len(after)))


def _differing(before: list[str], after: list[str]) -> Iterator[Row]:
    if max(len(before), len(after)) > MOST_LINES:
        yield from _replaced(before, after)
        return
    for tag, i, j, k, m in SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from (_same(line) for line in before[i:j])
        else:
            yield from _replaced(before[i:j], after[k:m])


def _replaced(before: list[str], after: list[str]) -> Iterator[Row]:
    for old, new in zip_longest(before, after):
        if old is None:
            yield Row("new", None, (Piece("new", new),))
        elif new is None:
            yield Row("gone", (Piece("gone", old),), None)
        else:
            yield _changed(old, new)


def _changed(old: str, new: str) -> Row:
    if max(len(old), len(new)) > MOST_CHARACTERS:
        return Row("changed", (Piece("gone", old),), (Piece("new", new),))
    pieces = diff_texts(old, new)
    left = tuple(piece for piece in pieces if piece.kind != "new")
    return Row("changed", left, tuple(piece for piece in pieces if piece.kind != "gone"))


def _same(line: str) -> Row:
    pieces = (Piece("same", line),)
    return Row("same", pieces, pieces)


def _fold(rows: Sequence[Row]) -> Iterator[Block]:
    """Blocks of rows; of what is the same only the lines beside a difference are shown."""
    near = [False] * len(rows)
    for number, row in enumerate(rows):
        if row.kind != "same":
            for beside in range(max(number - CONTEXT, 0), min(number + CONTEXT + 1, len(rows))):
                near[beside] = True
    for is_shown, group in groupby(zip(near, rows, strict=True), key=lambda pair: pair[0]):
        yield Block(tuple(row for _, row in group), is_folded=not is_shown)
