"""Budgets on the costs page: allow more once, or for good."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from agents.models import Budget, Member
from runs.access import get_visible, require, signed_in
from runs.budget_changes import allow_once, change_limit
from runs.views.answers import answer

MOST_USD = Decimal(1_000_000)


@signed_in
@require_POST
def budget_allow(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a budget be passed by an amount in its current period."""
    return _change(request, pk, is_once=True)


@signed_in
@require_POST
def budget_change(request: HttpRequest, pk: int) -> HttpResponse:
    """Change what a budget allows in every period."""
    return _change(request, pk, is_once=False)


def _change(request: HttpRequest, pk: int, *, is_once: bool) -> HttpResponse:
    budget = get_visible(request, Budget.objects.select_related("department", "agent"), pk=pk)
    user = require(request, budget.department_id, Member.Role.ADMINISTRATOR)
    reason = request.POST.get("reason", "").strip()
    usd = _amount(request.POST.get("usd", ""))
    url = reverse("runs:costs")
    if usd is None:
        return answer(request, "Give an amount in US dollars, such as 12.50.", changed=False, url=url)
    try:
        return _carry_out(request, budget, user, usd, reason, is_once=is_once)
    except Budget.DoesNotExist:
        text = "This budget was deleted meanwhile, so nothing was changed and nothing waits for it any more."
        return answer(request, text, changed=False, url=url)


def _carry_out(
    request: HttpRequest, budget: Budget, user: User, usd: Decimal, reason: str, *, is_once: bool
) -> HttpResponse:
    if is_once:
        changed = allow_once(budget=budget, usd=usd, user=user, reason=reason)
        text = f"{usd:.2f} USD more are allowed in this {budget.period}. Runs that waited go on."
        refusal = "This budget counts tokens, not dollars. Change it in the admin."
    else:
        changed = change_limit(budget=budget, limit_usd=usd, user=user, reason=reason)
        text = f"The budget is {usd:.2f} USD a {budget.period} now. Runs that waited go on if they fit."
        refusal = f"The budget was {usd:.2f} USD already."
    return answer(request, text if changed else refusal, changed=changed, url=reverse("runs:costs"))


def _amount(text: str) -> Decimal | None:
    """A positive amount of at most a million, in 8 places; None for anything else."""
    try:
        usd = Decimal(text.strip())
    except InvalidOperation:
        return None
    if not usd.is_finite() or not 0 < usd <= MOST_USD:
        return None
    # What is nothing in 8 places is nothing.
    return usd.quantize(Decimal("0.00000001")) or None
