"""The verdict as pages show it: four lines with a state, since when, what happens next, and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.urls import reverse

from runs.access import Access
from runs.runbook import url_of
from runs.signs import Rows, read_signs
from runs.verdict import Line, Signs, Verdict, judge
from runs.views.shown import Shown

_ICONS = {"good": "circle-check", "unknown": "circle-dashed", "warning": "alert-triangle", "bad": "circle-x"}
_COLOURS = {"good": "good", "unknown": "neutral", "warning": "warning", "bad": "bad"}
BANNERED = ("the-line-stands-still", "somebody-has-switched-it-off", "sending-is-held")
"""Sections about what ``runs.views.banners`` says on every page."""
_HEALS = {
    True: "It heals by itself.",
    False: "It does not heal by itself.",
    None: "",
}


@dataclass(frozen=True, slots=True)
class ShownLine:
    """One line with its state as a badge, whether it heals, and links: path and text."""

    line: Line
    shown: Shown
    heals: str
    runbook_url: str
    link: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class ShownVerdict:
    """The whole block."""

    verdict: Verdict
    signs: Signs
    lines: Sequence[ShownLine]

    @property
    def is_news(self) -> bool:
        """Whether something is wrong that no banner at the top of every page says."""
        troubled = [shown.line for shown in self.lines if shown.line.state in ("warning", "bad")]
        return any(line.also or line.section not in BANNERED for line in troubled)

    @property
    def worst(self) -> ShownLine:
        """The line to look at first."""
        return next(shown for shown in self.lines if shown.line is self.verdict.worst)


def read_verdict(access: Access, *, now: datetime, rows: Rows | None = None) -> ShownVerdict:
    """The verdict on the departments that are shown and the installation, now; ``rows`` as in ``read_signs``."""
    signs = read_signs(access.shown, access.installation, now=now, rows=rows)
    verdict = judge(signs)
    return ShownVerdict(verdict, signs, [_show(line) for line in verdict.lines])


def _show(line: Line) -> ShownLine:
    is_live = line.state in ("warning", "bad")
    shown = Shown(line.label, _COLOURS[line.state], _ICONS[line.state], is_live=is_live)
    return ShownLine(line, shown, _HEALS[line.will_heal], url_of(line.section) if line.section else "", _link(line))


def _link(line: Line) -> tuple[str, str] | None:
    links = {
        "outbox": (f"{reverse('runs:outbox')}?status=pending", "Outbox"),
        "unsure": (f"{reverse('runs:outbox')}?status=unknown", "Unsure messages"),
        "switches": (reverse("runs:switches"), "Switches"),
    }
    return links.get(line.link)
