"""SOULs: reading them from Markdown, drafting, publishing, rolling back, comparing.

A published version never changes. ``publish`` is the only way to a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from django.db import transaction
from django.db.models import IntegerField, Max
from django.utils import timezone

from agents.models import Agent, Soul
from agents.models.agent import SECTIONS
from agents.statements import Given, Statement

Author = Any
"""A user, or None for what Kontor ships. The user model is the installation's choice."""

_HEADING = re.compile(r"#[ \t]+(.+?)[ \t#]*$")
_DATA_MARK = re.compile(r"</?data\b", re.IGNORECASE)
LONGEST_SECTION = 12_000
"""Characters: many times what the shipped ones need."""
_EXPECTED = ", ".join(f"`# {name.capitalize()}`" for name in SECTIONS)


class SoulError(ValueError):
    """A SOUL cannot be read or published. The text names the file or the SOUL, and the section."""


def parse_soul(markdown: str, *, name: str = "SOUL") -> dict[str, str]:
    """The three sections of a SOUL, ``{"identity", "responsibilities", "prohibitions"}``, in any order.

    Each is one H1 heading with text below it. SoulError says what is missing, empty, twice or not known.
    """
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    in_code = False
    for line in markdown.removeprefix("\ufeff").splitlines():
        in_code ^= line.lstrip().startswith("```")
        heading = None if in_code else _HEADING.match(line)
        if heading is None:
            current.append(line)
            if not sections and line.strip():
                raise SoulError(f"{name}: there is text before the first section. It has {_EXPECTED}.")
            continue
        section = heading[1].strip().lower()
        if section not in SECTIONS:
            raise SoulError(f"{name}: the section `# {heading[1]}` is not known. It has {_EXPECTED}.")
        if section in sections:
            raise SoulError(f"{name}: the section `# {heading[1]}` is there twice.")
        current = sections[section] = []
    texts = {section: "\n".join(lines).strip() for section, lines in sections.items()}
    return _complete(texts, name)


def read_soul(path: Path) -> dict[str, str]:
    """``parse_soul`` of a file in UTF-8. SoulError names the file, also if it is not there."""
    try:
        return parse_soul(path.read_text(encoding="utf-8"), name=path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise SoulError(f"{path.name} cannot be read: {error}") from error


def shipped_sections(agent: Agent) -> dict[str, str]:
    """The SOUL that this release ships for the agent; empty sections if it ships none."""
    try:
        return read_soul(Path(agent.department.spec.souls_dir) / f"{agent.slug}.md")
    except (LookupError, SoulError):
        return sections_of(None)


def create_draft(*, agent: Agent, sections: Mapping[str, str], author: Author, note: str = "") -> Soul:
    """A new draft. Its sections may still be empty; ``publish`` refuses that."""
    texts = {name: sections.get(name, "").strip() for name in SECTIONS}
    return Soul.objects.create(agent=agent, author=author, note=note, **texts)


def publish(*, soul: Soul, author: Author) -> bool:
    """Give the draft the next number and put it in force; the one that was is retired.

    Later claims use it, and nothing that was made is retired. False if it is no draft any more: somebody else
    was first. SoulError if a section is empty.
    """
    with transaction.atomic():
        # The agent's row is the lock: two who publish at once get two numbers, one after the other.
        agent = Agent.objects.select_for_update().get(pk=soul.agent_id)
        soul.refresh_from_db()
        if soul.status != Soul.Status.DRAFT:
            return False
        check_complete(soul)
        versions = Soul.objects.filter(agent=agent)
        last = versions.aggregate(last=Max("number"))["last"] or 0
        versions.retire_published()
        soul.number, soul.status = last + 1, Soul.Status.PUBLISHED
        soul.published_at, soul.author = timezone.now(), soul.author or author
        soul.save(update_fields=["number", "status", "published_at", "author"])
    return True


def roll_back(*, agent: Agent, number: int, author: Author, note: str = "") -> Soul:
    """Publish a copy of an old version under a new number. SoulError if there is none or it is in force."""
    with transaction.atomic():
        Agent.objects.select_for_update().get(pk=agent.pk)
        old = Soul.objects.filter(agent=agent, number=number).first()
        if old is None:
            raise SoulError(f"{agent.slug} has no SOUL {number}.")
        if old.status == Soul.Status.PUBLISHED:
            raise SoulError(f"SOUL {number} of {agent.slug} is the one in force.")
        told = f"Rolled back to SOUL {number}{f': {note}' if note else ''}"[:300]
        copy = create_draft(agent=agent, sections=sections_of(old), author=author, note=told)
        publish(soul=copy, author=author)
    return copy


def published_soul(agent: Agent) -> Soul | None:
    """The version in force."""
    return next(iter(_PUBLISHED.objects(agent=agent.pk)), None)


_PUBLISHED = Statement(
    lambda: Soul.objects.filter(agent=Given("agent", IntegerField()), status=Soul.Status.PUBLISHED).order_by()
)


def name_of(soul: Soul) -> str:
    """What people call it: its number, or that it is a draft."""
    return f"SOUL {soul.number}" if soul.number else "the draft"


def check_complete(soul: Soul) -> None:
    """SoulError unless each of the three sections says something."""
    _complete(sections_of(soul), str(soul))


def find_problems(sections: Mapping[str, str]) -> dict[str, str]:
    """By section what keeps a draft from being saved, in words. Empty sections are refused on publishing only.

    The request is built around the SOUL: a section cannot open another one, nor what marks material of outsiders.
    """
    found: dict[str, str] = {}
    for name in SECTIONS:
        text = sections.get(name, "")
        if len(text) > LONGEST_SECTION:
            found[name] = f"At most {LONGEST_SECTION:,} characters; this has {len(text):,}. Every request carries it."
        elif heading := _heading_in(text):
            found[name] = f"“# {heading}” would begin another section. Begin headings with ## or more."
        elif _DATA_MARK.search(text):
            found[name] = "<data> and </data> mark what outsiders wrote. A SOUL cannot contain them."
    return found


def _heading_in(text: str) -> str:
    in_code = False
    for line in text.splitlines():
        in_code ^= line.lstrip().startswith("```")
        if not in_code and (found := _HEADING.match(line)):
            return found[1]
    return ""


def sections_of(soul: Soul | None) -> dict[str, str]:
    """The three sections; empty texts where there is no SOUL."""
    return {name: getattr(soul, name) if soul else "" for name in SECTIONS}


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One line beside what it was. The texts are plain: a template escapes them."""

    kind: Literal["same", "changed", "added", "removed"]
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class SectionDiff:
    """A section of two SOULs, side by side."""

    section: str
    rows: tuple[DiffRow, ...]

    @property
    def is_changed(self) -> bool:
        """Whether any line differs."""
        return any(row.kind != "same" for row in self.rows)


def diff_souls(old: Soul | None, new: Soul) -> tuple[SectionDiff, ...]:
    """What ``new`` would change, section by section and line by line."""
    before, after = sections_of(old), sections_of(new)
    return tuple(SectionDiff(name, tuple(_rows(before[name], after[name]))) for name in SECTIONS)


def _rows(old: str, new: str) -> list[DiffRow]:
    left, right = old.strip().splitlines(), new.strip().splitlines()
    rows: list[DiffRow] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(a=left, b=right, autojunk=False).get_opcodes():
        if tag == "equal":
            rows += [DiffRow("same", line, line) for line in left[i1:i2]]
            continue
        paired = min(i2 - i1, j2 - j1)
        rows += [DiffRow("changed", left[i1 + n], right[j1 + n]) for n in range(paired)]
        rows += [DiffRow("removed", line, "") for line in left[i1 + paired : i2]]
        rows += [DiffRow("added", "", line) for line in right[j1 + paired : j2]]
    return rows


def _complete(sections: dict[str, str], name: str) -> dict[str, str]:
    for section in SECTIONS:
        if section not in sections:
            raise SoulError(f"{name}: the section `# {section.capitalize()}` is missing.")
        if not sections[section].strip():
            raise SoulError(f"{name}: the section `# {section.capitalize()}` is empty.")
    return sections
