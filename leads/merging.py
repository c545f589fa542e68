"""Merges rows into the leads they are about, in memory: no query and nothing written.

What is known stays: a row fills what is empty, adds to ``attributes`` and to ``message``, and never empties
or replaces a field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agents.models import Department
from leads.cleaning import LIMITS, MAX_ATTRIBUTES, clean_attribute_name
from leads.mapping import LeadRow
from leads.models import Lead
from runs.models import Item

What = Literal["created", "merged", "unchanged"]
_FILLED = ("name", "email", "company", "title", "phone", "website", "country")
STORED = (*_FILLED, "source", "external_id", "message", "attributes")
"""The columns of a lead that a merge may change."""


class Entry:
    """One lead on the desk: stored already or new. It remembers what is stored, because rows may undo each other:
    two rows about one person that differ in an attribute change nothing when they come again."""

    def __init__(self, lead: Lead, *, is_new: bool) -> None:
        self.lead = lead
        self.is_new = is_new
        self._stored = _values(lead)

    @property
    def changed(self) -> set[str]:
        """The columns that differ from what is stored, and ``item_title`` where the item's title does."""
        return {name for name, value in _values(self.lead).items() if value != self._stored[name]}


@dataclass(frozen=True, slots=True)
class Taken:
    """One row, with what was remarked on it, and the lead it went to."""

    row: LeadRow
    entry: Entry
    has_begun: bool
    has_changed: bool = False

    @property
    def what(self) -> What:
        """What became of the row, once all rows of the batch are taken."""
        if self.has_begun:
            return "created"
        return "merged" if self.has_changed and (self.entry.is_new or self.entry.changed) else "unchanged"


def _values(lead: Lead) -> dict[str, Any]:
    return {**{name: getattr(lead, name) for name in STORED}, "item_title": lead.item.title}


class Desk:
    """The leads that a batch is about, by their keys, so that rows of one batch merge with each other too.

    ``known`` are the stored leads, with their items. ``source`` is the one whose external ids the rows carry.
    """

    def __init__(self, department: Department, source: str, known: Sequence[Lead]) -> None:
        self.department = department
        self.source = source
        self.entries = [Entry(lead, is_new=False) for lead in known]
        self._by_email: dict[str, Entry] = {}
        self._by_id: dict[str, Entry] = {}
        for entry in self.entries:
            self._index(entry)

    def take(self, row: LeadRow) -> Taken:
        """Merge one row into the lead it is about, or start a new one."""
        entry, note = self._find(row)
        if entry is None:
            return Taken(row, self._start(row), has_begun=True)
        notes = [note] if note else []
        has_changed = self._merge(entry.lead, row, notes)
        self._index(entry)
        if notes:
            row = replace(row, notes=(*row.notes, *notes))
        return Taken(row, entry, has_begun=False, has_changed=has_changed)

    def _find(self, row: LeadRow) -> tuple[Entry | None, str]:
        by_email = self._by_email.get(row.email) if row.email else None
        by_id = self._by_id.get(row.external_id) if row.external_id else None
        if by_email and by_id and by_email is not by_id:
            return by_email, (
                f"The e-mail address {row.email} and the external id {row.external_id} belong to two leads: "
                "the row went to the one with the address."
            )
        if by_id and not by_email and row.email and by_id.lead.email:
            return by_id, (
                f"The lead with the external id {row.external_id} has another e-mail address, which stays; "
                f"{row.email} is not taken."
            )
        return by_email or by_id, ""

    def _start(self, row: LeadRow) -> Entry:
        lead = Lead(department=self.department, source=self.source, attributes=dict(row.attributes), **row.fields)
        lead.item = Item(department=self.department, title=row.title[:300])
        entry = Entry(lead, is_new=True)
        self.entries.append(entry)
        self._index(entry)
        return entry

    def _index(self, entry: Entry) -> None:
        if entry.lead.email:
            self._by_email.setdefault(entry.lead.email, entry)
        if entry.lead.external_id and entry.lead.source == self.source:
            self._by_id.setdefault(entry.lead.external_id, entry)

    def _merge(self, lead: Lead, row: LeadRow, notes: list[str]) -> bool:
        changed = {name for name in _FILLED if row.fields.get(name) and not getattr(lead, name)}
        for name in changed:
            setattr(lead, name, row.fields[name])
        attributes = dict(row.attributes)
        changed |= self._merge_external_id(lead, row.external_id, attributes)
        changed |= _merge_message(lead, row.fields.get("message", ""), notes)
        changed |= _merge_attributes(lead, attributes, notes)
        if "name" in changed and lead.item.title in (lead.email, lead.company, lead.external_id):
            lead.item.title = lead.name
        return bool(changed)

    def _merge_external_id(self, lead: Lead, external_id: str, attributes: dict[str, Any]) -> set[str]:
        if not external_id or (lead.external_id == external_id and lead.source == self.source):
            return set()
        has_room = not lead.external_id and lead.source in ("", self.source)
        if has_room and external_id not in self._by_id:
            lead.external_id, lead.source = external_id, self.source
            return {"external_id", "source"}
        # A lead has room for one source's id. Another's is kept where a person can find it.
        attributes.setdefault(clean_attribute_name(f"{self.source} id"), external_id)
        return set()


def _merge_message(lead: Lead, message: str, notes: list[str]) -> set[str]:
    """A second message of the same person is added below the first: neither may be lost."""
    if not message or message in lead.message:
        return set()
    joined = f"{lead.message}\n\n{message}" if lead.message else message
    if len(joined) > LIMITS["message"]:
        notes.append("The message is left out: the lead's messages are too long already.")
        return set()
    lead.message = joined
    return {"message"}


def _merge_attributes(lead: Lead, attributes: dict[str, Any], notes: list[str]) -> set[str]:
    news = {name: value for name, value in attributes.items() if lead.attributes.get(name) != value}
    if not news:
        return set()
    merged = {**lead.attributes, **news}
    if len(merged) > MAX_ATTRIBUTES:
        notes.append(f"The attributes are left out: the lead would have more than {MAX_ATTRIBUTES}.")
        return set()
    lead.attributes = merged
    return {"attributes"}
