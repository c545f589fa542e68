"""Is it us, the model, the mail or the database: each fault and its sentence, and what is said when nobody knows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runs.verdict import (
    CallSigns,
    DatabaseSigns,
    Line,
    MailSigns,
    Part,
    Problem,
    Signs,
    State,
    Verdict,
    WorkSigns,
    judge,
)

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
AGO = NOW - timedelta(minutes=12)
WELL = Signs(
    now=NOW,
    work=WorkSigns(wanted=2, alive=2, heard_at=NOW),
    calls=CallSigns(last_at=NOW, last_good_at=NOW, ended=40, failed=0),
    mail=MailSigns(channels=1, last_sent_at=NOW - timedelta(minutes=5)),
    database=DatabaseSigns("postgresql", NOW),
)


def line_of(verdict: Verdict, part: Part) -> Line:
    """The line about this part."""
    return next(line for line in verdict.lines if line.part == part)


def test_nothing_heals_by_itself_where_no_worker_is_at_work() -> None:
    """What waits for the model or the mail is tried again by a worker, and nothing else writes to the database."""
    alone = replace(WELL, work=replace(WELL.work, alive=0))
    model = Problem("the-breaker-is-open", "x is not working.", "One call tries it.", True, "bad", AGO, NOW)
    mail = replace(WELL.mail, refused=1, refusal="450 later", refused_next_at=NOW)
    verdict = judge(replace(alone, mail=mail, problems=(("model", model),)))
    for part in ("model", "mail"):
        line = line_of(verdict, part)
        assert (line.will_heal, line.next_at) == (False, None)
        assert line.next_step == "No worker is at work: nothing is tried again before one is."
    assert line_of(verdict, "database").says == "PostgreSQL answers; no worker is at work to write to it."
    assert line_of(judge(replace(WELL, problems=(("model", model),))), "model").will_heal


def test_all_four_are_well_when_all_were_seen_lately() -> None:
    verdict = judge(WELL)
    assert [(line.part, line.state) for line in verdict.lines] == [
        ("us", "good"),
        ("model", "good"),
        ("mail", "good"),
        ("database", "good"),
    ]
    assert verdict.headline == "Kontor, the model, the mail and the database are well."
    assert not verdict.is_trouble


Change = dict[str, dict[str, Any]]
FAULTS: list[tuple[Change, Part, State, str, str, datetime | None, bool | None]] = [
    (
        {"work": {"alive": 0, "heard_at": AGO}},
        *("us", "bad", "no worker is at work.", "no-worker-is-at-work", AGO, False),
    ),
    (
        {"work": {"alive": 0, "heard_at": None}},
        *("us", "bad", "no worker was ever at work here.", "no-worker-is-at-work", None, False),
    ),
    (
        {"work": {"alive": 1, "empty_since": AGO}},
        *("us", "warning", "1 of 2 shifts are alive.", "a-shift-is-missing", AGO, True),
    ),
    (
        {"work": {"task_waits_since": AGO}},
        *("us", "bad", "a task of the queue waits and nobody fetches it.", "the-queue-stands-still", AGO, True),
    ),
    (
        {"work": {"item_waits_since": AGO}},
        *("us", "bad", "items wait for a decision longer than a shift needs to look.", "items-wait-too-long", AGO),
        True,
    ),
    (
        {"work": {"lost": 1, "lost_since": AGO}},
        *("us", "bad", "1 lost step not recovered yet.", "lost-steps-are-not-recovered", AGO, True),
    ),
    (
        {"calls": {"failed": 12, "causes": {"x": 1, "API overloaded": 11}, "failing_since": AGO}},
        *("model", "warning", "12 of the last 40 calls failed, most of them for: API overloaded.", "model-calls-fail"),
        *(AGO, True),
    ),
    (
        {"calls": {"failed": 12, "causes": {"answer does not fit the schema": 12}, "failing_since": AGO}},
        *("model", "warning", "12 of the last 40 calls failed, most of them for: answer does not fit the schema."),
        *("cause-answer-does-not-fit-the-schema", AGO, False),
    ),
    (
        {"calls": {"failed": 9, "ended": 9, "causes": {"x": 9}, "department": "Sales", "failing_since": AGO}},
        *("model", "warning", "9 of the last 9 calls of Sales failed, most of them for: x.", "model-calls-fail", AGO),
        True,
    ),
    (
        {"calls": {"failed": 9, "ended": 9, "causes": {"x": 9}, "department": "Sales", "others": 2}},
        *("model", "warning"),
        "9 of the last 9 calls of Sales failed, most of them for: x. Calls of 2 other departments fail, too.",
        *("model-calls-fail", None, True),
    ),
    (
        {"mail": {"refused": 2, "refusal": "Try later."}},
        *("mail", "warning", "2 messages could not be handed over. Try later.", "the-mail-server-refuses", None, True),
    ),
    (
        {"mail": {"unsure": 1}},
        *("mail", "warning", "1 message may or may not have been sent.", "a-send-is-unsure", None, False),
    ),
    (
        {"mail": {"overdue": 3, "overdue_since": AGO}},
        *("mail", "bad", "3 messages due, and nobody sends.", "nobody-sends-what-is-due", AGO, True),
    ),
    (
        {"database": {"vendor": ""}},
        *("database", "bad", "it does not answer.", "the-database-does-not-answer", None, True),
    ),
]


@pytest.mark.parametrize(("change", "part", "state", "says", "section", "since", "heals"), FAULTS)
def test_each_fault_has_its_sentence(
    change: Change, part: Part, state: State, says: str, section: str, since: datetime | None, heals: bool | None
) -> None:
    changed: dict[str, Any] = {name: replace(getattr(WELL, name), **values) for name, values in change.items()}
    verdict = judge(replace(WELL, **changed))
    line = line_of(verdict, part)
    assert (line.state, line.says, line.section, line.since, line.will_heal) == (state, says, section, since, heals)
    assert line.next_step
    assert verdict.is_trouble
    assert verdict.worst is line
    assert verdict.headline == f"{line.title}: {says}"


UNKNOWN: list[tuple[Change, Part, str, datetime | None]] = [
    ({"calls": {"last_at": None, "last_good_at": None, "ended": 0}}, "model", "no call was ever made.", None),
    (
        {"calls": {"last_at": AGO, "last_good_at": NOW - timedelta(hours=3), "ended": 0}},
        *("model", "no call was answered since then, so nobody knows.", NOW - timedelta(hours=3)),
    ),
    ({"mail": {"channels": 0}}, "mail", "no channel is entered and switched on, so nothing can leave.", None),
    ({"mail": {"last_sent_at": None}}, "mail", "nothing has left yet.", None),
    (
        {"mail": {"last_sent_at": NOW - timedelta(days=3)}},
        *("mail", "nothing has left since then.", NOW - timedelta(days=3)),
    ),
]


@pytest.mark.parametrize(("change", "part", "says", "since"), UNKNOWN)
def test_what_was_not_measured_is_not_called_well(
    change: Change, part: Part, says: str, since: datetime | None
) -> None:
    changed: dict[str, Any] = {name: replace(getattr(WELL, name), **values) for name, values in change.items()}
    verdict = judge(replace(WELL, **changed))
    line = line_of(verdict, part)
    assert (line.state, line.says, line.since, line.will_heal) == ("unknown", says, since, None)
    assert line.label == "not known"
    assert not verdict.is_trouble
    assert verdict.headline == f"Nothing is known to be wrong. Nothing is known of {line.title.lower()}."
    assert "are well" not in verdict.headline


def test_a_few_failed_calls_among_many_are_said_and_no_alarm() -> None:
    verdict = judge(replace(WELL, calls=replace(WELL.calls, failed=4)))
    assert line_of(verdict, "model").says == "4 of the last 40 calls failed."
    assert not verdict.is_trouble


def test_without_a_worker_nothing_is_said_to_heal() -> None:
    work = WorkSigns(wanted=2, alive=0, heard_at=AGO, task_waits_since=AGO, lost=2, lost_since=AGO)
    line = line_of(judge(replace(WELL, work=work)), "us")
    assert line.will_heal is False
    assert line.also == ("a task of the queue waits and nobody fetches it.", "2 lost steps not recovered yet.")


def test_the_worst_of_several_problems_speaks_and_the_others_are_named() -> None:
    busy = Problem("the-model-is-busy", "claude-x takes no calls.", "Wait.", True, "warning", AGO, NOW)
    broken = Problem("the-breaker-is-open", "claude-y is not working.", "One call tries it.", True, "bad", AGO, NOW)
    verdict = judge(replace(WELL, problems=(("model", busy), ("model", broken)), mail=MailSigns(channels=1, unsure=1)))
    line = line_of(verdict, "model")
    assert (line.state, line.says, line.section) == ("bad", "claude-y is not working.", "the-breaker-is-open")
    assert (line.since, line.next_at, line.will_heal) == (AGO, NOW, True)
    assert line.also == ("claude-x takes no calls.",)
    assert verdict.headline == "The model: claude-y is not working. Also: the mail."


def test_of_two_that_are_as_bad_the_first_is_looked_at_first() -> None:
    unsure = MailSigns(channels=1, overdue=1)
    assert judge(replace(WELL, work=replace(WELL.work, alive=0), mail=unsure)).worst.part == "us"


def test_from_a_database_in_trouble_everything_follows() -> None:
    dead = judge(replace(WELL, work=replace(WELL.work, alive=0), database=DatabaseSigns("")))
    assert dead.worst.part == "database"
    assert dead.headline == "The database: it does not answer. Also: Kontor itself."


def test_a_database_without_recent_writes_says_so() -> None:
    quiet = judge(replace(WELL, database=DatabaseSigns("sqlite", AGO - timedelta(hours=1))))
    assert line_of(quiet, "database").says == "SQLite answers; no worker has written to it lately."
    assert line_of(judge(WELL), "database").says == "PostgreSQL answers, and workers write to it."
