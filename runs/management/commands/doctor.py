from __future__ import annotations

import asyncio
import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from agents.llm import ModelClient
from runs.checks import check_agents
from runs.health import EVERYTHING, READY, Finding, is_healthy, look
from runs.staff import load_staff


class Command(BaseCommand):
    """Looks at everything the installation needs. The exit code says healthy (0) or not (1)."""

    help = "Say whether this installation is healthy; --live makes one small real call per agent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--ready", action="store_true", help="only what /healthz/ready looks at: does work flow?")
        parser.add_argument(
            "--live", action="store_true", help="one small real call per agent, paid and in the accounts like any other"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = look(READY if options["ready"] else EVERYTHING)
        if findings[0].is_well and not options["ready"]:
            findings += asyncio.run(_model_endpoint())
            if options["live"]:
                findings += check_agents(load_staff())
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
