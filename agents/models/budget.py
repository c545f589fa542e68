from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from agents.models.agent import Agent
from agents.models.department import Department


class Budget(models.Model):
    """The most that an agent, a department or a model may cost in a day or a month of the department's time zone."""

    class Period(models.TextChoices):
        DAY = "day", "day"
        MONTH = "month", "month"

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="budgets")
    agent = models.ForeignKey(Agent, null=True, blank=True, on_delete=models.CASCADE, related_name="budgets")
    model = models.CharField(max_length=64, blank=True, help_text="Empty: every model.")
    period = models.CharField(max_length=8, choices=Period)
    limit_usd = models.DecimalField(max_digits=16, decimal_places=8, null=True, blank=True)
    limit_tokens = models.BigIntegerField(null=True, blank=True)
    is_enabled = models.BooleanField(default=True)

    class Meta:
        constraints = [
            # Two constraints, because SQLite cannot treat two nulls as the same.
            models.UniqueConstraint(
                fields=["department", "model", "period"], condition=Q(agent=None), name="one_budget_per_department"
            ),
            models.UniqueConstraint(
                fields=["department", "agent", "model", "period"],
                condition=Q(agent__isnull=False),
                name="one_budget_per_agent",
            ),
            models.CheckConstraint(
                condition=Q(limit_usd__isnull=False) | Q(limit_tokens__isnull=False), name="budget_limits_something"
            ),
        ]

    def __str__(self) -> str:
        scope = self.agent.slug if self.agent else self.model or "department"
        return f"{self.department.slug} {scope} a {self.period}"

    @property
    def scope(self) -> dict[str, Any]:
        """What a call must be to count against it, by the columns of a call; by others it may be anything."""
        columns = {"department_id": self.department_id, "agent_id": self.agent_id, "model_asked": self.model}
        return {name: value for name, value in columns.items() if value not in (None, "")}

    def covers(self, *, department_id: int, agent_id: int, model: str) -> bool:
        """Whether a call of this agent on this model counts against it: as ``scope`` says."""
        columns = {"department_id": department_id, "agent_id": agent_id, "model_asked": model}
        return all(columns[name] == value for name, value in self.scope.items())

    def allowed_usd(self, period: BudgetPeriod | None) -> Decimal | None:
        """What may be spent in one of its periods, with what was allowed once; None where dollars are not limited."""
        if self.limit_usd is None:
            return None
        return self.limit_usd + (period.extra_usd if period else 0)

    def allowed_tokens(self, period: BudgetPeriod | None) -> int | None:
        """The same in tokens."""
        if self.limit_tokens is None:
            return None
        return self.limit_tokens + (period.extra_tokens if period else 0)

    def clean(self) -> None:
        if self.limit_usd is None and self.limit_tokens is None:
            raise ValidationError("Set a limit in US dollars, in tokens, or both.")

    def validate_constraints(self, exclude: Any = None) -> None:
        """In words. Of a budget without a limit ``clean`` has said it."""
        try:
            super().validate_constraints(exclude=exclude)
        except ValidationError as error:
            if self.limit_usd is not None or self.limit_tokens is not None:
                text = "There is a budget for this in the same kind of period: change that one."
                raise ValidationError(text) from error


class BudgetPeriod(models.Model):
    """What one budget has reserved and spent in one period.

    No call that is let through makes ``reserved + spent`` exceed what is allowed; it may exceed it where the budget was
    made or lowered when more than that was spent already.
    """

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="periods")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    reserved_usd = models.DecimalField(max_digits=16, decimal_places=8, default=Decimal(0))
    spent_usd = models.DecimalField(max_digits=16, decimal_places=8, default=Decimal(0))
    reserved_tokens = models.BigIntegerField(default=0)
    spent_tokens = models.BigIntegerField(default=0)
    extra_usd = models.DecimalField(
        max_digits=16, decimal_places=8, default=Decimal(0), help_text="Allowed once by an administrator."
    )
    extra_tokens = models.BigIntegerField(default=0, help_text="Allowed once by an administrator.")
    warned_percent = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["budget", "starts_at"], name="one_row_per_budget_period")]

    def __str__(self) -> str:
        return f"{self.budget} from {self.starts_at:%Y-%m-%d}"
