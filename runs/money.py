"""Sums of money, exact on every database: in whole hundred-millionths of a US dollar."""

from __future__ import annotations

from decimal import Decimal

from django.db.models import BigIntegerField, DecimalField, ExpressionWrapper, F
from django.db.models.functions import Cast, Round

from runs.models.costs import UNITS


def units(usd: Decimal) -> int:
    """US dollars as whole hundred-millionths."""
    return int(usd * UNITS)


def dollars(units: int) -> Decimal:
    """Whole hundred-millionths as US dollars with 8 places."""
    return Decimal(units).scaleb(-8)


def in_units(column: str) -> Cast:
    """A column of US dollars for the database to add up: SQLite has no decimals, and a sum of its floats is off."""
    return Cast(Round(ExpressionWrapper(F(column) * UNITS, output_field=DecimalField())), BigIntegerField())
