"""Before and after, for reading."""

from __future__ import annotations

from runs.views.changes import Change, Line, read_changes


def test_fields_come_in_the_order_in_which_they_were_noted() -> None:
    changes = read_changes({"status": "failed", "failures": 4}, {"agent_run": 7, "status": "queued"})
    assert changes == [
        Change("status", "failed", "queued"),
        Change("failures", "4", ""),
        Change("agent_run", "", "7"),
    ]


def test_values_are_written_as_people_write_them() -> None:
    found = {change.name: change.after for change in read_changes({}, {"a": True, "b": None, "c": [1, "x"], "d": 0})}
    assert found == {"a": "yes", "b": "", "c": "1, x", "d": "0"}


def test_what_did_not_change_says_so() -> None:
    assert [change.is_same for change in read_changes({"a": 1, "b": 1}, {"a": 1, "b": 2})] == [True, False]


def test_a_text_of_several_lines_is_compared_line_by_line() -> None:
    (change,) = read_changes({"body": "Dear Lena,\nold\nBye"}, {"body": "Dear Lena,\nnew\nBye"})
    assert change.lines == (
        Line("same", "Dear Lena,"),
        Line("removed", "old"),
        Line("added", "new"),
        Line("same", "Bye"),
    )


def test_an_object_inside_is_compared_line_by_line_too() -> None:
    (change,) = read_changes({"payload": {"tier": "Hot", "score": 1}}, {"payload": {"tier": "Cold", "score": 1}})
    assert Line("removed", ' "tier": "Hot",') in change.lines
    assert Line("added", ' "tier": "Cold",') in change.lines


def test_several_alike_are_told_field_by_field_and_not_as_json() -> None:
    claim = {"claim": "We save 20 %", "supported": True, "source": "Case#1", "note": ""}
    other = {"claim": "It is free", "supported": False, "source": "", "note": "Nowhere"}
    (change,) = read_changes({"checks": [claim, other]}, {"checks": [claim]})
    assert [(line.kind, line.text) for line in change.lines] == [
        ("same", "claim: We save 20 %"),
        ("same", "supported: yes"),
        ("same", "source: Case#1"),
        ("removed", ""),
        ("removed", "claim: It is free"),
        ("removed", "supported: no"),
        ("removed", "note: Nowhere"),
    ]


def test_nothing_is_nothing_and_what_is_no_object_has_no_name() -> None:
    assert read_changes({}, {}) == []
    assert read_changes("old", "new") == [Change("", "old", "new")]
