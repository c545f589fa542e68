"""Is it us, the model, the mail or the database; since when; will it heal by itself: one pure judgement.

``runs.signs`` reads what is known. What was not measured is ``unknown``, never well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from agents.causes import Cause

State = Literal["good", "unknown", "warning", "bad"]
Part = Literal["us", "model", "mail", "database"]
_RANK: dict[State, int] = {"good": 0, "unknown": 1, "warning": 2, "bad": 3}
PARTS: dict[Part, str] = {"us": "Kontor itself", "model": "The model", "mail": "The mail", "database": "The database"}

FRESH = timedelta(minutes=15)
"""What was seen longer ago says nothing of now."""
QUIET = timedelta(days=1)
"""A channel over which nothing has left for so long is not called well."""
NOBODY_TRIES = "No worker is at work: nothing is tried again before one is."
FAILING_CALLS = 5
FAILING_SHARE = 0.2
"""So many of the recent calls, and such a share of them, have failed: the model is in trouble."""


# --- What is known --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is known to be wrong. ``section`` is its anchor in the runbook.

    ``will_heal``: without anybody doing anything. ``next_at``: when that is tried, where it is known.
    """

    section: str
    says: str
    next_step: str
    will_heal: bool
    state: State = "bad"
    since: datetime | None = None
    next_at: datetime | None = None
    link: str = ""


@dataclass(frozen=True, slots=True)
class WorkSigns:
    """Shifts and what waits for them. A time is None where nothing waits, or nothing was ever heard of."""

    wanted: int
    alive: int
    heard_at: datetime | None = None
    empty_since: datetime | None = None
    task_waits_since: datetime | None = None
    item_waits_since: datetime | None = None
    lost: int = 0
    lost_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallSigns:
    """The latest model calls: how many of the recent ones ended, how many of them failed, and how many why."""

    last_at: datetime | None = None
    last_good_at: datetime | None = None
    ended: int = 0
    failed: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)
    failing_since: datetime | None = None
    """The end of the first failure since no call is answered any more; while some are, of the first recent failure."""
    department: str = ""
    """Whose calls they are; empty for those of all departments that are shown."""
    others: int = 0
    """In how many other departments calls fail, too."""

    @property
    def is_failing(self) -> bool:
        """Whether the model is in trouble."""
        return self.failed >= FAILING_CALLS and self.failed >= FAILING_SHARE * self.ended


@dataclass(frozen=True, slots=True)
class MailSigns:
    """What leaves. ``channels``: how many are entered and switched on; ``refused``: waiting after a refusal."""

    channels: int = 0
    last_sent_at: datetime | None = None
    refused: int = 0
    refusal: str = ""
    refused_since: datetime | None = None
    refused_next_at: datetime | None = None
    unsure: int = 0
    overdue: int = 0
    overdue_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class DatabaseSigns:
    """``vendor`` is empty when it did not answer. ``written_at``: the newest heartbeat that a worker wrote."""

    vendor: str
    written_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Signs:
    """Everything the judgement rests on. ``problems``: what somebody found and wrote down, by part."""

    now: datetime
    work: WorkSigns
    calls: CallSigns
    mail: MailSigns
    database: DatabaseSigns
    problems: tuple[tuple[Part, Problem], ...] = ()


# --- The judgement --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One of the four answers."""

    part: Part
    state: State
    says: str
    section: str = ""
    since: datetime | None = None
    next_step: str = ""
    next_at: datetime | None = None
    will_heal: bool | None = None
    """None where there is nothing to heal, or nobody knows."""
    link: str = ""
    also: tuple[str, ...] = field(default=())
    """What else is wrong there, a sentence each."""

    @property
    def title(self) -> str:
        """The part in words."""
        return PARTS[self.part]

    @property
    def label(self) -> str:
        """The state in a word or two."""
        if self.state in ("good", "unknown"):
            return "well" if self.state == "good" else "not known"
        return "in trouble" if self.state == "bad" else "needs a look"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The four lines, and what they come to."""

    lines: tuple[Line, ...]

    @property
    def worst(self) -> Line:
        """The line to look at first: of two that are as bad the first, because the others may follow from it.

        From a database in trouble everything follows: shifts leave one that does not fit, so no worker is at work.
        """
        return max(self.lines, key=lambda line: (_RANK[line.state], line.part == "database"))

    @property
    def is_trouble(self) -> bool:
        """Whether something is known to be wrong."""
        return _RANK[self.worst.state] >= _RANK["warning"]

    @property
    def headline(self) -> str:
        """One sentence: who it is, or that nothing is known to be wrong, or that all is well."""
        troubled = [line for line in self.lines if _RANK[line.state] >= _RANK["warning"]]
        if troubled:
            first = self.worst
            others = [_inside(line.title) for line in troubled if line is not first]
            more = f" Also: {' and '.join(others)}." if others else ""
            return f"{first.title}: {first.says}{more}"
        unknown = [_inside(line.title) for line in self.lines if line.state == "unknown"]
        if unknown:
            return f"Nothing is known to be wrong. Nothing is known of {_listed(unknown)}."
        return "Kontor, the model, the mail and the database are well."


def judge(signs: Signs) -> Verdict:
    """The verdict on what is known."""
    return Verdict(
        (
            _line("us", signs, _work_problems(signs), _work_else(signs)),
            _line("model", signs, _call_problems(signs), _model_else(signs)),
            _line("mail", signs, _mail_problems(signs), _mail_else(signs)),
            _line("database", signs, [], _database_else(signs)),
        )
    )


def _line(part: Part, signs: Signs, found: Sequence[Problem], otherwise: Line) -> Line:
    """The worst problem of this part speaks, the others are named; without one what else is known.

    What heals by itself a worker tries again: without one it does not.
    """
    problems = [*(problem for of, problem in signs.problems if of == part), *found]
    if not problems:
        return otherwise
    worst = max(problems, key=lambda problem: _RANK[problem.state])
    also = tuple(problem.says for problem in problems if problem is not worst)
    if worst.will_heal and not signs.work.alive:
        worst = replace(worst, will_heal=False, next_step=NOBODY_TRIES, next_at=None)
    return Line(
        part=part,
        state=worst.state,
        says=worst.says,
        section=worst.section,
        since=worst.since,
        next_step=worst.next_step,
        next_at=worst.next_at,
        will_heal=worst.will_heal,
        link=worst.link,
        also=also,
    )


# --- Us -------------------------------------------------------------------------------------------------------


def _work_problems(signs: Signs) -> list[Problem]:
    work, found = signs.work, []
    if not work.alive:
        says = "no worker is at work." if work.heard_at else "no worker was ever at work here."
        step = "A worker that still runs takes its places again within seconds. Else start one: nothing moves before."
        found.append(Problem("no-worker-is-at-work", says, step, will_heal=False, since=work.heard_at))
    elif work.alive < work.wanted:
        says = f"{work.alive} of {work.wanted} shifts are alive."
        step = "The other shifts go on working and fill the empty place within seconds, if a worker has room for it."
        found.append(Problem("a-shift-is-missing", says, step, True, "warning", work.empty_since))
    if work.task_waits_since is not None:
        says = "a task of the queue waits and nobody fetches it."
        step = "The worker's watchdog restarts a queue that hangs, within a minute. Without a worker nothing happens."
        found.append(Problem("the-queue-stands-still", says, step, bool(work.alive), "bad", work.task_waits_since))
    if work.item_waits_since is not None:
        says = "items wait for a decision longer than a shift needs to look."
        step = "The shifts take them in turn. If the number does not fall, look at the worker's log."
        found.append(Problem("items-wait-too-long", says, step, bool(work.alive), "bad", work.item_waits_since))
    if work.lost:
        says = f"{_many(work.lost, 'lost step')} not recovered yet."
        step = "Any living shift queues lost steps again within seconds."
        found.append(Problem("lost-steps-are-not-recovered", says, step, bool(work.alive), "bad", work.lost_since))
    return found


def _work_else(signs: Signs) -> Line:
    work = signs.work
    says = f"{work.alive} of {work.wanted} shifts alive, and nothing waits too long."
    return Line("us", "good", says)


# --- The model ------------------------------------------------------------------------------------------------


def _call_problems(signs: Signs) -> list[Problem]:
    calls = signs.calls
    if not calls.is_failing:
        return []
    cause = max(calls.causes, key=lambda cause: calls.causes[cause])
    whose = f" of {calls.department}" if calls.department else ""
    says = f"{calls.failed} of the last {calls.ended} calls{whose} failed, most of them for: {cause}."
    if calls.others:
        says += f" Calls of {_many(calls.others, 'other department')} fail, too."
    if cause == Cause.INVALID.label:
        step = "Each is asked for again at most twice, then its step fails and a person is asked: see SOUL and model."
        return [Problem("cause-answer-does-not-fit-the-schema", says, step, False, "warning", calls.failing_since)]
    step = "Each is tried again with growing pauses; after five failures in a row the breaker opens and spares the API."
    return [Problem("model-calls-fail", says, step, True, "warning", calls.failing_since)]


def _model_else(signs: Signs) -> Line:
    calls = signs.calls
    if calls.last_at is None:
        return Line("model", "unknown", "no call was ever made.", section="no-model-call-was-made-lately")
    if calls.last_good_at is None or calls.last_good_at < signs.now - FRESH:
        since = calls.last_good_at or calls.last_at
        says = "no call was answered since then, so nobody knows."
        step = "Nothing is wrong if there was nothing to do. The next step that runs will show it."
        return Line("model", "unknown", says, "no-model-call-was-made-lately", since, step)
    failed = (
        f"{calls.failed} of the last {calls.ended} calls failed" if calls.failed else "the last calls were answered"
    )
    return Line("model", "good", f"{failed}.", since=None)


# --- The mail -------------------------------------------------------------------------------------------------


def _mail_problems(signs: Signs) -> list[Problem]:
    mail, found = signs.mail, []
    if mail.refused:
        said = f" {mail.refusal.rstrip('.')}." if mail.refusal else ""
        says = f"{_many(mail.refused, 'message')} could not be handed over.{said}"
        step = "Each is tried again with growing pauses and never sent twice; after the last try a person is told."
        since, next_at = mail.refused_since, mail.refused_next_at
        found.append(Problem("the-mail-server-refuses", says, step, True, "warning", since, next_at, link="outbox"))
    if mail.unsure:
        says = f"{_many(mail.unsure, 'message')} may or may not have been sent."
        step = "They are never sent again by themselves. A person looks them up and says what is so."
        found.append(Problem("a-send-is-unsure", says, step, False, "warning", link="unsure"))
    if mail.overdue:
        says = f"{_many(mail.overdue, 'message')} due, and nobody sends."
        step = "A living worker asks for a sender every few seconds."
        alive = bool(signs.work.alive)
        found.append(Problem("nobody-sends-what-is-due", says, step, alive, "bad", mail.overdue_since, link="outbox"))
    return found


def _mail_else(signs: Signs) -> Line:
    mail = signs.mail
    if not mail.channels:
        says = "no channel is entered and switched on, so nothing can leave."
        return Line("mail", "unknown", says, "no-channel-is-entered", next_step="Enter one when something is to leave.")
    if mail.last_sent_at is None:
        step = "Send a test from the channel's page to know."
        return Line("mail", "unknown", "nothing has left yet.", "nothing-has-left-lately", next_step=step)
    if mail.last_sent_at < signs.now - QUIET:
        step = "Nothing is wrong if nothing was approved. Send a test from the channel's page to know."
        return Line(
            "mail", "unknown", "nothing has left since then.", "nothing-has-left-lately", mail.last_sent_at, step
        )
    return Line("mail", "good", "what was due has left.")


# --- The database ---------------------------------------------------------------------------------------------


def _database_else(signs: Signs) -> Line:
    base = signs.database
    if not base.vendor:
        step = "Workers reconnect by themselves as soon as it answers; nothing is lost."
        return Line(
            "database", "bad", "it does not answer.", "the-database-does-not-answer", None, step, will_heal=True
        )
    name = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}.get(base.vendor, base.vendor)
    if not signs.work.alive:
        return Line("database", "good", f"{name} answers; no worker is at work to write to it.")
    if base.written_at is None or base.written_at < signs.now - FRESH:
        return Line("database", "good", f"{name} answers; no worker has written to it lately.")
    return Line("database", "good", f"{name} answers, and workers write to it.")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _inside(title: str) -> str:
    """The name of a part inside a sentence; Kontor keeps its capital."""
    return f"the{title[3:]}" if title.startswith("The ") else title


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
