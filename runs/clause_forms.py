"""The clauses of a rule as the fields of a form, and back. What each may hold comes from the kind. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from django.utils.text import capfirst

from agents.spec import DepartmentSpec
from runs.clauses import FACET, FAILED, HAS, LACKS, STATUS, TAGS, TRIGGER
from runs.models import Trigger
from runs.plan import AgentView
from runs.wording import HAPPENED, facet_label, in_words

WANT = "want"
MARKS = "marks"
_RANGE = re.compile(r"(-?\d+)\s*(?:-|–|to)\s*(-?\d+)")
MAX_RANGE = 1_000
"""So many numbers one field may hold."""

_LABELS = {
    STATUS: ("Status", "one of these"),
    TRIGGER: ("Something happened", "one of these is open and due; the outputs are then made for it"),
    HAS: ("It has", "all of these outputs are there"),
    LACKS: ("It lacks", "none of these outputs is there"),
    FAILED: ("Failed", "all of these agents have failed"),
    TAGS: ("Tags", "it has all of them, separated by commas"),
    MARKS: ("Marks", "all of these are so"),
}


class Sent(Protocol):
    """What a browser sent: Django's ``QueryDict``."""

    def get(self, key: str, default: str, /) -> Any: ...
    def getlist(self, key: str, /) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Option:
    """One value that can be ticked."""

    value: str
    label: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Box:
    """One field of the form: ticks if it has options, else a line of text."""

    name: str
    label: str
    hint: str
    options: tuple[Option, ...] = ()
    text: str = ""
    errors: tuple[str, ...] = ()

    @property
    def is_used(self) -> bool:
        """Whether anything is chosen or written in it."""
        return bool(self.text) or any(option.is_chosen for option in self.options)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the clauses of one department may hold: ``{clause: ((value, label), …)}``, and of each promoted field
    its values as they are written, None where any text or number will do."""

    words: Mapping[str, tuple[tuple[str, str], ...]]
    facets: Mapping[str, tuple[Any, ...] | None]
    labels: Mapping[str, str]
    """What each promoted field is called."""
    numbers: frozenset[str] = frozenset()
    """Promoted fields that hold whole numbers."""


def vocabulary(kind: DepartmentSpec, agents: Sequence[AgentView], marks: Mapping[str, str] | None = None) -> Vocabulary:
    """The words of a department's rules; with ``marks`` those of its risk rules."""
    keys = tuple((key, in_words(key)) for key in dict.fromkeys(agent.writes for agent in agents))
    words = {
        STATUS: tuple((status.slug, status.label) for status in kind.statuses),
        TRIGGER: tuple((kind, HAPPENED[kind]) for kind in Trigger.Kind.values),
        HAS: keys,
        LACKS: keys,
        FAILED: tuple((agent.slug, in_words(agent.slug)) for agent in agents),
        WANT: keys,
    }
    if marks:
        words[MARKS] = tuple(marks.items())
    facets: dict[str, tuple[Any, ...] | None] = {}
    numbers = set()
    for spec in kind.agents:
        for name in spec.facets:
            field = spec.schema.model_fields.get(name)
            annotation = field.annotation if field else str
            if _bare(annotation) is int:
                numbers.add(name)
            facets.setdefault(name, _values(annotation))
    return Vocabulary(words, facets, {name: facet_label(name, kind) for name in facets}, frozenset(numbers))


def write_boxes(when: Mapping[str, Any], want: Sequence[str] | None, known: Vocabulary) -> list[Box]:
    """The form that stands for a rule; ``want`` None for rules that want nothing. Words nobody knows are kept."""
    boxes = []
    for clause in (STATUS, TRIGGER, HAS, LACKS, FAILED, MARKS):
        if clause in known.words:
            label, hint = _LABELS[clause]
            options = _options(known.words[clause], _listed(when.get(clause)))
            boxes.append(Box(clause, label, hint, options))
    facets = when.get(FACET)
    for name, values in known.facets.items():
        chosen = facets.get(name, []) if isinstance(facets, Mapping) else []
        boxes.append(_facet_box(name, values, chosen if isinstance(chosen, list | tuple) else [chosen], known))
    label, hint = _LABELS[TAGS]
    boxes.append(Box(TAGS, label, hint, text=", ".join(_listed(when.get(TAGS)))))
    if want is not None:
        boxes.append(
            Box(WANT, "Wanted", "all of these are made, with what they need", _options(known.words[WANT], want))
        )
    return boxes


def read_boxes(sent: Sent, known: Vocabulary) -> tuple[dict[str, Any], list[str], dict[str, list[str]]]:
    """``(when, want, {box: [what cannot be read]})`` of what a browser sent."""
    when: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    for clause in (STATUS, TRIGGER, HAS, LACKS, FAILED, MARKS):
        if clause in known.words and (chosen := [str(word) for word in sent.getlist(clause) if word]):
            when[clause] = chosen
    facets: dict[str, list[Any]] = {}
    for name, values in known.facets.items():
        try:
            found = _read_facet(name, values, sent, known)
        except ValueError as error:
            errors.setdefault(facet_box(name), []).append(str(error))
            continue
        if found:
            facets[name] = found
    if facets:
        when[FACET] = facets
    if tags := [tag.strip() for tag in str(sent.get(TAGS, "")).split(",") if tag.strip()]:
        when[TAGS] = tags
    return when, [str(key) for key in sent.getlist(WANT) if key], errors


def fits_form(when: Any, want: Sequence[str] | None, known: Vocabulary) -> bool:
    """Whether the form can say the rule without losing anything of it."""
    if not isinstance(when, Mapping) or set(when) - {*_LABELS, FACET}:
        return False
    read, wanted, errors = read_boxes(_AsSent(write_boxes(when, want, known)), known)
    return not errors and _unordered(read) == _unordered(when) and sorted(wanted) == sorted(want or [])


def with_errors(boxes: Sequence[Box], errors: Mapping[str, Sequence[str]], sent: Sent | None = None) -> list[Box]:
    """The boxes with what is wrong in each; what was typed into a box that could not be read stays in it."""
    found = []
    for box in boxes:
        wrong = tuple(errors.get(box.name, ()))
        text = str(sent.get(box.name, "")) if wrong and sent is not None and not box.options else box.text
        found.append(replace(box, errors=wrong, text=text) if wrong else box)
    return found


def facet_box(name: str) -> str:
    """The name of the field for a promoted field."""
    return f"facet-{name}"


def to_json(value: Any) -> str:
    """JSON for the advanced field."""
    return json.dumps(value, ensure_ascii=False, indent=2)


class _AsSent:
    """Boxes as a browser would send them."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self._boxes = {box.name: box for box in boxes}

    def get(self, key: str, default: str = "", /) -> str:
        return self._boxes[key].text if key in self._boxes else default

    def getlist(self, key: str, /) -> list[str]:
        box = self._boxes.get(key)
        return [option.value for option in box.options if option.is_chosen] if box else []


def _listed(value: Any) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list | tuple) else []


def _unordered(value: Any) -> Any:
    """Clauses without the order of their lists, which decides nothing."""
    if isinstance(value, Mapping):
        return {name: _unordered(entry) for name, entry in value.items()}
    return sorted(value, key=repr) if isinstance(value, list | tuple) else value


def _options(words: Sequence[tuple[str, str]], chosen: Sequence[str]) -> tuple[Option, ...]:
    known = [Option(value, label, value in chosen) for value, label in words]
    names = {value for value, _ in words}
    return (*known, *(Option(word, f"{word} (unknown)", True) for word in chosen if word not in names))


def _facet_box(name: str, values: tuple[Any, ...] | None, chosen: Sequence[Any], known: Vocabulary) -> Box:
    label = capfirst(known.labels[name])
    if values is not None:
        options = _options([(_text(v), in_words(_text(v))) for v in values], [_text(v) for v in chosen])
        return Box(facet_box(name), label, "one of these", options)
    hint = (
        "numbers separated by commas, or from 70-100" if name in known.numbers else "one of these, separated by commas"
    )
    return Box(facet_box(name), label, hint, text=", ".join(_spans(chosen)))


def _read_facet(name: str, values: tuple[Any, ...] | None, sent: Sent, known: Vocabulary) -> list[Any]:
    if values is not None:
        by_text = {_text(value): value for value in values}
        return [by_text.get(str(word), str(word)) for word in sent.getlist(facet_box(name)) if word]
    parts = [part.strip() for part in str(sent.get(facet_box(name), "")).split(",") if part.strip()]
    if name not in known.numbers:
        return list(parts)
    found: list[int] = []
    for part in parts:
        found += _numbers(part)
        if len(found) > MAX_RANGE:
            raise ValueError(f"These are more than {MAX_RANGE:,} numbers.")
    return found


def _numbers(part: str) -> list[int]:
    if span := _RANGE.fullmatch(part):
        first, last = int(span[1]), int(span[2])
        if not 0 <= last - first < MAX_RANGE:
            raise ValueError(f"“{part}”: write the smaller number first, and at most {MAX_RANGE:,} numbers.")
        return list(range(first, last + 1))
    try:
        return [int(part)]
    except ValueError:
        raise ValueError(f"“{part}” is not a whole number. Write 70, or 70-100.") from None


def _spans(values: Sequence[Any]) -> list[str]:
    """Values as text, whole numbers in a row as ``70-100``."""
    said: list[str] = []
    for value in values:
        last = _RANGE.fullmatch(said[-1]) if said else None
        end = int(last[2]) if last else int(said[-1]) if said and re.fullmatch(r"-?\d+", said[-1]) else None
        if type(value) is int and end is not None and value == end + 1:
            said[-1] = f"{last[1] if last else end}-{value}"
        else:
            said.append(_text(value))
    return said


def _values(annotation: Any) -> tuple[Any, ...] | None:
    bare = _bare(annotation)
    if bare is bool:
        return (True, False)
    return tuple(get_args(bare)) if get_origin(bare) is Literal else None


def _bare(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and without ``None``."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [each for each in get_args(annotation) if each is not NoneType]
        return _bare(rest[0]) if len(rest) == 1 else annotation
    return getattr(annotation, "__value__", annotation)


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
