"""What every admin page shares: people see the departments they administer, and saving loses nothing."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist
from django.db.models import ForeignKey, Model, QuerySet
from django.http import HttpRequest

from agents.models import Department, Member

__all__ = [
    "ModelAdmin",
    "ModelForm",
    "ReadOnlyAdmin",
    "ScopedAdmin",
    "SuperuserAdmin",
    "TabularInline",
    "administered",
]

ModelT = TypeVar("ModelT", bound=Model)

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin, TabularInline
    from django.forms import ModelForm
else:
    # Django's own classes take a type only for the type checker.
    class ModelAdmin(admin.ModelAdmin, Generic[ModelT]):
        """An admin page of one model."""

    class TabularInline(admin.TabularInline, Generic[TypeVar("ChildT"), TypeVar("ParentT")]):
        """Rows of another model on an admin page."""

    class ModelForm(forms.ModelForm, Generic[ModelT]):
        """A form of one model."""


def administered(request: HttpRequest) -> QuerySet[Department]:
    """The departments whose administrator asks; all of them for a superuser."""
    user = request.user
    if not isinstance(user, User) or not (user.is_active and user.is_staff):
        return Department.objects.none()
    if user.is_superuser:
        return Department.objects.all()
    return Department.objects.filter(members__user=user, members__role=Member.Role.ADMINISTRATOR)


class ScopedAdmin(ModelAdmin[ModelT]):
    """Rows of the departments a person administers. ``department_path`` leads from a row to its department.

    Membership decides; Django's own model permissions are not asked.
    """

    department_path: ClassVar[str] = "department"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelT]:
        """Rows of other departments do not exist."""
        rows = super().get_queryset(request)
        if getattr(request.user, "is_superuser", False):
            return rows
        return rows.filter(**{f"{self.department_path}__in": administered(request).values("pk")})

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._may(request, None)

    def has_view_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return self._may(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._may(request, None)

    def has_change_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return self._may(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return self._may(request, obj)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.ModelChoiceField[Any] | None:
        """Offer departments, and rows of departments, only where the person administers them."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if field is None or field.queryset is None or getattr(request.user, "is_superuser", False):
            return field
        mine = administered(request).values("pk")
        if field.queryset.model is Department:
            field.queryset = field.queryset.filter(pk__in=mine)
        elif _has_department(field.queryset.model):
            field.queryset = field.queryset.filter(department__in=mine)
        return field

    def save_model(self, request: HttpRequest, obj: ModelT, form: forms.ModelForm[ModelT], change: bool) -> None:
        """Write only what the person changed: workers write other columns of the same row meanwhile."""
        if not change:
            obj.save()
            return
        names = [name for name in form.changed_data if _is_column(obj, name)]
        if names:
            obj.save(update_fields=names)

    def _may(self, request: HttpRequest, obj: ModelT | None) -> bool:
        mine = administered(request)
        if obj is None:
            return mine.exists()
        department: Any = reduce(getattr, self.department_path.split("__"), obj)
        return mine.filter(pk=getattr(department, "pk", department)).exists()


class ReadOnlyAdmin(ScopedAdmin[ModelT]):
    """What the engine writes. Nobody edits it by hand: a status changed here would be a lie elsewhere."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return False


class SuperuserAdmin(ModelAdmin[ModelT]):
    """What belongs to the whole installation and so to no department's administrator."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return self._is_superuser(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return self._is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: ModelT | None = None) -> bool:
        return self._is_superuser(request)

    def _is_superuser(self, request: HttpRequest) -> bool:
        user = request.user
        return isinstance(user, User) and user.is_active and user.is_superuser


def _has_department(model: type[Model]) -> bool:
    try:
        return model._meta.get_field("department").related_model is Department
    except FieldDoesNotExist:
        return False


def _is_column(obj: Model, name: str) -> bool:
    try:
        return bool(getattr(obj._meta.get_field(name), "concrete", False))
    except FieldDoesNotExist:
        return False
