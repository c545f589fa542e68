"""The budget that a question is about: how full it is, who waits for it, and who can raise it."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse

from agents.budgets import wait_head
from agents.models import Member
from runs.access import Access
from runs.database import now as database_now
from runs.gate_alerts import BUDGET_CAUSE
from runs.models import Review
from runs.spending import Fill, load_fills

ADMINISTRATOR = Member.Role.ADMINISTRATOR


@dataclass(frozen=True, slots=True)
class AskedBudget:
    """The budget as it is now, its row on the costs page, and who can raise it where the person cannot."""

    fill: Fill
    url: str
    can_raise: bool
    administrators: str


def budget_of(review: Review, access: Access) -> AskedBudget | None:
    """The budget that work waits for; None where the question is about no budget, or it was deleted since."""
    if review.kind != Review.Kind.BUDGET or not review.cause.startswith(BUDGET_CAUSE):
        return None
    department, head = review.department, review.cause.removeprefix(BUDGET_CAUSE)
    fills = load_fills([department], now=database_now())
    fill = next((fill for fill in fills if wait_head(fill.budget) == head), None)
    if fill is None:
        return None
    can_raise = access.can(department.pk, ADMINISTRATOR)
    query = f"?department={department.slug}" if department.pk not in access.ids else ""
    url = f"{reverse('runs:costs')}{query}#budget-{fill.budget.pk}"
    return AskedBudget(fill, url, can_raise, "" if can_raise else _administrators(review))


def _administrators(review: Review) -> str:
    rows = Member.objects.filter(department=review.department_id, role=ADMINISTRATOR, user__is_active=True)
    return ", ".join(str(member.user) for member in rows.select_related("user").order_by("user__username"))
