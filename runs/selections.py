"""Verbs on all items that a filter of their kind has chosen. An empty filter is refused.

Which items those are is settled when the person is asked, and never looked up again: what has changed since is left
out by the verb, with the reason. Items that come later are left alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, QuerySet
from django.utils.dateparse import parse_datetime

from agents.models import Department, Member
from agents.spec import DepartmentSpec
from runs import bulk as bulks
from runs import control
from runs.access import Access
from runs.allowed import YES, Allowed, can_run, no
from runs.commits import lock_items
from runs.database import now as database_now
from runs.models import AgentRun, BulkAction, Item
from runs.triggers import request_run

MAX_VALUE = 4_000
"""The most characters of one parameter: two hundred ticked rows."""
MOST_NAMED = 20_000
"""So many items a page names one by one in its form; of more it only says how many there were."""
UNTIL = ("pause", "take_over", "close")
"""Verbs that may hold until a time."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a verb would meet: the items by id, by what a person has switched on them, and steps it would touch."""

    ids: tuple[int, ...]
    automation: tuple[tuple[str, int], ...]
    active_runs: int
    failed_runs: int

    @property
    def total(self) -> int:
        """How many items."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class OwnVerb:
    """A verb that one kind has beside those of every kind, with one thing to choose.

    ``choices(department)`` are value and words; ``do(bulk, item, user, choice)`` does it to one item.
    """

    label: str
    asks: str
    choices: Callable[[Department], Sequence[tuple[str, str]]]
    do: Callable[[BulkAction, Item, User, str], Allowed]


_own: dict[str, dict[str, OwnVerb]] = {}


def register_own(kind: str, verb: str, own: OwnVerb) -> None:
    """Make a verb of one kind known."""
    _own.setdefault(kind, {})[verb] = own
    bulks.register(bulks.Verb(f"bulk_{verb}", own.label, _next_item, _do))


def own_verbs(department: Department) -> Mapping[str, OwnVerb]:
    """The verbs that only this kind of department has."""
    return _own.get(department.kind, {})


def labels_of(department: Department) -> dict[str, str]:
    """Every verb that can be done to many of the department's items, in words."""
    return {**LABELS, **{verb: own.label for verb, own in own_verbs(department).items()}}


def read_filter(
    spec: DepartmentSpec, params: Mapping[str, Any], user_id: int | None = None
) -> tuple[dict[str, str], Sequence[str]]:
    """What of the parameters narrows the kind's list, and sentences about what cannot be read; then it is nothing.

    What is empty or unknown is left out; ``user_id`` is who "me" means. A parameter that a form sends several times,
    such as ticked rows, is one value with commas between.
    """
    several = getattr(params, "getlist", None)
    given = {name: _joined(several(name)) if several else str(params.get(name, "")) for name in spec.filters}
    found = {name: value.strip()[:MAX_VALUE] for name, value in given.items() if value.strip()}
    chosen, problems = spec.read_filter(found, user_id) if spec.read_filter else (found, ())
    return ({} if problems else chosen), problems


def can_act_on_many(department: Department, chosen: Mapping[str, str], access: Access | None = None) -> Allowed:
    """Do something to all items that a filter has chosen."""
    if department.spec.select is None:
        return no(f"{department} has no list that could be filtered.")
    if not chosen:
        return no("Filter the list first: nothing is done to everything at once.")
    if access is not None and not access.can(department.pk, Member.Role.OPERATOR):
        return no("This takes the role of an operator.")
    return YES


def select_items(department: Department, chosen: Mapping[str, str]) -> QuerySet[Item]:
    """The department's items that fit the filter; none for an empty filter."""
    select = department.spec.select
    if select is None or not chosen:
        return Item.objects.none()
    items: QuerySet[Item] = select(department, chosen)
    return items.filter(department=department)


def words_of(department: Department, chosen: Mapping[str, str]) -> list[str]:
    """The filter for reading, each part on its own; as it was sent where the kind has no words for it."""
    words = department.spec.filter_words
    return words(department, chosen) if words else [f"{name}: {value}" for name, value in chosen.items()]


def _joined(values: list[str]) -> str:
    return ",".join(value for value in values if value.strip())


def foresee(department: Department, chosen: Mapping[str, str]) -> Foreseen:
    """What a verb would meet on the items that the filter chooses, in two queries."""
    items = select_items(department, chosen)
    states = dict(items.order_by("pk").values_list("pk", "automation"))
    # By the index on department and status: of a hundred thousand items few steps are active or have failed.
    runs = AgentRun.objects.filter(department=department, status__in=(*AgentRun.ACTIVE, AgentRun.Status.FAILED))
    runs = runs.filter(item__in=items.values("pk"))
    counts = dict(runs.values_list("status").annotate(count=Count("pk")).order_by()) if states else {}
    labels = dict(Item.Automation.choices)
    return Foreseen(
        ids=tuple(states),
        automation=tuple((labels[state], count) for state, count in sorted(Counter(states.values()).items())),
        active_runs=sum(counts.get(status, 0) for status in AgentRun.ACTIVE),
        failed_runs=counts.get(AgentRun.Status.FAILED, 0),
    )


def start(
    *,
    department: Department,
    user: User,
    verb: str,
    chosen: Mapping[str, str],
    reason: str = "",
    until: datetime | None = None,
    seen: int | None = None,
    ids: Iterable[int] = (),
    choice: str = "",
) -> BulkAction | Allowed:
    """Do something to these items, or to all that the filter chooses now; else why not.

    ``ids`` are those that the filter chose when the person was asked. Where they were too many for that, ``seen`` is
    how many there were: if there are more by now, they are asked again. ``choice`` is what an own verb asks for.
    """
    if verb not in labels_of(department):
        return no("There is no such action.")
    own = own_verbs(department).get(verb)
    if own is not None and choice not in dict(own.choices(department)):
        return no(f"{own.asks}: choose one of those that are offered.")
    if not (answer := can_act_on_many(department, chosen)):
        return answer
    if until is not None and until <= database_now():
        return no("The time at which it goes on by itself has to lie ahead.")
    with transaction.atomic():
        named = sorted(set(ids))
        found = named or find_ids(department, chosen)
        if not found:
            return no("Nothing fits the filter any more.")
        if not named and seen is not None and len(found) > seen:
            return no(f"{len(found):,} fit the filter by now, {seen:,} did when you looked. Look again.")
        bulk = bulks.begin(
            department=department,
            user=user,
            verb=f"bulk_{verb}",
            selection={"filter": dict(chosen)},
            arguments={
                "reason": reason,
                "until": until.isoformat() if until and verb in UNTIL else "",
                "choice": choice if own is not None else "",
                "after": [0],
            },
            ids=found,
        )
    return bulks.work_on(bulk)


def find_ids(department: Department, chosen: Mapping[str, str]) -> list[int]:
    """The ids of the items that fit the filter, in their order."""
    return list(select_items(department, chosen).order_by("pk").values_list("pk", flat=True))


def _next_item(bulk: BulkAction) -> bulks.Target | None:
    """The next of the items that were chosen, whatever has become of it; None as its row if it is gone."""
    ids = _ids_of(bulk.pk, bulk.created_at)
    place = bisect_right(ids, bulk.arguments["after"][0])
    if place == len(ids):
        return None
    item = Item.objects.filter(pk=ids[place], department=bulk.department_id).first()
    return bulks.Target(item, ids[place], [ids[place]])


@lru_cache(maxsize=8)
def _ids_of(bulk_id: int, created_at: datetime) -> Sequence[int]:
    """What was chosen, once a process: a hundred thousand ids are not read for each of them, and never change."""
    bulk = BulkAction.objects.select_related("department").get(pk=bulk_id, created_at=created_at)
    chosen: list[int] | None = bulk.selection.get("ids")
    # One that was begun by an earlier version has no ids yet.
    return find_ids(bulk.department, bulk.selection["filter"]) if chosen is None else chosen


def _do(bulk: BulkAction, item: Item | None) -> Allowed:
    user, reason = bulk.user, str(bulk.arguments["reason"])
    if user is None:
        return no("Who asked for it is no longer here.")
    if item is None:
        return no("It is no longer here.")
    verb = bulk.verb.removeprefix("bulk_")
    if (own := own_verbs(bulk.department).get(verb)) is not None:
        return own.do(bulk, item, user, str(bulk.arguments["choice"]))
    if verb in UNTIL:
        until = parse_datetime(str(bulk.arguments["until"])) if bulk.arguments["until"] else None
        return _UNTIL[verb](item=item, user=user, reason=reason, until=until, bulk=bulk)
    if verb in _PLAIN:
        return _PLAIN[verb](item=item, user=user, reason=reason, bulk=bulk)
    if not (answer := can_run(lock_items({item.pk})[item.pk])):
        return answer
    request_run(items=[item.pk], user=user, reason=reason, bulk=bulk)
    return YES


_UNTIL = {"pause": control.pause_item, "take_over": control.take_over_item, "close": control.close_item}
_PLAIN = {
    "resume": control.resume_item,
    "hand_back": control.hand_back_item,
    "reopen": control.reopen_item,
    "retry_failed": control.retry_item,
    "cancel": control.cancel_item,
}
LABELS = {
    "pause": "Pause",
    "resume": "Resume",
    "take_over": "Take over",
    "hand_back": "Hand back",
    "close": "Close",
    "reopen": "Reopen",
    "run": "Run pipeline",
    "retry_failed": "Retry what failed",
    "cancel": "Cancel steps",
}
VERBS = {verb: f"bulk_{verb}" for verb in LABELS}
"""The verb of a form to the one of its BulkAction."""
for _verb, _slug in VERBS.items():
    bulks.register(bulks.Verb(_slug, LABELS[_verb], _next_item, _do))
