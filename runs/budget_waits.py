"""Runs that wait for a budget are due again when the budget is raised. When a period turns, their date has come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from agents.budgets import BUDGET_WAIT, hold_budgets
from agents.models import Department
from runs.database import now
from runs.models import Action, AgentRun

BUDGET_TARGET = "budget:"
"""How the target of every ``Action`` on a budget begins."""


def release_budget_waits(department: Department) -> int:
    """Make every run of the department that waits for a budget due now; their number.

    The next claim asks the budget again: a run that still does not fit waits on and says so.
    """
    with transaction.atomic():
        waiting = AgentRun.objects.filter(
            department=department, status=AgentRun.Status.QUEUED, waiting_for__contains=BUDGET_WAIT
        ).order_by("pk")
        # Claims lock runs before they hold the budgets, which we keep from them: who is just claimed is left out.
        ids = list(waiting.select_for_update(skip_locked=True, of=("self",)).values_list("pk", flat=True))
        return AgentRun.objects.filter(pk__in=ids).update(due_at=now())


def hold_moved_budgets(refused: Mapping[int, datetime | None]) -> set[int]:
    """Hold all budgets as they are; those of the departments of whose budgets one has changed since.

    ``refused``: when each began what a budget refused, ``{department id: aware time}``. A run that is refused between
    two calls is queued only later: who changes the budget meanwhile wakes nobody, and it would wait until the period
    turns. Trying it again each minute instead would pay for its first calls each time. Whoever changes a budget after
    this waits for our transaction, and finds the run queued. Two queries; belongs before anything locks a period.
    """
    hold_budgets()
    since = Q()
    for department, began_at in refused.items():
        since |= Q(department=department, at__gte=began_at) if began_at else Q(department=department)
    return {*Action.objects.filter(since, target__startswith=BUDGET_TARGET).values_list("department", flat=True)} - {
        None
    }
