"""Input tokens a call: the sample leads through the real pipeline against the simulator, network tools off.

The simulator estimates tokens from the characters of a request; no tokenizer of a current model is public.
"""

from __future__ import annotations

import os
import tempfile

from tests.bench.services import Row, manage, running_simulator, running_worker, scratch_database, step

LATENCY_MS = 20
PATIENCE_SECONDS = 300
TIER = "Hot"


def bench() -> Row:
    """Average and largest number of input tokens of the calls for Hot leads, and the same by agent."""
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database("sqlite", folder) as url,
        running_simulator(folder, LATENCY_MS) as base_url,
    ):
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
            "BENCH_FOLDER": folder,
            "DATABASE_URL": url,
            "ANTHROPIC_BASE_URL": base_url,
            "ANTHROPIC_API_KEY": "bench",
            "KONTOR_TOOLS_NETWORK": "0",
            "SHIFTS": "1",
        }
        manage(env, "migrate")
        manage(env, "sync_departments")
        manage(env, "load_knowledge", "leads/samples/knowledge")
        manage(env, "import_leads", "leads/samples/leads.csv")
        with running_worker(env, 1):
            manage(env, "run_pipeline", "--all", "--wait", str(PATIENCE_SECONDS))
        return step(env, "count_tokens", TIER)
