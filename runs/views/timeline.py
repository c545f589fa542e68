"""What happened to an item, newest first: triggers, the log's decisions and results, mails, people's actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from runs.erasure import ERASED
from runs.models import Action, Item, LogEntry, Message, OutboxMessage, Trigger
from runs.views.actions import ActionRow
from runs.views.forms import read_time
from runs.wording import in_words, trigger_words

ROWS = 60
_AT_ONCE = timedelta(seconds=1)
"""What is due no later was not planned."""
_PLANNED = (Trigger.Kind.FOLLOW_UP, Trigger.Kind.SCHEDULE)
"""What lies ahead until it is due. Of a decision, which was made, only the effect does: it can be taken back."""
_FROM_OUTSIDE = (Trigger.Kind.CREATED, Trigger.Kind.REPLY)
AT_ONCE = 1_000
"""The most that is shown of one sort at one and the same time."""
_ICONS = {
    "decision": "route",
    "output": "file-text",
    "failed": "circle-x",
    "lost": "alert-triangle",
    "waiting": "hourglass",
    "finished": "circle-check",
    "review": "help-circle",
    "status": "arrow-narrow-right",
    "suppressed": "ban",
    "sent": "mail",
}
_LEVELS = {LogEntry.Level.WARNING: "warning", LogEntry.Level.ERROR: "bad"}
# "started" is told by the run's page; triggers, answers and retries are rows of their own.
_LEFT_OUT = ("started", "trigger", "retry", "answer", "sent", "outbox")
_TOLD_BY_LOG = (
    *("pause", "resume", "take_over", "hand_back", "close", "reopen"),
    *("edit_lead", "assign_owner", "set_tags", "erase_person"),
)
"""Actions of which the log has a line with the same words: among people's actions, and there alone, they stand too."""
_ERASED = {
    "decision": "Something was decided",
    "output": "An agent wrote something",
    "status": "The status changed",
    "review": "A person was asked",
    "finished": "A run ended",
    "failed": "A step failed",
}
"""What is said of a line of the log whose words were erased with the person."""
_OF_RUNS = ("output", "failed", "lost", "waiting", "cancelled", "stopped", "retired")

# These wake the router for the item as a whole: that no rule names them does not mean that nothing was started.
_ASKS_FOR_NOTHING = (Trigger.Kind.CREATED, Trigger.Kind.SCHEDULE, Trigger.Kind.OPERATOR, Trigger.Kind.RESUME)


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. ``detail`` is a second line; ``run_id`` and ``step_id`` lead to the run page."""

    at: datetime
    icon: str
    text: str
    detail: str = ""
    colour: str = ""
    run_id: int | None = None
    step_id: int | None = None
    due_at: datetime | None = None
    """When it is to happen, of what is planned, or to take effect: ``due_what`` says which."""
    due_what: str = "Due"
    dom_id: str = ""
    """The row it was told from. A line of the log has the id by which the live page knows it too."""


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of thing that happens: where it is stored, when, and how it is told."""

    label: str
    rows: Callable[[Item], QuerySet[Any]]
    at: str
    tell: Callable[[Any], Moment]


def timeline_context(request: HttpRequest, item: Item) -> dict[str, Any]:
    """One page of moments: ``?show=`` one sort, ``?before=`` an exact time from which on older ones are shown."""
    chosen = request.GET.get("show", "")
    chosen = chosen if chosen in SORTS else ""
    before = read_time(request.GET.get("before", ""))
    moments, older = read_timeline(item, sorts=[chosen] if chosen else [*SORTS], before=before)
    return {
        "moments": moments,
        "older": older,
        "before": before,
        "shown_sort": chosen,
        "sorts": [(slug, sort.label) for slug, sort in SORTS.items()],
    }


def read_timeline(
    item: Item, *, sorts: list[str], before: datetime | None = None
) -> tuple[list[Moment], datetime | None]:
    """Up to ``ROWS`` moments before a time, newest first, and from when on there are older ones; a query a sort.

    A page ends between two times, never inside one, so that nothing is lost between pages.
    """
    found = _read(item, sorts, {"lt": before} if before is not None else {}, ROWS + 1)
    if len(found) <= ROWS:
        return found, None
    # Of what is newer than this every sort has given everything.
    edge = found[ROWS].at
    page = [moment for moment in found if moment.at > edge]
    if not page:
        page = _read(item, sorts, {"exact": edge}, AT_ONCE)
    return page, page[-1].at


def _read(item: Item, sorts: list[str], condition: Mapping[str, datetime], limit: int) -> list[Moment]:
    found: list[Moment] = []
    for sort in (SORTS[slug] for slug in sorts):
        rows = sort.rows(item).filter(**{f"{sort.at}__{way}": moment for way, moment in condition.items()})
        if sort is SORTS["people"] and "decisions" in sorts:
            rows = rows.exclude(verb__in=_TOLD_BY_LOG)
        newest = rows.order_by(f"-{sort.at}", "-pk")[:limit]
        found += [replace(sort.tell(row), dom_id=_dom_id(row)) for row in newest]
    return sorted(found, key=lambda moment: moment.at, reverse=True)


def _dom_id(row: Any) -> str:
    return f"line-{row.pk}" if isinstance(row, LogEntry) else f"moment-{row._meta.model_name}-{row.pk}"


def _from_entry(entry: LogEntry) -> Moment:
    text = entry.text
    if text == ERASED:
        text = f"{_ERASED.get(entry.kind, 'Something happened')}; its words were erased."
    return Moment(
        entry.at,
        _ICONS.get(entry.kind, "circle"),
        text,
        colour=_LEVELS.get(LogEntry.Level(entry.level), ""),
        run_id=entry.pipeline_run_id,
        step_id=entry.agent_run_id,
    )


def _from_action(action: Action) -> Moment:
    what = in_words(action.verb)
    text = f"{action.user or 'Somebody'}: {what} {ActionRow(action, []).target}".strip()
    return Moment(action.at, "user", text, action.reason)


def _from_trigger(trigger: Trigger) -> Moment:
    is_open = trigger.status == Trigger.Status.OPEN
    is_later = trigger.due_at > trigger.created_at + _AT_ONCE
    is_planned = is_later and trigger.kind in _PLANNED
    source = f", from {trigger.source.replace(':', ' ')}" if trigger.source and trigger.kind in _FROM_OUTSIDE else ""
    text = f"{trigger_words(trigger.kind, ('is' if is_open else 'was') if is_planned else '')}{source}"
    if is_open and is_later:
        what = "Due" if is_planned else "Takes effect"
        return Moment(trigger.created_at, "git-branch", text, due_at=trigger.due_at, due_what=what)
    if is_open:
        return Moment(trigger.created_at, "git-branch", text, "It waits for a worker.")
    is_plain = trigger.status == Trigger.Status.NOTED and trigger.kind in _ASKS_FOR_NOTHING
    return Moment(trigger.created_at, "git-branch", text, "" if is_plain else trigger.settled_note)


def _from_message(message: Message) -> Moment:
    icon = {"in": "mail-opened", "out": "mail"}.get(message.direction, "message-circle")
    what = "Note" if message.direction == Message.Direction.NOTE else f"Mail {message.get_direction_display()}"
    return Moment(message.at, icon, f"{what}: {message.subject or message.body[:80] or 'no subject'}")


def _from_outbox(row: OutboxMessage) -> Moment:
    bad = row.status in (OutboxMessage.Status.FAILED, OutboxMessage.Status.UNKNOWN)
    detail = row.error or row.reason or row.waiting_for
    text = f"Put into the outbox for {row.address}; now {row.get_status_display()}"
    return Moment(row.created_at, "mail", text, detail, colour="warning" if bad else "")


def _decisions(item: Item) -> QuerySet[Any]:
    return LogEntry.objects.filter(item=item).exclude(kind__in=(*_LEFT_OUT, *_OF_RUNS))


def _runs(item: Item) -> QuerySet[Any]:
    return LogEntry.objects.filter(item=item, kind__in=_OF_RUNS)


SORTS: Mapping[str, Sort] = {
    "triggers": Sort("Triggers", lambda item: item.triggers.all(), "created_at", _from_trigger),
    "decisions": Sort("Decisions", _decisions, "at", _from_entry),
    "runs": Sort("Runs", _runs, "at", _from_entry),
    "people": Sort("People", lambda item: item.actions.select_related("user"), "at", _from_action),
    "mails": Sort("Mails and notes", lambda item: item.messages.all(), "at", _from_message),
    "sends": Sort("Sends", lambda item: item.outbox.all(), "created_at", _from_outbox),
}
"""What can be looked at alone."""
