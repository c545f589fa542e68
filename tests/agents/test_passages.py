from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.passages import (
    MAX_QUERY_WORDS,
    PASSAGE_CHARS,
    PASSAGE_WORDS,
    query_words,
    search_words,
    split_passages,
)


def test_short_paragraphs_are_put_together_and_numbered() -> None:
    passages = split_passages("One.\n\nTwo.\n \n\t\nThree.")
    assert [(p.first, p.last, p.text) for p in passages] == [(1, 3, "One.\nTwo.\nThree.")]


def test_a_heading_begins_a_passage_and_is_kept_beside_it() -> None:
    passages = split_passages("Intro.\n\n# Prices #\nTen euros.\n\nMore.\n\n## Terms\n\nThree weeks.")
    assert [(p.first, p.last, p.heading, p.text) for p in passages] == [
        (1, 1, "", "Intro."),
        (2, 3, "Prices", "Ten euros.\nMore."),
        (5, 5, "Terms", "Three weeks."),
    ]


def test_a_long_paragraph_is_split_between_sentences() -> None:
    sentence = "This sentence has exactly seven words in. "
    passages = split_passages(sentence * 40)
    assert len(passages) == 3
    assert all(p.text.endswith("in.") and (p.first, p.last) == (1, 1) for p in passages)


def test_lines_of_a_list_stay_lines() -> None:
    assert split_passages("- one\n- two\r\n- three")[0].text == "- one\n- two\n- three"


def test_nothing_in_nothing_out() -> None:
    assert split_passages("") == []
    assert split_passages(" \n\n# Only a heading\n") == []


@given(st.lists(st.text("ab.\n #\t你", max_size=200) | st.just("x" * 3_000) | st.just("w " * 400), max_size=6))
def test_no_passage_is_too_long_and_no_word_is_lost(parts: list[str]) -> None:
    text = "\n\n".join(parts)
    passages = split_passages(text)
    assert all(p.text.strip() for p in passages)
    assert all(len(p.text) <= PASSAGE_CHARS and len(p.text.split()) <= PASSAGE_WORDS for p in passages)
    assert all(p.first <= p.last for p in passages)
    kept = "".join("".join(p.text.split()) for p in passages)
    body = "".join(line for line in text.split("\n") if not line.strip().startswith("#"))
    assert sum(map(kept.count, "ab你xw")) >= sum(map("".join(body.split()).count, "ab你xw"))


@pytest.mark.parametrize("unit", ["x", "word ", "a. ", "# h\n", "# ", "\n\n", "\n  x", " ", "- a\n"])
def test_a_large_document_is_split_in_seconds(unit: str) -> None:
    started = time.monotonic()
    split_passages(unit * (1_000_000 // len(unit)))
    assert time.monotonic() - started < 15


def test_words_are_folded_alike() -> None:
    assert search_words("Łódź, STRASSE straße e-mail's ﬁne 3½ x_y") == [
        *("lodz", "strasse", "strasse", "e", "mail", "s", "fine", "31", "2", "x", "y")
    ]
    assert search_words("泵pump泵") == ["泵", "pump", "泵"]
    assert search_words("x" * 500) == ["x" * 64]


def test_a_query_is_its_telling_words_once() -> None:
    assert query_words("What is the price of a pump, the Pump?") == ["price", "pump"]
    assert query_words("who are you") == ["who", "are", "you"]
    assert len(query_words(" ".join(f"w{n}" for n in range(50)))) == MAX_QUERY_WORDS
