from __future__ import annotations

import asyncio
import json
import time
from argparse import ArgumentParser
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management.base import BaseCommand

from agents.causes import Cause
from agents.llm import ModelClient, ModelReply, ModelRequest, api_schema
from runs.database import now as database_now
from runs.health import EVERYTHING, READY, Finding, is_healthy, look
from runs.staff import load_staff

LIVE_TOKENS = 1_024


class Command(BaseCommand):
    """Looks at everything the installation needs. The exit code says healthy (0) or not (1)."""

    help = "Say whether this installation is healthy; --live makes one small real call per agent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--ready", action="store_true", help="only what /healthz/ready looks at: does work flow?")
        parser.add_argument("--live", action="store_true", help="one small real call per agent: it costs money")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = look(READY if options["ready"] else EVERYTHING)
        if findings[0].is_well and not options["ready"]:
            findings += asyncio.run(_model_endpoint())
            if options["live"]:
                findings += _live_calls()
        healthy = is_healthy(findings)
        if options["json"]:
            rows = [{"check": f.check, "ok": f.is_well, "text": _sentence(f)} for f in findings]
            self.stdout.write(json.dumps({"healthy": healthy, "checks": rows}))
        else:
            for finding in findings:
                self.stdout.write(f"{'ok ' if finding.is_well else 'BAD'} {finding.check}: {_sentence(finding)}")
        if not healthy:
            raise SystemExit(1)


def _sentence(finding: Finding) -> str:
    return f"{finding.text} {finding.detail}".strip()


async def _model_endpoint() -> list[Finding]:
    """Whether the endpoint answers at all; what it thinks of the key is asked by ``--live``."""
    client = ModelClient(settings.ANTHROPIC_BASE_URL)
    try:
        answer = await client.reach()
    finally:
        await client.close()
    return [Finding("model endpoint", answer is None, answer or f"{settings.ANTHROPIC_BASE_URL} answers.")]


def _live_calls() -> list[Finding]:
    """One small real call per agent: key, model, schema, price."""
    staff = load_staff()
    requests = []
    for desk in staff.desks.values():
        for agent in desk.agents.values():
            schema = api_schema(desk.agent_spec(agent).schema)
            params = {
                "model": agent.model,
                "max_tokens": LIVE_TOKENS,
                "messages": [{"role": "user", "content": "This is a test. Answer as briefly as the schema allows."}],
                "output_config": {"format": {"type": "json_schema", "schema": schema}},
            }
            requests.append(
                (
                    f"{desk.department.slug}/{agent.slug}",
                    ModelRequest(uuid4(), agent.slug, desk.department.api_key_env, params, 60.0),
                )
            )
    findings = []
    for (name, request), (reply, seconds) in zip(requests, asyncio.run(_call_all(requests)), strict=True):
        model = request.params["model"]
        price = staff.prices.price_for(model, database_now().date(), 1) if model in staff.prices.models else None
        # An answer that was cut has come all the same: the API took key, model and schema.
        if reply.cause not in (Cause.NONE, Cause.TRUNCATED):
            findings.append(Finding(name, False, f"{model}: {reply.error}"))
        elif price is None:
            findings.append(Finding(name, False, f"{model} answers, but has no price. Enter one under Prices."))
        else:
            findings.append(Finding(name, True, f"{model} answered in {seconds:.1f} s."))
    return findings


async def _call_all(requests: list[tuple[str, ModelRequest]]) -> list[tuple[ModelReply, float]]:
    client = ModelClient(settings.ANTHROPIC_BASE_URL)
    answers = []
    try:
        for _, request in requests:
            began = time.monotonic()
            answers.append((await client.call(request), time.monotonic() - began))
    finally:
        await client.close()
    return answers
