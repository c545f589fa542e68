"""Whether our books agree with the other side's: every request has a row, every row its cost.

Prices are read from the shipped file and costs computed here anew, so that an error in ``agents.pricing`` is found.
"""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any

from agents.models import BudgetPeriod
from agents.pricing import PRICES_FILE
from runs.models import AgentRun, ModelCall

_BILLED = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_MILLION = Decimal(1_000_000)


def compare(served: list[dict[str, Any]]) -> list[str]:
    """One line for each difference between our calls and the records of the simulator."""
    rows = {str(call.call_id): call for call in ModelCall.objects.select_related("agent")}
    lines = []
    for record in served:
        call = rows.get(record["call_id"])
        if call is None:
            lines.append(f"request {record['request_id']} of {record['agent']} has no row")
        else:
            lines += [
                f"call {call.pk} ({record['fault'] or record['outcome']}): {e}" for e in _differences(call, record)
            ]
    seen = {record["call_id"] for record in served}
    answered = [c for key, c in rows.items() if key not in seen and c.stop_reason and c.status == "finished"]
    return lines + [f"call {call.pk} says it was answered, and nobody served it" for call in answered]


def served_twice(served: list[dict[str, Any]]) -> list[str]:
    """Calls that went out more than once."""
    counts = Counter(record["call_id"] for record in served)
    return [f"call {call_id} was served {count} times" for call_id, count in counts.items() if count > 1]


def add_up() -> list[str]:
    """One line for each sum that its parts do not come to. Made in Python: SQLite has no decimals."""
    lines = [f"call {pk} is open" for pk in ModelCall.objects.filter(status="started").values_list("pk", flat=True)]
    by_run: defaultdict[int, Decimal] = defaultdict(Decimal)
    by_period: defaultdict[int, Decimal] = defaultdict(Decimal)
    for run_id, periods, cost in ModelCall.objects.values_list("agent_run_id", "reserved_in", "cost_usd"):
        by_run[run_id] += cost
        for period_id in periods:
            by_period[period_id] += cost
    for pk, cost in AgentRun.objects.values_list("pk", "cost_usd"):
        if cost != by_run[pk]:
            lines.append(f"agent run {pk} costs {cost}, its calls {by_run[pk]}")
    for period in BudgetPeriod.objects.select_related("budget"):
        if period.reserved_usd or period.reserved_tokens:
            held = f"{period.reserved_usd} USD, {period.reserved_tokens} tokens"
            lines.append(f"budget period {period.pk} still reserves {held}")
        if period.spent_usd != by_period[period.pk]:
            lines.append(f"budget period {period.pk} has spent {period.spent_usd}, its calls {by_period[period.pk]}")
    return lines


def _differences(call: ModelCall, record: dict[str, Any]) -> Iterable[str]:
    billed = price(record, call.started_at.date())
    if call.is_estimate:
        if not billed <= call.cost_usd <= call.reserved_usd:
            yield f"estimated at {call.cost_usd}, billed {billed}, reserved {call.reserved_usd}"
        return
    if call.cost_usd != billed:
        yield f"costs {call.cost_usd}, billed {billed}"
    if record["usage"] is not None:
        written = call.cache_write_5m_tokens + call.cache_write_1h_tokens
        ours = (call.input_tokens, call.output_tokens, written, call.cache_read_tokens)
        theirs = tuple(record["usage"][kind] for kind in _BILLED)
        if ours != theirs:
            yield f"tokens {ours}, billed {theirs}"


def price(record: dict[str, Any], day: date) -> Decimal:
    """What a provider bills for the request, 8 places; 0 for one that was refused, by the API or before any output."""
    usage = record["usage"]
    if usage is None or (record["outcome"] == "refusal" and not usage["output_tokens"]):
        return Decimal(0)
    plain, output, written, read = (usage[kind] for kind in _BILLED)
    row = _row(record["model"], day, plain + written + read)
    total: Decimal = (
        plain * Decimal(row["input_usd"])
        + output * Decimal(row["output_usd"])
        + written * Decimal(row["cache_write_5m_usd"])
        + read * Decimal(row["cache_read_usd"])
    )
    return (total / _MILLION).quantize(Decimal("0.00000001"), ROUND_HALF_UP)


def _row(model: str, day: date, prompt: int) -> dict[str, Any]:
    fitting = [
        entry
        for entry in _prices()
        if entry["model"] == model and entry["effective_from"] <= day and entry.get("prompt_tokens_over", 0) < prompt
    ]
    found: dict[str, Any] = max(fitting, key=lambda e: (e["effective_from"], e.get("prompt_tokens_over", 0)))
    return found


@cache
def _prices() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = tomllib.loads(PRICES_FILE.read_text(encoding="utf-8"))["price"]
    return entries
