"""In what the text of a question differs from the one before: changed by a person, or since it was sent back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runs.models import Output, Review, SendBack
from runs.payloads import FOR_PEOPLE
from runs.views.diffs import Piece, diff_texts, unchecked_sentences


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed in one text, and which sentences no check has seen."""

    name: str
    pieces: Sequence[Piece]
    unchecked: Sequence[str]


@dataclass(frozen=True, slots=True)
class Since:
    """What has changed since it was sent back last; ``note`` says why ``changes`` is empty."""

    changes: Sequence[Change]
    note: str = ""


def changes_of(before: Output | None, output: Output) -> list[Change]:
    """In which texts an output differs from the one before it."""
    if before is None:
        return []
    found = []
    for name, value in output.payload.items():
        was = before.payload.get(name)
        if name != FOR_PEOPLE and isinstance(value, str) and isinstance(was, str) and value != was:
            found.append(Change(name, diff_texts(was, value), unchecked_sentences(was, value)))
    return found


def since_sent_back(review: Review, rounds: Sequence[SendBack], output: Output | None) -> Since | None:
    """How what is asked about compares with the version that was sent back before it was asked about; None if none."""
    # A question that was answered with sending back, or before that, is looked at with what it was about then.
    earlier = [one for one in rounds if one.review_id is None or one.review_id < review.pk]
    if not earlier or output is None:
        return None
    asked = earlier[-1].review
    before = asked.output if asked is not None else None
    if before is None:
        return Since([], "It cannot be compared: which text was sent back is not on record any more.")
    if output.replaces_id is not None:
        return Since([], "It is not compared with what was sent back, because a person has edited it since.")
    if before.key != output.key:
        return Since([], f"It cannot be compared: what was sent back was another text ({before.key}).")
    changes = changes_of(before, output)
    return Since(changes, "" if changes else "Nothing in the text has changed since.")
