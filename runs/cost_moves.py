"""What a call adds to the sums of costs as what it is now, and what it takes out as what it was.

A call that was given up as unseen and answers late is taken out of the sums as unseen and put in as settled; one
whose answer turns out to be of no use (``runs.calls.discard_answers``) is moved to what was wasted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any, NamedTuple

from agents.causes import Cause
from runs.models import ModelCall
from runs.money import units

TOKENS = ("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens")
SUMS = ("calls", *TOKENS, "cost_units")


class Group(NamedTuple):
    """What one row of the rollups is about."""

    department_id: int
    day: date
    agent_id: int
    model: str
    soul_id: int | None
    is_waste: bool
    is_estimate: bool

    @property
    def key(self) -> str:
        """The value of ``CostRollup.key``."""
        flags = f"{self.is_waste:d}{self.is_estimate:d}"
        return f"{self.department_id}:{self.day}:{self.agent_id}:{self.soul_id or 0}:{flags}:{self.model}"


@dataclass(slots=True)
class Sums:
    """What is added to one row: in the order of ``SUMS``."""

    values: list[int]

    @classmethod
    def empty(cls) -> Sums:
        """Nothing yet."""
        return cls([0] * len(SUMS))

    def add(self, sign: int, amounts: Iterable[int]) -> None:
        """Put calls in (1) or take them out (-1)."""
        for position, value in enumerate(amounts):
            self.values[position] += sign * value


def group_calls(rows: Iterable[dict[str, Any]]) -> tuple[dict[Group, Sums], dict[tuple[int, int, date], list[int]]]:
    """What these calls add to the rollups, and to the items: ``sum_groups`` and ``sum_items`` of their moves."""
    moves = list(moves_of(rows))
    return sum_groups(moves), sum_items(moves)


def is_of_use(row: dict[str, Any]) -> bool:
    """The one rule for what was wasted: a call is of use if its answer was taken, by an attempt whose output was.

    Whoever finds that it was not says why in the call's ``error`` (``runs.calls``); an unseen end has one, too.
    """
    return not row["cause"] and not row["error"]


def is_billed(row: dict[str, Any]) -> bool:
    """Whether the tokens of a call were paid for: those of a refusal before any output were not."""
    return bool(row["cause"] != Cause.REFUSAL or row["output_tokens"])


class Move(NamedTuple):
    """A call that is put into the sums (``sign`` 1) or taken out of them (-1), as unseen or as what it is.

    ``row`` has the columns of the call; of a row with a ``count`` it is so many calls.
    """

    row: dict[str, Any]
    as_unseen: bool
    sign: int

    @property
    def day(self) -> date:
        row = self.row
        found: date = row["day"] if "day" in row else row["started_at"].astimezone(UTC).date()
        return found

    @property
    def is_waste(self) -> bool:
        return self.as_unseen or not is_of_use(self.row)

    @property
    def units(self) -> int:
        # An unseen call stands at its reservation, with no tokens; its model is the one that was asked.
        return units(self.row["reserved_usd"] if self.as_unseen else self.row["cost_usd"])

    @property
    def calls(self) -> int:
        found: int = self.row.get("count", 1)
        return found


def moves_of(rows: Iterable[dict[str, Any]]) -> Iterator[Move]:
    """What makes the sums hold these calls as what they are now."""
    for row in rows:
        if row["rolled"] == ModelCall.Rolled.UNSEEN:
            yield Move(row, True, -1)
        if row["rolled"] == ModelCall.Rolled.USED:
            yield Move(as_used(row), False, -1)
        yield Move(row, row["status"] == ModelCall.Status.UNSEEN, 1)


def as_used(row: dict[str, Any]) -> dict[str, Any]:
    """A call as it is in the sums, which do not know yet that its answer was of no use."""
    return {**row, "error": ""}


def sum_groups(moves: Iterable[Move]) -> dict[Group, Sums]:
    """What they add to the rollups, checks included."""
    groups: defaultdict[Group, Sums] = defaultdict(Sums.empty)
    for move in moves:
        row, as_unseen = move.row, move.as_unseen
        tokens = [0] * len(TOKENS) if as_unseen or not is_billed(row) else [row[name] for name in TOKENS]
        model = row["model_asked"] if as_unseen else row["model_used"] or row["model_asked"]
        whose = row["department_id"], move.day, row["agent_id"], model, row["soul_id"]
        group = Group(*whose, move.is_waste, as_unseen or row["is_estimate"])
        groups[group].add(move.sign, (move.calls, *tokens, move.units))
    return groups


def sum_items(moves: Iterable[Move]) -> dict[tuple[int, int, date], list[int]]:
    """What they add to the items, to which checks do not belong: ``{(department, item, day): [calls, cost units,
    waste units]}``."""
    items: defaultdict[tuple[int, int, date], list[int]] = defaultdict(lambda: [0, 0, 0])
    for move in moves:
        if move.row["item_id"] is None:
            continue
        sums, cost = items[move.row["department_id"], move.row["item_id"], move.day], move.units
        for position, value in enumerate((move.calls, cost, cost if move.is_waste else 0)):
            sums[position] += move.sign * value
    return items
