"""``make faults``: break everything there is, look through the database afterwards, and print a table.

``python -m tests.faults [--short] [--core] [--database sqlite|postgres] [--case NAME ...] [--list]``. Exit code 1 if
a row of the table is not good. Everything runs on loopback, in scratch databases that are dropped at the end.

``python -m tests.faults --staging NAME (--worker PID | --unit UNIT) [--leads N]`` strikes a running installation
instead.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import django

POSTGRES_URL = "KONTOR_FAULTS_POSTGRES"
DATABASES = ("sqlite", "postgres")


def main() -> int:
    """Run one database here, or each in a process of its own."""
    options = _parse()
    if options.staging:
        return _run_staging(options)
    if options.list or options.database:
        return _run(options)
    codes = []
    for database in DATABASES:
        command = [sys.executable, "-m", "tests.faults", "--database", database, *sys.argv[1:]]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the form for CI: few tries, leases of 3 s")
    parser.add_argument("--database", choices=DATABASES, help="only on this one (default: both, one after the other)")
    parser.add_argument("--core", action="store_true", help="only the cases that CI runs, in under three minutes")
    parser.add_argument("--case", action="append", default=[], help="only this case; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    staging = parser.add_argument_group("on a staging installation of this machine (CONTRIBUTING.md)")
    staging.add_argument("--staging", metavar="NAME", help="the name of its database, as KONTOR_STAGING holds it")
    staging.add_argument("--worker", type=int, default=0, metavar="PID", help="the process of its `manage.py worker`")
    staging.add_argument("--unit", default="", help="its unit of systemd instead, which is then killed as well")
    staging.add_argument(
        "--leads", type=int, default=0, help="new sales leads before each fault; models may cost money"
    )
    options = parser.parse_args()
    if bool(options.staging) != bool(options.worker or options.unit):
        parser.error("--staging needs --worker or --unit, and these need --staging")
    return options


def _run_staging(options: argparse.Namespace) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    # After the set-up, because these import models.
    from tests.faults.staging import Refused, Staged, run
    from tests.faults.table import render

    try:
        rows = run(options.staging, Staged(pid=options.worker, unit=options.unit), options.leads)
    except Refused as refused:
        print(f"Nothing was touched. {refused}", file=sys.stderr)
        return 2
    print(render(rows), flush=True)
    return 0 if all(row.is_good for row in rows) else 1


def _run(options: argparse.Namespace) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.faults.settings"
    os.environ.setdefault("ANTHROPIC_API_KEY", "key")
    # Whoever ends us ends what we have started, too: an exception unwinds the cases.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    server = os.environ.get(POSTGRES_URL, "postgres://postgres@127.0.0.1:5432")
    with tempfile.TemporaryDirectory(prefix="kontor-faults-") as folder:
        is_sqlite = options.database != "postgres"
        os.environ["DATABASE_URL"] = f"sqlite:///{folder}/none.sqlite3" if is_sqlite else f"{server}/postgres"
        django.setup()
        # After the set-up, because these import models.
        from tests.faults.everything import CORE, SUITE, run_cases
        from tests.faults.table import render

        if options.list:
            for name, (case, databases) in SUITE.cases.items():
                print(f"{name} ({', '.join(databases)}): {(case.__doc__ or '').splitlines()[0]}")
            return 0
        began = time.monotonic()
        only = [*options.case, *(CORE if options.core else ())]
        rows = run_cases(options.database, Path(folder), server, is_short=options.short, only=only)
        print(f"\n{options.database}, {time.monotonic() - began:.0f} s\n{render(rows)}", flush=True)
        return 0 if rows and all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
