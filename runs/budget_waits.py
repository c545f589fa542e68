"""Runs that wait for a budget are due again when the budget is raised. When a period turns, their date has come."""

from __future__ import annotations

from django.db import transaction

from agents.budgets import BUDGET_WAIT
from agents.models import Department
from runs.database import now
from runs.models import AgentRun


def release_budget_waits(department: Department) -> int:
    """Make every run of the department that waits for a budget due now; their number.

    The next claim asks the budget again: a run that still does not fit waits on and says so.
    """
    with transaction.atomic():
        waiting = AgentRun.objects.filter(
            department=department, status=AgentRun.Status.QUEUED, waiting_for__contains=BUDGET_WAIT
        ).order_by("pk")
        # Claims lock runs before budgets, we hold the budget: whoever is being claimed is left out, not waited for.
        ids = list(waiting.select_for_update(skip_locked=True, of=("self",)).values_list("pk", flat=True))
        return AgentRun.objects.filter(pk__in=ids).update(due_at=now())
