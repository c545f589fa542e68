"""What each fault did: one row a fault, printed as a table; whether the goals were met."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from tests.faults.audit import Findings

HEADINGS = ("fault", "tried", "lost", "twice", "untrue", "accounts", "heal p50", "heal p95", "limit", "")


@dataclass(slots=True)
class Row:
    """One fault. ``heal_seconds`` has one figure a try, ``limit_seconds`` bounds their 95th percentile."""

    fault: str
    tried: int = 0
    heal_seconds: list[float] = field(default_factory=list)
    limit_seconds: float | None = None
    findings: Findings = field(default_factory=Findings)
    broken: str = ""
    """Why the case could not be carried to its end; empty if it was."""

    @property
    def p50(self) -> float | None:
        return statistics.median(self.heal_seconds) if self.heal_seconds else None

    @property
    def p95(self) -> float | None:
        ordered = sorted(self.heal_seconds)
        return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)] if ordered else None

    @property
    def is_good(self) -> bool:
        """Nothing lost, nothing twice, nothing untrue, all accounts right, healed in time, and tried at all."""
        is_in_time = self.limit_seconds is None or self.p95 is None or self.p95 <= self.limit_seconds
        return not self.findings.lines and not self.broken and self.tried > 0 and is_in_time

    def cells(self) -> tuple[str, ...]:
        found = self.findings
        counts = (self.tried, len(found.lost), len(found.duplicated), len(found.untrue), len(found.accounts))
        times = (self.p50, self.p95, self.limit_seconds)
        shown = ["" if seconds is None else f"{seconds:.1f}" for seconds in times]
        return (self.fault, *map(str, counts), *shown, "ok" if self.is_good else "FAILED")


def render(rows: list[Row]) -> str:
    """The table, and below it what is wrong, at most ten lines a fault."""
    grid = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in grid) for column in range(len(HEADINGS))]
    lines = []
    for line in grid:
        first, *others = (
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    for row in rows:
        wrong = [*row.findings.lines, *([f"broken off: {row.broken}"] if row.broken else [])]
        lines += [f"{row.fault}: {line}" for line in wrong[:10]]
        if len(wrong) > 10:
            lines.append(f"{row.fault}: and {len(wrong) - 10} more")
    return "\n".join(lines)
