"""Budgets on the costs page: allow more once, or for good."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from agents.models import Budget, Member
from runs.access import get_visible, require, signed_in
from runs.budget_changes import allow_once, change_budget
from runs.budget_floors import copy_with, why_too_small
from runs.views.answers import answer

MOST_USD = Decimal(1_000_000)
MOST_TOKENS = 10**12


class Amounts(NamedTuple):
    """What somebody has entered, of what the budget limits."""

    usd: Decimal | None
    tokens: int | None

    def __str__(self) -> str:
        dollars = "" if self.usd is None else f"${self.usd:.2f}"
        tokens = "" if self.tokens is None else f"{self.tokens:,} tokens"
        return " and ".join(text for text in (dollars, tokens) if text)


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
    url = reverse("runs:costs")
    amounts = _amounts(request, budget)
    if amounts is None:
        example = "an amount in US dollars, such as 12.50" if budget.limit_usd is not None else "a number of tokens"
        if budget.limit_usd is not None and budget.limit_tokens is not None:
            example += ", or a number of tokens"
        return answer(request, f"Give {example}.", changed=False, url=url)
    try:
        return _carry_out(request, budget, user, amounts, reason, is_once=is_once)
    except Budget.DoesNotExist:
        text = "This budget was deleted meanwhile, so nothing was changed and nothing waits for it any more."
        return answer(request, text, changed=False, url=url)


def _carry_out(
    request: HttpRequest, budget: Budget, user: User, amounts: Amounts, reason: str, *, is_once: bool
) -> HttpResponse:
    if is_once:
        changed = allow_once(budget=budget, **amounts._asdict(), user=user, reason=reason)
        text = f"{amounts} more are allowed in this {budget.period}. Runs that waited go on if they fit."
        refusal = "The budget no longer limits that, so nothing was changed."
    else:
        limits = {"limit_usd": amounts.usd, "limit_tokens": amounts.tokens}
        changes = {name: limit for name, limit in limits.items() if limit is not None}
        if problems := why_too_small(copy_with(budget, changes)):
            return answer(request, " ".join(problems.values()), changed=False, url=reverse("runs:costs"))
        changed = change_budget(budget=budget, changes=changes, user=user, reason=reason)
        text = f"The budget is {amounts} a {budget.period} now. Runs that waited go on if they fit."
        refusal = f"The budget was {amounts} already."
    return answer(request, text if changed else refusal, changed=changed, url=reverse("runs:costs"))


def _amounts(request: HttpRequest, budget: Budget) -> Amounts | None:
    """What was entered; None if that is nothing, or if something of it is no amount."""
    entered = {"usd": budget.limit_usd, "tokens": budget.limit_tokens}
    texts = {name: request.POST.get(name, "").strip() for name, limit in entered.items() if limit is not None}
    usd = _dollars(texts["usd"]) if texts.get("usd") else None
    tokens = _count(texts["tokens"]) if texts.get("tokens") else None
    amounts = Amounts(usd, tokens)
    is_whole = all(getattr(amounts, name) is not None for name, text in texts.items() if text)
    return amounts if is_whole and amounts != (None, None) else None


def _dollars(text: str) -> Decimal | None:
    """A positive amount of at most a million, in 8 places; None for anything else."""
    try:
        usd = Decimal(text)
    except InvalidOperation:
        return None
    if not usd.is_finite() or not 0 < usd <= MOST_USD:
        return None
    # What is nothing in 8 places is nothing.
    return usd.quantize(Decimal("0.00000001")) or None


def _count(text: str) -> int | None:
    """A positive whole number; None for anything else."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_TOKENS)) else 0
    return number if 0 < number <= MOST_TOKENS else None
