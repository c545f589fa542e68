"""The thing to beat: LangGraph with its Postgres checkpointer, on the same six calls a lead, in its own environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.engine import LATENCY_MS, LEADS_PER_CALL_IN_FLIGHT
from tests.bench.services import ROOT, Row, run_json, running_simulator, scratch_database, step

HERE = Path(__file__).parent
VENV = ROOT / "var" / "bench-venv"
PYTHON = VENV / "bin" / "python"


def install() -> str:
    """Build the rival's environment if its requirements have changed; what went wrong, empty if nothing."""
    wanted = (HERE / "requirements.txt").read_text(encoding="utf-8")
    stamp = VENV / "requirements.txt"
    if PYTHON.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return ""
    uv = str(Path(sys.executable).with_name("uv"))
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)],
        [uv, "pip", "install", "--quiet", "--python", str(PYTHON), "-r", str(HERE / "requirements.txt")],
    ):
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"uv cannot be run: {error.strerror}"
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    stamp.write_text(wanted, encoding="utf-8")
    return ""


def bench(in_flight: int) -> Row:
    """Calls a second and processor time of one LangGraph process; ``problem`` says why there are none."""
    problem = install()
    if problem:
        return {"in_flight": in_flight, "problem": f"LangGraph could not be installed: {problem}"}
    leads = LEADS_PER_CALL_IN_FLIGHT * in_flight
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database("postgres", folder, "rival") as url,
        running_simulator(folder, LATENCY_MS) as base_url,
    ):
        requests = Path(folder) / "requests.json"
        prepared = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
            "DATABASE_URL": f"sqlite:///{folder}/requests.sqlite3",
        }
        step(prepared, "prepare", "1", str(requests))
        command = [str(PYTHON), str(HERE / "graph.py"), base_url, url, str(in_flight), str(leads), str(requests)]
        found = run_json(command, {**os.environ})
    return {"in_flight": in_flight, **{key: round(value, 2) for key, value in found.items()}}
