"""``make lint``: every check that needs no test run. All of them run, whichever fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.engine_size import LIMIT, ROOT, count_lines, describe, describe_all

BIN = Path(sys.executable).parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
MANAGE = (sys.executable, "manage.py")
COMMANDS: dict[str, tuple[str, ...]] = {
    "style": (f"{BIN}/ruff", "check", "."),
    "format": (f"{BIN}/ruff", "format", "--check", "."),
    "types": (f"{BIN}/mypy",),
    "template style": (f"{BIN}/djlint", "--lint", "--quiet", "templates"),
    "import directions": (f"{BIN}/lint-imports", "--no-cache"),
    "settings": (*MANAGE, "check", "--fail-level", "WARNING"),
    "migrations": (*MANAGE, "makemigrations", "--check", "--dry-run"),
}
# A lock file must work wherever the packages come from: no index, no machine's folder.
_PLACE = re.compile(r"^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b|://", re.MULTILINE)


def find_places(names: Iterable[str] = LOCKS, root: Path = ROOT) -> list[str]:
    """The lock files that name a package index or a folder."""
    return [name for name in names if _PLACE.search((root / name).read_text())]


def run_commands() -> list[str]:
    """Run every command with its output shown; the names of those that failed."""
    # Memory: neither check may make a database file or need a server.
    environment = {**os.environ, "DATABASE_URL": "sqlite://:memory:", "PYTHONWARNINGS": "default"}
    failed = []
    for name, command in COMMANDS.items():
        print(f"-- {name}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            failed.append(name)
    return failed


def main() -> int:
    """Run all checks; 1 and a sentence if one failed."""
    failed = run_commands()
    if named := find_places():
        print(f"{' and '.join(named)} must not name an index: make them with `make lock`.")
        failed.append("lock files")
    counts = count_lines()
    print(describe(counts))
    print(describe_all())
    if sum(counts.values()) > LIMIT:
        failed.append("size of the engine")
    print(f"Failed: {', '.join(failed)}." if failed else "All checks passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
