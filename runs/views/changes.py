"""What an action changed, for reading: before and after of each field, long texts line by line. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import SequenceMatcher
from typing import Any

from runs.templatetags.kontor import usd
from runs.wording import in_words

LONG = 90
"""A value of more characters, or of several lines, is shown as lines."""
_STATES = ("state", "status", "automation")
_AMOUNT = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_AS_TEXT = {"None": None, "True": True, "False": False}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a long text: ``kind`` is ``same``, ``removed`` or ``added``."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One field. ``lines`` is empty where ``before`` and ``after`` are short enough to stand side by side."""

    name: str
    before: str
    after: str
    lines: tuple[Line, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether it is told only because the action has noted it."""
        return self.before == self.after


def read_changes(before: Any, after: Any) -> list[Change]:
    """Field by field, in the order in which they were noted. What is no object is one field without a name."""
    old = before if isinstance(before, Mapping) else {"": before}
    new = after if isinstance(after, Mapping) else {"": after}
    return [_read(name, old.get(name, ""), new.get(name, "")) for name in dict.fromkeys([*old, *new])]


def _read(name: str, before: Any, after: Any) -> Change:
    old, new = _words(_spelt(name, before)), _words(_spelt(name, after))
    is_long = max(len(old), len(new)) > LONG or "\n" in old or "\n" in new
    return Change(name.removesuffix("_usd"), old, new, _lines(old, new) if is_long else ())


def _spelt(name: str, value: Any) -> Any:
    """Amounts as money, states as words, and what a budget has noted as text (``None``, ``True``) as what it is."""
    if not isinstance(value, str):
        return value
    if name.startswith(("limit_", "is_")) and value in _AS_TEXT:
        return _AS_TEXT[value]
    if name.endswith("_usd") and _AMOUNT.fullmatch(value):
        return usd(Decimal(value))
    return in_words(value) if name in _STATES else value


def _words(value: Any) -> str:
    """A value as a person writes it."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(str(each) for each in value)
    if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        return "\n\n".join(_rows(each) for each in value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, indent=1)
    return str(value)


def _rows(value: Mapping[str, Any]) -> str:
    """One of several alike, such as a checked claim: a line for each field that says something."""
    said = [(in_words(name), _words(each)) for name, each in value.items()]
    return "\n".join(f"{name}: {text}" for name, text in said if text)


def _lines(old: str, new: str) -> tuple[Line, ...]:
    before, after = old.splitlines(), new.splitlines()
    lines: list[Line] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        lines += [Line("same" if tag == "equal" else "removed", text) for text in before[i1:i2]]
        lines += [Line("added", text) for text in (() if tag == "equal" else after[j1:j2])]
    return tuple(lines)
