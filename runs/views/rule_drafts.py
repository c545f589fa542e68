"""A rule as it stands in a form: read from what a browser sent or from the stored row, and shown again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.models import Department
from runs.clause_forms import (
    MARKS,
    WANT,
    Box,
    Sent,
    Vocabulary,
    facet_box,
    fits_form,
    read_boxes,
    to_json,
    vocabulary,
    with_errors,
    write_boxes,
)
from runs.clauses import FACET, STATUS, TRIGGER
from runs.plan import AgentView
from runs.risk import KNOWN_MARKS, say_when, validate_risk_when
from runs.rule_editing import Draft, agent_views
from runs.rules import rule_sentence, validate_want, validate_when

FIELDS, JSON = "fields", "json"
MAX_JSON = 20_000
_FIRST = (STATUS, TRIGGER, MARKS)


@dataclass(slots=True)
class RuleForm:
    """One form. ``when`` and ``want`` are None if what was sent cannot be read; ``errors`` are by field name."""

    department: Department
    known: Vocabulary
    agents: Sequence[AgentView]
    has_want: bool
    name: str = ""
    is_enabled: bool = True
    mode: str = FIELDS
    when: dict[str, Any] = field(default_factory=dict)
    want: list[str] = field(default_factory=list)
    when_json: str = ""
    want_json: str = ""
    errors: dict[str, list[str]] = field(default_factory=dict)
    sent: Sent | None = None

    @property
    def draft(self) -> Draft:
        """What the person wants."""
        return Draft(self.name, self.when, self.want, self.is_enabled)

    @property
    def boxes(self) -> list[Box]:
        """The fields, with what is wrong in each."""
        boxes = write_boxes(self.when, self.want if self.has_want else None, self.known)
        return with_errors(boxes, self.errors, self.sent)

    @property
    def first_boxes(self) -> list[Box]:
        """Those that nearly every rule uses."""
        return [box for box in self.boxes if box.name in _FIRST]

    @property
    def facet_boxes(self) -> list[Box]:
        """Those for what agents found out."""
        return [box for box in self.boxes if box.name.startswith(facet_box(""))]

    @property
    def other_boxes(self) -> list[Box]:
        """All else but what is wanted."""
        first = {WANT, *_FIRST}
        return [box for box in self.boxes if box.name not in first and not box.name.startswith(facet_box(""))]

    @property
    def facets_used(self) -> bool:
        """Whether those for what agents found out are to be seen at once."""
        return any(box.is_used or box.errors for box in self.facet_boxes)

    @property
    def others_used(self) -> bool:
        """Whether the others are."""
        return any(box.is_used or box.errors for box in self.other_boxes)

    @property
    def want_box(self) -> Box | None:
        """What the rule wants."""
        return next((box for box in self.boxes if box.name == WANT), None)

    @property
    def sentence(self) -> str:
        """The rule in words; empty as long as something in it is wrong."""
        if self.errors:
            return ""
        kind = self.department.spec
        return rule_sentence(self.draft.view, kind) if self.has_want else say_when(self.when, kind)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, once each."""
        return list(dict.fromkeys(line for lines in self.errors.values() for line in lines))

    def check(self) -> None:
        """Find what the one validator refuses, clause by clause, so that it stands beside its field."""
        for clause, value in self.when.items():
            if clause == FACET and isinstance(value, Mapping) and value:
                for name, values in value.items():
                    self._note(self._place(facet_box(name)), self._validate({FACET: {name: values}}))
            else:
                self._note(self._place(clause), self._validate({clause: value}))
        if self.has_want:
            self._note(self._place(WANT), validate_want(self.when, self.want, self.agents))

    def as_json(self) -> None:
        """Show the clauses as JSON from now on."""
        self.mode, self.when_json, self.want_json = JSON, to_json(self.when), to_json(self.want)

    def as_fields(self) -> None:
        """Show the fields from now on, if they can say it."""
        if fits_form(self.when, self.want if self.has_want else None, self.known):
            self.mode = FIELDS
        else:
            self._note("when_json", ["The fields cannot say this. It stays as JSON."])

    def _validate(self, when: dict[str, Any]) -> list[str]:
        if self.has_want:
            return validate_when(when, kind=self.department.spec, agents=self.agents)
        return validate_risk_when(when, kind=self.department.spec, agents=self.agents)

    def _place(self, box: str) -> str:
        """The field that shows an error: the JSON itself where there is nothing else."""
        if self.mode == JSON:
            return "want_json" if box == WANT else "when_json"
        return box

    def _note(self, name: str, lines: Sequence[str]) -> None:
        if lines:
            self.errors.setdefault(name, []).extend(lines)


def empty_form(department: Department, *, has_want: bool) -> RuleForm:
    """The form of a new rule."""
    agents = agent_views(department)
    known = vocabulary(department.spec, agents, None if has_want else KNOWN_MARKS)
    return RuleForm(department, known, agents, has_want)


def stored_form(department: Department, row: Any, *, has_want: bool) -> RuleForm:
    """The form of a rule as it is stored: as JSON if the fields cannot say it."""
    form = empty_form(department, has_want=has_want)
    form.name, form.is_enabled = row.name, row.is_enabled
    form.when, form.want = row.when, list(row.want) if has_want else []
    if not fits_form(form.when, form.want if has_want else None, form.known):
        form.as_json()
    return form


def sent_form(department: Department, sent: Sent, *, has_want: bool) -> RuleForm:
    """The form as a browser sent it, checked. Nothing that was typed is lost."""
    form = empty_form(department, has_want=has_want)
    form.sent = sent
    form.name = " ".join(str(sent.get("name", "")).split())
    form.is_enabled = sent.get("is_enabled", "") == "on"
    if sent.get("mode", FIELDS) == JSON:
        form.mode = JSON
        form.when_json, form.want_json = str(sent.get("when_json", "")), str(sent.get("want_json", ""))
        when = _read_json(form, "when_json", form.when_json or "{}", dict, "an object of clauses")
        want = _read_json(form, "want_json", form.want_json or "[]", list, "a list of output keys") if has_want else []
        form.when, form.want = when, [str(key) for key in want]
    else:
        form.when, form.want, form.errors = read_boxes(sent, form.known)
    form.check()
    return form


def confirmation(draft: Draft) -> str:
    """What a person has confirmed: exactly this draft."""
    text = json.dumps([draft.name, draft.when, draft.want, draft.is_enabled], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_json(form: RuleForm, name: str, text: str, kind: type[Any], what: str) -> Any:
    try:
        if len(text) > MAX_JSON:
            raise ValueError(f"longer than {MAX_JSON:,} characters")
        found = json.loads(text, parse_constant=_refuse)
        if b"\\u0000" in json.dumps(found, ensure_ascii=False).encode():  # half a pair cannot be encoded
            raise ValueError("it has a character in it that cannot be stored")
    except (ValueError, RecursionError) as error:
        form.errors.setdefault(name, []).append(f"This is not JSON: {error}.")
        return kind()
    if not isinstance(found, kind):
        form.errors.setdefault(name, []).append(f"Write {what}.")
        return kind()
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON")
