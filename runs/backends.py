"""What a role allows, and Django's answer to it: ``user.has_perm("agents.operate_department", department)``.

A permission is asked for an object: a department, or a row that belongs to one. It is answered from the person's
membership of that department and from nothing else: a permission granted to a user or a group in the admin has no
object, and opens no department.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User

from agents.models import Department, Member

SEE, ANSWER, OPERATE, ADMINISTER = (
    f"agents.{name}" for name in ("see_department", "answer_reviews", "operate_department", "administer_department")
)
ROLE_PERMISSIONS: Mapping[str, frozenset[str]] = {
    Member.Role.VIEWER: frozenset({SEE}),
    Member.Role.REVIEWER: frozenset({SEE, ANSWER}),
    Member.Role.OPERATOR: frozenset({SEE, ANSWER, OPERATE}),
    Member.Role.ADMINISTRATOR: frozenset({SEE, ANSWER, OPERATE, ADMINISTER}),
}
"""The one place that knows what a role may do. ``Department.Meta.permissions`` has their names in words."""
_ROLES = "_kontor_roles"


def includes(role: str | None, wanted: str) -> bool:
    """Whether somebody of this role, None for no member, may do everything the wanted role may."""
    return role is not None and ROLE_PERMISSIONS[wanted] <= ROLE_PERMISSIONS.get(role, frozenset())


class MembershipBackend(BaseBackend):
    """Permissions from memberships. Roles are read once for each user object, as Django's own backend does."""

    def get_all_permissions(self, user_obj: AbstractBaseUser | AnonymousUser, obj: Any | None = None) -> set[str]:
        """What the person may do in the object's department; nothing without an object."""
        if obj is None or not isinstance(user_obj, User) or not user_obj.is_active:
            return set()
        if user_obj.is_superuser:
            return set(ROLE_PERMISSIONS[Member.Role.ADMINISTRATOR])
        return set(ROLE_PERMISSIONS.get(_roles(user_obj).get(_department_id(obj), ""), ()))

    def has_perm(self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: Any | None = None) -> bool:
        """Whether the person may do this in the object's department."""
        return perm in self.get_all_permissions(user_obj, obj)


def _roles(user: User) -> Mapping[int, str]:
    found: Mapping[int, str] | None = getattr(user, _ROLES, None)
    if found is None:
        found = dict(Member.objects.filter(user=user).values_list("department_id", "role"))
        setattr(user, _ROLES, found)
    return found


def _department_id(obj: Any) -> int:
    """The department of a row: itself, its own, or its item's; 0, which nobody is a member of, if it has none."""
    if isinstance(obj, Department):
        return obj.pk or 0
    found = getattr(obj, "department_id", None)
    if found is None and getattr(obj, "item_id", None):
        found = obj.item.department_id
    return found or 0
