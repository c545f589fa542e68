"""Who may see and do what: every view asks here. What somebody may not see does not exist for them (404).

What a role allows is written in ``runs.backends`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.contrib.auth.views import redirect_to_login
from django.db.models import BigIntegerField, IntegerField, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, resolve_url
from django.utils.cache import patch_cache_control

from agents.models import Department, Installation, Member
from agents.statements import Among, Given, Statement
from runs.backends import ROLE_PERMISSIONS, includes
from runs.late_forms import answer_signed_out

Role = Member.Role
ViewT = TypeVar("ViewT", bound=Callable[..., HttpResponseBase])
ModelT = TypeVar("ModelT", bound=Model)
Someone = AbstractBaseUser | AnonymousUser


@dataclass(frozen=True)
class Access:
    """What one person may see on one request. ``current`` is the chosen department, None if all are shown."""

    departments: tuple[Department, ...]
    roles: Mapping[int, str]
    current: Department | None = None

    @property
    def ids(self) -> list[int]:
        """The departments whose rows are shown now."""
        return [self.current.pk] if self.current else [department.pk for department in self.departments]

    @property
    def shown(self) -> tuple[Department, ...]:
        """The same as rows."""
        return (self.current,) if self.current else self.departments

    @cached_property
    def installation(self) -> Installation:
        """The switch of the whole installation, read once a request."""
        return Installation.read()

    @property
    def administers(self) -> bool:
        """Whether the person administers a department."""
        return Role.ADMINISTRATOR in self.roles.values()

    def give_departments(self, rows: Iterable[Any]) -> None:
        """Let rows have the departments that were read already: a join reads all settings anew with every row."""
        known = {department.pk: department for department in self.departments}
        for row in rows:
            if row.department_id in known:
                row.department = known[row.department_id]

    def can(self, department_id: int, role: str) -> bool:
        """Whether the person has this role, or a higher one, in the department."""
        return includes(self.roles.get(department_id), role)


def departments_for(user: Someone) -> QuerySet[Department]:
    """The departments a person may see: all for a superuser, else those they are a member of."""
    if isinstance(user, User) and user.is_active:
        if user.is_superuser:
            return Department.objects.all()
        return Department.objects.filter(members__user=user)
    return Department.objects.none()


def can(user: Someone, row: Any, role: str) -> bool:
    """Whether a person has this role, or a higher one, in the department of a row, or in a department."""
    return isinstance(user, User) and all(user.has_perm(each, row) for each in ROLE_PERMISSIONS[role])


def access_for(user: Someone) -> Access:
    """Departments and roles of a person, in at most two queries."""
    if not (isinstance(user, User) and user.is_active):
        return Access((), {})
    if user.is_superuser:
        departments = _DEPARTMENTS.objects()
        return Access(tuple(departments), {department.pk: Role.ADMINISTRATOR for department in departments})
    roles = dict(_ROLES.rows(user=user.pk))
    return Access(tuple(_CHOSEN.objects(ids=list(roles))), roles)


_DEPARTMENTS = Statement(lambda: Department.objects.all())
_CHOSEN = Statement(lambda: Department.objects.filter(Among("id", "ids")))
_ROLES = Statement(
    lambda: Member.objects.filter(user_id=Given("user", IntegerField())).values_list("department_id", "role")
)


def access_of(request: HttpRequest) -> Access:
    """The access of whoever asks, read once a request. ``?department=slug`` chooses and is remembered.

    htmx sends the department of the page it asks for in ``Kontor-Department``: another tab may have chosen another
    one meanwhile, which the session knows of and this page does not.
    """
    found: Access | None = getattr(request, "kontor_access", None)
    if found is None:
        everything = access_for(request.user)
        # Set first, because the page that says 404 asks again.
        request.kontor_access = everything  # type: ignore[attr-defined]
        found = _choose(request, everything)
        request.kontor_access = found  # type: ignore[attr-defined]
    return found


def _choose(request: HttpRequest, access: Access) -> Access:
    """``all`` shows every department again; a slug that the person may not see is 404."""
    chosen = request.GET.get("department")
    asked = chosen if chosen is not None else request.headers.get("Kontor-Department")
    slug = asked if asked is not None else request.session.get("department", "")
    if slug in ("", "all"):
        current = None
    else:
        current = next((d for d in access.departments if d.slug == slug), None)
        if current is None and asked is not None:
            raise Http404("There is no such department.")
    # A page that refreshes itself chooses nothing, and must not write the session every second.
    if chosen is not None and access.departments and "Kontor-Refresh" not in request.headers:
        remembered = current.slug if current else ""
        if request.session.get("department", "") != remembered:
            request.session["department"] = remembered
    if len(access.departments) == 1:
        current = access.departments[0]
    return Access(access.departments, access.roles, current)


def signed_in(view: ViewT) -> ViewT:
    """Send strangers to the login page; htmx by a header, as a login form inside a table helps nobody.

    What refreshes itself or sends a form is only told (401): going away would lose what is typed in the page. So is
    what belongs to the page of somebody else, as ``Kontor-Person`` tells.
    A zero byte, which PostgreSQL cannot store, is refused here for all pages, and a number in the address that no row
    can have, which SQLite cannot look for, is not found.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # Somebody else may have signed in in another tab: a page is neither refreshed nor used with their rights.
        person = request.headers.get("Kontor-Person", str(request.user.pk))
        if request.user.is_authenticated and person == str(request.user.pk):
            if _has_zero(request):
                return HttpResponseBadRequest("What was sent has a character in it that cannot be stored.")
            if any(isinstance(value, int) and value > BigIntegerField.MAX_BIGINT for value in kwargs.values()):
                raise Http404("No row has this number.")
            return _private(view(request, *args, **kwargs))
        if request.headers.get("HX-Request") == "true":
            stays = request.user.is_authenticated or request.method == "POST" or "Kontor-Refresh" in request.headers
            return HttpResponse(status=401, headers={} if stays else {"HX-Redirect": _login_url(request)})
        return redirect_to_login(request.get_full_path()) if request.method != "POST" else answer_signed_out(request)

    return cast(ViewT, guarded)


def _private(response: HttpResponseBase) -> HttpResponseBase:
    """For nobody but who asked, and asked for again before it is shown again, unless the answer says otherwise."""
    if not response.has_header("Cache-Control"):
        patch_cache_control(response, private=True, no_cache=True)
    return response


def _login_url(request: HttpRequest) -> str:
    """Where to sign in, and from there back to the page of which htmx has asked for a part."""
    page = urlsplit(request.headers.get("HX-Current-URL", ""))
    if not page.path:
        return resolve_url(settings.LOGIN_URL)
    return redirect_to_login(urlunsplit(("", "", page.path, page.query, ""))).url


def _has_zero(request: HttpRequest) -> bool:
    given = (request.GET, request.POST)
    return any("\0" in value for values in given for _, listed in values.lists() for value in listed)


def may_see_system(request: HttpRequest) -> bool:
    """Whether the person may see how the installation does: staff, and whoever administers a department."""
    return bool(getattr(request.user, "is_staff", False)) or access_of(request).administers


def get_visible(request: HttpRequest, rows: QuerySet[ModelT], *, path: str = "department_id", **lookup: Any) -> ModelT:
    """One row of a department that the person may see, else 404. ``path`` leads to the department."""
    ids = [department.pk for department in access_of(request).departments]
    return get_object_or_404(rows, **{f"{path}__in": ids}, **lookup)


def require(request: HttpRequest, department_id: int, role: str) -> User:
    """The person, if they have the role in the department; else 404, as if the page were not there."""
    if not access_of(request).can(department_id, role) or not isinstance(request.user, User):
        raise Http404("This takes another role.")
    return request.user
