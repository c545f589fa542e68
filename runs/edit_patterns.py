"""What people change again and again in what agents write: counted when a changed draft is approved.

Sentence by sentence; names and other fields of the item, and numbers, are taken out first, so that the same habit
counts as the same whomever the text was for.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from difflib import SequenceMatcher
from typing import Any

from django.contrib.auth.models import User
from django.db.models import DateField, F, IntegerField

from agents.models import Agent
from agents.statements import Among, Given, Statement
from runs.answerable import key_to_write
from runs.database import now as database_now
from runs.models import EditPattern, Item, Output
from runs.payloads import texts_of

Kind, Place = EditPattern.Kind, EditPattern.Place
WINDOW = timedelta(days=60)
OFTEN = 2
"""What was changed less often is no pattern."""
SHOWN = 8
_MOST_SENTENCES = 200
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_NUMBERS = re.compile(r"\d[\d.,]*")
_SUBJECT = "subject"
_GREETING_WORDS = 5


@dataclass(frozen=True, slots=True)
class Edit:
    """One sentence that a person changed. ``text`` is the agent's, of an addition the person's own."""

    kind: str
    place: str
    text: str
    became: str = ""

    @property
    def digest(self) -> str:
        """What makes two edits the same habit: of a change only what stood there before."""
        return hashlib.blake2b(f"{self.kind}|{self.place}|{self.text.casefold()}".encode(), digest_size=16).hexdigest()


@dataclass(slots=True)
class Pattern:
    """A habit of the reviewers, with how often it was seen. ``text`` empty: of a place as a whole."""

    kind: str
    place: str
    text: str
    became: str
    count: int
    people: dict[str, int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The habit in one sentence without its subject: ``changed the opening 14 times``."""
        times = "once" if self.count == 1 else f"{self.count:,} times"
        if not self.text:
            return f"changed the {self.place} {times}"
        return f"{self.kind} “{self.text}” {times}"

    @property
    def suggestion(self) -> str:
        """What could be written into the SOUL of whoever writes it so."""
        if not self.text:
            return f"People rewrite your {self.place} again and again; the last one became: “{self.became}”"
        if self.kind == Kind.ADDED:
            return f"Say, where it fits: “{self.text}”"
        if self.kind == Kind.CHANGED and self.became:
            return f"Instead of “{self.text}” write “{self.became}”"
        return f"Never write “{self.text}”"


def compare_texts(before: Mapping[str, str], after: Mapping[str, str], personal: Mapping[str, str]) -> list[Edit]:
    """Every sentence that differs, in the order of the fields. ``personal``: what is taken out, and its name. Pure."""
    found: list[Edit] = []
    for name, was in before.items():
        now = after.get(name, was)
        if was == now:
            continue
        if name == _SUBJECT:
            found.append(Edit(Kind.CHANGED, Place.SUBJECT, _bare(was, personal), _bare(now, personal)))
            continue
        found += _sentences_that_differ(_split(was, personal), _split(now, personal))
    return [edit for edit in found if edit.text and edit.text.casefold() != edit.became.casefold()]


def personal_parts(fields: Mapping[str, Any]) -> dict[str, str]:
    """Short fields of an item by what they say: ``{"Lena Weber": "name", "Lena": "name", …}``, the longest first."""
    found: dict[str, str] = {}
    for name, value in fields.items():
        if not isinstance(value, str) or not 2 < len(value) <= 120:
            continue
        for part in (value, *(value.split() if len(value.split()) <= 3 else ())):
            if len(part) > 2:
                found.setdefault(part, name)
    return dict(sorted(found.items(), key=lambda entry: -len(entry[0])))


def count_edits(
    item: Item, before: Output, after: Mapping[str, Any], user: User | None, *, at: datetime, sign: int = 1
) -> None:
    """Count what a person changed in an agent's output, on the day of ``at``. ``sign`` -1: it was taken back.

    In the transaction of the answer; a fixed number of queries and one or two for each changed sentence.
    """
    run = before.agent_run
    if run is None:
        return
    spec = item.department.spec
    was = texts_of(spec, before)
    now = {name: str(after.get(name, text)) for name, text in was.items()}
    personal = personal_parts(spec.load_fields([item.pk]).get(item.pk, {}))
    edits = compare_texts(was, now, personal)
    if not edits:
        return
    writer, source = _writer_behind(item, before, personal)
    wanted: Counter[tuple[str, int]] = Counter()
    edit_of: dict[str, Edit] = {}
    for edit in edits:
        is_of_writer = writer is not None and (edit.kind == Kind.ADDED or edit.text.casefold() in source)
        wanted[edit.digest, writer if is_of_writer and writer is not None else run.agent_id] += 1
        edit_of[edit.digest] = edit
    # In one order everywhere, so that two answers never wait for each other.
    for (digest, agent_id), times in sorted(wanted.items()):
        _count(item.department_id, agent_id, user, at.date(), edit_of[digest], times * sign)


def edit_patterns(
    *, agent: Agent, since: datetime | None = None, user: User | None = None, limit: int = SHOWN
) -> list[Pattern]:
    """What people changed at least twice in this agent's texts since then (60 days), the most frequent first.

    One query over an index. ``user``: of this person alone.
    """
    found = _OF_AGENT.rows(agent=agent.pk, since=_since(since))
    rows = [row for row in found if user is None or row[_PERSON] == user.get_username()]
    return _gather_by_agent(rows).get(agent.pk, [])[:limit]


def patterns_by_agent(
    department_ids: Iterable[int], *, now: datetime | None = None, limit: int = 3
) -> list[tuple[Agent, list[Pattern]]]:
    """The same for every agent of some departments, in two queries; agents without a pattern are left out."""
    by_agent = _gather_by_agent(_OF_DEPARTMENTS.rows(departments=list(department_ids), since=_since(None, now)))
    agents = Agent.objects.filter(pk__in=by_agent).select_related("department").order_by("department", "slug")
    return [(agent, found[:limit]) for agent in agents if (found := by_agent[agent.pk])]


def _since(since: datetime | None, now: datetime | None = None) -> date:
    return (since or (now or database_now()) - WINDOW).date()


def _rows() -> Any:
    names = ("agent_id", "kind", "place", "digest", "text", "became", "user__username", "count")
    rows = EditPattern.objects.filter(day__gte=Given("since", DateField()), count__gt=0)
    return rows.order_by("agent_id", "-pk").values_list(*names)


_PERSON = 6
"""Where the name of the person stands in these rows."""
_OF_AGENT: Statement[EditPattern] = Statement(lambda: _rows().filter(agent=Given("agent", IntegerField())))
_OF_DEPARTMENTS: Statement[EditPattern] = Statement(lambda: _rows().filter(Among("department_id", "departments")))


def _gather_by_agent(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[Pattern]]:
    found: dict[int, dict[str, Pattern]] = defaultdict(dict)
    places: dict[int, dict[str, Pattern]] = defaultdict(dict)
    for agent, kind, place, digest, text, became, person, count in rows:
        pattern = found[agent].setdefault(digest, Pattern(kind, place, text, became, 0))
        _add(pattern, person, count)
        if place != Place.BODY and kind == Kind.CHANGED:
            _add(places[agent].setdefault(place, Pattern(kind, place, "", became, 0)), person, count)
    result = {}
    for agent, by_digest in found.items():
        kept = [pattern for pattern in by_digest.values() if pattern.count >= OFTEN]
        # A place as a whole is news only where no single sentence of it says the same.
        most = {place: max((p.count for p in kept if p.place == place), default=0) for place in places[agent]}
        kept += [p for place, p in places[agent].items() if p.count >= OFTEN and p.count > most[place]]
        result[agent] = sorted(kept, key=lambda pattern: (-pattern.count, pattern.text))
    return result


def _add(pattern: Pattern, person: str | None, count: int) -> None:
    pattern.count += count
    name = person or "somebody who has left"
    pattern.people[name] = pattern.people.get(name, 0) + count


def _count(department_id: int, agent_id: int, user: User | None, day: date, edit: Edit, times: int) -> None:
    same = {"agent_id": agent_id, "user": user, "day": day, "digest": edit.digest}
    if times < 0:
        EditPattern.objects.filter(**same, count__gte=-times).update(count=F("count") + times)
        return
    told = {"kind": edit.kind, "place": edit.place, "text": edit.text[:300], "became": edit.became[:300]}
    _, is_new = EditPattern.objects.get_or_create(
        **same, defaults={**told, "department_id": department_id, "count": times}
    )
    if not is_new:
        EditPattern.objects.filter(**same).update(count=F("count") + times, became=edit.became[:300])


def _writer_behind(item: Item, output: Output, personal: Mapping[str, str]) -> tuple[int | None, str]:
    """Who wrote the words that the output was made from, and those words: a sentence of theirs is their habit."""
    key = key_to_write(output)
    made = Output.objects.filter(pk__in=output.made_from, key=key, agent_run__isnull=False).select_related("agent_run")
    draft = made.order_by("-pk").first()
    if draft is None or draft.agent_run is None:
        return None, ""
    texts = [*texts_of(item.department.spec, draft).values()]
    return draft.agent_run.agent_id, "\n".join(_bare(text, personal) for text in texts).casefold()


def _split(text: str, personal: Mapping[str, str]) -> list[str]:
    sentences = [_bare(sentence, personal) for sentence in _SENTENCES.split(text)]
    return [sentence for sentence in sentences if sentence][:_MOST_SENTENCES]


def _bare(text: str, personal: Mapping[str, str]) -> str:
    for part, name in personal.items():
        text = re.sub(rf"\b{re.escape(part)}\b", f"[{name.replace('_', ' ')}]", text)
    return " ".join(_NUMBERS.sub("#", text).split())


def _sentences_that_differ(before: Sequence[str], after: Sequence[str]) -> list[Edit]:
    found: list[Edit] = []
    matcher = SequenceMatcher(a=[s.casefold() for s in before], b=[s.casefold() for s in after], autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            continue
        pairs = min(j - i, m - k)
        for step in range(pairs):
            found.append(Edit(Kind.CHANGED, _place(before, i + step), before[i + step], after[k + step]))
        found += [Edit(Kind.REMOVED, _place(before, at), before[at]) for at in range(i + pairs, j)]
        found += [Edit(Kind.ADDED, _place(after, at), after[at]) for at in range(k + pairs, m)]
    return found


def _place(sentences: Sequence[str], at: int) -> str:
    """Where a sentence stands: the opening is the first one behind the greeting, the closing the last two lines."""
    first = 1 if len(sentences[0].split()) <= _GREETING_WORDS and len(sentences) > 1 else 0
    if at <= first:
        return Place.OPENING
    return Place.CLOSING if at >= len(sentences) - 2 else Place.BODY
