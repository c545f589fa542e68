"""The entries of the navigation: the engine's pages and the list page of every kind that is at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from agents.spec import DepartmentSpec
from runs.access import Access, may_see_system
from runs.review_queue import count_open

_LISTS = ("runs:steps", "runs:alerts", "runs:cost_calls", "runs:bulk_list")
"""Lists that are no entries: every department has them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the navigation."""

    label: str
    url: str
    icon: str
    is_current: bool = False
    count: int | None = None
    """How much waits there; not shown at 0. None: nothing is counted."""


@dataclass(frozen=True, slots=True)
class Group:
    """Links that belong together."""

    label: str
    entries: list[Entry]


def menu_groups(request: HttpRequest, access: Access) -> list[Group]:
    """The links a person may follow; the one whose page is shown is marked."""
    reviews = reverse("runs:reviews")
    counts = {reviews: count_open(access.ids)}
    work = [("Overview", reverse("runs:overview"), "layout-dashboard")]
    work += [(label, url, "users") for label, url in _kinds(access)]
    work += [("Reviews", reviews, "circle-check"), ("Runs", reverse("runs:list"), "player-play")]
    work.append(("Live", reverse("runs:live"), "activity"))
    team = [("Agents", reverse("runs:agents"), "robot"), ("Rules", reverse("runs:rules"), "git-branch")]
    team += [("Outbox", reverse("runs:outbox"), "mail"), ("Settings", reverse("runs:settings"), "settings")]
    accounts = [("Costs", reverse("runs:costs"), "coin"), ("Actions", reverse("runs:actions"), "list-details")]
    if may_see_system(request):
        accounts.append(("System", reverse("runs:system"), "tool"))
    if getattr(request.user, "is_staff", False):
        accounts.append(("Admin", reverse("admin:index"), "database"))
    return [
        Group(
            title,
            [Entry(label, url, icon, _is_current(request.path, url), counts.get(url)) for label, url, icon in listed],
        )
        for title, listed in (("Work", work), ("Team", team), ("Accounts", accounts))
    ]


def department_url(request: HttpRequest, groups: Sequence[Group]) -> str:
    """Where the choice of a department leads: a list stays (empty), what is about one client gives way to the overview.

    The other department may have no such page, or this person another role there.
    """
    match = request.resolver_match
    is_list = any(entry.url == request.path for group in groups for entry in group.entries)
    stays = is_list or (match is not None and match.view_name in _LISTS)
    return "" if stays else reverse("runs:overview")


def item_list_url(spec: DepartmentSpec) -> str:
    """The kind's list page, by convention ``list`` in the namespace of its item page; empty if it has none."""
    try:
        return reverse(f"{spec.item_url_name.split(':')[0]}:list")
    except NoReverseMatch:
        return ""


def _kinds(access: Access) -> list[tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for department in access.shown:
        try:
            spec = department.spec
        except LookupError:
            continue
        if url := item_list_url(spec):
            found[spec.kind] = (f"{spec.item_label.capitalize()}s", url)
    return [found[kind] for kind in sorted(found)]


def _is_current(path: str, url: str) -> bool:
    if path.startswith(url):
        return path == url or url != reverse("runs:overview")
    if url != reverse("runs:list"):
        return False
    # Steps and calls are pages of runs.
    return path.startswith((reverse("runs:steps"), reverse("runs:call", args=[0]).removesuffix("0/")))
