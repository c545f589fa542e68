from __future__ import annotations

from django.db import models
from django.db.models import Q

from agents.models import Agent, Department, ModelPrice, Soul
from runs.models.call import ModelCall
from runs.models.item import Item

UNITS = 100_000_000
"""Sums are kept in whole hundred-millionths of a US dollar, because SQLite cannot add decimals exactly."""


class CostRollup(models.Model):
    """What the model calls that began on one day (UTC) came to, for one agent, model and SOUL. Only settled calls.

    ``key`` names all of these in one column, because a unique constraint over a null is none.
    """

    key = models.CharField(max_length=200, unique=True)
    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="+", db_index=False)
    day = models.DateField()
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+")
    model = models.CharField(max_length=64, help_text="The one that answered, or that was asked.")
    soul = models.ForeignKey(Soul, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", db_index=False)
    is_waste = models.BooleanField(help_text="The calls brought nothing that was used: failed, cut, refused, unseen.")
    is_estimate = models.BooleanField(help_text="The end of the calls was not seen: their costs are bounds.")
    calls = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_units = models.BigIntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["department", "day"], name="cost_rollup_by_day")]

    def __str__(self) -> str:
        return self.key


class ItemCost(models.Model):
    """What the calls that began on one day (UTC) came to for one item. Only settled calls."""

    # Department and item stand first in the indexes below.
    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="+", db_index=False)
    day = models.DateField()
    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="+", db_index=False)
    # cost_items: the first day of an item in a period is the one whose day before lies outside. So its items are
    # counted along with its sums; telling them apart would take as long again.
    day_before = models.DateField(null=True, blank=True, help_text="The item's last day before this one; null: none.")
    calls = models.BigIntegerField(default=0)
    cost_units = models.BigIntegerField(default=0)
    waste_units = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["item", "day"], name="one_cost_per_item_and_day")]
        indexes = [models.Index(fields=["department", "day"], name="item_cost_by_day")]

    def __str__(self) -> str:
        return f"{self.item_id} on {self.day}"


class ItemTotal(models.Model):
    """What all settled calls of one item came to: the sum of its ``ItemCost``, for lists that filter or order by it."""

    item = models.OneToOneField(Item, on_delete=models.CASCADE, primary_key=True, related_name="total")
    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="+", db_index=False)
    calls = models.BigIntegerField(default=0)
    cost_units = models.BigIntegerField(default=0)

    class Meta:
        # lists: the dearest items first, of one department and of several.
        indexes = [
            models.Index(fields=["department", "-cost_units", "-item"], name="item_total_dearest"),
            models.Index(fields=["-cost_units", "-item"], name="item_total_dearest_of_all"),
        ]

    def __str__(self) -> str:
        return f"{self.item_id}: {self.cost_units}"


class ItemOutcome(models.Model):
    """What an item has come to, and when it first did: it counts although the item may be lost later.

    ``outcome`` is a name of the kind's ``outcomes``.
    """

    department = models.ForeignKey(Department, on_delete=models.CASCADE, related_name="+", db_index=False)
    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="+", db_index=False)
    outcome = models.CharField(max_length=60)
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["item", "outcome"], name="one_first_time_per_outcome")]
        # outcomes.count_outcomes: how many came so far in some days.
        indexes = [models.Index(fields=["department", "at", "outcome"], name="item_outcome_by_day")]

    def __str__(self) -> str:
        return f"{self.item_id}: {self.outcome}"


class CostCorrection(models.Model):
    """A call that was priced anew after a price was corrected. The old figure stays here.

    A price that was corrected in place is the same row before and after: its history in the admin has the old rates.
    """

    call = models.ForeignKey(ModelCall, on_delete=models.CASCADE, related_name="corrections")
    price_before = models.ForeignKey(ModelPrice, null=True, on_delete=models.PROTECT, related_name="+")
    price_after = models.ForeignKey(ModelPrice, on_delete=models.PROTECT, related_name="+")
    before_usd = models.DecimalField(max_digits=16, decimal_places=8)
    after_usd = models.DecimalField(max_digits=16, decimal_places=8)
    reason = models.CharField(max_length=300)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=~Q(reason=""), name="correction_has_a_reason")]

    def __str__(self) -> str:
        return f"{self.call_id}: {self.before_usd} to {self.after_usd}"
