"""Counts the lines of the engine, which must stay small enough to be read in one sitting."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NO_CODE = (*(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),)
PARTS = ("router", "dispatch", "shift", "executor", "leases", "outputs", "outbox", "reviews", "control")
LIMIT = 2_000
"""Lines of code. It was 1,500 until control, reviews and sending were built; growing further takes a reason."""
BESIDE = (
    *("plan", "clauses", "commits", "calls", "work", "slots", "facts", "inputs", "gates", "sending", "departures"),
    *("effects", "rewrites", "reruns", "answerable", "allowed", "switches", "failures", "failure_reviews", "staff"),
)
"""What the parts above cannot do without, counted apart so that the first figure hides nothing."""


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: not the blank ones, not comments, not docstrings."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def count_lines(root: Path = ROOT, names: Sequence[str] = PARTS) -> dict[str, int]:
    """Lines of code of each part of the engine that exists: a module, or a package of that name."""
    counts = {}
    for part in names:
        files = [root / "runs" / f"{part}.py", *sorted((root / "runs" / part).glob("**/*.py"))]
        lines = sum(len(code_lines(file.read_text())) for file in files if file.is_file())
        if lines:
            counts[part] = lines
    return counts


def describe(counts: dict[str, int]) -> str:
    """The count in one line."""
    parts = ", ".join(f"{part} {lines}" for part, lines in counts.items())
    return f"Engine: {sum(counts.values())} lines of code of at most {LIMIT} ({parts})"


def describe_all(root: Path = ROOT) -> str:
    """The count with everything the engine consists of, in one line."""
    counts = count_lines(root, (*PARTS, *BESIDE))
    parts = ", ".join(f"{part} {lines}" for part, lines in counts.items() if part in BESIDE)
    return f"Engine with all its modules: {sum(counts.values())} lines of code (besides those: {parts})"


SCRIPT_LIMIT = 400
"""Lines of JavaScript in static/js. Pages work by HTML, forms and htmx; a script is for what those cannot do."""


def script_lines(root: Path = ROOT) -> dict[str, int]:
    """Lines of code of each script of our own: not the blank ones, not comments."""
    counts = {}
    for file in sorted((root / "static" / "js").glob("**/*.js")):
        text = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
        counts[file.name] = sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//"))
    return counts
