"""``make test``: all tests on SQLite, and again on PostgreSQL where a server can be reached.

Each time in two calls of pytest on two cores: first what needs neither worker processes nor a browser, then what does.
On PostgreSQL, what has no part in the database is left out. What fails is tried once more, alone, and said: on a
machine that others share, a browser or a worker may not come round in time. What fails twice has failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import psycopg
from environ import Env
from psycopg import sql

from tests.engine_size import ROOT

LOCAL = "postgres://postgres@127.0.0.1:5432/kontor_test"
PASSES = (
    ("-n", "2", "-m", "not cluster and not browser and not faults"),
    ("-n", "2", "-m", "cluster or browser"),
)
TESTS_FAILED, INTERRUPTED, NOTHING_SELECTED = 1, 2, 5
AGAIN_AT_MOST = 5
"""More than this is no accident."""
PASS_SECONDS = 3_600
"""Many times what a pass takes. What hangs outside of a test, where no test's limit reaches, ends as well."""


def find_postgresql(environment: Mapping[str, str]) -> str:
    """The address of the PostgreSQL database to test on, made if missing; empty where no server answers."""
    url = environment.get("DATABASE_URL", "")
    if not url.startswith(("postgres", "pgsql")):
        url = LOCAL
    wanted = Env.db_url_config(url)
    options = {"host": wanted["HOST"], "port": wanted["PORT"] or 5432, "user": wanted["USER"]}
    if wanted["PASSWORD"]:
        options["password"] = wanted["PASSWORD"]
    try:
        with psycopg.connect(dbname="postgres", connect_timeout=3, autocommit=True, **options) as connection:
            name = wanted["NAME"]
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.OperationalError as error:
        print(f"PostgreSQL was not reached at {options['host']}: {str(error).splitlines()[0]}")
        return ""
    return url


def run_pytest(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Both calls, the second also after a failed first; 0 if nothing failed, 5 if nothing was selected."""
    codes = [_run_pass([*chosen, *arguments], environment) for chosen in PASSES]
    failed = [code for code in codes if code not in (0, NOTHING_SELECTED)]
    return failed[0] if failed else min(codes)


def _run_pass(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = _pytest([*arguments, f"--junitxml={report}"], environment)
        again = failed_tests(report) if code == TESTS_FAILED else []
    if 0 < len(again) <= AGAIN_AT_MOST:
        print(f"Tried once more, because the machine may have been busy: {', '.join(again)}", flush=True)
        code = _pytest(again, environment)
    return code


def failed_tests(report: Path) -> list[str]:
    """The addresses of the tests that a JUnit report says failed, as pytest takes them."""
    cases = [
        case
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return [f"{_path(case.get('classname', ''))}::{case.get('name')}" for case in cases]


def _path(classname: str) -> str:
    # "tests.runs.test_worker.TestStop" is tests/runs/test_worker.py::TestStop
    parts = classname.split(".")
    module = next((at for at, part in enumerate(parts, 1) if part.startswith("test_")), len(parts))
    return "::".join(["/".join(parts[:module]) + ".py", *parts[module:]])


def _pytest(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", "-rs", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=PASS_SECONDS).returncode
    except subprocess.TimeoutExpired:
        print(f"The pass was ended after {PASS_SECONDS} s.", flush=True)
        return INTERRUPTED


def main(arguments: Sequence[str]) -> int:
    """Run the tests on every database there is; the first exit code that is not 0."""
    # Where collected static files would lie; whitenoise warns once a test where it is missing.
    (ROOT / "var" / "static").mkdir(parents=True, exist_ok=True)
    here = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    print("Tests on SQLite", flush=True)
    codes = [run_pytest(arguments, here)]
    if url := find_postgresql(os.environ):
        print("Tests on PostgreSQL", flush=True)
        codes.append(run_pytest(["--second-database", *arguments], {**here, "DATABASE_URL": url}))
    elif os.environ.get("REQUIRE_POSTGRES"):
        print("REQUIRE_POSTGRES is set, so this is a failure.")
        codes.append(1)
    else:
        print("The tests on PostgreSQL were left out. Start a server, or set DATABASE_URL to one.")
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
