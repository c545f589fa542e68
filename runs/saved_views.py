"""Saved views of a list: filters, order and columns under a name, for oneself or for a department.

A list registers itself by its name; what its parameters and columns mean only its own module knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import CharField, IntegerField, Q, QuerySet

from agents.models import Department, Member
from agents.statements import Among, Given, Statement
from runs.access import Access
from runs.allowed import YES, Allowed, no
from runs.models import Action, ListChoice, SavedView

Role = Member.Role
MAX_VIEWS = 100
"""So many views of one list one person may keep."""


@dataclass(frozen=True, slots=True)
class SavableList:
    """A list whose views can be saved: its name, the name of its URL, and what may be stored.

    ``clean`` leaves of a query's parameters only those that are its own and say something.
    """

    name: str
    url_name: str
    columns: tuple[str, ...]
    clean: Callable[[Mapping[str, str]], dict[str, str]]


_lists: dict[str, SavableList] = {}


def register_list(of: SavableList) -> None:
    """Make a list known."""
    _lists[of.name] = of


def get_list(name: str) -> SavableList:
    """The list of that name; LookupError if there is none."""
    return _lists[name]


def views_for(user: User, list_name: str, access: Access) -> list[SavedView]:
    """The views a person may use: their own, and those of the departments they see; by name."""
    departments = [department.pk for department in access.departments]
    return _VIEWS.objects(list_name=list_name, user=user.pk, departments=departments)


def choice_of(user: User, list_name: str) -> ListChoice:
    """How a person sees the list; not yet stored if they have chosen nothing."""
    rows = _CHOICE.objects(limit=1, list_name=list_name, user=user.pk)
    return rows[0] if rows else ListChoice(user=user, list_name=list_name)


def _views() -> QuerySet[SavedView]:
    mine = Q(user_id=Given("user", IntegerField()), department=None)
    shared = Q(Among("department_id", "departments"))
    rows = SavedView.objects.filter(mine | shared, list_name=Given("list_name", CharField()))
    return rows.select_related("user").order_by("name", "pk")


def _choice() -> QuerySet[ListChoice]:
    whose = {"user_id": Given("user", IntegerField()), "list_name": Given("list_name", CharField())}
    return ListChoice.objects.filter(**whose).select_related("default_view")


_VIEWS, _CHOICE = Statement(_views), Statement(_choice)


def can_share(department: Department, access: Access) -> Allowed:
    """Give a view to all members of a department."""
    return YES if access.can(department.pk, Role.OPERATOR) else no("Sharing a view takes the role of an operator.")


def can_change(view: SavedView, access: Access, user: User) -> Allowed:
    """Rename or delete a view: its owner may, and of a shared one the department's administrators."""
    if view.user_id == user.pk:
        return YES
    if view.department_id is not None and access.can(view.department_id, Role.ADMINISTRATOR):
        return YES
    return no(f"It belongs to {view.user}: they or an administrator may change it.")


def save_view(
    *,
    user: User,
    list_name: str,
    name: str,
    params: Mapping[str, str],
    columns: Sequence[str] = (),
    department: Department | None = None,
) -> Allowed:
    """Keep filters, order and columns under a name; a view of one's own of the same name becomes this one."""
    known = get_list(list_name)
    name = " ".join(name.split())[:80]
    if not name:
        return no("Give the view a name.")
    with transaction.atomic():
        rows = SavedView.objects.filter(user=user, list_name=list_name)
        if rows.exclude(name=name).count() >= MAX_VIEWS:
            return no(f"You keep {MAX_VIEWS} views already. Delete one first.")
        shared = rows.filter(name=name).exclude(department=None).select_related("department").first()
        if shared is not None and shared.department_id != (department.pk if department else None):
            return no(f"“{name}” is shared with {shared.department}: choose another name, or delete that one first.")
        view, is_new = rows.update_or_create(
            name=name,
            defaults={
                "params": known.clean(params),
                "columns": _columns(known, columns),
                "department": department,
            },
            create_defaults={
                "user": user,
                "list_name": list_name,
                "name": name,
                "params": known.clean(params),
                "columns": _columns(known, columns),
                "department": department,
            },
        )
        if department is not None:
            _act(view, user, "share_view" if is_new else "change_view")
    return YES


def rename_view(*, view: SavedView, user: User, name: str) -> Allowed:
    """Give a view another name."""
    name = " ".join(name.split())[:80]
    if not name:
        return no("Give the view a name.")
    if name == view.name:
        return no("That is its name already.")
    with transaction.atomic():
        if SavedView.objects.filter(user=view.user_id, list_name=view.list_name, name=name).exists():
            return no(f"There is a view “{name}” already.")
        before, view.name = view.name, name
        view.save(update_fields=["name"])
        if view.department_id is not None:
            _act(view, user, "rename_view", before={"name": before})
    return YES


def delete_view(*, view: SavedView, user: User) -> Allowed:
    """Forget a view; whoever began with it begins with the whole list again."""
    with transaction.atomic():
        if view.department_id is not None:
            _act(view, user, "delete_view", before={"name": view.name, "params": view.params})
        view.delete()
    return YES


def begin_with(*, user: User, view: SavedView | None, list_name: str) -> bool:
    """Begin with this view whenever the list is opened without filters; None: with the whole list. False: it is so."""
    row, _ = ListChoice.objects.get_or_create(user=user, list_name=list_name)
    if row.default_view_id == (view.pk if view else None):
        return False
    row.default_view = view
    row.save(update_fields=["default_view"])
    return True


def choose_columns(*, user: User, list_name: str, columns: Sequence[str]) -> bool:
    """Show these columns of the list from now on; none: the usual ones. False if it is so already."""
    chosen = _columns(get_list(list_name), columns)
    row, _ = ListChoice.objects.get_or_create(user=user, list_name=list_name)
    if row.columns == chosen:
        return False
    row.columns = chosen
    row.save(update_fields=["columns"])
    return True


def _columns(known: SavableList, columns: Sequence[str]) -> list[str]:
    return [name for name in known.columns if name in columns]


def _act(view: SavedView, user: User, verb: str, before: dict[str, object] | None = None) -> None:
    Action.objects.create(
        department_id=view.department_id,
        user=user,
        verb=verb,
        target=f"view:{view.pk}",
        before=before or {},
        after={} if verb == "delete_view" else {"name": view.name, "list": view.list_name, "params": view.params},
    )
