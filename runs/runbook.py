"""The runbook, ``docs/runbook.md``: which of its sections is about what, and the page made from it.

A section's anchor is its heading as GitHub makes anchors, so that links work in the file and in Kontor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings
from django.urls import reverse
from markdown_it import MarkdownIt
from markdown_it.token import Token

from agents.causes import Cause
from runs.models import Alert

FILE = Path(__file__).resolve().parent.parent / "docs" / "runbook.md"
HOME = "where-to-look-first"

CHECKS = {
    "database": "the-database-does-not-fit-the-release",
    "clock": "the-clocks-differ",
    "departments": "the-line-stands-still",
    "queue": "the-queue-stands-still",
    "shifts": "no-worker-is-at-work",
    "due work": "items-wait-too-long",
    "model endpoint": "the-model-endpoint-does-not-answer",
}
"""By what ``runs.health`` and ``manage.py doctor`` look at."""

_KEYS = (
    ("failure:", "an-agent-failed-for-good"),
    ("send:", "a-message-could-not-be-sent"),
    ("channel:", "a-channel-does-not-work"),
    ("undecided:", "items-cannot-be-decided-on"),
    ("unusual_sends", "unusual-sends"),
    ("after_restore", "a-backup-was-restored"),
    ("reviews", "questions-wait-for-people"),
    ("review:", "questions-wait-for-people"),
)
_KINDS = {
    Alert.Kind.FAILURE: "an-agent-failed-for-good",
    Alert.Kind.STOP_THE_LINE: "the-line-stands-still",
    Alert.Kind.BREAKER: "the-breaker-is-open",
    Alert.Kind.BUDGET: "a-budget-holds-up-work",
    Alert.Kind.SYSTEM: HOME,
}

CAUSES = {
    Cause.TRANSIENT: "cause-connection-or-server-trouble",
    Cause.TIMEOUT: "cause-no-answer-in-time",
    Cause.RATE_LIMITED: "the-model-is-busy",
    Cause.OVERLOADED: "the-model-is-busy",
    Cause.INVALID: "cause-answer-does-not-fit-the-schema",
    Cause.TRUNCATED: "cause-answer-cut-off",
    Cause.REFUSAL: "cause-the-model-refused",
    Cause.REQUEST: "cause-request-refused-by-the-api",
    Cause.ACCOUNT: "the-line-stands-still",
    Cause.LOST: "cause-worker-lost",
    Cause.TOOLS: "cause-too-many-tool-calls",
    Cause.INTERNAL: "cause-error-in-kontor",
    Cause.CUT_OFF: "cause-closed-before-its-end",
}
"""By why an agent failed: an incident is about one of these."""

VERDICTS = (
    "no-worker-is-at-work",
    "a-shift-is-missing",
    "the-queue-stands-still",
    "items-wait-too-long",
    "lost-steps-are-not-recovered",
    "somebody-has-switched-it-off",
    "model-calls-fail",
    "no-model-call-was-made-lately",
    "the-mail-server-refuses",
    "a-send-is-unsure",
    "nobody-sends-what-is-due",
    "sending-is-held",
    "no-channel-is-entered",
    "nothing-has-left-lately",
    "the-database-does-not-answer",
)
"""Sections that only the verdict leads to."""


@dataclass(frozen=True, slots=True)
class Heading:
    """One section: its anchor, its title, and how deep it lies (2 or 3)."""

    anchor: str
    title: str
    level: int


@dataclass(frozen=True, slots=True)
class Page:
    """The runbook as HTML, and its sections in their order."""

    html: str
    headings: tuple[Heading, ...]


def section_of(alert: Alert) -> str:
    """The anchor of the section about an alert: by its key, else by its kind."""
    found = next((anchor for prefix, anchor in _KEYS if alert.key.startswith(prefix)), None)
    return found or _KINDS[Alert.Kind(alert.kind)]


def section_of_cause(cause: str) -> str:
    """The anchor about why an agent failed; ``cause`` is a ``Cause``, or ``agent:cause`` as incidents have it."""
    name = cause.rpartition(":")[2]
    return CAUSES.get(Cause(name), HOME) if name in Cause.values else HOME


def known_sections() -> set[str]:
    """Every anchor that anything in Kontor leads to."""
    keys = {anchor for _, anchor in _KEYS}
    return {HOME, *CHECKS.values(), *keys, *_KINDS.values(), *CAUSES.values(), *VERDICTS}


def url_of(anchor: str) -> str:
    """The path of a section of the page."""
    return f"{reverse('runs:runbook')}#{anchor}" if anchor else reverse("runs:runbook")


def absolute_url(path: str) -> str:
    """A path as it stands in mails."""
    return f"{settings.BASE_URL}{path}"


def anchor_of(title: str) -> str:
    """The anchor of a heading: small letters, hyphens for spaces, no other signs; as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


@cache
def read_page() -> Page:
    """The file as a page; read once a process."""
    # No raw HTML: the file is ours, and a page is no place for what somebody pastes into it.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(FILE.read_text(encoding="utf-8"))
    headings = tuple(_number(tokens))
    return Page(markdown.renderer.render(tokens, markdown.options, {}), headings)


def _number(tokens: list[Token]) -> list[Heading]:
    """Give every heading its anchor; returns those of sections."""
    found = []
    for position, token in enumerate(tokens):
        if token.type == "heading_open":
            title, level = tokens[position + 1].content, int(token.tag[1])
            token.attrSet("id", anchor_of(title))
            if level > 1:
                found.append(Heading(anchor_of(title), title, level))
    return found
