"""What happened to an item, newest first: triggers, the log's decisions and results, mails, people's actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from runs.models import Action, Item, LogEntry, Message, Trigger

ROWS = 60
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
_LEFT_OUT = ("started", "trigger", "retry", "answer", "sent")

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


def read_timeline(item: Item, triggers: Sequence[Trigger], messages: Sequence[Message]) -> list[Moment]:
    """The newest ``ROWS`` moments, in two queries beside the rows given."""
    entries = LogEntry.objects.filter(item=item).exclude(kind__in=_LEFT_OUT).order_by("-pk")[:ROWS]
    actions = Action.objects.filter(item=item).select_related("user").order_by("-pk")[:ROWS]
    moments = [_from_entry(entry) for entry in entries]
    moments += [_from_action(action) for action in actions]
    moments += [_from_trigger(trigger) for trigger in triggers]
    moments += [_from_message(message) for message in messages]
    return sorted(moments, key=lambda moment: moment.at, reverse=True)[:ROWS]


def _from_entry(entry: LogEntry) -> Moment:
    return Moment(
        entry.at,
        _ICONS.get(entry.kind, "circle"),
        entry.text,
        colour=_LEVELS.get(LogEntry.Level(entry.level), ""),
        run_id=entry.pipeline_run_id,
        step_id=entry.agent_run_id,
    )


def _from_action(action: Action) -> Moment:
    what = action.verb.replace("_", " ")
    return Moment(action.at, "user", f"{action.user or 'Somebody'}: {what} {action.target}".strip(), action.reason)


def _from_trigger(trigger: Trigger) -> Moment:
    source = f" from {trigger.source}" if trigger.source else ""
    if trigger.status == Trigger.Status.NOTED and trigger.kind in _ASKS_FOR_NOTHING:
        state = ""
    elif trigger.status == Trigger.Status.OPEN:
        state = "open"
    else:
        state = f"{trigger.get_status_display()}. {trigger.settled_note}".strip()
    text = f"Trigger: {trigger.get_kind_display()}{source}"
    return Moment(trigger.created_at, "git-branch", text, state)


def _from_message(message: Message) -> Moment:
    icon = {"in": "mail-opened", "out": "mail"}.get(message.direction, "message-circle")
    return Moment(message.at, icon, f"Mail {message.get_direction_display()}: {message.subject or 'no subject'}")
