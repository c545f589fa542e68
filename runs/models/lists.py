from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from agents.models import Department


class SavedView(models.Model):
    """Filters, order and columns of a list under a name. Without a department it is its owner's alone."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views")
    department = models.ForeignKey(
        Department,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="saved_views",
        help_text="Whose members may use it; empty: only its owner.",
    )
    list_name = models.SlugField(help_text="Which list it is a view of, for example leads.")
    name = models.CharField(max_length=80)
    params = models.JSONField(default=dict, blank=True, help_text="The query parameters: filters and order.")
    columns = models.JSONField(default=list, blank=True, help_text="The columns in their order; empty: as chosen.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "list_name", "name"], name="saved_view_named_once"),
            models.CheckConstraint(condition=~Q(name=""), name="saved_view_has_a_name"),
        ]

    def __str__(self) -> str:
        return self.name


class ListChoice(models.Model):
    """How one person sees one list: which columns, and which view they begin with."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="list_choices")
    list_name = models.SlugField()
    columns = models.JSONField(default=list, blank=True, help_text="The columns in their order; empty: the usual ones.")
    default_view = models.ForeignKey(SavedView, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "list_name"], name="one_choice_per_person_and_list")]

    def __str__(self) -> str:
        return f"{self.list_name} of {self.user_id}"
