"""What a person does to SOULs: save, publish, roll back, discard. One Action row each; two people lose nothing.

Whoever saves or publishes hands back the stamp of what they were shown: if somebody else was faster, nothing happens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import IntegerField

from agents.models import Agent, Soul
from agents.models.agent import SECTIONS
from agents.reading import storable
from agents.souls import (
    SoulError,
    create_draft,
    find_problems,
    name_of,
    publish,
    published_soul,
    roll_back,
    sections_of,
)
from agents.statements import Given, Statement
from runs.allowed import YES, Allowed, no
from runs.models import Action, AgentRun, AutoApproval

MOST_COUNTED = 1_000
LONGEST_NOTE = 300
_CHANGED = "Somebody else has changed it meanwhile. Look at what is there now; what you wrote is still in the form."


@dataclass(frozen=True, slots=True)
class Consequences:
    """What publishing means. ``queued`` stops counting above ``MOST_COUNTED``."""

    queued: int
    is_more: bool
    rules: int
    """How many rules approve drafts of the department without a person."""


def stamp(*souls: Soul | None) -> str:
    """Changes when a row or its text does; of no SOUL at all it is the same everywhere."""
    text = json.dumps([[soul.pk, soul.status, sections_of(soul)] if soul else None for soul in souls])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def newest_draft(agent: Agent) -> Soul | None:
    """The draft that is worked on."""
    return next(iter(_DRAFTS.objects(limit=1, agent=agent.pk)), None)


_DRAFTS = Statement(
    lambda: (
        Soul.objects.filter(agent=Given("agent", IntegerField()), status=Soul.Status.DRAFT)
        .select_related("author")
        .order_by("-pk")
    )
)


def save_draft(
    *, agent: Agent, sections: Mapping[str, str], note: str, user: User, seen: str
) -> tuple[Allowed, Soul | None]:
    """Store the text as the agent's draft; a new one if there is none. ``seen`` is the stamp of the draft shown."""
    texts = {name: storable(sections.get(name, "")).replace("\r\n", "\n").strip() for name in SECTIONS}
    if problems := find_problems(texts):
        return no(" ".join(problems.values())), None
    with transaction.atomic():
        # The agent's row is the lock, as in publishing.
        agent = Agent.objects.select_for_update(of=("self",), no_key=True).select_related("department").get(pk=agent.pk)
        draft = newest_draft(agent)
        if stamp(draft) != seen:
            return no(_CHANGED), None
        before = sections_of(draft or published_soul(agent))
        note = storable(note).strip()[:LONGEST_NOTE]
        if draft is None:
            draft = create_draft(agent=agent, sections=texts, author=user, note=note)
        elif before == texts and draft.note == note:
            return YES, draft
        else:
            for name, text in texts.items():
                setattr(draft, name, text)
            draft.note, draft.author = note, user
            draft.save(update_fields=[*SECTIONS, "note", "author"])
        changed = [name for name in SECTIONS if before[name] != texts[name]]
        _act(agent, user, "save_soul", draft, {n: before[n] for n in changed}, {n: texts[n] for n in changed}, note)
    return YES, draft


def publish_draft(*, draft: Soul, note: str, user: User, seen: str) -> Allowed:
    """Put a draft in force for later runs. The note says why, for whoever reads the history.

    ``seen`` is the stamp of the draft and of what was in force: whoever publishes has read what changes.
    """
    note = storable(note).strip()[:LONGEST_NOTE]
    if not note:
        return no("Say what changes and why: the note stays in the history.")
    with transaction.atomic():
        agent = Agent.objects.select_for_update(of=("self",)).select_related("department").get(pk=draft.agent_id)
        row = Soul.objects.filter(pk=draft.pk, agent=agent).first()
        if row is None or row.status != Soul.Status.DRAFT:
            return no("It is no draft any more: somebody has published or discarded it.")
        before = published_soul(agent)
        if stamp(row, before) != seen:
            return no("The draft, or what is in force, has changed since you looked at it. Read again what changes.")
        if problems := find_problems(sections_of(row)):
            return no(" ".join(problems.values()))
        if before is not None and sections_of(row) == sections_of(before):
            return no(f"The draft says the same as SOUL {before.number}, which is in force. Change it, or discard it.")
        row.note = note
        row.save(update_fields=["note"])
        try:
            publish(soul=row, author=user)
        except SoulError as error:
            transaction.set_rollback(True)
            return no(str(error))
        number = before.number if before else None
        _act(agent, user, "publish_soul", row, {"number": number}, {"number": row.number}, note)
    return YES


def roll_back_to(*, agent: Agent, number: int, note: str, user: User, seen: str) -> tuple[Allowed, Soul | None]:
    """Publish the text of an older version as a new number; the older one stays what it is.

    ``seen`` is the stamp of what was in force: the second of two who go back at once changes nothing.
    """
    note = storable(note).strip()[:LONGEST_NOTE]
    if not note:
        return no("Say why: the note stays in the history."), None
    with transaction.atomic():
        agent = Agent.objects.select_for_update(of=("self",)).select_related("department").get(pk=agent.pk)
        before = published_soul(agent)
        if stamp(before) != seen:
            return no("Another SOUL has come into force since you looked. Read again what changes."), None
        try:
            copy = roll_back(agent=agent, number=number, author=user, note=note)
        except SoulError as error:
            return no(str(error)), None
        was = before.number if before else None
        after = {"number": copy.number, "text_of": number}
        _act(agent, user, "roll_back_soul", copy, {"number": was}, after, note)
    return YES, copy


def discard_draft(*, draft: Soul, user: User, seen: str) -> Allowed:
    """Delete a draft. Its text stays in the list of actions."""
    with transaction.atomic():
        agent = (
            Agent.objects.select_for_update(of=("self",), no_key=True)
            .select_related("department")
            .get(pk=draft.agent_id)
        )
        row = Soul.objects.filter(pk=draft.pk, agent=agent, status=Soul.Status.DRAFT).first()
        if row is None:
            return no("It is no draft any more: somebody has published or discarded it.")
        if stamp(row) != seen:
            return no("The draft has changed since you looked at it. Read it again before you discard it.")
        _act(agent, user, "discard_soul", row, sections_of(row), {}, row.note)
        row.delete()
    return YES


def foresee(agent: Agent) -> Consequences:
    """What publishing another SOUL means for what waits now."""
    waiting = AgentRun.objects.filter(agent=agent, status=AgentRun.Status.QUEUED, pinned_soul=None)
    queued = len(waiting.order_by().values_list("pk", flat=True)[: MOST_COUNTED + 1])
    rules = AutoApproval.objects.filter(department=agent.department_id, is_enabled=True).count()
    return Consequences(min(queued, MOST_COUNTED), queued > MOST_COUNTED, rules)


def _act(
    agent: Agent, user: User, verb: str, soul: Soul, before: Mapping[str, object], after: Mapping[str, object], why: str
) -> None:
    named = {"agent": agent.slug, "soul": name_of(soul)}
    Action.objects.create(
        department_id=agent.department_id,
        user=user,
        verb=verb,
        target=f"soul:{soul.pk}",
        before=dict(before),
        after={**named, **after},
        reason=why[:300],
    )
