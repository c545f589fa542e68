"""The entries of the navigation: the engine's pages and the list page of every kind that is at work."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from agents.spec import DepartmentSpec
from runs.access import Access, may_see_system


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the navigation."""

    label: str
    url: str
    icon: str
    is_current: bool = False


def menu_entries(request: HttpRequest, access: Access) -> list[Entry]:
    """The links a person may follow; the one whose page is shown is marked."""
    entries = [("Overview", reverse("runs:overview"), "layout-dashboard")]
    entries += [(label, url, "users") for label, url in _kinds(access)]
    entries += [("Runs", reverse("runs:list"), "player-play"), ("Log", reverse("runs:log"), "activity")]
    if may_see_system(request):
        entries.append(("System", reverse("runs:system"), "tool"))
    if getattr(request.user, "is_staff", False):
        entries.append(("Admin", reverse("admin:index"), "settings"))
    return [Entry(label, url, icon, _is_current(request.path, url)) for label, url, icon in entries]


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
    return path == url if url == reverse("runs:overview") else path.startswith(url)
