"""What was measured as a table of plain text: each row with its aim and whether it was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.services import Row

SHARE_AIMS = {32: 0.95, 200: 0.8, 800: 0.8}
ADDED_AIMS_MS = {"sqlite": 10, "postgres": 20}
ADDED_AT = 32
EVENT_AIM_MS = 500
DECISIONS_AIM, DURABLE_AIM = 50_000, 2_000
AVERAGE_TOKENS_AIM, MOST_TOKENS_AIM = 1_400, 4_000


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table. ``is_reached`` is None where there is no aim."""

    measure: str
    value: str
    aim: str = ""
    is_reached: bool | None = None


def lines_of(measure: str, rows: Sequence[Row]) -> list[Line]:
    """The lines of one measure."""
    return [line for row in rows for line in _LINES[measure](row)]


def table(lines: Sequence[Line]) -> str:
    """The lines, aligned."""
    words = {True: "reached", False: "MISSED", None: ""}
    cells = [("measure", "value", "aim", "")]
    cells += [(line.measure, line.value, line.aim, words[line.is_reached]) for line in lines]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    written = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([written[0], "-" * max(map(len, written)), *written[1:]])


def _at_least(measure: str, value: float, aim: float, shown: str) -> Line:
    return Line(measure, shown, f">= {aim:,}", value >= aim)


def _at_most(measure: str, value: float, aim: float, shown: str) -> Line:
    return Line(measure, shown, f"<= {aim:,}", value <= aim)


def _engine(row: Row) -> list[Line]:
    name = f"engine, {row['database']}, {row['in_flight']} in flight"
    rates = f"{row['share_of_sdk']:.3f}  ({row['calls_per_second']:.0f} of {row['sdk_calls_per_second']:.0f} calls/s)"
    aim = SHARE_AIMS.get(row["in_flight"])
    share = f"{name}: share of the SDK alone"
    added = f"{row['added_ms_p50']:.1f} ms, p95 {row['added_ms_p95']:.1f} ms"
    limit = ADDED_AIMS_MS[row["database"]]
    is_limited = row["in_flight"] == ADDED_AT
    costs = f"{row['cpu_ms_per_call']:.2f} ms, SDK {row['sdk_cpu_ms_per_call']:.2f} ms"
    return [
        _at_least(share, row["share_of_sdk"], aim, rates) if aim else Line(share, rates),
        Line(f"{name}: share of the SDK, its bytes read as we do", f"{row['share_of_reader']:.3f}"),
        Line(f"{name}: processor time a call", f"{costs} (read as we do {row['reader_cpu_ms_per_call']:.2f} ms)"),
        _at_most(f"{name}: added to a call, p50", row["added_ms_p50"], limit, added)
        if is_limited
        else Line(f"{name}: added to a call, p50", added),
        Line(f"{name}: memory of all processes", f"{row['memory_mb']} MB"),
    ]


def _router(row: Row) -> list[Line]:
    rate = row["decisions_per_second"]
    return [_at_least("router: pure decisions a second, 20 rules, one core", rate, DECISIONS_AIM, f"{rate:,.0f}")]


def _durable(row: Row) -> list[Line]:
    rate = row["decisions_per_second"]
    shown = f"{rate:,} ({row['cpu_ms_per_decision']:.2f} ms of processor time each)"
    return [_at_least(f"router, {row['database']}: durable decisions a second", rate, DURABLE_AIM, shown)]


def _durability(row: Row) -> list[Line]:
    name = f"engine, {row['database']}, {row['in_flight']} in flight, {row['variant']}: calls a second"
    spread = f"{min(row['rates']):.0f} to {max(row['rates']):.0f}"
    shown = f"{row['calls_per_second']:.0f} ({row['compared']:+.1%}; {spread}; {row['cpu_ms_per_call']:.2f} ms each)"
    return [Line(name, shown)]


def _import(row: Row) -> list[Line]:
    name = f"import of {row['rows']:,} rows, {row['database']}"
    memory = f"{row['peak_mb']} MB, {row['growth_mb']} MB more than for 2,000 rows"
    return [
        Line(f"{name}: rows a second", f"{row['rows_per_second']:,} (again: {row['rows_per_second_again']:,})"),
        Line(f"{name}: peak memory", memory),
    ]


def _tokens(row: Row) -> list[Line]:
    name = f"input tokens a call (estimate), {row['items']} Hot leads"
    return [
        _at_most(f"{name}: average", row["average"], AVERAGE_TOKENS_AIM, f"{row['average']:,.0f}"),
        _at_most(f"{name}: most", row["most"], MOST_TOKENS_AIM, f"{row['most']:,}"),
    ]


def _langgraph(row: Row) -> list[Line]:
    name = f"LangGraph, postgres, {row['in_flight']} in flight, one process"
    if "problem" in row:
        return [Line(name, row["problem"])]
    costs = f"{row['cpu_ms_per_call']:.2f} ms of processor time each, {row['memory_mb']:.0f} MB"
    ours = row["ours"]
    return [
        Line(f"{name}: calls a second", f"{row['calls_per_second']:.0f} ({costs})"),
        _at_least(
            f"engine, postgres, {row['in_flight']} in flight, same run: calls a second",
            ours["calls_per_second"],
            round(row["calls_per_second"]),
            f"{ours['calls_per_second']:.0f} ({ours['cpu_ms_per_call']:.2f} ms each, {ours['memory_mb']} MB)",
        ),
    ]


def _events(row: Row) -> list[Line]:
    name = f"live stream, {row['database']}, {row['browsers']} browsers on one process, 1,000 lines a minute"
    late = f"{row['ms_p95']:.0f} ms (p50 {row['ms_p50']:.0f}, most {row['ms_most']:.0f})"
    processor = f"{row['processor_busy']:.0%} (nothing happening: {row['processor_idle']:.0%})"
    return [
        _at_most(f"{name}: event to browser, p95", row["ms_p95"], EVENT_AIM_MS, late),
        Line(f"{name}: share of a core", processor),
        Line(f"{name}: memory", f"{row['memory_mb']} MB (without browsers: {row['memory_mb_alone']} MB)"),
    ]


_LINES = {
    "events": _events,
    "engine": _engine,
    "router": _router,
    "durable": _durable,
    "durability": _durability,
    "import": _import,
    "tokens": _tokens,
    "langgraph": _langgraph,
}
