"""What sales knows of an item."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from agents.models import Department
from leads.import_models import ImportJob, ImportRemark, StagedLead
from runs.models import Item

__all__ = ["ImportJob", "ImportRemark", "Lead", "StagedLead"]


class Lead(models.Model):
    """A person who may become a customer. ``email`` is normalised and, where it is known, unique in the department."""

    item = models.OneToOneField(Item, on_delete=models.CASCADE, primary_key=True, related_name="lead")
    department = models.ForeignKey(Department, on_delete=models.PROTECT, related_name="leads")
    name = models.CharField(max_length=200, blank=True)
    email = models.CharField(max_length=320, blank=True)
    company = models.CharField(max_length=200, blank=True)
    title = models.CharField(max_length=200, blank=True)
    phone = models.CharField(max_length=60, blank=True)
    website = models.CharField(max_length=300, blank=True)
    country = models.CharField(max_length=80, blank=True)
    source = models.CharField(max_length=80, blank=True)
    external_id = models.CharField(max_length=120, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="leads"
    )
    message = models.TextField(blank=True, help_text="What the person wrote when they came in.")
    attributes = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [
            # filters.find_sources, and the list by source.
            models.Index(fields=["source", "department"], name="lead_by_source"),
            # the list by name, of one department and of several.
            models.Index(fields=["department", "name", "item"], name="lead_by_name"),
            models.Index(fields=["name", "item"], name="lead_by_name_of_all"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["department", "email"], condition=~Q(email=""), name="lead_email_unique"),
            models.UniqueConstraint(
                fields=["department", "source", "external_id"],
                condition=~Q(external_id=""),
                name="lead_external_id_unique",
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.email or self.company or f"lead {self.pk}"
