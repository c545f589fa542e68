"""Leads in the admin, to read: they are changed on their own page, where what was made from them is known."""

from __future__ import annotations

from django.contrib import admin

from agents.admin_access import ReadOnlyAdmin
from leads.models import Lead


@admin.register(Lead)
class LeadAdmin(ReadOnlyAdmin[Lead]):
    """What sales knows of an item."""

    list_display = ("item", "name", "email", "company", "country", "source", "department")
    list_select_related = ("item", "department")
    list_filter = ("department", "source")
    search_fields = ("name", "email", "company")
    ordering = ("-pk",)
    show_full_result_count = False
