"""Admin pages of rules: what is saved or deleted there is an Action, as on the pages of rules."""

from __future__ import annotations

from typing import Any, TypeVar

from django import forms
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from agents.admin_access import ScopedAdmin
from runs.rule_editing import columns_of, note

RowT = TypeVar("RowT", bound=Model)
"""``Rule``, ``RiskRule`` or ``AutoApproval``."""


class NotedAdmin(ScopedAdmin[RowT]):
    """Writes the Action and the line of the log beside the row."""

    def save_model(self, request: HttpRequest, obj: RowT, form: forms.ModelForm[RowT], change: bool) -> None:
        """Before and after are read from the database: a form may not have every column."""
        rows: Any = self.model._default_manager
        before = columns_of(rows.get(pk=obj.pk)) if change else {}
        super().save_model(request, obj, form, change)
        stored = rows.get(pk=obj.pk)
        if columns_of(stored) != before and isinstance(request.user, User):
            note(stored, request.user, "change" if change else "add", before)

    def delete_model(self, request: HttpRequest, obj: RowT) -> None:
        """Kept in the Action."""
        row: Any = obj
        if isinstance(request.user, User):
            note(row, request.user, "delete", columns_of(row), after={})
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[RowT]) -> None:
        """One by one, each with its Action."""
        for obj in queryset:
            self.delete_model(request, obj)
