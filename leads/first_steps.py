"""What a new sales department needs besides its settings and its mailbox: leads."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from agents.spec import FirstStep
from leads.import_models import ImportJob


def first_steps(department: Any) -> list[FirstStep]:
    """The first upload: done when an import of this ``Department`` has brought leads."""
    jobs = ImportJob.objects.filter(department=department).order_by("-pk")
    done = jobs.filter(status=ImportJob.Status.DONE, created__gt=0).first()
    if done is not None:
        says, job = f"{done.file_name} has brought {done.created:,} lead{'' if done.created == 1 else 's'}.", done
    elif running := jobs.filter(status__in=ImportJob.ACTIVE).first():
        says, job = f"{running.file_name} is being read.", running
    elif draft := jobs.filter(status=ImportJob.Status.DRAFT).first():
        says, job = f"{draft.file_name} is uploaded and not started: look at the preview, its price and time.", draft
    else:
        says, job = "A CSV file or an Excel workbook. Price and time are shown before anything starts.", None
    url = job.get_absolute_url() if job is not None else f"{reverse('leads:import')}?department={department.slug}"
    return [FirstStep("upload", "First upload", done is not None, says, url, "Look at it" if job else "Upload")]
