"""What a person does to a budget: makes, changes or deletes it, or lets it be passed once. Runs that wait look again.

The page and the admin call the same services; each writes down who did it and what was before. A budget that somebody
has deleted meanwhile is ``Budget.DoesNotExist``, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from agents.budgets import begin_change, lock_period
from agents.models import Budget, BudgetPeriod
from runs.budget_counts import count_anew, count_past
from runs.budget_waits import BUDGET_TARGET, release_budget_waits
from runs.database import now as database_now
from runs.models import Action

EXTRAS = ("extra_usd", "extra_tokens")
CHANGEABLE = ("limit_usd", "limit_tokens", "is_enabled")
"""What a budget counts stays, else what it has counted would be wrong."""


def create_budget(*, budget: Budget, user: User, reason: str = "") -> Budget:
    """Save a new budget. Every call of its current period counts against it, those that began before it included."""
    past = count_past(budget, now=database_now()) if budget.is_enabled else None
    with transaction.atomic():
        begin_change()
        budget.save(force_insert=True)
        if past is not None:
            count_anew(budget, past, now=database_now())
        _act(budget, user, "create_budget", {}, {**_scope(budget), **_limits(budget)}, reason)
        release_budget_waits(budget.department)
    return budget


def change_budget(*, budget: Budget, changes: Mapping[str, Any], user: User, reason: str = "") -> bool:
    """Change what a budget allows in every period, or switch it; runs that wait are due at once.

    False if it is all that already. ValueError for less than nothing, KeyError for what does not change.
    """
    if unknown := changes.keys() - set(CHANGEABLE):
        raise KeyError(f"A budget's {', '.join(sorted(unknown))} does not change.")
    if any(changes.get(name) is not None and changes[name] < 0 for name in ("limit_usd", "limit_tokens")):
        raise ValueError("A budget cannot be less than nothing.")
    past = count_past(budget, now=database_now()) if changes.get("is_enabled") else None
    with transaction.atomic():
        begin_change()
        held = _lock(budget)
        before = {name: getattr(held, name) for name in CHANGEABLE}
        changed = [name for name, value in changes.items() if before[name] != value]
        if not changed:
            return False
        for name in changed:
            setattr(held, name, changes[name])
        held.save(update_fields=changed)
        # What began while it was switched off has reserved nothing in it.
        now = database_now()
        period = count_anew(held, past, now=now) if past and "is_enabled" in changed else lock_period(held, now=now)
        period.warned_percent = 0
        period.save(update_fields=["warned_percent"])
        was = {name: _text(before[name]) for name in changed}
        _act(budget, user, "change_budget", was, {name: _text(getattr(held, name)) for name in changed}, reason)
        release_budget_waits(budget.department)
    return True


def allow_once(
    *, budget: Budget, usd: Decimal | None = None, tokens: int | None = None, user: User, reason: str
) -> bool:
    """Let a budget be passed by so much in its current period. ValueError for an amount that allows nothing.

    Runs that wait for it are due at once. False where it limits none of what is given.
    """
    if usd is None and tokens is None or any(amount is not None and amount <= 0 for amount in (usd, tokens)):
        raise ValueError("Allow more than nothing.")
    with transaction.atomic():
        begin_change()
        held = _lock(budget)
        period = lock_period(held, now=database_now())
        extras: dict[str, Any] = {}
        if usd is not None and held.limit_usd is not None:
            extras["extra_usd"] = period.extra_usd + usd
        if tokens is not None and held.limit_tokens is not None:
            extras["extra_tokens"] = period.extra_tokens + tokens
        return _set_extras(held, period, extras, user, reason)


def set_extras(*, period: BudgetPeriod, extras: Mapping[str, Any], user: User, reason: str = "") -> bool:
    """Say how much more than the budget one of its periods may cost: by the names of ``EXTRAS``.

    False if it is that already. ValueError for less than nothing, KeyError for anything else.
    """
    if unknown := extras.keys() - set(EXTRAS):
        raise KeyError(f"{', '.join(sorted(unknown))} is not what a period allows.")
    if any(amount < 0 for amount in extras.values()):
        raise ValueError("Less than nothing cannot be allowed.")
    with transaction.atomic():
        begin_change()
        budget = _lock(period.budget)
        held = BudgetPeriod.objects.select_for_update().filter(pk=period.pk).first()
        if held is None:
            raise Budget.DoesNotExist
        return _set_extras(budget, held, extras, user, reason)


def delete_budget(*, budget: Budget, user: User, reason: str = "") -> bool:
    """Delete a budget with what it has counted; without it nothing waits for it. False if it is gone."""
    with transaction.atomic():
        begin_change()
        held = Budget.objects.select_for_update(of=("self",)).filter(pk=budget.pk).first()
        if held is None:
            return False
        _act(budget, user, "delete_budget", {**_scope(held), **_limits(held)}, {}, reason)
        # In id order, as those who settle calls lock them.
        list(BudgetPeriod.objects.filter(budget=held).select_for_update().order_by("pk").values_list("pk"))
        held.delete()
        release_budget_waits(budget.department)
    return True


def _lock(budget: Budget) -> Budget:
    """The budget before its periods: so does a claim that has to make one. ``Budget.DoesNotExist`` if it is gone."""
    rows = Budget.objects.select_for_update(of=("self",), no_key=True).select_related("department", "agent")
    return rows.get(pk=budget.pk)


def _set_extras(budget: Budget, period: BudgetPeriod, extras: Mapping[str, Any], user: User, reason: str) -> bool:
    before = {name: getattr(period, name) for name in extras}
    changed = [name for name, amount in extras.items() if before[name] != amount]
    if not changed:
        return False
    for name in changed:
        setattr(period, name, extras[name])
    period.warned_percent = 0
    period.save(update_fields=[*changed, "warned_percent"])
    was = {name: _text(before[name]) for name in changed}
    _act(budget, user, "allow_once", was, {name: _text(extras[name]) for name in changed}, reason)
    release_budget_waits(budget.department)
    return True


def _scope(budget: Budget) -> dict[str, str]:
    agent = budget.agent.slug if budget.agent else ""
    return {"agent": agent, "model": budget.model, "period": str(budget.period)}


def _limits(budget: Budget) -> dict[str, str]:
    return {name: _text(getattr(budget, name)) for name in CHANGEABLE}


def _text(value: object) -> str:
    """Amounts in all their places: a form gives them as they were typed."""
    return f"{value:.8f}" if isinstance(value, Decimal) else str(value)


def _act(
    budget: Budget, user: User, verb: str, before: Mapping[str, str], after: Mapping[str, str], reason: str
) -> None:
    Action.objects.create(
        department_id=budget.department_id,
        user=user,
        verb=verb,
        target=f"{BUDGET_TARGET}{budget.pk}",
        before=dict(before),
        after=dict(after),
        reason=reason[:300],
        # Commits compare it with when their attempts began (hold_moved_budgets), and this machine's clock may be off.
        at=database_now(),
    )
