"""What the list of leads is narrowed to: read from an address or a form, said in words, and turned into a query.

Everything stands in the address. What cannot be read is left out and said; nothing is done to many by such filters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db import connection
from django.db.models import CharField, Exists, F, Func, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from agents.budgets import BUDGET_WAIT
from agents.models import Department
from agents.statements import Among, Statement
from leads.models import Lead
from leads.progress import STAGES, STATUSES
from runs.access import Access
from runs.models import AgentRun, Item, Output, Review
from runs.models.costs import UNITS
from runs.status_counts import count_items
from runs.views.ordering import within

TIERS = ("Hot", "Warm", "Cold")
KEY = "qualification"
AUTOMATION = dict(Item.Automation.choices)
WAITING = {"person": "for a person", "time": "for a date", "budget": "for a budget"}
AGES = {
    "1d": ("came in the last 24 hours", timedelta(days=1)),
    "7d": ("came in the last 7 days", timedelta(days=7)),
    "30d": ("came in the last 30 days", timedelta(days=30)),
    "over30d": ("came more than 30 days ago", timedelta(days=30)),
    "over90d": ("came more than 90 days ago", timedelta(days=90)),
}
ME, NOBODY = "me", "nobody"
MAX_IDS = 200
MAX_USD = Decimal(1_000_000)
SEARCHED = ("name", "email", "company")


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list is narrowed to; empty means everything. ``item`` is one lead by its id, ``ids`` those ticked.

    ``problems`` are sentences about what could not be read.
    """

    status: str = ""
    stage: str = ""
    tier: str = ""
    automation: str = ""
    source: str = ""
    owner: str = ""
    flag: str = ""
    waiting: str = ""
    cost_min: str = ""
    cost_max: str = ""
    age: str = ""
    text: str = ""
    ids: tuple[int, ...] = ()
    item: int | None = None
    problems: tuple[str, ...] = ()

    @property
    def params(self) -> dict[str, str]:
        """The same as parameters of an address; what is empty is left out."""
        values = {name: str(getattr(self, name)) for name in PLAIN}
        values |= {"q": self.text, "ids": ",".join(map(str, self.ids)), "item": str(self.item or "")}
        return {name: value for name, value in values.items() if value}

    @property
    def query(self) -> str:
        """The same as a query string without the question mark."""
        return urlencode(self.params)

    def fixed(self, user_id: int | None) -> Filters:
        """The same for somebody else to carry out: "mine" names the person."""
        return replace(self, owner=str(user_id)) if self.owner == ME and user_id is not None else self


_WHO = ("status", "stage", "tier", "automation", "source", "owner", "flag")
PLAIN = (*_WHO, "waiting", "cost_min", "cost_max", "age")
"""The parameters whose names are those of the fields."""
ON_ITEM = ("status", "stage", "automation", "flag", "waiting", "age")
"""Those that look at the engine's part of a lead."""
NAMES = (*PLAIN, "q", "ids")
"""The parameters that choose leads."""


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter that is set, and the query string without it."""

    label: str
    query: str


def read_filters(values: Mapping[str, Any]) -> Filters:
    """The filters of a query string or a form; what is not a filter is left out, what cannot be read is said."""
    given = {name: str(values.get(name, "")).strip() for name in (*PLAIN, "q", "item")}
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name, known in _CHOICES.items():
        if given[name] in known:
            found[name] = given[name]
        elif given[name]:
            problems.append(f"“{given[name][:40]}” is no {name} (known: {', '.join(known)}).")
    for name, label in (("cost_min", "least"), ("cost_max", "highest")):
        if given[name] and (amount := _read_usd(given[name])) is None:
            problems.append(f"“{given[name][:40]}” is no amount in US dollars for the {label} cost.")
        elif given[name] and (amount or name == "cost_max"):  # from nothing on, that is everything
            found[name] = format(amount.normalize(), "f")  # type: ignore[union-attr]
    owner = given["owner"]
    if owner and owner not in (ME, NOBODY) and _read_id(owner) is None:
        problems.append(f"“{owner[:40]}” is no owner: me, nobody or a person's number.")
        owner = ""
    ids = [_read_id(part) for part in _joined(values, "ids").split(",") if part.strip()]
    if None in ids or len(ids) > MAX_IDS:
        problems.append(f"The ticked leads cannot be read: up to {MAX_IDS} numbers are.")
        ids = []
    return Filters(
        status=given["status"][:50],
        source=given["source"][:80],
        owner=owner,
        text=given["q"][:100],
        ids=tuple(number for number in ids if number is not None),
        item=_read_id(given["item"]),
        problems=tuple(problems),
        **found,
    )


def clean_params(values: Mapping[str, str]) -> dict[str, str]:
    """What of an address's parameters is worth saving: filters that can be read, and the order."""
    found = replace(read_filters(values), ids=(), item=None).params
    sort = str(values.get("sort", ""))
    return {**found, "sort": sort} if sort.isidentifier() else found


def filter_leads(
    access: Access, filters: Filters, *, departments: Sequence[int] | None = None, user_id: int | None = None
) -> QuerySet[Lead]:
    """The leads of the shown departments, or of those given, that fit the filters. ``user_id``: who "me" is."""
    ids = access.ids if departments is None else list(departments)
    leads = Lead.objects.filter(within("department", ids))
    if any(getattr(filters, name) for name in ON_ITEM):
        # Once more, because the indexes of items begin with it.
        leads = leads.filter(within("item__department", ids))
    return fitting(leads, filters.fixed(user_id))


def select_items(department: Department, params: Mapping[str, str]) -> QuerySet[Item]:
    """The department's items whose leads the list would show; none where a filter cannot be read or says nothing."""
    filters = read_filters(params)
    if filters.problems or filters.owner == ME or not filters.params:
        return Item.objects.none()
    leads = fitting(Lead.objects.filter(item__department=department), filters)
    return Item.objects.filter(pk__in=leads.values("pk"))


def read_fixed(params: Mapping[str, str], user_id: int | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """The parameters that say something, with the person's number for "me", and sentences about what is not read."""
    filters = read_filters(params)
    return filters.fixed(user_id).params, filters.problems


def fitting(leads: QuerySet[Lead], filters: Filters) -> QuerySet[Lead]:
    """Those of the leads that fit."""
    if filters.item is not None:
        leads = leads.filter(pk=filters.item)
    if filters.ids:
        leads = leads.filter(pk__in=filters.ids)
    for name in ("status", "automation"):
        if value := getattr(filters, name):
            leads = leads.filter(**{f"item__{name}": value})
    if filters.stage:
        leads = leads.filter(item__status__in=STAGES[filters.stage][1])
    if filters.tier:
        qualified = Output.objects.filter(item=OuterRef("pk"), key=KEY, is_current=True, facets__tier=filters.tier)
        leads = leads.filter(Exists(qualified))
    if filters.source:
        leads = leads.filter(source=filters.source)
    if filters.flag:
        leads = leads.exclude(item__flag="")
    leads = _by_owner(leads, filters.owner)
    leads = _by_waiting(leads, filters.waiting)
    leads = _by_cost(leads, filters)
    if filters.age:
        since = timezone.now() - AGES[filters.age][1]
        leads = leads.filter(**{f"item__created_at__{'lt' if filters.age.startswith('over') else 'gte'}": since})
    return _by_text(leads, filters.text)


def chips(filters: Filters, names: Mapping[int, str]) -> list[Chip]:
    """Every filter that is set, in words, with the way to the list without it. ``names``: people by their id."""
    return [
        Chip(label, urlencode({name: value for name, value in filters.params.items() if name != param}))
        for param, label in _labels(filters, names)
    ]


def describe_filters(filters: Filters, access: Access) -> str:
    """The selection in words, for the question before a large run."""
    if filters.item is not None:
        titles = Item.objects.filter(pk=filters.item, department__in=[one.pk for one in access.departments])
        return titles.values_list("title", flat=True).first() or f"lead {filters.item}"
    parts = [label[0].lower() + label[1:] for _, label in _labels(filters, {})]
    where = f" of {access.current}" if access.current else ""
    return f"leads{where} with {' and '.join(parts)}" if parts else f"all leads{where}"


def filter_words(department: Department, params: Mapping[str, str]) -> list[str]:
    """The parts of a filter as the list of leads names them."""
    names = {user.pk: user.get_username() for user in find_owners([department.pk])} if params.get("owner") else {}
    return [label for _, label in _labels(read_filters(params), names)]


def find_sources(departments: Sequence[int]) -> list[str]:
    """The sources that leads of these departments came from, up to 50, without reading every lead."""
    if not departments:
        return []
    among = f"department_id IN ({', '.join(['%s'] * len(departments))})"
    # From one source to the next by the index on (source, department).
    sql = (
        f"WITH RECURSIVE found(source) AS (SELECT MIN(source) FROM leads_lead WHERE source > '' AND {among} "  # noqa: S608
        f"UNION ALL SELECT (SELECT MIN(source) FROM leads_lead WHERE source > found.source AND {among}) "
        "FROM found WHERE found.source IS NOT NULL) SELECT source FROM found WHERE source IS NOT NULL LIMIT 50"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [*departments, *departments])
        return [source for (source,) in cursor.fetchall()]


def count_statuses(departments: Sequence[int], *, most: int) -> dict[str, int]:
    """The statuses that items of these departments have, and of how many, without reading every item.

    In each department no more than ``most`` are counted; 0 only names the statuses.
    """
    found: Counter[str] = Counter()
    for (_, status), number in count_items(departments, most=most).items():
        found[status] += number
    return dict(found)


def find_owners(departments: Sequence[int]) -> list[User]:
    """Who may own leads of these departments: their members who may still sign in."""
    return _OWNERS.objects(departments=departments)


def _owners() -> QuerySet[User]:
    members = User.objects.filter(Among("memberships__department_id", "departments"), is_active=True)
    return members.distinct().order_by("username")


_OWNERS = Statement(_owners)


def _labels(filters: Filters, names: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    if filters.status:
        label = next((status.label for status in STATUSES if status.slug == filters.status), filters.status)
        yield "status", f"Status “{label}”"
    if filters.stage:
        yield "stage", f"Stage “{STAGES[filters.stage][0]}”"
    if filters.tier:
        yield "tier", f"Tier {filters.tier}"
    if filters.automation:
        yield "automation", f"Automation {AUTOMATION[filters.automation]}"
    if filters.source:
        yield "source", f"Source {filters.source}"
    if filters.owner:
        number = _read_id(filters.owner)
        who = {ME: "Mine", NOBODY: "Nobody's"}.get(filters.owner)
        yield "owner", who or f"Owner {names.get(number or 0, f'number {filters.owner}')}"
    if filters.flag:
        yield "flag", "Flagged"
    if filters.waiting:
        yield "waiting", f"Waits {WAITING[filters.waiting]}"
    if filters.cost_min:
        yield "cost_min", f"Cost from ${filters.cost_min}"
    if filters.cost_max:
        yield "cost_max", f"Cost to ${filters.cost_max}"
    if filters.age:
        label = AGES[filters.age][0]
        yield "age", label[0].upper() + label[1:]
    if filters.text:
        yield "q", f"Text “{filters.text}”"
    if filters.ids:
        yield "ids", f"{len(filters.ids)} ticked"


def _by_owner(leads: QuerySet[Lead], owner: str) -> QuerySet[Lead]:
    if owner == NOBODY:
        return leads.filter(owner=None)
    if owner == ME:
        return leads.none()  # nobody has said who that is
    return leads.filter(owner=_read_id(owner)) if owner else leads


def _by_waiting(leads: QuerySet[Lead], waiting: str) -> QuerySet[Lead]:
    if waiting == "person":
        asked = Review.objects.filter(item=OuterRef("pk"), status=Review.Status.OPEN)
        held = Q(item__automation__in=(Item.Automation.PAUSED, Item.Automation.TAKEN_OVER))
        return leads.filter(Exists(asked) | held)
    if waiting == "time":
        return leads.filter(item__automation=Item.Automation.ACTIVE, item__route_due_at__gt=Now())
    if waiting == "budget":
        runs = AgentRun.objects.filter(status=AgentRun.Status.QUEUED, waiting_for__contains=BUDGET_WAIT)
        return leads.filter(pk__in=runs.values("item"))
    return leads


def _by_cost(leads: QuerySet[Lead], filters: Filters) -> QuerySet[Lead]:
    if filters.cost_min and Decimal(filters.cost_min):
        leads = leads.filter(item__total__cost_units__gte=int(Decimal(filters.cost_min) * UNITS))
    if filters.cost_max:
        most = Q(item__total__cost_units__lte=int(Decimal(filters.cost_max) * UNITS))
        leads = leads.filter(most | Q(item__total=None))
    return leads


def _by_text(leads: QuerySet[Lead], text: str) -> QuerySet[Lead]:
    words = text.split()
    if words and connection.vendor == "postgresql":
        # The very expression of the index lead_search.
        whole = Func(
            *(F(name) for name in SEARCHED),
            template="LOWER(%(expressions)s)",
            arg_joiner=" || ' ' || ",
            output_field=CharField(),
        )
        leads = leads.alias(whole=whole)
        for word in words:
            leads = leads.filter(whole__contains=word.lower())
        return leads
    for word in words:
        leads = leads.filter(Q(name__icontains=word) | Q(email__icontains=word) | Q(company__icontains=word))
    return leads


def _joined(values: Mapping[str, Any], name: str) -> str:
    """What was sent under a name; of a form with several, all of them with commas between."""
    several = getattr(values, "getlist", None)
    return ",".join(several(name)) if several is not None else str(values.get(name, ""))


def _read_usd(text: str) -> Decimal | None:
    try:
        amount = Decimal(text.lstrip("$"))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= MAX_USD else None


def _read_id(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


_CHOICES: dict[str, Sequence[str]] = {
    "stage": tuple(STAGES),
    "tier": TIERS,
    "automation": tuple(AUTOMATION),
    "flag": ("yes",),
    "waiting": tuple(WAITING),
    "age": tuple(AGES),
}
