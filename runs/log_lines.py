"""Lines of the log for reading: filtered, newest first, and never more of the table looked through than a page may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import QuerySet

from runs.models import Item, LogEntry

PAGE_LINES = 100
WINDOW = 20_000
"""How many lines one page looks through for those that fit its filter. A log has millions, and what is sought may
not be among them; the page says how far it has looked and goes on from there when asked."""
FOUND_ITEMS = 100
"""A search by an item's text means the newest so many items that it finds."""

KINDS = (
    *(
        "trigger",
        "decision",
        "started",
        "output",
        "waiting",
        "failed",
        "lost",
        "retry",
        "healed",
        "cancelled",
        "status",
    ),
    *("review", "answer", "deadline", "sent", "outbox", "suppressed", "automation", "rerun", "import", "note"),
)
"""What is offered as a filter, in the order in which it happens to an item. Any other kind may be asked for too."""


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines are wanted. Empty strings want all."""

    departments: Sequence[int]
    level: str = ""
    """``warning`` includes errors."""
    kind: str = ""
    agent: str = ""
    """An agent's slug."""
    text: str = ""
    """Part of an item's title."""

    @property
    def is_narrow(self) -> bool:
        """Whether it leaves lines of the departments out."""
        return bool(self.level or self.kind or self.agent or self.text)

    def lines(self) -> QuerySet[LogEntry]:
        """All lines that fit, without what they refer to."""
        rows = LogEntry.objects.filter(department__in=self.departments)
        if self.level == LogEntry.Level.WARNING:
            rows = rows.filter(level__in=[LogEntry.Level.WARNING, LogEntry.Level.ERROR])
        elif self.level:
            rows = rows.filter(level=self.level)
        if self.kind:
            rows = rows.filter(kind=self.kind)
        if self.agent:
            rows = rows.filter(agent_run__agent__slug=self.agent)
        if self.text:
            # Found first: a join would look at the item of every line of the log.
            items = Item.objects.filter(department__in=self.departments, title__icontains=self.text)
            rows = rows.filter(item__in=list(items.order_by("-pk").values_list("pk", flat=True)[:FOUND_ITEMS]))
        return rows


@dataclass(frozen=True, slots=True)
class Lines:
    """One page of lines, newest first. ``older`` is the id before which the next page begins, None at the end."""

    rows: list[LogEntry]
    older: int | None = None
    is_cut: bool = False
    """Whether the page ends because ``WINDOW`` lines were looked through, not because it is full."""


def read_lines(wanted: LineFilter, *, before: int | None = None, size: int = PAGE_LINES) -> Lines:
    """The newest ``size`` lines that fit and whose id is below ``before``."""
    rows = _with_names(wanted.lines())
    if before is not None:
        rows = rows.filter(pk__lt=before)
    floor = _floor(wanted, before) if wanted.is_narrow and not wanted.text else None
    if floor is not None:
        rows = rows.filter(pk__gte=floor)
    found = list(rows.order_by("-pk")[: size + 1])
    if len(found) > size:
        return Lines(found[:size], older=found[size - 1].pk)
    return Lines(found, older=floor, is_cut=floor is not None)


def _floor(wanted: LineFilter, before: int | None) -> int | None:
    """The id of the last line that is looked at; None if the log has no more than ``WINDOW`` of them."""
    rows = LogEntry.objects.filter(department__in=wanted.departments)
    rows = rows.filter(pk__lt=before) if before is not None else rows
    last = list(rows.order_by("-pk").values_list("pk", flat=True)[WINDOW - 1 : WINDOW + 1])
    return last[0] if len(last) == 2 else None


def _with_names(rows: QuerySet[LogEntry]) -> QuerySet[LogEntry]:
    return rows.select_related("item")
