"""Counts the lines of the engine, which must stay small enough to be read in one sitting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("router", "dispatch", "shift", "executor", "leases", "outputs", "outbox", "reviews", "control")
LIMIT = 1_500
BESIDE = ("plan", "clauses", "commits", "calls", "work", "slots", "facts", "inputs", "gates")
"""What the parts above cannot do without, counted apart so that the first figure hides nothing."""


def count_lines(root: Path = ROOT, names: Sequence[str] = PARTS) -> dict[str, int]:
    """Lines of each part of the engine that exists: a module, or a package of that name."""
    counts = {}
    for part in names:
        files = [root / "runs" / f"{part}.py", *sorted((root / "runs" / part).glob("**/*.py"))]
        lines = sum(len(file.read_text().splitlines()) for file in files if file.is_file())
        if lines:
            counts[part] = lines
    return counts


def describe(counts: dict[str, int]) -> str:
    """The count in one line."""
    parts = ", ".join(f"{part} {lines}" for part, lines in counts.items())
    return f"Engine: {sum(counts.values())} lines of at most {LIMIT} ({parts})"


def describe_all(root: Path = ROOT) -> str:
    """The count with everything the engine consists of, in one line."""
    counts = count_lines(root, (*PARTS, *BESIDE))
    parts = ", ".join(f"{part} {lines}" for part, lines in counts.items() if part in BESIDE)
    return f"Engine with all its modules: {sum(counts.values())} lines (besides those: {parts})"
