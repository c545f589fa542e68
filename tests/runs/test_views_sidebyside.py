"""Two texts side by side: nothing is lost, what is the same is folded, what differs is marked."""

from __future__ import annotations

import random

from runs.views.bodies import Part, Section
from runs.views.sidebyside import MOST_LINES, Compared, compare_sections


def _section(text: str, key: str = "soul") -> Section:
    return Section(key, key, (Part("text", "", text),))


def _compare(before: str, after: str) -> Compared:
    (found,) = compare_sections([_section(before)], [_section(after)])
    return found


def _sides(found: Compared) -> tuple[list[str], list[str]]:
    rows = [row for block in found.blocks for row in block.rows]
    left = ["".join(piece.text for piece in row.left) for row in rows if row.left is not None]
    right = ["".join(piece.text for piece in row.right) for row in rows if row.right is not None]
    return left, right


def test_what_is_the_same_is_one_folded_block() -> None:
    found = _compare("a\nb\nc", "a\nb\nc")
    assert found.state == "same"
    assert [block.is_folded for block in found.blocks] == [True]


def test_a_changed_word_is_marked_in_its_line_with_two_lines_around_it() -> None:
    before = "\n".join(f"line {number}" for number in range(20))
    found = _compare(before, before.replace("line 10", "line ten"))
    folded, shown, rest = found.blocks
    assert (folded.is_folded, shown.is_folded, rest.is_folded) == (True, False, True)
    assert [row.kind for row in shown.rows] == ["same", "same", "changed", "same", "same"]
    changed = shown.rows[2]
    assert changed.left is not None
    assert changed.right is not None
    assert [(piece.kind, piece.text) for piece in changed.left] == [("same", "line "), ("gone", "10")]
    assert [(piece.kind, piece.text) for piece in changed.right] == [("same", "line "), ("new", "ten")]
    assert (found.gone, found.new) == (1, 1)


def test_lines_of_one_side_have_nothing_beside_them() -> None:
    found = _compare("a\nb", "a\nb\nc")
    row = found.blocks[-1].rows[-1]
    assert (row.kind, row.left) == ("new", None)
    found = _compare("a\nb\nc", "a\nb")
    row = found.blocks[-1].rows[-1]
    assert (row.kind, row.right) == ("gone", None)


def test_sections_are_matched_by_key_and_keep_their_place() -> None:
    left = [_section("x", "soul"), _section("old", "settings"), _section("m", "message-1")]
    right = [_section("x", "soul"), _section("m", "message-1"), _section("more", "message-2")]
    found = compare_sections(left, right)
    assert [(part.key, part.state) for part in found] == [
        ("soul", "same"),
        ("settings", "gone"),
        ("message-1", "same"),
        ("message-2", "new"),
    ]


def test_nothing_is_lost_whatever_differs() -> None:
    chance = random.Random(7)
    for _ in range(200):
        before = [chance.choice(["a", "b", "c c", ""]) for _ in range(chance.randrange(12))]
        after = [chance.choice(["a", "b", "c d", ""]) for _ in range(chance.randrange(12))]
        (found,) = compare_sections([_section("\n".join(before))], [_section("\n".join(after))])
        assert _sides(found) == (_section("\n".join(before)).lines, _section("\n".join(after)).lines)
        is_same = all(row.kind == "same" for block in found.blocks for row in block.rows)
        assert is_same is (found.state == "same")


def test_very_long_texts_are_compared_without_matching_every_line() -> None:
    many = MOST_LINES * 20
    before = "\n".join(f"a {number}" for number in range(many))
    after = "\n".join(f"b {number}" for number in range(many))
    found = _compare(before, after)
    assert (found.gone, found.new) == (many, many)
    assert _sides(found)[1][-1] == f"b {many - 1}"
